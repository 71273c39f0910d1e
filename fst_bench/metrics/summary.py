"""metrics.json of a run, from its raw evaluation rows only."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from fst_bench.metrics.transfer import mean, transfer


def seen_so_far(rows: Sequence[Mapping[str, Any]], stages: Sequence[Mapping[str, Any]]) -> dict[int, float]:
    """Return problems -> the mean accuracy, under the method's own prompt, on the tasks whose stage has begun by then.

    `rows` are evaluation rows, `stages` have tasks and start. Before learning it is the first stage's tasks.
    """
    return {
        problems: mean([accuracy[task] for task in dict.fromkeys(t for stage in begun for t in stage["tasks"])])
        for problems, accuracy, begun in evaluations(rows, stages)
    }


def evaluations(
    rows: Sequence[Mapping[str, Any]], stages: Sequence[Mapping[str, Any]]
) -> list[tuple[int, dict[str, float], list[Mapping[str, Any]]]]:
    """Return (problems, task -> accuracy under the own prompt, stages that have begun) of every evaluation, in order.

    Before learning it is the first stage.
    """
    found: dict[int, dict[str, float]] = {}
    for row in rows:
        if row["prompt_mode"] == "system":
            found.setdefault(row["problems"], {})[row["task"]] = row["accuracy"]
    return [
        (problems, accuracy, [stage for stage in stages if stage["start"] < max(problems, 1)])
        for problems, accuracy in sorted(found.items())
    ]


def read_off(rows: Sequence[Mapping[str, Any]], stages: Sequence[Mapping[str, Any]], tokens: float) -> dict[str, float]:
    """Return what a run shows once it has sampled `tokens` tokens, under the method's own prompt.

    `so far` and `online` are means over the tokens until then: of the accuracy on the tasks whose stage has begun, and
    on the tasks of the stage that is trained. `all tasks` is the accuracy on all of them there. Between evaluations is
    a straight line, and a run that ends before keeps its last accuracy. Rows have the tokens sampled until then.
    """
    assert tokens > 0
    spent = {row["problems"]: float(row["tokens"]) for row in rows}
    curves: dict[str, list[float]] = {"so far": [], "online": [], "all tasks": []}
    x = []
    for problems, accuracy, begun in evaluations(rows, stages):
        x.append(spent[problems])
        met = dict.fromkeys(task for stage in begun for task in stage["tasks"])
        shown = {"so far": met, "online": begun[-1]["tasks"], "all tasks": accuracy}
        for name, tasks in shown.items():
            curves[name].append(mean([accuracy[task] for task in tasks]))

    def until(y: list[float]) -> float:
        inside = [i for i, at in enumerate(x) if at < tokens]
        ends = [*(y[i] for i in inside), float(np.interp(tokens, x, y))]
        return float(np.trapezoid(ends, [*(x[i] for i in inside), tokens])) / tokens

    return {name: until(y) for name, y in curves.items() if name != "all tasks"} | {
        "all tasks": float(np.interp(tokens, x, curves["all tasks"]))
    }


def area(curve: Mapping[int, float]) -> float:
    """Return the mean of a curve over its problems: the area under straight lines between them, by its length."""
    x, y = list(curve), list(curve.values())
    return float(np.trapezoid(y, x)) / (x[-1] - x[0]) if len(x) > 1 else y[0]


def summarise(rows: list[dict[str, Any]], stages: list[dict[str, Any]], spent: dict[str, Any]) -> dict[str, Any]:
    """Return metrics.json of a finished run.

    `rows` are evaluation rows, `stages` have stage (its number) and tasks, `spent` are the ledger's counts.

    - `matrix[mode][i][task]` is R[i, j], the accuracy on task j after stage i (0 is the base), for the prompt modes
      system and seed.
    - `transfer[mode]` are the numbers of `transfer(R)`.
    - `stages` has the accuracy on each stage's own tasks at the base, at the stage's end and at the stream's end, means
      over the tasks where there are several. `online` is the mean over all evaluations within the stage: its end alone
      may fall just after a method has turned to what comes next.
    - `final_average[mode]` is the mean over tasks at the stream's end.

    Raises ValueError that names a missing cell.
    """
    tasks = list(dict.fromkeys(task for stage in stages for task in stage["tasks"]))
    cells = {(r["stage"], r["task"], r["prompt_mode"]): r for r in rows if r["boundary"]}
    modes = list(dict.fromkeys(r["prompt_mode"] for r in rows if r["boundary"]))
    last = len(stages)

    def cell(stage: int, task: str, mode: str) -> dict[str, Any]:
        if (stage, task, mode) not in cells:
            raise ValueError(f"no boundary evaluation of {task} ({mode}) at the end of stage {stage}")
        return cells[stage, task, mode]

    def own(stage: dict[str, Any]) -> dict[str, Any]:
        number, mine = stage["stage"], stage["tasks"]
        online = [
            r["accuracy"] for r in rows if (r["stage"], r["prompt_mode"]) == (number, "system") and r["task"] in mine
        ]

        def at(stage: int, column: str) -> dict[str, float]:
            found = {
                mode: [cell(stage, task, mode)[column] for task in mine] for mode in modes if stage or mode != "oracle"
            }
            return {mode: mean(values) for mode, values in found.items() if None not in values}  # KL may not be taken

        return {
            "stage": number,
            "tasks": list(stage["tasks"]),
            "base": at(0, "accuracy"),
            "online": mean(online),
            "end": at(number, "accuracy"),
            "kl": at(number, "kl"),
            "kl_per_answer": at(number, "kl_per_answer"),
            "final": at(last, "accuracy"),
        }

    matrix = {
        mode: [{task: cell(i, task, mode)["accuracy"] for task in tasks} for i in range(last + 1)]
        for mode in modes
        if mode != "oracle"
    }
    return {
        "matrix": {mode: {str(i): row for i, row in enumerate(R)} for mode, R in matrix.items()},
        "transfer": {mode: asdict(transfer(R, [stage["tasks"] for stage in stages])) for mode, R in matrix.items()},
        "stages": [own(stage) for stage in stages],
        "final_average": {mode: mean([cell(last, task, mode)["accuracy"] for task in tasks]) for mode in modes},
        "ledger": spent,
    }
