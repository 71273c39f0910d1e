"""Tables over seeds: means with 95 % t-intervals, and differences to a reference method, paired by seed.

The held-out problems are the same for every seed, so an interval says what another seed would do on these problems.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from rich import box
from rich.table import Table as RichTable

from fst_bench.analysis.curves import asymptotes, curve_of, efficiency_ratios
from fst_bench.analysis.runs import Runs, methods_of
from fst_bench.analysis.writers import csv_table, escape_latex, latex_table, markdown_table
from fst_bench.harness.rows import label
from fst_bench.harness.run import Run
from fst_bench.metrics import THRESHOLDS, Estimate, holm, least_kl, p_value, read_off, t_interval
from fst_bench.metrics.paired_curves import AXES

NO_NUMBER = Estimate(math.nan)
MARKS = {"exactly": "", "at least": ">", "at most": "<"}
"""What a ratio is -> the sign before it."""


@dataclass(frozen=True)
class Cell:
    """A number of a table, with its interval."""

    estimate: Estimate
    digits: int = 2
    difference: bool = False
    """Whether it is a difference: it has a sign."""
    mark: str = ""
    """Sign before the value: < or > of a bound."""
    clear: bool = False
    """Whether it is a difference that is clear of zero, corrected for the others of its table: it is bold."""

    def __str__(self) -> str:
        value, low, high = self.estimate.value, self.estimate.low, self.estimate.high
        if math.isnan(value):
            return "–"
        sign = "+" if self.difference else ""
        text = f"{self.mark}{value:{sign},.{self.digits}f}"
        if self.digits == 0 or math.isnan(low):
            return text
        if abs((low + high) / 2 - value) < 1e-9:
            return f"{text} ± {self.estimate.half:.{self.digits}f}"
        return f"{text} ({low:.{self.digits}f} to {high:.{self.digits}f})"


@dataclass(frozen=True)
class Row:
    """A method's row."""

    label: str
    seeds: int
    cells: list[Cell]


@dataclass(frozen=True)
class Table:
    """A table of a comparison."""

    title: str
    columns: list[str]
    rows: list[Row]
    differences: list[Row]
    """Differences to the reference method; none where it has no run."""
    reference: str
    note: str = ""

    @property
    def head(self) -> list[str]:
        return ["method", "seeds", *self.columns]


USD = "reflection USD"
MODES = {"own prompt": "system", "greedy": "greedy", "seed prompt": "seed", "oracle prompt": "oracle"}
"""Name in a column -> prompt mode."""


def accuracy(run: Run) -> dict[str, float]:
    """Return the columns of the table Learning."""
    stages = run.metrics["stages"]
    ends = [stage["end"]["system"] for stage in stages]
    online = [stage["online"] for stage in stages]
    named = {f"{stage['stage']} {label(stage['tasks'])}": stage["end"]["system"] for stage in stages}
    greedy = [stage["end"]["greedy"] for stage in stages if "greedy" in stage["end"]]
    return (
        named
        | {"end-of-stage accuracy": mean(ends)}
        | ({"end-of-stage, greedy": mean(greedy)} if greedy else {})
        | {"online accuracy": mean(online)}
    )


def memory(run: Run) -> dict[str, float]:
    """Return the columns of the table Remembering."""
    final, transfer = run.metrics["final_average"], run.metrics["transfer"]["system"]
    ends = {f"end, {name}": final[mode] for name, mode in MODES.items() if mode in final}
    return (
        {"so far": run.so_far}
        | ends
        | {name: transfer[name] for name in ("anytime", "bwt", "forgetting", "fwt") if transfer[name] is not None}
    )


def cost(run: Run) -> dict[str, float]:
    """Return the columns of the table Spending."""
    spent = run.ledger
    usd = spent.get("reflection_usd", 0.0)
    return {
        "KL": mean([stage["kl"]["system"] for stage in run.metrics["stages"]]),
        "rollouts": float(sum(spent["rollouts"].values())),
        "sampled tokens": float(spent["sampled_tokens"]),
        "seconds": float(sum(spent["seconds"].values())),
        USD: math.nan if usd is None else float(usd),
    }


def drifted(run: Run) -> dict[str, float]:
    """Return the columns of the table Drift: means over tasks at the run's last checkpoint."""
    rows = run.probe("drift")
    last = rows[rows["step"] == rows["step"].max()].set_index(["prompt_mode", "direction", "task"])
    policy, base = (last.loc["system", direction] for direction in ("policy||base", "base||policy"))
    floors = [
        least_kl(ours, theirs, n)
        for ours, theirs, n in zip(policy["accuracy"], base["accuracy"], policy["n"], strict=True)
    ]
    kl = mean(policy["kl_per_answer"].tolist())
    least = mean(floors)
    found = {"KL per answer": kl, "least": least, "excess": kl - least}
    if "neutral" in last.index:
        found["neutral contexts"] = mean(last.loc["neutral", "policy||base"]["kl_per_answer"].tolist())
    return found


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


TABLES: dict[str, tuple[Callable[[Run], dict[str, float]], str]] = {
    "Learning": (
        accuracy,
        "Accuracy under the method's own prompt: on each stage's tasks at its end, the mean of those (end-of-stage "
        "accuracy), the same with the likeliest tokens (greedy), where that was measured, and the mean of all "
        "evaluations of a stage's tasks while it lasted (online accuracy).",
    ),
    "Remembering": (
        memory,
        "Under the method's own prompt, the tasks whose stage has begun, mean over the stream's problems (so far); all "
        "tasks at its end, under the own prompt, the seed prompt and the prompt it had at the end of that task's stage "
        "(an oracle); own-prompt accuracy after every stage over the tasks met so far (anytime); and transfer under "
        "the own prompt.",
    ),
    "Spending": (
        cost,
        "KL to the base in nats per token under the own prompt, mean over the ends of the stages, and what was spent "
        "(evaluations are in the seconds only).",
    ),
}
"""Title -> its columns of a run, and its note."""
BOLD = "Bold: clear of zero by a paired t-test over seeds, with Holm's correction for all differences of the table."
EQUAL = (
    "Each method read off where it has sampled as many tokens as {} does in the whole stream, by the same seed: means "
    "over the tokens until there of the accuracy on the tasks whose stage has begun (so far) and on those in training "
    "(online), and the accuracy on all tasks there. A method that has spent more by then has met fewer tasks; one that "
    "spends less keeps its last accuracy."
)
DRIFT_NOTE = (
    "KL to the base in nats per answer at the end of the stream, under the method's own prompts, mean over tasks; the "
    "least that the change in accuracy implies there, the excess over it, and the KL under neutral contexts, the same "
    "for all methods (probe drift)."
)
FITTED = (
    "A sigmoid fitted to the mean over seeds, its interval by bootstrap over seeds; – where the curve does not bend "
    "enough to tell."
)
FEWER = (
    "{}'s problems until an accuracy is reached, those that were looked at ahead included, divided by the method's: "
    "the geometric mean over seeds, with the t-interval of the logarithms. It is reached where the mean of two "
    "consecutive evaluations is; they are {:,.0f} problems apart. < and > where a curve never gets there, and stands "
    "in with all that it spent; – where neither does, or one is there before learning."
)
DIGITS = {"KL": 3, "rollouts": 0, "sampled tokens": 0, "seconds": 0}


def columns(run: Run) -> dict[str, float]:
    """Return every number that the tables show of one run."""
    return {name: value for columns_of, _ in TABLES.values() for name, value in columns_of(run).items()}


def tables(runs: Runs, reference: str = "rl") -> list[Table]:
    """Return the tables: a row a method, and the differences to `reference` over the seeds that both have."""
    made = {title: seed_table(title, note, of, runs, reference) for title, (of, note) in TABLES.items()}
    if all(not run.probe("drift").empty for run in runs):
        made["Drift"] = seed_table("Drift", DRIFT_NOTE, drifted, runs, reference)
    if len(runs[0].stages) > 1:
        spent = {run.seed: run.ledger["sampled_tokens"] for run in runs if run.method == reference}
        paid = tuple(run for run in runs if spent.get(run.seed))
        if paid:  # of the base, which spends nothing, there is nothing to read off
            made["At equal tokens"] = seed_table(
                "At equal tokens",
                EQUAL.format(reference),
                lambda run: read_off(
                    run.evals.to_dict("records"), [stage.model_dump() for stage in run.stages], spent[run.seed]
                ),
                paid,
                reference,
            )
        return list(made.values())
    # nothing to remember in a single stage
    made.pop("Remembering")
    return [*made.values(), *efficiency_tables(runs, reference)]


def seed_table(title: str, note: str, of: Callable[[Run], dict[str, float]], runs: Runs, reference: str) -> Table:
    """Return a table of some columns of every run."""
    values = {(run.method, run.seed): of(run) for run in runs}
    # embedded reflectors cost nothing: no column then; an unknown price is NaN, and shown
    names = [name for name in of(runs[0]) if name != USD or any(found[USD] != 0 for found in values.values())]
    methods = methods_of(runs)
    seeds = {m: sorted(run.seed for run in runs if run.method == m) for m in methods}

    def cell(name: str, found: list[float], difference: bool = False, clear: bool = False) -> Cell:
        return Cell(t_interval(found), DIGITS.get(name, 2), difference, clear=clear)

    rows = [Row(m, len(seeds[m]), [cell(n, [values[m, s][n] for s in seeds[m]]) for n in names]) for m in methods]
    both = {m: [s for s in seeds[m] if s in seeds.get(reference, [])] for m in methods if m != reference}
    apart = {
        (m, name): [values[m, s][name] - values[reference, s][name] for s in shared]
        for m, shared in both.items()
        if shared
        for name in names
    }
    clear = dict(zip(apart, holm([p_value(found) for found in apart.values()]), strict=True))
    differences = [
        Row(m, len(shared), [cell(n, apart[m, n], True, clear[m, n]) for n in names])
        for m, shared in both.items()
        if shared
    ]
    return Table(title, names, rows, differences, reference, f"{note} {BOLD}" if differences else note)


def efficiency_tables(runs: Runs, reference: str) -> list[Table]:
    """Return asymptotes, and how many times fewer samples than the reference a method needs, a table an axis.

    The stream has one stage.
    """
    fits, ratios = asymptotes(runs), efficiency_ratios(runs, reference)
    some = curve_of(runs, runs[0].method, *runs[0].stages[0].tasks)
    every = float(np.diff(some.problems).max(initial=0))
    methods = methods_of(runs)
    seeds = {m: sum(run.method == m for run in runs) for m in methods}

    def asymptote(method: str) -> Cell:
        fit = fits.get(method)
        return Cell(NO_NUMBER if fit is None or not fit.identifiable else fit.estimate)

    def fewer(method: str, threshold: float, axis: str) -> Cell:
        ratio = ratios.get(method, {}).get(threshold, {}).get(axis)
        return Cell(NO_NUMBER) if ratio is None else Cell(ratio.estimate, mark=MARKS[ratio.bound])

    found = [
        Table("Asymptote", ["asymptote"], [Row(m, seeds[m], [asymptote(m)]) for m in methods], [], reference, FITTED)
    ]
    for axis in AXES:
        rows = [Row(m, seeds[m], [fewer(m, threshold, axis) for threshold in THRESHOLDS]) for m in methods]
        columns = [f"to {threshold:g}" for threshold in THRESHOLDS]
        note = FEWER.format(reference, every) if axis == "problems" else f"The same in {axis}."
        found.append(Table(f"Times fewer {axis}", columns, rows, [], reference, note))
    return found


# --- the same tables for readers, papers and programs


def markdown(table: Table) -> str:
    def line(row: Row) -> list[str]:
        cells = [f"**{cell}**" if cell.clear else str(cell) for cell in row.cells]
        return [row.label, str(row.seeds), *cells]

    parts = [f"**{table.title}.** {table.note}", markdown_table(table.head, [line(row) for row in table.rows])]
    if table.differences:
        head = [f"minus {table.reference}", *table.head[1:]]
        parts.append(markdown_table(head, [line(row) for row in table.differences]))
    return "\n\n".join(parts)


def latex(table: Table) -> str:
    def line(row: Row) -> list[str]:
        cells = [(escape_latex(str(cell)), cell.clear) for cell in row.cells]
        texts = [rf"\textbf{{{text}}}" if clear else text for text, clear in cells]
        return [escape_latex(row.label), str(row.seeds), *texts]

    head = ["", *map(escape_latex, table.head[1:])]
    caption = escape_latex(f"{table.title}. {table.note}")
    heading = f"minus {escape_latex(table.reference)}, paired by seed"
    groups = {heading: [line(row) for row in table.differences]} if table.differences else {}
    alignment = "l" + "r" * (len(head) - 1)
    return latex_table(head, [line(row) for row in table.rows], caption, alignment, "table", groups)


def spreadsheet(made: Iterable[Table]) -> str:
    """Return CSV in long form, full precision: a row a number."""
    return csv_table(
        [
            {
                "table": table.title,
                "kind": kind,
                "method": row.label,
                "seeds": row.seeds,
                "column": name,
                "value": cell.estimate.value,
                "low": cell.estimate.low,
                "high": cell.estimate.high,
                "bound": cell.mark,
            }
            for table in made
            for kind, rows in (("mean", table.rows), (f"minus {table.reference}", table.differences))
            for row in rows
            for name, cell in zip(table.columns, row.cells, strict=True)
        ]
    )


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
    for name in table.head[1:]:
        shown.add_column(name, justify="right")
    for row in table.rows:
        shown.add_row(row.label, str(row.seeds), *map(str, row.cells))
    if table.differences:
        shown.add_section()
    for row in table.differences:
        cells = [f"[bold]{cell}[/bold]" if cell.clear else str(cell) for cell in row.cells]
        shown.add_row(f"{row.label} - {table.reference}", str(row.seeds), *cells)
    return shown
