"""Attacks on files and the environment. Each test states the result of an attack."""

import ast
import os
import re
from pathlib import Path

import pytest
from held import REFUSED, got, held

from fst_bench.tasks.sandbox import Outcome, Sandbox, Way, child, readable

pytestmark = pytest.mark.usefixtures("unharmed")


def hidden(way: Way) -> bool:
    """Whether the way promises that files cannot be read."""
    return way.kind == "bubblewrap" or "landlock" in way.guards


def test_secret_file(box: Sandbox, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("token")
    (tmp_path / "link").symlink_to(secret)
    outcome = got(
        box,
        "import io, mmap, shutil, linecache, tokenize",
        "ways = [lambda p: open(p).read(), lambda p: os.read(os.open(p, os.O_RDONLY), 99).decode(), "
        "lambda p: io.open_code(p).read().decode(),",
        "  lambda p: open('/proc/self/root' + p).read(), lambda p: open('../' * 20 + p).read(), "
        "lambda p: linecache.getlines(p)[0],",
        "  lambda p: exec(open(p).read()), lambda p: os.read(libc.open(p.encode(), 0), 99).decode(), "
        "lambda p: os.listdir(os.path.dirname(p))]",
        "return [attempt(w, p) for w in ways for p in paths]",
        paths=[str(secret), str(tmp_path / "link")],
    )
    leaked = [said for said in outcome.value if "token" in said or "'link'" in said]
    assert bool(leaked) != hidden(box.way), leaked


def test_files_of_the_system(box: Sandbox) -> None:
    paths = [
        "/etc/passwd",
        "/etc/shadow",
        "/etc/hosts",
        str(Path.home() / ".ssh"),
        __file__,
        "/sys",
        "/boot",
        "/",
        "/proc",
        "/proc/self/maps",
    ]
    outcome = got(
        box,
        "return [attempt(lambda: os.listdir(p) if os.path.isdir(p) else open(p).read()) for p in paths]",
        paths=paths,
    )
    refused = [bool(re.match("PermissionError|FileNotFoundError", said)) for said in outcome.value]
    if "landlock" in box.way.guards:
        assert all(refused)
    elif hidden(box.way):  # bubblewrap's own root and processes can be seen
        shown = {"proc", "dev", "tmp"} | {Path(path).parts[1] for path in (*readable(), str(child.__file__))}
        assert all(refused[:7]) and set(ast.literal_eval(outcome.value[7])) <= shown
    else:
        assert "root" in outcome.value[0]


def test_the_environment(box: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("API_KEY", "token")
    box = held(box.way)
    pids = [os.getpid(), os.getppid()]
    outcome = got(
        box,
        "pids += [os.getpid(), os.getppid(), 'self']",
        "paths = [f'/proc/{pid}/{name}' for pid in pids for name in ('environ', 'cmdline', 'maps', 'mem')]",
        "libc.getenv.restype = ctypes.c_char_p",
        "return [dict(os.environ), attempt(libc.getenv, b'API_KEY'), [attempt(lambda: open(p, 'rb').read(99)) "
        "for p in paths]]",
        pids=pids,
    )
    inherited, key, read = outcome.value
    assert set(inherited) <= {"PYTHONHASHSEED", "PYTHONUTF8", "LC_ALL", "TZ", "PWD", "LC_CTYPE"}
    assert key == "None"
    if hidden(box.way):
        assert "token" not in str(read)
    if "landlock" in box.way.guards:
        assert all(re.match("PermissionError|FileNotFoundError", said) for said in read)


def test_write_outside(box: Sandbox, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("whole")
    os.utime(victim, (1, 1))
    victim.chmod(0o644)
    outcome = got(
        box,
        "p, new = folder + '/victim', folder + '/new'",
        "ways = [lambda: open(p, 'w'), lambda: open(p, 'a'), lambda: open(p, 'r+'), lambda: open(new, 'x'), "
        "lambda: os.open(p, os.O_RDONLY | os.O_TRUNC),",
        "  lambda: os.open(p, 3 | os.O_TRUNC), lambda: os.open(folder, os.O_TMPFILE | os.O_RDWR), "
        "lambda: os.truncate(p, 0), lambda: os.unlink(p),",
        "  lambda: os.rename(p, new), lambda: os.link(p, new), lambda: os.symlink(p, new), lambda: os.mkdir(new), "
        "lambda: os.rmdir(folder),",
        "  lambda: os.mkfifo(new), lambda: os.mknod(new), lambda: os.chmod(p, 0), lambda: os.chown(p, 1, 1), "
        "lambda: os.utime(p),",
        "  lambda: os.setxattr(p, 'user.a', b'b'), lambda: open('/proc/self/root' + p, 'w'), "
        "lambda: open('/usr/lib/new', 'w'), lambda: open(os.__file__, 'a'),",
        "  lambda: os.open(os.__file__, os.O_RDONLY | os.O_TRUNC)]",
        "return [attempt(w) for w in ways]",
        folder=str(tmp_path),
    )
    assert outcome.status == "ok"
    assert all(re.match("PermissionError|FileNotFoundError|OSError", said) for said in outcome.value), outcome.value
    assert [p.name for p in tmp_path.iterdir()] == ["victim"]
    assert (victim.read_text(), victim.stat().st_mtime, victim.stat().st_mode & 0o777) == ("whole", 1, 0o644)
    assert Path(os.__file__).stat().st_size > 1000


def test_the_scratch_folder(box: Sandbox) -> None:
    use = (
        "import tempfile\nwith tempfile.TemporaryDirectory() as d:\n  with open(d + '/a', 'w') as a: a.write('x')\n"
        "  os.rename(d + '/a', d + '/b')\n  made = open(d + '/b').read()"
    )
    keep = "open('/tmp/kept', 'w').write('x')\nreturn [made, os.getcwd(), os.listdir('/tmp')]"
    if "scratch" not in box.way.guards:
        assert got(box, use, keep).detail.startswith("FileNotFoundError: [Errno 2] No usable temporary directory found")
        return
    for _ in range(2):  # nothing is left of the first
        assert got(box, use, keep) == Outcome("ok", ["x", "/tmp", ["kept"]])
    assert not Path("/tmp/kept").exists()
    # which Landlocks before the third overlook, anywhere
    truncate = "return attempt(os.open, '/tmp/kept', os.O_RDONLY | os.O_TRUNC)"
    assert REFUSED in got(box, "open('/tmp/kept', 'w').close()", truncate).value


def test_a_full_scratch_folder(box: Sandbox) -> None:
    if "scratch" not in box.way.guards:
        pytest.skip("nothing can be written")
    many = "for i in range(40):\n  with open(str(i), 'wb') as file: file.write(bytes(1 << 20))"
    assert got(box, many) == Outcome("error", detail="OSError: [Errno 28] No space left on device")
    assert got(box, "with open('big', 'wb') as file:\n  while True: file.write(bytes(1 << 20))").detail.startswith(
        "OSError: [Errno 2"
    )
    assert got(box, "for i in range(9999): open(str(i), 'w').close()").detail.startswith("OSError: [Errno 28]")
    assert got(box, "while True: os.mkdir('d'); os.chdir('d')").detail.startswith("OSError: [Errno 28]")
