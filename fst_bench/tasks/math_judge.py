"""math-verify in a child process that can be killed.

math-verify guards itself with signal.alarm, which fails off the main thread and cannot stop a stuck C
extension. Here it runs in its own process, one request at a time. Limits on the text, and in the child on the
parsed expression, refuse what is known to explode, so the deadline is a last resort and not part of the
scoring. Only the LaTeX reader of math-verify is used: its other one hands text to sympy's parse_expr, an eval.

The child runs this file as a script that imports nothing of the package, so it starts from any directory.
"""

import atexit
import json
import os
import re
import select
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from fst_bench.core.types import Status

START_S = 120.0
DEADLINE_S = 20.0
MAX_NESTING = 6
MAX_POWER = 10_000

COMMANDS = frozenset(
    re.findall(
        r"\w+",
        "frac dfrac tfrac cfrac sqrt cdot times div pm mp left right text textbf mathrm mathbf mbox quad qquad ldots "
        "pi infty circ degree log ln sin cos tan cot sec csc arcsin arccos arctan "
        "le leq ge geq lt gt ne neq in cup cap emptyset "
        "alpha beta gamma delta epsilon theta lambda mu rho sigma tau phi omega",
    )
)
"""The LaTeX commands that reach math-verify: none of them makes a short text expensive."""

REFUSED = re.compile(
    r"[^\x00-\x7f]"  # other scripts have digits, too
    r"|!|\*\*"  # factorials, and powers that are not LaTeX
    r"|\d{20}"
    r"|\d\s*E"  # 9E99999999 has more digits than memory holds
    r"|\d\s+\d"  # two numbers, which math-verify would add: "3 4" would be 7
    r"|sqrt\s*\[(?!\d\])"  # a root's index can be a power in disguise
    r"|\^[\s(+-]*\d{5}|\^\s*\{(?:[^}]*\d){5}"  # an exponent of five digits
    r"|\^\s*\{[^}]*\^"  # a tower of powers
    r"|\|.*\|.*\|"  # bars have no direction: the grammar would try every pairing
)


class Judge:
    """A judge in one child process, asked one question at a time; a stuck or dead child is replaced at the next one."""

    def __init__(self, deadline_s: float = DEADLINE_S):
        self.deadline_s = deadline_s
        self.child: subprocess.Popen[str] | None = None
        self.lock = threading.Lock()
        atexit.register(self.stop)
        os.register_at_fork(after_in_child=self._forget)

    def __call__(self, gold: str, answer: str) -> "Status":
        """Return whether math-verify holds `answer` (LaTeX, a few dozen characters) equal to `gold`."""
        if explosive(answer):
            return "unparseable"
        with self.lock:
            child = self._running()
            assert child.stdin is not None
            try:
                child.stdin.write(json.dumps([gold, answer]) + "\n")
                child.stdin.flush()
                return cast("Status", json.loads(_receive(child, self.deadline_s)))
            except TimeoutError:
                self.stop()
                return "timeout"
            except (OSError, ValueError):
                self.stop()
                return "crash"

    def stop(self) -> None:
        """Kill the child process, if one runs."""
        if self.child is not None:
            self.child.kill()
            self.child.communicate()
            self.child = None

    def _running(self) -> "subprocess.Popen[str]":
        if self.child is None or self.child.poll() is not None:
            self.stop()
            self.child = subprocess.Popen(
                [sys.executable, "-P", __file__],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                env={**os.environ, "PYTHONHASHSEED": "0"},
            )
            if _receive(self.child, START_S) != "ready\n":
                self.stop()
                raise RuntimeError(f"the judge of math answers does not start, see: {sys.executable} -P {__file__}")
        return self.child

    def _forget(self) -> None:
        self.child, self.lock = None, threading.Lock()  # a fork must not share the parent's pipes


def _receive(child: "subprocess.Popen[str]", seconds: float) -> str:
    """Return the child's next line; empty when it died. Raise TimeoutError after `seconds` of silence."""
    assert child.stdout is not None
    ready, _, _ = select.select([child.stdout], [], [], seconds)
    if not ready:
        raise TimeoutError(f"the judge of math answers was silent for {seconds} s")
    return child.stdout.readline()


judge = Judge()


def explosive(answer: str) -> bool:
    """Return whether a text is slow to evaluate or ambiguous; no answer needs to be."""
    return (
        bool(REFUSED.search(answer))
        or any(command not in COMMANDS for command in re.findall(r"\\([A-Za-z]+)", answer))
        or max_depth(answer) > MAX_NESTING
    )


def max_depth(text: str) -> int:
    """Return the depth of nesting of brackets of any kind."""
    depth = deepest = 0
    for c in text:
        depth += 1 if c in "([{" else -1 if c in ")]}" else 0
        deepest = max(deepest, depth)
    return deepest


def _serve() -> None:
    """Answer each line of standard input, a JSON list (gold, answer), with a status, until the input ends."""
    from math_verify import LatexExtractionConfig, parse, verify
    from math_verify.grader import is_relation, take_last_relation
    from sympy import Basic, Expr, Number, Pow, Set, UnevaluatedExpr, nan, oo, preorder_traversal, zoo
    from sympy.core.random import seed

    def read(text: str) -> list[Any]:
        return parse(f"\\boxed{{{text}}}", extraction_config=[LatexExtractionConfig()], parsing_timeout=None)

    def tame(expression: Basic) -> bool:
        """Return whether all exponents together are small: limits on the text miss some ways to write one."""
        size = 1.0
        for power in (node for node in preorder_traversal(expression) if isinstance(node, Pow)):
            if any(inner.exp != -1 for inner in power.exp.atoms(Pow)):
                return False
            for number in power.exp.atoms(Number):
                size *= max(abs(number), 1 / abs(number)) if number else 1
        return size <= MAX_POWER

    def apart(right: Basic, value: Basic) -> bool:
        """Return whether symbols or numbers already differ: verify would simplify their difference, without a bound."""
        if value.has(oo, -oo, zoo, nan):
            return not right.has(oo, -oo)  # verify holds the root of infinity equal to any number
        if right.free_symbols or value.is_Symbol or right.has(UnevaluatedExpr) or value.has(UnevaluatedExpr):
            return False  # UnevaluatedExpr is how percentages are read, which equal their number
        if value.free_symbols:
            return True
        if not isinstance(right, Expr) or not isinstance(value, Expr):
            return isinstance(right, Expr)  # several values are not one
        if not (value.is_number and right.is_finite):
            return False
        # verify rounds to six decimals
        return bool(abs(value.evalf(20) - right.evalf(20)) > 2e-6 + 1e-12 * abs(right))

    def compare(gold: str, answer: str) -> str:
        seed(0)  # sympy tries random points
        right, given = read(gold), read(answer)
        value = given[0] if given else ""
        if not isinstance(value, Basic):
            return "ok" if verify(right, given, timeout_seconds=None) else "unparseable"
        value = take_last_relation(value).rhs if is_relation(value) else value
        value = value.args[0] if isinstance(value, Set) and len(value.args) == 1 else value
        if not tame(value):
            return "unparseable"
        if isinstance(right[0], Basic) and apart(right[0], value):
            return "wrong"
        return "ok" if verify(right, given, timeout_seconds=None) else "wrong"

    replies, sys.stdout = sys.stdout, sys.stderr  # the parser's own messages are not replies
    print("ready", file=replies, flush=True)
    for line in sys.stdin:
        try:
            status = compare(*json.loads(line))
        except Exception:  # a text that sympy fails on is a wrong answer, and must not end the judge
            status = "wrong"
        print(json.dumps(status), file=replies, flush=True)


if __name__ == "__main__":
    _serve()
