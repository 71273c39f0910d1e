"""What the sandbox answers to code that means no harm, or only to itself."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from held import below
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from fst_bench.harness.environment import environment
from fst_bench.tasks.sandbox import Limits, Outcome, Sandbox, Worker, read, sandbox_kind, strongest

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters()), inner, max_size=4),
    max_leaves=20,
)


def body(*lines: str) -> str:
    return "def f(*a, **k):\n" + "\n".join(f"    {line}" for line in lines)


@given(JSON)
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_json_comes_back_as_it_went(box: Sandbox, value: Any) -> None:
    outcome = box.call("def f(value): return value", "f", {"value": value})
    assert outcome.status == "ok"
    assert json.dumps(outcome.value) == json.dumps(value)  # also tells 1 from 1.0 and from True, and -0.0 from 0.0


def test_values_are_read_as_json_writes_them(box: Sandbox) -> None:
    code = (
        "import collections\ndef f(): return {1: (1, 2), None: collections.OrderedDict(a=True), "
        "'c': collections.Counter('aab')}"
    )
    assert box.call(code, "f", {}) == Outcome("ok", {"1": [1, 2], "null": {"a": True}, "c": {"a": 2, "b": 1}})


@pytest.mark.parametrize(
    "value",
    [
        "{1, 2}",
        "float('nan')",
        "[float('inf')]",
        "1j",
        "b'x'",
        "object()",
        "(x for x in [])",
        "{(1, 2): 3}",
        "10 ** 5000",
    ],
)
def test_what_is_no_json_is_an_error(box: Sandbox, value: str) -> None:
    assert box.call(body(f"return {value}"), "f", {}).status == "error"


@pytest.mark.parametrize("arguments", [{"a": float("nan")}, {"a": {1}}, {"a": 10**5000}])
def test_arguments_that_are_no_json_are_an_error(box: Sandbox, arguments: dict[str, Any]) -> None:
    outcome = box.call(body("return 1"), "f", arguments)
    assert outcome.status == "error"
    assert outcome.detail.startswith("the arguments are no JSON: ")


def test_arguments_nested_too_deep_are_an_error(box: Sandbox) -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    assert box.call(body("return 1"), "f", {"a": deep}).status == "error"


@pytest.mark.parametrize(
    ("code", "detail"),
    [
        (body("return 1 / 0"), "ZeroDivisionError: division by zero"),
        ("def f(: return", "SyntaxError"),
        ("x = '\0'", "null bytes"),
        ("(" * 100_000, ""),
        ("g = 1", "NameError: the code has no function 'f'"),
        ("f = 1", "TypeError: 'int' object is not callable"),
        ("def f(x): return x", "TypeError"),
        ("raise ValueError('at import')", "ValueError: at import"),
        (body("import numpy"), "ModuleNotFoundError: No module named 'numpy'"),
        (body("return input()"), "EOFError"),
        (body("import sys; sys.exit(0)"), "SystemExit: 0"),
        (body("raise SystemExit"), "SystemExit:"),
        (body("raise KeyboardInterrupt"), "KeyboardInterrupt:"),
        (body("raise GeneratorExit"), "GeneratorExit:"),
        (body("raise ValueError('a\\n\\x1b[31m b' + 'c' * 10_000)"), "ValueError: a [31m bccc"),
        ("class E(Exception):\n def __str__(self): raise E\n" + body("raise E"), "an exception that cannot be shown"),
        ("class E(Exception):\n def __str__(self): return 1\n" + body("raise E"), "an exception that cannot be shown"),
        (
            "class E(Exception):\n def __str__(self): return 'x' * 2 ** 30\n" + body("raise E"),
            "an exception that cannot be shown",
        ),
        (
            "class M(type):\n __name__ = property(lambda s: 1 / 0)\nclass E(Exception, metaclass=M): pass\n"
            + body("raise E"),
            "an exception that cannot",
        ),
        (body("return f()"), "RecursionError"),
        ("import os\n" + body("os._exit(0)"), "it ended without an answer, exit code 0"),
    ],
)
def test_failures_have_one_line(box: Sandbox, code: str, detail: str) -> None:
    outcome = box.call(code, "f", {})
    assert outcome.status == "error" and outcome.value is None
    assert detail in outcome.detail
    assert len(outcome.detail) <= 200 and outcome.detail.isprintable()


def test_nothing_stays_for_the_next_call(box: Sandbox) -> None:
    code = body(
        "import sys, builtins, math, os",
        "seen = getattr(math, 'mark', 0)",
        "math.mark = builtins.len = 1; os.environ['MARK'] = '1'",
        "return seen",
    )
    assert [box.call(code, "f", {}).value for _ in range(2)] == [0, 0]


def test_chance_and_order_are_the_same_each_time(box: Sandbox) -> None:
    code = body("import random, time", "return [random.random(), list({str(i) for i in range(100)}), time.tzname]")
    first = box.call(code, "f", {})
    assert first.status == "ok"
    assert box.call(code, "f", {}) == first == Sandbox(workers=1).call(code, "f", {})


def test_common_code_runs(box: Sandbox) -> None:
    code = """
from __future__ import annotations
import base64, csv, dataclasses, decimal, fractions, hashlib, inspect, io, os
import sqlite3, statistics, textwrap, time, typing, uuid, zlib
from contextlib import redirect_stdout
@dataclasses.dataclass
class P:
    x: typing.ClassVar[int] = 1
    y: int = 2
def f():
    time.sleep(0.001)
    with redirect_stdout(io.StringIO()) as said:
        print("hello")
    rows = sqlite3.connect(":memory:").execute("select 1").fetchall()
    mean = statistics.mean([1, 2])
    today = mean, str(decimal.Decimal("0.1")), hashlib.sha256(b"").hexdigest()[:4], len(os.urandom(4))
    return [dataclasses.asdict(P()), said.getvalue(), rows, today, __name__]
if __name__ == "__main__":
    raise SystemExit
"""
    assert box.call(code, "f", {}) == Outcome("ok", [{"y": 2}, "hello\n", [[1]], [1.5, "0.1", "e3b0", 4], "refcode"])


def test_map_keeps_the_order() -> None:
    calls = [("import time\ndef f(i):\n time.sleep(i % 3 / 100)\n return i", "f", {"i": i}) for i in range(20)]
    assert [o.value for o in Sandbox(workers=3).map(calls)] == list(range(20))


def test_the_value_may_be_as_long_as_allowed(box: Sandbox) -> None:
    most = box.limits.output_bytes - 2  # the quotes
    assert len(box.call(body(f"return 'x' * {most}"), "f", {}).value) == most
    assert box.call(body(f"return 'x' * {most + 1}"), "f", {}).status == "output"


def test_a_worker_that_died_is_replaced(box: Sandbox) -> None:
    box = Sandbox(workers=1, way=box.way)
    for _ in range(2):
        assert box.call(body("return 1"), "f", {}).value == 1
        worker: Worker = box._idle.queue[0]
        assert worker.process
        os.killpg(worker.process.pid, signal.SIGKILL)
        worker.process.wait()


def test_processes_end_with_the_sandbox(box: Sandbox) -> None:
    before = below(os.getpid())
    other = Sandbox(workers=2, way=box.way)
    other.map([(body("return 1"), "f", {})] * 4)
    assert below(os.getpid()) - before
    del other
    assert below(os.getpid()) <= before


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at /proc")
def test_everything_ends_with_a_killed_parent(box: Sandbox) -> None:
    script = (
        f"from fst_bench.tasks.sandbox import *; box = Sandbox(workers=1, way=Way{tuple(box.way)}); "
        f"print(box.call('def f(): return 1', 'f', {{}}).value, flush=True); input();"
    )
    script += (
        "box.call('import signal\\ndef f():\\n for s in range(1, 65):\\n  try: signal.signal(s, signal.SIG_IGN)\\n"
        "  except (OSError, ValueError): pass\\n while True: pass', 'f', {})"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdin and parent.stdout and parent.stdout.readline() == b"1\n"
        before = below(parent.pid)  # the server, and perhaps what is left of the first call
        parent.stdin.write(b"\n")
        parent.stdin.flush()
        while not (family := below(parent.pid)) - before:
            assert parent.poll() is None
            time.sleep(0.01)
        parent.kill()
    for _ in range(3000):
        if not (alive := [pid for pid in family if state(pid) not in "ZX"]):
            break
        time.sleep(0.01)
    assert not alive
    assert family & before and family - before


def state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "X"


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "1",
            "[]",
            "{}",
            "\xff",
            '{"status": "ok"}',
            '{"status": "fine", "value": 1}',
            '{"status": ["ok"], "value": 1}',
            '{"status": "ok", "value": 1} 2',
        ),
        *(
            '{"status": "ok", "value": NaN}',
            '{"status": "ok", "value": 1e999}',
            '{"status": "timeout", "detail": "x"}',
            '{"status": "error", "detail": 1}',
        ),
        *(f'{{"status": "ok", "value": {value}}}' for value in ("[" * 100_000 + "]" * 100_000, "1" * 5000)),
    ],
)
def test_an_untrusted_answer_is_checked(text: str) -> None:
    outcome = read(text.encode("latin-1"))
    assert outcome.status == "error" and outcome.value is None


def test_mistakes_have_one_line() -> None:
    with pytest.raises(ValueError, match="workers must be at least 1, not 0"):
        Sandbox(workers=0)
    for wrong in ({"second": 1}, {"seconds": 0}, {"seconds": float("inf")}, {"memory_mb": 1}):
        with pytest.raises(ValidationError):
            Limits(**wrong)


def test_the_record_says_how(box: Sandbox) -> None:
    assert environment(1)["sandbox"] == sandbox_kind() == "+".join((strongest().kind, *strongest().guards))
    assert Sandbox().kind == strongest().kind
    assert box.kind == box.way.kind
