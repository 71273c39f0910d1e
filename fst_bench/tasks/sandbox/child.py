"""The program inside the sandbox: a server that forks once per request, and the fork runs the untrusted code.

Stand-alone: it imports nothing of the suite and holds no secret. The server itself never runs untrusted code. It reads
one JSON request per line, forks, waits, kills, and passes on the bytes that the fork wrote into its pipe, unread. So
each call has a fresh process for a fraction of the time that Python takes to start, and nothing of one call reaches the
next.

The fork gives up all it can BEFORE it compiles the code, writes `+` to report so, and then answers with the request's
token and a JSON object. A guard that fails leaves no `+`: the code did not run. Two things keep an answer from being
broken or written by accident: all that is used after the code has run is bound before it (and our functions have their
own copy of the builtins), and the code does not know the number of the pipe. Code that digs the token out of the
interpreter's memory can lie about its own value, as it could by returning the lie.
"""

import builtins

# the functions below look names up here, not where the code can put its own
__builtins__ = vars(builtins).copy()  # type: ignore[assignment]

# Imported once, here, for code that uses them: a fork gets them for nothing.
import bisect  # noqa: F401
import collections  # noqa: F401
import copy  # noqa: F401
import ctypes
import datetime  # noqa: F401
import errno
import fcntl
import functools  # noqa: F401
import heapq  # noqa: F401
import itertools  # noqa: F401
import json
import math  # noqa: F401
import os
import platform
import random
import re  # noqa: F401
import resource
import select
import signal
import string  # noqa: F401
import struct
import sys
import time
import types
import typing
from json.encoder import c_make_encoder, encode_basestring_ascii  # type: ignore[attr-defined]

GRACE = 30.0
"""Seconds a fork may take until the code starts, on a machine however busy."""
DETAIL = 200
"""Characters of an exception that are passed on."""
MB = 1 << 20
SCRATCH = "/tmp"


def serve(settings: dict[str, typing.Any]) -> None:
    """Answer requests until the parent is gone."""
    answers = sys.stdout.buffer
    if "scratch" in settings["guards"]:
        own_namespaces()
    for line in sys.stdin.buffer:
        reader, writer = os.pipe()
        server, pid = os.getpid(), os.fork()
        if pid == 0:
            try:
                one_call(line, writer, server, settings)
            finally:
                os._exit(1)
        os.close(writer)
        how, code, said = watch(pid, reader, settings)
        os.close(reader)
        answers.write(f"{how} {code} {len(said)}\n".encode() + said)
        answers.flush()


def watch(pid: int, reader: int, settings: dict[str, typing.Any]) -> tuple[str, int, bytes]:
    """Return how the fork ended (`ended`, `late`, `long`), its exit code (minus a signal's number), and its output.

    It is dead then.
    """
    limits = settings["limits"]
    said = bytearray()
    how, deadline = "ended", time.monotonic() + GRACE
    poll = select.poll()
    poll.register(reader, select.POLLIN)
    poll.register(0, 0)  # only to see the parent's end closed
    while True:
        events = dict(poll.poll(max(0.0, 1000 * (deadline - time.monotonic()))))
        if 0 in events:
            end(pid, settings)
            os._exit(1)
        if not events:
            how = "late"
            break
        block = os.read(reader, 1 << 16)
        if not block:
            break  # the fork is leaving, or the code closed the pipe and has nothing more to say
        if not said:  # the `+`: the code starts now
            deadline = time.monotonic() + limits["seconds"]
        said += block
        if len(said) > limits["output_bytes"] + 1000:
            how = "long"
            break
    end(pid, settings)
    _, status, usage = os.wait4(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    if code == -signal.SIGXCPU or (code == -signal.SIGKILL and usage.ru_utime + usage.ru_stime > limits["cpu_seconds"]):
        how = "late"
    return how, code, bytes(said[: limits["output_bytes"] + 1000])


def end(pid: int, settings: dict[str, typing.Any]) -> None:
    """Kill the fork, its process group and, where only we live in this process namespace, everything else."""
    for target in (pid, -pid, *([-1] if settings["kind"] == "bubblewrap" else [])):
        try:
            os.kill(target, signal.SIGKILL)
        except OSError as error:
            assert error.errno in (errno.ESRCH, errno.EPERM)  # macOS says EPERM of a group of the dead


def one_call(line: bytes, writer: int, server: int, settings: dict[str, typing.Any]) -> typing.NoReturn:
    """In the fork: give everything up, run the code, answer, exit."""
    null = os.open(os.devnull, os.O_RDWR)
    pipe = fcntl.fcntl(writer, fcntl.F_DUPFD, random.SystemRandom().randrange(100, 200))
    for standard in (0, 1, 2):
        os.dup2(null, standard)
    os.closerange(3, pipe)
    os.setsid()
    try:
        request = json.loads(line)
        give_up(server, settings)
    except BaseException as error:
        os.write(pipe, describe(error).encode())
        os._exit(1)
    os.write(pipe, b"+")
    answer(request, pipe, settings["limits"]["output_bytes"])


def answer(request: dict[str, typing.Any], pipe: int, limit: int) -> typing.NoReturn:
    """Run the code and write the result. All that is used after the code has run is bound before it."""
    write, leave, show, quote, token = os.write, os._exit, describe, encode_basestring_ascii, request["token"].encode()
    no_memory = b'{"status": "memory", "detail": "MemoryError"}'
    too_long = b'{"status": "output", "detail": "the value is longer than %d bytes"}' % limit
    encode = c_make_encoder({}, no_json, encode_basestring_ascii, None, ": ", ", ", False, False, False)
    try:
        value = "".join(encode(run(request["code"], request["function"], request["arguments"]), 0))
        said = f'{{"status": "ok", "value": {value}}}'.encode() if len(value) <= limit else too_long
    except MemoryError:
        said = no_memory
    except BaseException as error:
        said = f'{{"status": "error", "detail": {quote(show(error))}}}'.encode()
    said = token + said
    while said:
        said = said[write(pipe, said) :]
    leave(0)


def run(code: str, function: str, arguments: dict[str, typing.Any]) -> typing.Any:
    """Return `function(**arguments)` in the namespace of the code."""
    module = types.ModuleType("refcode")  # a real module: dataclasses and typing look it up
    module.__dict__["__builtins__"] = builtins
    sys.modules["refcode"] = sys.modules["__main__"] = module
    random.seed(0)
    exec(compile(code, "refcode", "exec"), module.__dict__)
    if function not in module.__dict__:
        raise NameError(f"the code has no function {function!r}")
    return module.__dict__[function](**arguments)


def no_json(value: object) -> typing.NoReturn:
    """Raise TypeError for a value that JSON cannot hold."""
    raise TypeError(f"{type(value).__name__} is no JSON value")


def describe(error: BaseException) -> str:
    """Return an exception as one text, cut to DETAIL characters."""
    try:
        return f"{type(error).__name__}: {error}"[:DETAIL]
    except BaseException:
        return "an exception that cannot be shown"


# The guards of a fork. Linux calls are made through ctypes: the standard library has no names for them.

libc = ctypes.CDLL(None, use_errno=True)


def kernel(name: str, *arguments: int | bytes | None) -> int:
    """Call a C function that returns -1 on failure; integers are passed as long. Raise OSError where it fails."""
    result: int = getattr(libc, name)(*(ctypes.c_long(a) if isinstance(a, int) else a for a in arguments))
    if result < 0:
        raise OSError(ctypes.get_errno(), f"{name}: {os.strerror(ctypes.get_errno())}")
    return result


def give_up(server: int, settings: dict[str, typing.Any]) -> None:
    """Apply every limit and guard of the settings; raise if one cannot be applied."""
    limits, guards = settings["limits"], settings["guards"]
    if "scratch" in guards:
        own_scratch(limits["file_mb"])
    bounds = {
        resource.RLIMIT_CPU: limits["cpu_seconds"] + 1,
        resource.RLIMIT_NPROC: limits["processes"],
        resource.RLIMIT_FSIZE: limits["file_mb"] * MB if "scratch" in guards else 0,
        resource.RLIMIT_NOFILE: 64,
        resource.RLIMIT_CORE: 0,
    } | ({} if sys.platform == "darwin" else {resource.RLIMIT_AS: limits["memory_mb"] * MB})
    for which, bound in bounds.items():
        most = resource.getrlimit(which)[1]
        bound = bound if most == resource.RLIM_INFINITY else min(bound, most)
        resource.setrlimit(which, (bound, bound))
    # a signal first, the end a second later
    resource.setrlimit(resource.RLIMIT_CPU, (limits["cpu_seconds"], resource.getrlimit(resource.RLIMIT_CPU)[1]))
    if sys.platform == "linux":
        kernel("capset", struct.pack("=Ii", 0x20080522, 0), bytes(24))  # root keeps no power over the system
        kernel("prctl", 1, signal.SIGKILL)  # PR_SET_PDEATHSIG, after the last change of credentials, which clears it
        if os.getppid() != server:
            os._exit(1)
        kernel("prctl", 38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS
    if "landlock" in guards:
        landlock(settings["readable"], [SCRATCH] if "scratch" in guards else [])
    if "seccomp" in guards:
        seccomp(writes="scratch" in guards)


def own_namespaces() -> None:
    """Give the server its own user, network and IPC namespaces, in which a fork may mount."""
    user, group = os.getuid(), os.getgid()
    kernel("unshare", 0x10000000 | 0x40000000 | 0x08000000)
    for name, text in {"setgroups": "deny", "uid_map": f"{user} {user} 1", "gid_map": f"{group} {group} 1"}.items():
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)


def own_scratch(megabytes: int) -> None:
    """Mount a small empty file system over /tmp that only this process sees, and that ends with it."""
    kernel("unshare", 0x00020000)
    options = f"size={megabytes}m,nr_inodes=1000,mode=700".encode()
    kernel("mount", b"scratch", SCRATCH.encode(), b"tmpfs", 2 | 4 | 8, options)  # nosuid, nodev, noexec
    os.chdir(SCRATCH)


READ = 0b1100
"""Landlock: read a file, list a folder."""
CHANGE = 0b110000110110010
"""Landlock: write, remove folders and files, make folders and files, move, truncate."""


def landlock(readable: list[str], writable: list[str]) -> None:
    """Let files open only below these paths from here on, read-only below `readable`; listing too.

    Metadata stays visible.
    """
    version = kernel("syscall", 444, None, 0, 1)
    handled = (1 << (13 + (version > 1) + (version > 2) + (version > 4))) - 1
    rules = kernel("syscall", 444, struct.pack("=Q", handled), 8, 0)
    for path, rights in [*((p, READ) for p in readable), *((p, READ | CHANGE) for p in writable), (os.devnull, 0b110)]:
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
        rights &= handled if os.path.isdir(path) else 0b110
        kernel("syscall", 445, rules, 1, struct.pack("=Qi", rights, place), 0)
        os.close(place)
    kernel("syscall", 446, rules, 0)
    os.close(rules)


MACHINES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}
"""Audit number of the architecture, and its column below."""

COMPUTE = """
read 0 63, write 1 64, close 3 57, fstat 5 80, lseek 8 62, pread64 17 67, pwrite64 18 68, readv 19 65, writev 20 66,
stat 4 -, lstat 6 -, newfstatat 262 79, statx 332 291, access 21 -, faccessat 269 48, faccessat2 439 439,
readlink 89 -, readlinkat 267 78, getdents64 217 61, getcwd 79 17, chdir 80 49, fchdir 81 50,
dup 32 23, dup2 33 -, dup3 292 24, pipe 22 -, pipe2 293 59, poll 7 -, ppoll 271 73, select 23 -, pselect6 270 72,
mmap 9 222, mprotect 10 226, munmap 11 215, brk 12 214, mremap 25 216, madvise 28 233,
futex 202 98, sched_yield 24 124, sched_getaffinity 204 123,
rt_sigaction 13 134, rt_sigprocmask 14 135, rt_sigreturn 15 139, sigaltstack 131 132, restart_syscall 219 128,
alarm 37 -, pause 34 -, getitimer 36 102, setitimer 38 103, nanosleep 35 101, clock_nanosleep 230 115,
clock_gettime 228 113, clock_getres 229 114, gettimeofday 96 169, time 201 -, times 100 153, getrusage 98 165,
uname 63 160, getrandom 318 278, umask 95 166, getpid 39 172, getppid 110 173, gettid 186 178,
getuid 102 174, geteuid 107 175, getgid 104 176, getegid 108 177, exit 60 93, exit_group 231 94
"""
CHANGE_FILES = """
ftruncate 77 46, fsync 74 82, fdatasync 75 83, mkdir 83 -, mkdirat 258 34, unlink 87 -, unlinkat 263 35, rmdir 84 -,
rename 82 -, renameat 264 38, renameat2 316 276
"""
OPENAT, FCNTL = "257 56", "72 25"


def seccomp(writes: bool) -> None:
    """Let the kernel do only what a computation needs from here on.

    No process or thread starts, no socket is made, no signal is sent, nothing is mounted, traced or given other rights
    or owners; with `writes` off, no file is opened for writing.

    `openat` and `fcntl` are looked into: a truncation without the right to write is refused, as old Landlocks overlook
    it, and so is a request for a pipe's events, which is a way to signal others.
    """
    audit, column = MACHINES[platform.machine()]
    load, equal, above, any_of, mask, leave = 0x20, 0x15, 0x25, 0x45, 0x54, 0x06
    allow, refuse, kill = 0x7FFF0000, 0x00050000 | errno.EPERM, 0x80000000
    number, argument = [(load, 0, 0, 0)], [(load, 0, 0, 16 + 8 * i) for i in range(3)]

    def numbers(table: str) -> list[int]:
        return [int(found) for row in table.split(",") if (found := row.split()[-2:][column]) != "-"]

    if writes:
        flags = [
            (mask, 0, 0, os.O_ACCMODE | os.O_TRUNC),
            (equal, 2, 0, os.O_TRUNC),
            (equal, 1, 0, os.O_TRUNC | os.O_ACCMODE),
        ]
    else:
        flags = [(any_of, 1, 0, os.O_ACCMODE | os.O_CREAT | os.O_TRUNC)]
    opening = [argument[2], *flags, (leave, 0, 0, allow), (leave, 0, 0, refuse)]
    control = [
        argument[1],
        (equal, 1, 0, fcntl.F_DUPFD_CLOEXEC),
        (above, 1, 0, fcntl.F_SETFL),
        (leave, 0, 0, allow),
        (leave, 0, 0, refuse),
    ]
    program = [(load, 0, 0, 4), (equal, 1, 0, audit), (leave, 0, 0, kill), *number]
    for name, body in [(OPENAT, opening), (FCNTL, control)]:
        program += [(equal, 0, len(body), numbers(name)[0]), *body]
    for wanted in numbers(COMPUTE) + (numbers(CHANGE_FILES) if writes else []):
        program += [(equal, 0, 1, wanted), (leave, 0, 0, allow)]
    program.append((leave, 0, 0, refuse))
    code = b"".join(struct.pack("=HBBI", *step) for step in program)
    held = ctypes.create_string_buffer(code)
    kernel("prctl", 22, 2, struct.pack("@HP", len(program), ctypes.addressof(held)), 0, 0)  # PR_SET_SECCOMP, a filter


if __name__ == "__main__":
    serve(json.loads(sys.stdin.buffer.readline()))
