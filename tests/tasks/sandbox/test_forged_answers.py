"""Attacks on the answer: forged, broken and poisoned ones. Each test states the result of an attack."""

import pytest
from held import got

from fst_bench.tasks.sandbox import Outcome, Sandbox

pytestmark = pytest.mark.usefixtures("unharmed")


FORGED = '{"status": "ok", "value": 666}'


@pytest.mark.parametrize(
    "lines",
    [
        "import json; sys.modules['json'] = sys.modules['json.encoder'] = None; "
        "json.dumps = json.loads = json.JSONEncoder.encode = lambda *a, **k: '666'",
        "import json.encoder as e\nfor name in list(vars(e)): setattr(e, name, lambda *a, **k: ['666'])",
        "import builtins\nbuiltins.print = builtins.len = builtins.isinstance = builtins.str = lambda *a: 666",
        "import builtins\nfor name in list(vars(builtins)):\n  if name != 'list': setattr(builtins, name, lambda *a, "
        "**k: 666)",
        "import builtins; vars(builtins).clear()",
        "os.write = os._exit = os.close = lambda *a: 666; sys.exit = sys.stdout = None",
        "import atexit; atexit.register(lambda: [attempt(os.write, n, b'666') for n in range(256)])",
        "import __main__; vars(__main__).clear()",
        "sys.modules.clear()",
        "import gc, weakref; gc.disable(); sys.setswitchinterval(1000)",
        "class D:\n  def __del__(self): os.write(1, b'666')\nglobal d; d = D()",
        "sys.excepthook = sys.unraisablehook = sys.displayhook = lambda *a: os._exit(0)",
        "os.dup2(0, 1); os.dup2(0, 2); os.close(0)",
        "os.environ.clear(); os.chdir('/'); sys.path.clear(); sys.meta_path.clear()",
    ],
)
def test_poison_does_not_change_the_value(box: Sandbox, lines: str) -> None:
    assert got(box, lines, "return {'a': [3, 'x', None]}") == Outcome("ok", {"a": [3, "x", None]})


@pytest.mark.parametrize(
    "text", ["666", FORGED, "+" + FORGED, "+" * 33 + FORGED, "ended 0 5\n+666\n", "\n", "0" * 32 + FORGED]
)
def test_forged_text_on_every_pipe(box: Sandbox, text: str) -> None:
    spray = f"for n in range(1024): attempt(os.write, n, {text.encode()!r})\n"
    for end in ("os._exit(0)", "sys.exit(0)", "return 3", "raise ValueError"):
        outcome = got(box, spray + end)
        assert (outcome.status, outcome.value, outcome.detail) == (
            "error",
            None,
            "something else was written where the answer goes",
        )


@pytest.mark.parametrize(
    "close",
    [
        "os.closerange(0, 4096)",
        "r, w = os.pipe()\nfor n in range(4096):\n  if n not in (r, w): attempt(os.dup2, w, n)\nos.closerange(60, "
        "4096)",
    ],
)
def test_closed_pipes(box: Sandbox, close: str) -> None:
    assert got(box, close, "return 3").status in ("error", "killed")  # it fails to answer, or is killed before that
    assert got(box, close, "while True: pass").status == "killed"


@pytest.mark.parametrize(
    ("lines", "outcome"),
    [
        (
            "class L:\n  __class__ = int\n  __eq__ = lambda s, o: True\n  __hash__ = lambda s: 1\nreturn L()",
            "L is no JSON value",
        ),
        ("class L(int):\n  __repr__ = __str__ = lambda s: '666}'\n  __eq__ = lambda s, o: True\nreturn L(1)", 1),
        ("class L(float):\n  __repr__ = lambda s: '666'\nreturn L(1.5)", 1.5),
        (
            "class L(float):\n  __eq__ = lambda s, o: True\nreturn L('nan')",
            "Out of range float values are not JSON compliant",
        ),
        ("class L(str):\n  __str__ = __repr__ = lambda s: '666'\n  __len__ = lambda s: 0\nreturn L('x')", "x"),
        ("class L(list):\n  __iter__ = lambda s: 1 / 0\n  __len__ = lambda s: 0\nreturn L([1])", "ZeroDivisionError"),
        (
            "class L(dict):\n  def __iter__(s): raise ValueError('666')\n  items = keys = __iter__\nreturn L(a=1)",
            "ValueError: 666",
        ),
        ("class L(dict):\n  items = lambda s: [(1,)]\nreturn L(a=1)", "items must return 2-tuples"),
        (
            "class L(dict):\n  items = lambda s: [('a', x) for x in [float('inf')]]\nreturn L(a=1)",
            "Out of range float values",
        ),
        ("class L(dict):\n  def items(s):\n    while True: s = [s]; yield\nreturn L(a=1)", "MemoryError"),
        ("x = []; x.append(x)\nreturn x", "ValueError: Circular reference detected"),
    ],
)
def test_values_that_lie(box: Sandbox, lines: str, outcome: object) -> None:
    found = got(box, lines)
    if found.status == "ok":
        assert type(found.value) is type(outcome) and found.value == outcome
    else:
        assert isinstance(outcome, str) and outcome in found.detail and found.value is None


@pytest.mark.parametrize("hook", ["settrace", "setprofile"])
def test_a_hook_that_interferes(box: Sandbox, hook: str) -> None:
    """It may spoil the code's own answer, never pass for another's."""
    assert got(box, f"def hook(*a): raise ValueError('666')\nsys.{hook}(hook)\nreturn 3").status in ("ok", "error")
    assert got(
        box,
        "import signal\ndef ring(*a): raise ValueError('666')\nsignal.signal(signal.SIGALRM, ring); "
        "signal.setitimer(0, 1e-5, 1e-5)\nreturn 3",
    ).value in (3, None)
