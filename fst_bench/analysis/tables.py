"""Tables over seeds: means with 95 % t-intervals, and differences to a reference method, paired by seed.

The held-out problems are the same for every seed, so an interval says what another seed would do on these problems.
"""

import csv
import io
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache

import numpy as np
from rich import box
from rich.table import Table as RichTable
from scipy.stats import t as student

from fst_bench.analysis.curves import asymptotes, curve_of, peak_ratios
from fst_bench.analysis.runs import Finished, Runs, methods_of


@dataclass(frozen=True)
class Cell:
    """A number with its interval; `low` and `high` are NaN where there is none."""

    value: float
    low: float = math.nan
    high: float = math.nan
    digits: int = 2
    difference: bool = False
    mark: str = ""
    """Written before the value: '<' where it is a bound."""

    @property
    def clear(self) -> bool:
        """A difference whose interval excludes zero."""
        return self.difference and (self.low > 0 or self.high < 0)

    def __str__(self) -> str:
        if math.isnan(self.value):
            return "–"
        sign = "+" if self.difference else ""
        text = f"{self.mark}{self.value:{sign},.{self.digits}f}"
        if self.digits == 0 or math.isnan(self.low):
            return text
        if abs((self.low + self.high) / 2 - self.value) < 1e-9:
            return f"{text} ± {(self.high - self.low) / 2:.{self.digits}f}"
        return f"{text} ({self.low:.{self.digits}f} to {self.high:.{self.digits}f})"


@dataclass(frozen=True)
class Row:
    label: str
    seeds: int
    cells: list[Cell]


@dataclass(frozen=True)
class Table:
    title: str
    columns: list[str]
    rows: list[Row]
    differences: list[Row]
    """To the reference method; none where it is not there."""
    reference: str
    note: str = ""


def interval(values: list[float]) -> tuple[float, float]:
    """(mean, half width of its 95 % t-interval over seeds); the half width of one value is NaN."""
    n, mean = len(values), sum(values) / len(values)
    if n < 2:
        return mean, math.nan
    deviation = math.sqrt(sum((v - mean) ** 2 for v in values) / (n - 1))
    return mean, quantile(n - 1) * deviation / math.sqrt(n)


@cache
def quantile(freedom: int) -> float:
    """Of Student's t at 97.5 %."""
    return float(student.ppf(0.975, freedom))


USD = "reflection USD"
MODES = {"own prompt": "system", "weights only": "seed", "recalled": "recalled"}


def accuracy(run: Finished) -> dict[str, float]:
    stages = run.metrics["stages"]
    own, within = [stage["end"]["system"] for stage in stages], [stage["within"] for stage in stages]
    named = {f"{stage['stage']} {stage['task']}": stage["end"]["system"] for stage in stages}
    return named | {"stages' ends": sum(own) / len(own), "within stages": sum(within) / len(within)}


def memory(run: Finished) -> dict[str, float]:
    final = run.metrics["final_average"]
    ends = {f"end, {label}": final[mode] for label, mode in MODES.items() if mode in final}
    told = {name: run.metrics["transfer"]["system"][name] for name in ("anytime", "bwt", "forgetting", "fwt")}
    return ends | {name: value for name, value in told.items() if value is not None}


def cost(run: Finished) -> dict[str, float]:
    stages, spent = run.metrics["stages"], run.ledger
    return {
        "KL": sum(stage["kl"]["system"] for stage in stages) / len(stages),
        "rollouts": float(sum(spent["rollouts"].values())),
        "sampled tokens": float(spent["sampled_tokens"]),
        "seconds": float(sum(spent["seconds"].values())),
        USD: math.nan if (usd := spent.get("reflection_usd", 0.0)) is None else float(usd),
    }


TABLES: dict[str, tuple[Callable[[Finished], dict[str, float]], str]] = {
    "Learning": (
        accuracy,
        "Accuracy under the method's own prompt: each stage's task at the stage's end, their mean, and the mean of all evaluations within stages.",
    ),
    "Remembering": (
        memory,
        "All tasks at the end of the stream, under the method's own prompt, under the seed prompt (weights only) and under the prompt it had at the "
        "end of that task's stage (recalled, an oracle); own-prompt accuracy after every stage over the tasks met so far (anytime); and transfer under the own prompt.",
    ),
    "Spending": (
        cost,
        "KL to the base in nats per token at the stages' ends under the own prompt, and what was spent (evaluations are in the seconds only).",
    ),
}
DIGITS = {"KL": 3, "rollouts": 0, "sampled tokens": 0, "seconds": 0}


def columns(run: Finished) -> dict[str, float]:
    """Every number that the tables show of one run."""
    return {name: value for of, _ in TABLES.values() for name, value in of(run).items()}


def tables(runs: Runs, reference: str = "rl") -> list[Table]:
    """A row a method, and the differences to `reference` over the seeds that both have."""
    made = [seed_table(title, note, of, runs, reference) for title, (of, note) in TABLES.items()]
    if len(runs[0].stages) == 1:
        made.append(efficiency_table(runs, reference))
        del made[1]  # nothing to remember
    return made


def seed_table(title: str, note: str, of: Callable[[Finished], dict[str, float]], runs: Runs, reference: str) -> Table:
    values = {(run.method, run.seed): of(run) for run in runs}
    # embedded reflectors cost nothing: no column then; an unknown price is NaN, and shown
    names = [name for name in of(runs[0]) if name != USD or any(found[USD] != 0 for found in values.values())]
    methods = methods_of(runs)
    seeds = {m: sorted(run.seed for run in runs if run.method == m) for m in methods}

    def cell(name: str, found: list[float], difference: bool = False) -> Cell:
        mean, half = interval(found)
        return Cell(mean, mean - half, mean + half, DIGITS.get(name, 2), difference)

    rows = [
        Row(m, len(seeds[m]), [cell(name, [values[m, s][name] for s in seeds[m]]) for name in names]) for m in methods
    ]
    differences = []
    for m in methods:
        both = [s for s in seeds[m] if s in seeds.get(reference, [])]
        if m != reference and both:
            cells = [
                cell(name, [values[m, s][name] - values[reference, s][name] for s in both], True) for name in names
            ]
            differences.append(Row(m, len(both), cells))
    return Table(title, names, rows, differences, reference, note)


def efficiency_table(runs: Runs, reference: str) -> Table:
    """Of a stream of one task: asymptotes, and how many times fewer samples than the reference needs for its own peak."""
    names = ["asymptote", *(f"fewer {axis}" for axis in ("problems", "rollouts", "tokens"))]
    fits, ratios = asymptotes(runs), peak_ratios(runs, reference)
    every = float(np.diff(curve_of(runs, runs[0].method, runs[0].stages[0]["task"]).problems).max(initial=0))
    rows = []
    for m in methods_of(runs):
        fit = fits.get(m)
        cells = [
            Cell(math.nan) if fit is None else Cell(fit.A, fit.low, fit.high, mark="" if fit.identifiable else "?")
        ]
        for ratio in ratios.get(m, [None] * 3):
            cells.append(
                Cell(math.nan)
                if ratio is None
                else Cell(ratio.value, ratio.low, ratio.high, mark="<" if ratio.censored else "")
            )
        rows.append(Row(m, sum(run.method == m for run in runs), cells))
    note = (
        f"Asymptote: a sigmoid fitted to the mean over seeds, its interval by bootstrap over seeds, ? where it is not identifiable. Fewer: {reference}'s samples at the highest point of "
        f"its mean curve, divided by the method's samples at its first evaluation at least as high; < where it never gets there. Problems that were looked at ahead count. Evaluations are {every:,.0f} problems apart, and a peak of small evaluations is biased upward."
    )
    return Table("Sample efficiency", names, rows, [], reference, note)


# --- the same tables for readers, papers and programs


def markdown(table: Table) -> str:
    lines = [f"**{table.title}.** {table.note}", "", *grid(["method", "seeds", *table.columns], table.rows)]
    if table.differences:
        lines += ["", *grid([f"minus {table.reference}", "seeds", *table.columns], table.differences)]
    return "\n".join(lines)


def grid(head: list[str], rows: Iterable[Row]) -> list[str]:
    body = [
        [row.label, str(row.seeds), *(f"**{cell}**" if cell.clear else str(cell) for cell in row.cells)] for row in rows
    ]
    return ["| " + " | ".join(cells) + " |" for cells in [head, ["---"] * len(head), *body]]


def latex(table: Table) -> str:
    """A booktabs tabular in a table float."""

    def line(row: Row) -> str:
        cells = [
            (rf"\textbf{{{cell}}}" if cell.clear else str(cell)).replace(" ± ", r" $\pm$ ").replace("–", "--")
            for cell in row.cells
        ]
        return " & ".join([escaped(row.label), str(row.seeds), *cells]) + r" \\"

    head = " & ".join(escaped(name) for name in ["", "seeds", *table.columns]) + r" \\"
    parts = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{escaped(table.title + '. ' + table.note)}}}",
        rf"\begin{{tabular}}{{l{'r' * (len(table.columns) + 1)}}}",
    ]
    parts += [r"\toprule", head, r"\midrule", *map(line, table.rows)]
    if table.differences:
        span = len(table.columns) + 2
        parts += [
            r"\midrule",
            rf"\multicolumn{{{span}}}{{l}}{{minus {escaped(table.reference)}, paired by seed}} \\",
            *map(line, table.differences),
        ]
    return "\n".join([*parts, r"\bottomrule", r"\end{tabular}", r"\end{table}"])


def escaped(text: str) -> str:
    for sign in "&%$#_{}":
        text = text.replace(sign, "\\" + sign)
    return text.replace("<", "$<$").replace("–", "--")


def spreadsheet(made: Iterable[Table]) -> str:
    """CSV in long form, full precision: table, kind (mean or difference), method, seeds, column, value, low, high, bound."""
    out = io.StringIO()
    write = csv.writer(out, lineterminator="\n").writerow
    write(["table", "kind", "method", "seeds", "column", "value", "low", "high", "bound"])
    for table in made:
        for kind, rows in (("mean", table.rows), (f"minus {table.reference}", table.differences)):
            for row in rows:
                for name, cell in zip(table.columns, row.cells, strict=True):
                    numbers = ["" if math.isnan(x) else repr(float(x)) for x in (cell.value, cell.low, cell.high)]
                    write([table.title, kind, row.label, row.seeds, name, *numbers, cell.mark])
    return out.getvalue()


def terminal(table: Table) -> RichTable:
    shown = RichTable(
        title=table.title,
        caption=table.note,
        title_justify="left",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        title_style="bold",
    )
    shown.add_column("method", no_wrap=True)
    for name in ("seeds", *table.columns):
        shown.add_column(name, justify="right")
    for row in table.rows:
        shown.add_row(row.label, str(row.seeds), *map(str, row.cells))
    if table.differences:
        shown.add_section()
    for row in table.differences:
        shown.add_row(
            f"{row.label} - {table.reference}",
            str(row.seeds),
            *(f"[bold]{cell}[/bold]" if cell.clear else str(cell) for cell in row.cells),
        )
    return shown
