"""Attacks through the network, signals and calls of the kernel. Each test states the result of an attack."""

import contextlib
import os
import platform
import re
import socket
from pathlib import Path

import pytest
from held import REFUSED, got, held

from fst_bench.tasks.sandbox import Outcome, Sandbox, Way, child

pytestmark = pytest.mark.usefixtures("unharmed")


def test_sockets(box: Sandbox, tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        tcp, udp = (
            stack.enter_context(socket.socket(socket.AF_INET, kind)) for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM)
        )
        unix, abstract = (
            stack.enter_context(socket.socket(socket.AF_UNIX, kind))
            for kind in (socket.SOCK_STREAM, socket.SOCK_STREAM)
        )
        for listener, address in (
            (tcp, ("127.0.0.1", 0)),
            (udp, ("127.0.0.1", 0)),
            (unix, str(tmp_path / "s")),
            (abstract, f"\0fst-{os.getpid()}"),
        ):
            listener.bind(address)
            listener.setblocking(False)
        for listener in (tcp, unix, abstract):
            listener.listen()
        outcome = got(
            box,
            "import socket, urllib.request",
            "def dial(family, kind, address):\n  s = socket.socket(family, kind); s.settimeout(5); "
            "s.connect(address); return s.send(b'hello')",
            "tries = [attempt(dial, 2, 1, ('127.0.0.1', tcp)), attempt(dial, 2, 2, ('127.0.0.1', udp)), attempt(dial, "
            "1, 1, unix), attempt(dial, 1, 1, abstract),",
            "  attempt(lambda: urllib.request.urlopen(f'http://127.0.0.1:{tcp}', timeout=5)), "
            "attempt(socket.socketpair), attempt(socket.socket, 17, 3), attempt(socket.socket, 16, 3)]",
            # io_uring, which makes sockets past a filter
            "return [tries, syscall(425, 8, ctypes.create_string_buffer(200))]",
            tcp=tcp.getsockname()[1],
            udp=udp.getsockname()[1],
            unix=str(tmp_path / "s"),
            abstract=f"\0fst-{os.getpid()}",
        )
        assert all(REFUSED in said for said in outcome.value[0]) and outcome.value[1] == REFUSED
        for nobody in (tcp.accept, unix.accept, abstract.accept, lambda: udp.recv(9)):
            with pytest.raises(BlockingIOError):
                nobody()


def test_signals_to_others(box: Sandbox) -> None:
    outcome = got(
        box,
        "import fcntl, signal, select",
        "pids += [os.getppid(), -1, 0]",
        "tries = [attempt(os.kill, pid, 9) for pid in pids] + [attempt(os.killpg, pids[0], 9), attempt(os.pidfd_open, "
        "pids[0])]",
        "r, w = os.pipe()",  # a pipe that tells another process of its events, by a signal of one's choice
        "for pid in pids: tries += [attempt(fcntl.fcntl, r, fcntl.F_SETOWN, pid), attempt(fcntl.fcntl, r, 10, 9)]",
        "fcntl.fcntl(r, fcntl.F_SETFL, os.O_ASYNC)",
        "signal.signal(signal.SIGIO, signal.SIG_IGN); os.write(w, b'x')",
        "return tries",
        pids=[os.getpid()],
    )
    assert set(outcome.value) == {f"PermissionError: [Errno 1] {REFUSED}"}


@pytest.mark.skipif(platform.machine() != "x86_64", reason="numbers of x86_64")
def test_other_calls_of_the_kernel(box: Sandbox) -> None:
    calls = {
        "ptrace": 101,
        "mount": 165,
        "umount2": 166,
        "unshare": 272,
        "setns": 308,
        "chroot": 161,
        "reboot": 169,
        "bpf": 321,
        "keyctl": 250,
        "capset": 126,
    }
    calls |= {
        "prctl": 157,
        "seccomp": 317,
        "userfaultfd": 323,
        "process_vm_readv": 310,
        "memfd_create": 319,
        "shmget": 29,
        "setuid": 105,
        "open": 2,
        "openat2": 437,
    }
    calls |= {
        "prlimit64": 302,
        "perf_event_open": 298,
        "sethostname": 170,
        "open_tree": 428,
        "fsopen": 430,
        "landlock_restrict_self": 446,
        "x32 read": 0x40000000,
    }
    outcome = got(box, "return {name: syscall(n, 0, 0, 0, 0, 0) for name, n in calls.items()}", calls=calls)
    assert outcome.value == dict.fromkeys(calls, REFUSED)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="machine code of x86_64")
def test_the_other_system_call_gate(box: Sandbox) -> None:
    """int 0x80 counts as another architecture, where the numbers mean other calls."""
    outcome = got(
        box,
        "import mmap",
        "page = mmap.mmap(-1, 4096, prot=7)",
        "page.write(bytes.fromhex('b802000000cd80c3'))",  # mov eax, 2 (fork there); int 0x80; ret
        "return ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))()",
    )
    assert outcome == Outcome("killed", detail="died of SIGSYS")


@pytest.mark.parametrize(
    ("header", "column"),
    [("/usr/include/x86_64-linux-gnu/asm/unistd_64.h", 0), ("/usr/include/asm-generic/unistd.h", 1)],
)
def test_call_numbers_are_the_kernel_s(header: str, column: int) -> None:
    if not Path(header).exists():
        pytest.skip("no kernel headers here")
    known = {name: int(n) for name, n in re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)\n", Path(header).read_text())}
    for row in f"{child.COMPUTE},{child.CHANGE_FILES},openat {child.OPENAT},fcntl {child.FCNTL}".split(","):
        name, *numbers = row.split()
        if numbers[column] != "-":
            found = known.get(name, known.get({"newfstatat": "fstatat"}.get(name, "")))
            assert found == int(numbers[column]), name


def test_bare_limits_admit_it(tmp_path: Path) -> None:
    """The same attacks where nothing guards: they are real, and the docstring of the sandbox says so."""
    box = held(Way("rlimits", ()), processes=9999)
    (tmp_path / "secret").write_text("token")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        outcome = got(
            box,
            "import fcntl, signal, socket",
            "socket.create_connection(('127.0.0.1', port)).send(b'hello')",
            "secret = open(folder + '/secret').read()",
            "if os.fork() == 0: os.unlink(folder + '/secret'); os._exit(0)",
            "os.wait()",
            "r, w = os.pipe(); fcntl.fcntl(r, fcntl.F_SETOWN, pid); fcntl.fcntl(r, 10, signal.SIGWINCH)",
            "fcntl.fcntl(r, fcntl.F_SETFL, os.O_ASYNC); os.write(w, b'x')",
            "return [os.path.exists(folder + '/secret'), os.kill(pid, 0), secret]",
            port=listener.getsockname()[1],
            folder=str(tmp_path),
            pid=os.getpid(),
        )
        assert listener.accept()[0].recv(5) == b"hello"
    assert outcome == Outcome("ok", [False, None, "token"])
    with pytest.raises(RuntimeError, match="the sandbox does not work here: died"):
        got(box, "os.kill(os.getppid(), 9)")
    assert got(box, "return 1") == Outcome("ok", 1)
