"""math-verify in a child process that can be killed.

math-verify decides. Three things stand around it, each with a test of what it is for:

- `plain` rewrites typography that it does not read: "7.", "1 000", a Unicode pi.
- Structural limits, on the text here and on the parsed expression in the child, refuse what is known to explode, so the
  deadline is a last resort and not part of the scoring.
- Guards turn down the few pairs of different answers that it takes for equal. `distinct` guards what its reader drops
  from a text (a base, a unit, a ratio's order), `apart` what its rounding drops from a value.

math-verify guards itself with signal.alarm, which fails off the main thread and cannot stop a stuck C extension. Here
it runs in its own process, one request at a time. Only its LaTeX reader is used: its other one hands text to sympy's
parse_expr, an eval.

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
MAX_FACTORIAL = 1_000

COMMANDS = frozenset(
    re.findall(
        r"\w+",
        "frac dfrac tfrac cfrac sqrt cdot times div pm mp left right text textbf textit textrm mathrm mathbf mathit "
        "mbox displaystyle textstyle quad qquad ldots dots boxed fbox binom dbinom tbinom lfloor rfloor lceil rceil "
        "lvert rvert "
        "pi infty circ degree log ln exp sin cos tan cot sec csc arcsin arccos arctan sinh cosh tanh "
        "le leq leqslant ge geq geqslant lt gt ne neq approx in cup cap setminus emptyset varnothing mathbb "
        "begin end pmatrix bmatrix "
        "alpha beta gamma delta epsilon theta lambda mu rho sigma tau phi varphi omega",
    )
)
"""The LaTeX commands that reach math-verify: values, and none of them, under the limits, makes a short text expensive.
Sums, integrals, limits and products do: they state a problem rather than its answer."""

REFUSED = re.compile(
    r"[^\x00-\x7f]"  # digits of other scripts: U+0667 would be 7
    r"|\*\*"  # a power that is not LaTeX: 9**9**9 has more digits than memory holds
    r"|\d\s*E(?![+-]?\d{1,3}(?!\d))"  # 9E99999999 has, too
    r"|\d(?:\s|\{\})+\d"  # two numbers, which math-verify adds: "3 4" would be 7
    r"|sqrt\s*\[(?!\d\])"  # a root's index is a power in disguise: \sqrt[0.0000001]{9}
    r"|\^[\s(+-]*\d{5}|\^\s*\{(?:[^}]*\d){5}"  # an exponent of five digits: 9^99999
    r"|\^\s*\{[^}A-Za-z\\]*\^"  # a tower of numbers: 9^{9^{9}}
    r"|%[\s}]*\^"  # a power of a percentage is slow to compare: e;99\%^{99}
    r"|\d{4}[\s)}]*!|binom.*[\d,]{5}"  # the factorial and the binomial of a large number: 9999999!
    r"|\|.*\|.*\|"  # bars have no direction, the grammar tries every pairing: |a|b|c|d|e|
    r"|(?:begin|end)\s*\{(?![pb]matrix\})|matrix\}\s*\^"  # determinants and powers of matrices of symbols
)

SIGNS = str.maketrans(
    {
        "−": "-", "–": "-", "×": "\\times ", "·": "\\cdot ", "⋅": "\\cdot ", "÷": "\\div ", "±": "\\pm ",
        "≤": "\\le ", "≥": "\\ge ", "≠": "\\ne ", "≈": "\\approx ", "∈": "\\in ", "∪": "\\cup ", "∩": "\\cap ",
        "∞": "\\infty ", "∅": "\\emptyset ", "°": "^\\circ ", "π": "\\pi ", "θ": "\\theta ", "α": "\\alpha ",
        "β": "\\beta ", "’": "'", "\u00a0": " ", "\u2009": " ", "\u202f": " ",
    }
)  # fmt: skip
"""Signs that have one LaTeX spelling."""

RAISED = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-")
SPACE = re.compile(r"(?<!\\)\\[,;: ]|(?<!\\)~|\\q?quad(?![A-Za-z])|\\text\s*\{\s*\}")
GROUPS = re.compile(r"(?<![\d.,])(?<!\d )\d{1,3}(?: \d{3})+(?!\d)")
"""Digits in groups of three."""

BASE = re.compile(r"\d\s*\}?\s*_\s*\{?\s*(\d+)")
RATIO = re.compile(r"\d+(?:\s*:\s*\d+){2,}")
UNIT = re.compile(
    r"[\d)}]\s*(?:\\(?:text\w*|mathrm|mbox)\s*\{[\s~]*([A-Za-z]+)\.?\s*\}|([A-Za-z]+))\s*(?:\^\s*\{?\s*(\d)\s*\}?)?$"
)
UNITS = {
    spelling: names[0]
    for names in map(
        str.split,
        "mm millimeter millimetre|cm centimeter centimetre|m meter metre|km kilometer kilometre|in inch|ft foot feet"
        "|yd yard|mi mile|mg milligram|g gram|kg kilogram|lb pound|oz ounce|ml milliliter millilitre|l liter litre"
        "|s sec second|min minute|h hr hour|day|week|month|year|cent|dollar|degree|radian".split("|"),
    )
    for name in names
    for spelling in (name, f"{name}s", f"{name}es")
}


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
        gold, answer = plain(gold), plain(answer)
        if explosive(answer) or explosive(gold):
            return "unparseable"
        if distinct(gold, answer):
            return "wrong"
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


def plain(text: str) -> str:
    r"""Return a value in the LaTeX that math-verify reads, typography aside.

    Not meant: bold, dollars and a full stop around it, signs outside of ASCII, the width of a space, spaces between
    groups of three digits ("1 000", "1\,000").
    """
    bold = re.fullmatch(r"\*\*([^*]+)\*\*\.?", text.strip())
    text = re.sub(r"(?<=[^.\s])\.$", "", (bold[1] if bold else text).strip().strip("$").strip())
    text = re.sub(r"√\s*(?:(\d+|[A-Za-z])|\(([^()]*)\))", r"\\sqrt{\1\2}", text).replace("√", "\\sqrt")
    text = re.sub("[⁰¹²³⁴⁵⁶⁷⁸⁹⁻]+", lambda raised: f"^{{{raised[0].translate(RAISED)}}}", text)
    text = SPACE.sub(" ", text.translate(SIGNS))
    return GROUPS.sub(lambda number: number[0].replace(" ", ""), text)


def explosive(answer: str) -> bool:
    """Return whether a text is slow to evaluate or ambiguous; no answer needs to be."""
    return (
        bool(REFUSED.search(answer))
        or any(command not in COMMANDS for command in re.findall(r"\\([A-Za-z]+)", answer))
        or max_depth(answer) > MAX_NESTING
    )


def distinct(gold: str, answer: str) -> bool:
    """Return whether two texts state what math-verify drops in reading them, and state it differently.

    - bases, where the answer has one: 204_5 and 204_7 (10 may go without saying);
    - ratios of three numbers or more, which it divides: 1:2:3 and 1:6;
    - units, where both have one of the list: 12 cm and 12 m.
    """
    given, right = BASE.findall(answer), BASE.findall(gold)
    if given and given != right and (set(given) | set(right)) != {"10"}:
        return True
    if RATIO.search(gold) or RATIO.search(answer):
        return re.findall(r"\d+", gold) != re.findall(r"\d+", answer)
    units = unit(gold), unit(answer)
    return None not in units and units[0] != units[1]


def unit(text: str) -> tuple[str, str] | None:
    """Return (unit, power) of a quantity in a unit of the list."""
    found = UNIT.search(text)
    name = UNITS.get((found[1] or found[2]).lower()) if found else None
    return (name, found[3] or "1") if found and name else None


def max_depth(text: str) -> int:
    """Return the depth of nesting of brackets of any kind."""
    depth = deepest = 0
    for c in text:
        depth += 1 if c in "([{" else -1 if c in ")]}" else 0
        deepest = max(deepest, depth)
    return deepest


def _serve() -> None:
    """Answer each line of standard input, a JSON list (gold, answer), with a status, until the input ends."""
    from dataclasses import replace

    from latex2sympy2_extended.latex2sympy2 import normalize_latex
    from math_verify import LatexExtractionConfig, parse, verify
    from math_verify.grader import is_equation, take_last_relation
    from sympy import (
        Basic,
        Eq,
        Expr,
        FiniteSet,
        Float,
        Interval,
        MatrixBase,
        Number,
        Pow,
        Rational,
        Tuple,
        UnevaluatedExpr,
        binomial,
        exp,
        factorial,
        nan,
        preorder_traversal,
        zoo,
    )
    from sympy.core.random import seed
    from sympy.core.relational import Relational

    reader = LatexExtractionConfig()
    rewriting = replace(reader.normalization_config, boxed="none")

    def read(text: str) -> list[Any]:
        """Return the expression that a text states, if it does, and the text as math-verify rewrites it."""
        return parse(f"\\boxed{{{text}}}", extraction_config=[reader], parsing_timeout=None)

    def tame(expression: Any) -> bool:
        """Return whether evaluation is cheap: limits on the text miss some ways to write a power."""
        size = 1.0
        for node in preorder_traversal(expression):
            if isinstance(node, Pow | exp):
                if node.base.is_Matrix:
                    return False
                towers = [inner for inner in node.exp.atoms(Pow, exp) if not inner.free_symbols]
                if any(abs(inner.exp) > 1 for inner in towers):
                    return False
                for number in node.exp.atoms(Number):
                    size *= max(abs(number), 1 / abs(number)) if number else 1
            elif isinstance(node, factorial | binomial) and not node.free_symbols:
                if node.has(Pow, exp) or any(arg.has(factorial, binomial) for arg in node.args):
                    return False
                if any(abs(arg.doit()) > MAX_FACTORIAL for arg in node.args):
                    return False
        return bool(size <= MAX_POWER)

    def values(stated: Any) -> list[Any]:
        """Return all the numbers that an answer states, in order, with repetitions (but a point counts once)."""
        if is_equation(stated):
            return values(take_last_relation(stated).rhs)
        if isinstance(stated, FiniteSet):
            points = any(isinstance(part, Interval | Tuple) for part in stated.args)
            parts = stated.args if points else getattr(stated, "_unsorted_args", stated.args)
        elif isinstance(stated, Interval):
            parts = (stated.start, stated.end)
        elif isinstance(stated, MatrixBase):
            parts = stated.flat()
        elif isinstance(stated, Tuple):
            parts = stated.args
        else:
            return [stated]
        return [value for part in parts for value in values(part)]

    def number_at(value: Any, point: int) -> Any:
        """Return a value as a number: exact where it is rational, at a point that depends on its symbols' names."""
        at = {s: Rational(3 + sum(map(ord, s.name)) * 7919 % 97, 31 + 6 * point) for s in value.free_symbols}
        value = value.xreplace(at)
        exact = value.doit() if not value.has(UnevaluatedExpr) else value
        return exact if isinstance(exact, Rational) else value.evalf(30)

    def far(right: Any, value: Any, decimals: bool) -> bool:
        """Return whether two numbers differ.

        A decimal is right to six places, as for math-verify, and to three digits: 0.0000001 is not 2*10^{-7}. Without
        one they have to be equal: 1/2^{99} is not 1/2^{98}.
        """
        if right.is_infinite or value.is_infinite:
            return bool(right != value)
        if isinstance(right, Rational) and isinstance(value, Rational):
            return bool(right != value)
        difference, size = abs(right - value), abs(right)
        if decimals:
            return bool(difference > min(2e-6 + 1e-12 * size, 5e-3 * size))
        return bool(difference > 1e-12 * max(size, abs(value)) and difference > Rational(1, 10**60))

    def named(stated: Any) -> bool:
        """Return whether an answer names several unknowns: x=2, y=1."""
        parts = stated.args if isinstance(stated, FiniteSet) else ()
        return len({part.lhs for part in parts if isinstance(part, Eq)}) > 1

    def apart(right: Any, value: Any) -> bool:
        """Return whether two answers state different numbers.

        This guards what math-verify rounds away, and spares it from simplifying differences, which has no bound.
        Expressions that differ at a point differ. Sets are compared with their repetitions: {1,1,2} is not {1,2}.
        Unknowns are compared with a point in their order: x=2, y=1 is not (1,2).
        """
        both = isinstance(right, Basic) and right.has(Relational) and isinstance(value, Basic) and value.has(Relational)
        if both and not (isinstance(right, Eq) and isinstance(value, Eq) and right.lhs == value.lhs):
            return False  # equations may be equivalent in many ways
        rights, given = values(right), values(value)
        if any(v.is_Symbol or v.is_Matrix or v.has(UnevaluatedExpr) for v in (*rights, *given) if isinstance(v, Expr)):
            return False  # words, sums of matrices, and percentages, which equal their number
        if not all(isinstance(v, Expr) for v in (*rights, *given)):
            return all(isinstance(v, Expr) for v in rights)  # an interval is not a value
        if len(rights) != len(given):
            return True
        ordered = named(right) and isinstance(value, Interval | Tuple)
        decimals = any(v.has(Float) for v in (*rights, *given))
        for point in range(2):
            numbers = [[number_at(v, point) for v in side] for side in (rights, given)]
            if any(n.has(nan, zoo) for n in numbers[1]):
                return True
            if not all(n.is_number and not n.has(nan, zoo) for side in numbers for n in side):
                return False
            for side in () if ordered else numbers:
                side.sort(key=lambda n: (n.as_real_imag()[0], n.as_real_imag()[1]))
            if any(far(r, g, decimals) for r, g in zip(*numbers, strict=True)):
                return True
        return False

    def compare(gold: str, answer: str) -> str:
        seed(0)  # sympy tries random points
        if any(explosive(normalize_latex(text, rewriting)) for text in (gold, answer)):
            return "unparseable"  # math-verify removes some characters, so 9'9'9'9 would be a number
        right, given = read(gold), read(answer)
        value = given[0] if given else ""
        if isinstance(value, str):
            return "ok" if verify(right, given, timeout_seconds=None) else "unparseable"
        if not tame(value) or not tame(right[0]):
            return "unparseable"
        if not isinstance(right[0], str) and apart(right[0], value):
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
