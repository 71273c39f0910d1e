"""A finished run with its model in hand: its weights and its method's answers at any stage's end."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from fst_bench.bench import Bench, recorded
from fst_bench.evaluate import TEST_SEED, Frozen
from fst_bench.lab import conversation
from fst_bench.policy import Ask, Sample
from fst_bench.seeds import seed_for
from fst_bench.store import Store, step_of
from fst_bench.tasks import Task
from fst_bench.turns import answers

Work = tuple[dict[str, Any], Callable[[], dict[str, Any]]]
"""(key of a row, what measures the rest of it)."""


class Opened:
    """ValueError where the directory is no finished run, or has lost the checkpoints of its stages' ends."""

    def __init__(self, path: Path):
        self.path, self.store = path, Store(path)
        self.config, spec = recorded(self.store)
        if not (path / "manifest.json").exists():
            raise ValueError(f"{path} is not finished: fst-bench resume {path}")
        bench = Bench(self.config, spec)
        self.stream, self.policy, self.method = bench.stream, bench.policy, bench.method
        self.ends = dict(zip((stage.number for stage in self.stream.stages), bench.ends, strict=True))
        """Stage number -> the step after which it has ended."""
        self.loaded = 0

    @property
    def steps(self) -> list[int]:
        """The steps of every checkpoint that is there, the stages' ends among them."""
        return [step_of(folder) for folder in self.store.checkpoints()]

    def load(self, step: int) -> None:
        """The weights after a step that has a checkpoint."""
        if self.loaded != step:
            self.policy.start_from(self.store.at(step))
            self.loaded = step

    def answering(self, step: int) -> Frozen:
        """The method as it answered after a step that has a checkpoint."""
        state = json.loads((self.store.at(step) / "state.json").read_text())
        return Frozen(self.method, state["method"])

    def contexts(self, step: int, key: str) -> Callable[[str], str]:
        """Under which context it answered a prompt of a key after that step."""
        return partial(self.answering(step).context_for, task=self.stream.id_of(key))

    def ask(self, context: str, prompt: str) -> Ask:
        return Ask(conversation(context, prompt), seed_for("probe", self.config.seed, prompt))

    def sample(self, task: Task, context_for: Callable[[str], str], n: int, base: bool = False) -> tuple[list[Sample], float]:
        """One answer at temperature 1 to each of the first n held-out problems, and the mean reward."""
        problems = task.problems("test", TEST_SEED, n)
        asks = [self.ask(context_for(p.prompt), p.prompt) for p in problems]
        given = [group[0] for group in answers(self.policy, asks, [partial(task.respond, p) for p in problems], base=base)]
        rewards = [task.verify(p, a.sample.text, a.said).reward for p, a in zip(problems, given, strict=True)]
        return [a.sample for a in given], sum(rewards) / n
