"""Evaluation in a process of its own: it works on snapshots while learning continues.

A snapshot is all that an evaluation reads: the weights, the method's state with its oracles, and what was spent until
then. The loop writes it to RUN/pending/step-NNNNNN, and the evaluator writes its rows into it. The loop appends them in
the order of the schedule, so the records are those of evaluating inline, bit for bit at the same number of threads.

Snapshots stay until a checkpoint counts their rows. So nothing is lost where either process is killed: the loop starts
another evaluator, and a resumed run has what was not evaluated by its last checkpoint evaluated first. What the process
does is in `evaluator_process`.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from fst_bench.core.errors import RunError, explain
from fst_bench.harness.rows import AnswerRow, EvaluationRow
from fst_bench.harness.store import PENDING, Store, written

JOB, ROWS, LOG = "job.json", "rows.json", "evaluator.log"
BACKLOG = 4
"""Evaluations that may be open before learning waits: each has a copy of the weights on disk."""
PAUSE = 0.02
"""Seconds between two looks for an evaluation that learning waits for."""


class Evaluator:
    """The loop's side: it hands in snapshots, and takes their rows in order."""

    def __init__(self, store: Store, steps: Collection[int]):
        """Begin with the evaluations after `steps`, whose snapshots a run that is resumed has. All others are stale."""
        self.folder = store.path / PENDING
        self.store, self.open, self.taken = store, sorted(steps), list[int]()
        self.process: subprocess.Popen[str] | None = None
        for folder in self.folder.glob("step-*"):
            if folder != self.at(int(folder.name[5:11])) or int(folder.name[5:11]) not in self.open:
                shutil.rmtree(folder)
        if missing := [step for step in self.open if not (self.at(step) / JOB).exists()]:
            raise ValueError(f"{store.path}: the snapshot of step {missing[0]}, not evaluated yet, is gone")

    def at(self, step: int) -> Path:
        return self.folder / f"step-{step:06d}"

    def submit(self, step: int, state: dict[str, Any], save_policy: Callable[[Path], None]) -> None:
        """Hand in the snapshot of a step."""
        final = self.at(step)
        temporary = final.with_suffix(".tmp")
        with written(final):
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
            save_policy(temporary)
            (temporary / JOB).write_text(json.dumps(state))
            shutil.rmtree(final, ignore_errors=True)
            os.replace(temporary, final)
        self.open.append(step)
        if self.process is not None:
            self._ask(step)

    def rows(self, everything: bool) -> Iterator[tuple[list[EvaluationRow], list[AnswerRow], float]]:
        """Yield (rows, answers, seconds) of the evaluations that are done, in order.

        Waits until all are where `everything` is asked for, and until no more than BACKLOG are open in any case. Raises
        RunError in the evaluator's own words where it failed.
        """
        while self.open:
            path = self.at(self.open[0]) / ROWS
            if path.exists():
                found = json.loads(path.read_text())
                self.taken.append(self.open.pop(0))
                yield (
                    [explain(EvaluationRow, row, str(path)) for row in found["evals"]],
                    [explain(AnswerRow, row, str(path)) for row in found["answers"]],
                    found["seconds"],
                )
                continue
            self._alive()
            if not everything and len(self.open) <= BACKLOG:
                return
            time.sleep(PAUSE)

    def forget(self) -> None:
        """Remove the snapshots whose rows were taken: a checkpoint counts them now."""
        for step in self.taken:
            shutil.rmtree(self.at(step), ignore_errors=True)
        self.taken.clear()

    def close(self) -> None:
        """End the evaluator; what it works on is lost, and its snapshot is not."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def end(self) -> None:
        """Close it, and remove its folder: the run has all rows."""
        assert not self.open
        self.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _alive(self) -> None:
        """Start the evaluator where none works. Raises RunError where it ended by a fault of its own."""
        if self.process is not None:
            code = self.process.poll()
            if code is None:
                return
            if code > 0:
                said = (self.folder / LOG).read_text().strip().splitlines()
                raise RunError(f"the evaluator failed: {said[-1] if said else f'exit code {code}'}")
        with (self.folder / LOG).open("w") as log:
            command = [sys.executable, "-m", "fst_bench.harness.evaluator_process", str(self.store.path)]
            self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=log, stderr=log, text=True)
        for step in self.open:
            self._ask(step)

    def _ask(self, step: int) -> None:
        assert self.process is not None and self.process.stdin is not None
        with suppress(BrokenPipeError):  # it was killed: the next look starts another one
            self.process.stdin.write(f"{step}\n")
            self.process.stdin.flush()
