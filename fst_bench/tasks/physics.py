"""physics: a number with its unit, from a chain of formulas. Protocol: the line after ANSWER: (or another format).

Any unit of the same dimension is right (0.012 kN for 12 N). Units are read by a small grammar over a list of
symbols, and only those symbols ever reach pint: its own parser would evaluate a model's expressions. The typography is
free (1,200 J, 1.2×10^3 J, N·m, kg m/s², $12\\,\\text{N}$); names of units and other letters are not (newton, n).
"""

import random
import re
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from typing import Annotated

import pint
from pydantic import Field

from fst_bench.core.types import Problem, Score
from fst_bench.tasks.base import CORRECT, Difficulty, Draft, clip
from fst_bench.tasks.formats import AnswerFormat, Wrapped, unbold

MAX_LINE = 120
NUMBER = re.compile(
    r"([+-]?(?:(?:\d{1,3}(?:,\d{3})+|\d{1,3}(?: \d{3})+|\d{1,30})(?:\.\d{1,30})?|\.\d{1,30})(?:[eE][+-]?\d{1,2})?)"
    r"(?:\s*[*x]\s*10\s*\^([+-]?\d{1,2}))?\s*(.*)",
    re.ASCII | re.DOTALL,
)
FACTOR = re.compile(r"(\s*[*/]\s*|\s+|)([A-Za-z]{1,8})(?:\^(-?\d))?", re.ASCII)
SIGNS = str.maketrans(
    {"−": "-", "×": "*", "·": "*", "⋅": "*", "Ω": "ohm", "\u00a0": " ", "\u2009": " ", "\u202f": " ", "$": ""}
)
RAISED = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-")
LATEX = [
    (re.compile(r"\\[,;: ]|~"), " "),
    (re.compile(r"\\(?:times|cdot)(?![A-Za-z])"), "*"),
    (re.compile(r"\\(?:text|mathrm)\s*\{([^{}]*)\}"), r"\1"),
    (re.compile(r"\^\s*\{\s*([+-]?\d+)\s*\}"), r"^\1"),
]
SYMBOLS = frozenset(
    f"{prefix}{unit}"
    for prefix in ("", "k", "M", "m", "c")
    for unit in ("m", "g", "s", "N", "J", "W", "V", "A", "C", "Pa", "Hz")
) | {"kg", "ohm", "kohm", "h", "min", "L"}


@dataclass(frozen=True)
class Formula:
    """One step of a chain: `name` = the chain's running quantity times `operand`, in `unit`."""

    name: str
    operand: str
    unit: str
    asks: str


@dataclass(frozen=True)
class Start:
    """The quantity a chain starts from, and the formulas that may follow."""

    symbol: str
    unit: str
    sentence: str


FORMULAS: dict[str, list[tuple[Formula, str]]] = {
    "m": [
        (Formula("F", "a", "N", "force"), "accelerates at {} m/s^2"),
        (Formula("p", "v", "kg*m/s", "momentum"), "moves at {} m/s"),
    ],
    "F": [(Formula("W", "d", "J", "work"), "over {} m"), (Formula("P", "v", "W", "power"), "at {} m/s")],
    "I": [
        (Formula("V", "R", "V", "voltage"), "flows through {} ohm"),
        (Formula("q", "t", "C", "charge"), "flows for {} s"),
    ],
    "V": [(Formula("P", "J", "W", "power"), "with {} A drawn")],
    "P": [(Formula("E", "t", "J", "energy"), "for {} s")],
    "v": [(Formula("d", "t", "m", "distance"), "is kept for {} s")],
    "d": [(Formula("W", "F", "J", "work"), "against {} N")],
    "q": [(Formula("E", "U", "J", "energy"), "across {} V")],
}
STARTS = [
    Start("m", "kg", "A mass of {} kg"),
    Start("I", "A", "A current of {} A"),
    Start("v", "m/s", "A speed of {} m/s"),
]


class PhysicsDifficulty(Difficulty):
    steps: Annotated[int, Field(ge=1, le=3)] = 3
    max_value: Annotated[int, Field(ge=3, le=1000)] = 30
    answer_format: AnswerFormat = "answer"


class Physics(Wrapped):
    name = "physics"
    Difficulty = PhysicsDifficulty
    own = "answer"
    asked = "the final answer with its unit"
    protocol = "Write ANSWER: before the final answer with its unit."
    hint = "It helps to set up the formula and put in the numbers."
    levels = [{"steps": 1, "max_value": 9}, {"steps": 2, "max_value": 6}, {}, {"steps": 3, "max_value": 1000}]

    def draw(self, rng: random.Random) -> Draft:
        d = self.difficulty
        while True:
            start = rng.choice(STARTS)
            value = first = rng.randint(2, d.max_value)
            symbol, parts = start.symbol, [start.sentence.format(value)]
            steps: list[tuple[Formula, str, int, int]] = []
            while len(steps) < d.steps and symbol in FORMULAS:
                formula, phrase = rng.choice(FORMULAS[symbol])
                operand = rng.randint(2, d.max_value)
                steps.append((formula, symbol, value, operand))
                parts.append(phrase.format(operand))
                value, symbol = value * operand, formula.name
            if len(steps) == d.steps:
                break
        last = steps[-1][0]
        text = f"{' '.join(parts)}. Find the {last.asks}."
        return Draft(text, text, f"{value} {last.unit}", {"first": first, "steps": steps})

    def check(self, problem: Problem, text: str) -> Score:
        line, subject = self.wrapper.read(text), self.wrapper.subject
        if not line:
            return Score(
                0.0,
                self.teach(f"The answer was expected {self.wrapper.wanted}, and nothing was found there.", text),
                "unparseable",
            )
        given, gold = read_quantity(line) if len(line) <= MAX_LINE else None, read_quantity(problem.answer)
        assert gold is not None
        if given is None:
            return Score(
                0.0,
                self.teach(f"{subject} says {clip(line)}, which is not a number with a unit.", text),
                "unparseable",
                clip(line),
            )
        if given[1] != gold[1]:
            diagnosis = (
                f"{subject} says {clip(line)}, whose unit does not measure what was asked; {problem.answer} was right."
            )
        elif abs(given[0] - gold[0]) > abs(gold[0]) / 1000:
            diagnosis = f"{subject} says {clip(line)}, but {problem.answer} is right."
        else:
            return Score(1.0, CORRECT, "ok", clip(line))
        return Score(0.0, self.teach(diagnosis, text), "wrong", clip(line))

    def wrong_texts(self, problem: Problem) -> list[str]:
        number, unit = problem.answer.split(" ")
        return [
            problem.answer,
            self.write(number),
            self.write(f"{2 * int(number)} {unit}"),
            self.write(f"{number} {'Pa' if unit != 'Pa' else 'N'}"),
            self.write(f"{number} k{unit}") if unit in ("N", "J", "W", "V", "C", "m") else self.write(f"{number} mN"),
            self.write(problem.answer) + "\n" + self.write(f"0 {unit}"),
            self.write(f"nan {unit}"),
        ]


@cache
def base_unit(symbol: str) -> tuple[Fraction, tuple[tuple[str, int], ...]]:
    """Return a listed symbol as (factor, powers) of SI base units."""
    registry = _registry()
    quantity = (1 * registry.Unit(symbol)).to_base_units()
    powers = tuple(sorted((str(name), int(power)) for name, power in quantity.unit_items()))
    # pint works in floats here; every listed unit is a power of ten or a small integer, exact to nine digits
    return Fraction(str(round(float(quantity.magnitude), 9))).limit_denominator(10**9), powers


@cache
def _registry() -> "pint.UnitRegistry":
    return pint.UnitRegistry()


def plain(line: str) -> str:
    """Return a quantity in the grammar's signs, its typography and LaTeX rewritten."""
    line = re.sub("[⁰¹²³⁴⁵⁶⁷⁸⁹⁻]+", lambda raised: f"^{raised[0].translate(RAISED)}", line.translate(SIGNS))
    for latex, sign in LATEX:
        line = latex.sub(sign, line)
    return unbold(line.strip().rstrip(".")).rstrip(".").rstrip()


def read_quantity(line: str) -> tuple[Fraction, tuple[tuple[str, int], ...]] | None:
    """Return a line such as '12 kg*m/s^2' as (value in SI base units, dimension).

    None where it is not a number and a unit.
    """
    match = NUMBER.fullmatch(plain(line))
    if match is None:
        return None
    value = Fraction(re.sub("[, ]", "", match[1])) * Fraction(10) ** int(match[2] or 0)
    rest, powers = match[3].strip(), dict[str, int]()
    if not rest:
        return None
    at = 0
    while at < len(rest):
        factor = FACTOR.match(rest, at)
        if factor is None or factor[2] not in SYMBOLS or (at > 0) != bool(factor[1]):
            return None
        power = int(factor[3] or 1) * (-1 if factor[1].strip() == "/" else 1)
        scale, dimension = base_unit(factor[2])
        value *= scale**power
        for name, exponent in dimension:
            powers[name] = powers.get(name, 0) + exponent * power
        at = factor.end()
    return value, tuple(sorted((name, p) for name, p in powers.items() if p))
