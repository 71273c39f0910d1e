"""A finished run with its model in hand: its weights and its method's answers at any stage's end."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from fst_bench.core.seeds import seed_for
from fst_bench.core.types import Sample, SampleRequest
from fst_bench.harness.evaluate import NO_LAB, TEST_SEED, Snapshot
from fst_bench.harness.loop import recorded, refuse_other_weights
from fst_bench.harness.planning.memory import with_cache
from fst_bench.harness.run import Run, sound
from fst_bench.harness.store import Store, step_of
from fst_bench.method.lab import conversation
from fst_bench.method.settings import MethodConfig
from fst_bench.policy import load_policy
from fst_bench.policy.interface import LanguageModel
from fst_bench.policy.rollout import generate
from fst_bench.tasks import Task
from fst_bench.tasks.stream import Stream

Work = tuple[dict[str, Any], Callable[[], dict[str, Any]]]
"""(key of a row, what measures the rest of it)."""


class Opened:
    """The model, the stream and the checkpoints of a run. No reflector is loaded, so none of its keys are needed.

    Raises ValueError where the directory is not a finished run, is not sound, or its model is now another one.
    """

    def __init__(self, path: Path):
        self.path, self.store = path, Store(path)
        self.config, spec = recorded(self.store)
        if not self.store.finished:
            raise ValueError(f"{path} is not finished: fst-bench resume {path}")
        sound(Run(self.store))
        config = self.config
        torch.set_num_threads(config.threads)
        torch.use_deterministic_algorithms(config.policy.device == "cpu")
        self.stream = Stream(spec, config.seed, config.difficulty, config.stage_problems, config.data)
        self.policy = load_policy(config.model, with_cache(config), config.backend)
        refuse_other_weights(self.store, config)
        if config.init:
            self.policy.start_from(Path(config.init))
        method = config.method_class()
        own = method.Settings.model_validate(config.settings)
        self.method = method(NO_LAB, MethodConfig(config.seed_prompt, config.slow, config.fast, own))
        self.ends = {
            stage.number: step for stage, step in zip(self.stream.stages, self.stream.ends(config.batch), strict=True)
        }
        """Stage number -> the step after which it has ended."""
        self.loaded = 0

    @property
    def steps(self) -> list[int]:
        """The steps of every complete checkpoint, those at the ends of stages among them."""
        return [step_of(folder) for folder in self.store.checkpoints()]

    def load(self, step: int) -> None:
        """Load the weights after a step. Raises ValueError where it has no checkpoint."""
        if self.loaded != step:
            self.policy.start_from(self.store.at(step))
            self.loaded = step

    def model(self, weights: str) -> LanguageModel:
        """Return the policy for `trained`, its reference policy for `base`."""
        return self.policy.reference if weights == "base" else self.policy

    def snapshot(self, step: int) -> Snapshot:
        """Return the method as it answered after a step that has a checkpoint."""
        state = json.loads((self.store.at(step) / "state.json").read_text())
        return Snapshot(self.method, state["method"])

    def contexts(self, step: int, key: str) -> Callable[[str], str]:
        """Return prompt -> the context that the method answered a problem of a key under after that step."""
        return partial(self.snapshot(step).context_for, task=self.stream.id_of(key))

    def request(self, context: str, prompt: str) -> SampleRequest:
        return SampleRequest(conversation(context, prompt), seed_for("probe", self.config.seed, prompt))

    def sample(
        self, task: Task, context_for: Callable[[str], str], n: int, model: LanguageModel
    ) -> tuple[list[Sample], float]:
        """Sample one answer to each of the first n held-out problems, at the temperature of the run's evaluations.

        Return the answers and their mean reward.
        """
        problems = task.problems("test", TEST_SEED, n)
        requests = [self.request(context_for(p.prompt), p.prompt) for p in problems]
        tools = [partial(task.at(p).respond, p) for p in problems]
        temperature = self.config.evaluation.temperature
        answers = [group[0] for group in generate(model, requests, tools, temperature=temperature)]
        rewards = [task.verify(p, a.sample.text, a.earlier).reward for p, a in zip(problems, answers, strict=True)]
        return [a.sample for a in answers], sum(rewards) / n
