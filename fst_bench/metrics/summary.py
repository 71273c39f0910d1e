"""What a run directory says of itself, metrics.json, from its raw evaluation rows only."""

from dataclasses import asdict
from typing import Any

from .transfer import mean, trained, transfer


def summarise(rows: list[dict[str, Any]], stages: list[dict[str, Any]], spent: dict[str, Any]) -> dict[str, Any]:
    """metrics.json of a finished run.

    `matrix[mode][i][task]` is R[i, j], accuracy on task j after stage i (0 is the base), for the prompt modes system
    and seed; `stages` has each stage's own task at the base, at the stage's end and at the stream's end, and `within`, its
    mean over all evaluations of the stage: the end alone may fall just after a method has turned to what comes next.
    A stage that trains several tasks has their plain means there. `transfer[mode]` are the numbers of `transfer(R)`. `rows` are evaluation rows, `stages` have number and task, `spent` are the ledger's counts. ValueError names a missing cell.
    """
    tasks = list(dict.fromkeys(task for stage in stages for task in trained(stage["task"])))
    cells = {(r["stage"], r["task"], r["prompt_mode"]): r for r in rows if r["boundary"]}
    modes = list(dict.fromkeys(r["prompt_mode"] for r in rows if r["boundary"]))
    last = len(stages)

    def cell(stage: int, task: str, mode: str) -> dict[str, Any]:
        if (stage, task, mode) not in cells:
            raise ValueError(f"no boundary evaluation of {task} ({mode}) at the end of stage {stage}")
        return cells[stage, task, mode]

    def own(stage: dict[str, Any]) -> dict[str, Any]:
        number, mine = stage["number"], trained(stage["task"])
        within = [r["accuracy"] for r in rows if (r["stage"], r["prompt_mode"]) == (number, "system") and r["task"] in mine]

        def at(stage: int, column: str) -> dict[str, float]:
            return {mode: mean([cell(stage, task, mode)[column] for task in mine]) for mode in modes if stage or mode != "recalled"}

        return {
            "stage": number,
            "task": stage["task"],
            "base": at(0, "accuracy"),
            "within": mean(within),
            "end": at(number, "accuracy"),
            "kl": at(number, "kl"),
            "kl_per_answer": at(number, "kl_per_answer"),
            "final": at(last, "accuracy"),
        }

    matrix = {
        mode: [{task: cell(i, task, mode)["accuracy"] for task in tasks} for i in range(last + 1)]
        for mode in modes if mode != "recalled"
    }  # fmt: skip
    return {
        "matrix": {mode: dict(zip(map(str, range(last + 1)), R, strict=True)) for mode, R in matrix.items()},
        "transfer": {mode: asdict(transfer(R, [stage["task"] for stage in stages])) for mode, R in matrix.items()},
        "stages": [own(stage) for stage in stages],
        "final_average": {mode: sum(cell(last, task, mode)["accuracy"] for task in tasks) / len(tasks) for mode in modes},
        "ledger": spent,
    }  # fmt: skip
