"""hover: is the claim supported by the passages, and by which ones? Protocol: VERDICT: ... EVIDENCE: titles.

A verdict alone would start at 50 %, so the exact set of supporting titles is asked too (our definition; the
HoVer data has claim, label and supporting titles; the paper does not state how it scores them).

Not part of the answer: bold type, a full stop or a semicolon at an end, quotes around a title, curly quotes, and HTML's
&amp;. Part of it: the labels, capital letters, one verdict, and all titles on one line, separated by semicolons.
"""

import html
import random
import re
from collections.abc import Sequence
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from fst_bench.core.types import Problem, Score
from fst_bench.tasks.base import CORRECT, TAIL, Difficulty, Draft, Task, clip
from fst_bench.tasks.formats import label, unbold

PEOPLE = "Ana Bob Carl Dina Eva Finn Gus Hana Ivan Jill Kim Leo Mia Nora Omar Pia".split()
FIRMS = "Corvex Zentro Quillo Marlin Optix Brio Tandem Vexar Lumen Nimbo Pyxis Astra Helix Rondo Sable Tycho".split()
CITIES = "Lima Oslo Cairo Paris Quito Delhi Milan Tokyo Bern Riga Accra Seoul Porto Hanoi Dakar Sofia".split()
COUNTRIES = (
    "Norland Sudria Estia Wesland Boria Calia Dovia Elmia Faria Galdia Hestia Istria Jovia Kestia Lusia Movia".split()
)
RULERS = "Queen King Duke Count Baron Prince Consul Regent Emir Sultan Mayor Shah Doge Rajah Khan Earl".split()
LEVELS = [PEOPLE, FIRMS, CITIES, COUNTRIES, RULERS]
STARTS = "Al Bel Cor Dar El Fen Gor Hal Ir Jas Kel Lor Mor Nal Or Pel".split()
ENDS = "bane cote dune fex gard holm ique jord kon lith mere nox pine rush tova wick".split()
FIRM = LEVELS.index(FIRMS)
GROUPS = 4
"""Groups of 64 firms each that `obscurity` chooses among."""
PROSE = ["{} works at {}.", "{} is based in {}.", "{} lies in {}.", "{} is ruled by the {}."]
CLAIMS = ["{} works at {}.", "{} works in {}.", "{} works in {}.", "{} works under the {}."]

VERDICT, EVIDENCE = label("VERDICT"), label("EVIDENCE")
ENTITY = re.compile(r"&(?:#\d{1,7}|#x[0-9a-f]{1,6}|[a-z]\w{1,30});", re.IGNORECASE | re.ASCII)
"""Only with its semicolon: without one the & of "M&Microphone" would begin one."""
QUOTES = str.maketrans("‘’“”", "''\"\"")

Passage = tuple[str, str, int]
"""(title, the name it states, its hop in the chain)"""


def known_firms() -> list[dict[str, list[str]]]:
    """Return for each group: city -> the four firms based there. The table is arbitrary, and always the same."""
    groups = []
    for group in range(GROUPS):
        firms = [start + end for start in STARTS[group * 4 : group * 4 + 4] for end in ENDS]
        random.Random(f"firms/{group}").shuffle(firms)
        groups.append({city: firms[i * 4 : i * 4 + 4] for i, city in enumerate(CITIES)})
    return groups


KNOWN_FIRMS = known_firms()


class HoverDifficulty(Difficulty):
    chains: Annotated[int, Field(ge=1, le=15)] = 6
    hops: Annotated[int, Field(ge=1, le=4)] = 3
    style: Literal["prose", "bare"] = "prose"
    """`bare` writes a fact as "title value.": a tiny model learns to look up what stands right after its key."""
    obscurity: Annotated[int, Field(ge=0, lt=GROUPS)] | None = None
    """With a number, no passage says where a firm is based: that has to be known. Firms are then of the group of this
    number, and are based in the same city in every problem. A model's pretraining text may have some groups more rarely
    than others. None: every fact is stated."""

    @model_validator(mode="after")
    def enough_hops(self) -> Self:
        if self.obscurity is not None and self.hops < 3:
            raise ValueError(
                f"obscurity leaves a claim of {self.hops} hops without a passage at its end: it takes 3 hops"
            )
        return self


class Hover(Task):
    name = "hover"
    Difficulty = HoverDifficulty
    protocol = "Write VERDICT: SUPPORTED or REFUTED and then EVIDENCE: with the titles."
    hint = "It helps to locate the linked facts and compare them with the claim."
    levels = [
        {"chains": 1, "hops": 1, "style": "bare"},
        {"chains": 3, "hops": 2, "style": "bare"},
        {},
        {"chains": 15, "hops": 4},
    ]

    def draw(self, rng: random.Random) -> Draft:
        d = self.difficulty
        levels = [rng.sample(names, d.chains) for names in LEVELS[: d.hops + 1]]
        stated = [hop for hop in range(d.hops) if d.obscurity is None or hop != FIRM]
        if d.obscurity is not None:
            levels[FIRM] = [rng.choice(KNOWN_FIRMS[d.obscurity][city]) for city in levels[FIRM + 1]]
        chains = [list(chain) for chain in zip(*levels, strict=True)]
        passages = [(chain[hop], chain[hop + 1], hop) for chain in chains for hop in stated]
        rng.shuffle(passages)
        chain = rng.choice(chains)
        supported = rng.random() < 0.5
        claimed = chain[-1] if supported else rng.choice([name for name in LEVELS[d.hops] if name != chain[-1]])
        claim = CLAIMS[d.hops - 1].format(chain[0], claimed)
        verdict = "SUPPORTED" if supported else "REFUTED"
        key = f"{sorted(map(tuple, chains))} {claim}"
        data = {"chains": chains, "chain": chain, "claimed": claimed, "claim": claim, "passages": passages}
        evidence = "; ".join(chain[hop] for hop in stated)
        return Draft(key, f"{self.context(passages)}\nClaim: {claim}", f"{verdict}: {evidence}", data)

    def context(self, passages: Sequence[Passage]) -> str:
        """Return passages as a reader gets them: a line each in prose, all on one line where the style is bare."""
        if self.difficulty.style == "bare":
            return "Facts: " + " ".join(f"{title} {value}." for title, value, _ in passages)
        return "\n".join(f"[{title}] {PROSE[hop].format(title, value)}" for title, value, hop in passages)

    def write(self, answer: str) -> str:
        verdict, titles = answer.split(": ", 1)
        return f"VERDICT: {verdict} EVIDENCE: {titles}"

    def check(self, problem: Problem, text: str) -> Score:
        given = read_labels(text)
        if given is None:
            diagnosis = "The answer was expected with the labels VERDICT: and EVIDENCE:, and they were not found."
            return Score(0.0, self.teach(diagnosis, text), "unparseable")
        right_verdict, right_titles = problem.answer.split(": ", 1)
        shown = clip(f"{given[0]}: {'; '.join(given[1])}")
        verdict, titles = plain_verdict(given[0]), plain_titles(given[1])
        if verdict not in ("SUPPORTED", "REFUTED"):
            return Score(
                0.0,
                self.teach(f"The verdict {clip(given[0], 20)!r} is neither SUPPORTED nor REFUTED.", text),
                "unparseable",
                shown,
            )
        if sorted(titles) == sorted(plain_titles(right_titles.split("; "))):
            if verdict == right_verdict:
                return Score(1.0, CORRECT, "ok", shown)
            diagnosis = f"The evidence is right, but the claim is {right_verdict}."
        else:
            diagnosis = f"The evidence given is {clip('; '.join(given[1]), 40)}, but the claim rests on {right_titles}."
        return Score(0.0, self.teach(diagnosis, text), "wrong", shown)

    def wrong_texts(self, problem: Problem) -> list[str]:
        verdict, titles = problem.answer.split(": ", 1)
        other = "REFUTED" if verdict == "SUPPORTED" else "SUPPORTED"
        return [
            problem.answer,
            self.write(f"{other}: {titles}"),
            self.write(f"{verdict}: {titles}; Zoe"),
            self.write(f"{verdict}: Zoe"),
            f"VERDICT: {verdict}",
            f"EVIDENCE: {titles} VERDICT: {verdict}",
            self.write(problem.answer) + "\n" + self.write(f"{other}: {titles}"),
            self.write(f"{verdict}: {titles}; {titles}"),
        ]


def read_labels(text: str) -> tuple[str, list[str]] | None:
    """Return (verdict, titles) after the last VERDICT: label, or None. Titles are on one line."""
    tail = text[-TAIL:]
    start = max((found.end() for found in VERDICT.finditer(tail)), default=None)
    evidence = None if start is None else EVIDENCE.search(tail, start)
    if evidence is None:
        return None
    line = tail[evidence.end() :].strip().partition("\n")[0]
    titles = [title.strip() for title in unescaped(line).split(";")]
    return (tail[start : evidence.start()].strip(), titles) if any(titles) else None


def plain_verdict(verdict: str) -> str:
    """Return what stands between the labels without the marks around it."""
    return verdict.translate(QUOTES).strip(" \t\r\n*`\"'.,;-")


def plain_titles(titles: Sequence[str]) -> list[str]:
    """Return the titles without their typography; a semicolon at the end of a line is followed by none."""
    return [plain for plain in map(plain_title, titles) if plain]


def plain_title(title: str) -> str:
    """Return a title with straight quotes, without bold type, quotes around it and a full stop behind it."""
    title = unescaped(title).translate(QUOTES)
    for _ in range(2):
        title = re.sub(r"""^(["'])(.+)\1$""", r"\2", unbold(title).removesuffix("."))
    return title.strip()


def unescaped(text: str) -> str:
    """Return a text with the marks that HTML writes as &amp; and its like."""
    return ENTITY.sub(lambda entity: html.unescape(entity[0]), text)
