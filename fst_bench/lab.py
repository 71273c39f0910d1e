"""What a method may do, and the contract it keeps.

A method gets problem handles with prompt text, and a lab. It is not told the task, the stage, a boundary or an
answer, but for what a stream makes visible (`Handle`). It reaches the model through the lab alone, and the lab charges everything to the ledger.
"""

import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict

from fst_bench.fast.settings import FastSettings
from fst_bench.ledger import Ledger
from fst_bench.policy import Ask, Policy, Sample
from fst_bench.policy.base import Message, TokenLoss
from fst_bench.seeds import seed_for
from fst_bench.slow import SlowSettings
from fst_bench.tasks.base import Verdict
from fst_bench.turns import answers


@dataclass(frozen=True)
class Handle:
    """A problem as a method sees it: its place in the stream and its text. The rest is None unless the stream's file says otherwise."""

    index: int
    prompt: str
    boundary: bool | None = None
    """On a stream that is `announced`: whether a stage begins with this problem. Looking ahead shows it too."""
    task: str | None = None
    """On a stream with `task_visible`: an opaque id ("task 2"), the same wherever that task comes back."""


@dataclass(frozen=True)
class Rollout:
    """One answer to one problem under one context, with the verifier's verdict and the policy version that sampled it."""

    problem: Handle
    context: str
    messages: tuple[Message, ...]
    """All that was said before `sample.text`: context, problem, and where a tool was called the turns of both."""
    sample: Sample
    verdict: Verdict
    version: int


@dataclass(frozen=True)
class Attempt:
    """Ask for `n` rollouts of a problem under a context (the system prompt; empty for none)."""

    problem: Handle
    context: str
    n: int = 1


class ReflectionFailure(Exception):
    """A reflector timed out, refused, or returned nothing that can be a prompt.

    Its one argument is the reason it is counted under: a few words of ours, never a provider's, which may repeat a key.
    """


def conversation(context: str, prompt: str) -> tuple[Message, ...]:
    """The context in front of the problem, as every backend and every mode of evaluation writes it."""
    system: tuple[Message, ...] = ({"role": "system", "content": context},) if context else ()
    return (*system, {"role": "user", "content": prompt})


class Lab:
    """A method's only way to the model, the verifiers and the coming problems. Every call is charged."""

    def __init__(
        self, policy: Policy, ledger: Ledger, seed: int, respond: Callable[[int, Sequence[str]], str | None],
        verify: Callable[[int, str, Sequence[str]], Verdict], problems: Callable[[int], list[Handle]], reflector: Callable[[str, int], str], record: Callable[[str, dict[str, Any]], None],
    ):  # fmt: skip
        # respond, verify and problems are closures over the stream: a method that walks attributes finds no task and no answer
        self._policy, self.ledger, self._seed = policy, ledger, seed
        self._respond, self._verify, self._problems, self._reflector, self._record = respond, verify, problems, reflector, record
        self._step, self._calls = 0, 0

    def begin(self, step: int) -> list[Handle]:
        """Called by the harness: the batch of `step`. Random numbers are named by (step, call), so a resume needs no state."""
        self._step, self._calls = step, 0
        return self.peek(1)[0]

    def peek(self, batches: int) -> list[list[Handle]]:
        """This step's batch and the coming ones, `batches` in all, fewer at the end of the stream."""
        ahead = [batch for k in range(batches) if (batch := self._problems(self._step + k))]
        self.ledger.problems = max([self.ledger.problems, *(handle.index + 1 for batch in ahead for handle in batch)])
        return ahead

    def random(self, purpose: str) -> random.Random:
        """A generator for a method's own choices in this step, the same after a resume."""
        return random.Random(seed_for(self._seed, purpose, self._step))

    def sample(self, attempts: Sequence[Attempt], purpose: str, temperature: float = 1.0) -> list[list[Rollout]]:
        """Sampled and verified rollouts, `attempt.n` for each attempt; charged under `purpose`."""
        self._calls += 1
        conversations = [conversation(a.context, a.problem.prompt) for a in attempts]
        asks = [
            Ask(c, seed_for(self._seed, "sample", self._step, self._calls, i), a.n)
            for i, (a, c) in enumerate(zip(attempts, conversations, strict=True))
        ]
        with self.ledger.timed("sample"):
            groups = answers(self._policy, asks, [partial(self._respond, a.problem.index) for a in attempts], temperature=temperature)
        with self.ledger.timed("verify"):
            rollouts = [
                [
                    Rollout(
                        a.problem, a.context, (*c, *answer.messages), answer.sample,
                        self._verify(a.problem.index, answer.sample.text, answer.said), self._policy.version,
                    )
                    for answer in group
                ]
                for a, c, group in zip(attempts, conversations, groups, strict=True)
            ]  # fmt: skip
        for group, made in zip(groups, rollouts, strict=True):
            for answer, r in zip(group, made, strict=True):
                self.ledger.rollouts[purpose] += 1
                self.ledger.prompt_tokens += len(r.sample.tokens) - r.sample.sampled
                self.ledger.sampled_tokens += r.sample.sampled
                self._record("rollouts", {
                    "step": self._step, "purpose": purpose, "problem": r.problem.index, "context": r.context, "text": r.sample.text,
                    "reward": r.verdict.reward, "status": r.verdict.status, "tokens": r.sample.sampled, "version": r.version, **answer.record,
                })  # fmt: skip
        return rollouts

    def reanchor(self, groups: list[list[Rollout]]) -> list[list[Rollout]]:
        """The same rollouts with the learner's current log-probabilities in place of the sampler's."""
        with self.ledger.timed("update"):
            flat = iter(self._policy.logprobs([r.sample for group in groups for r in group]))
        return [[replace(r, sample=replace(r.sample, logprobs=next(flat))) for r in group] for group in groups]

    def base_logprobs(self, rollouts: Sequence[Rollout]) -> list[list[float]]:
        """The base's log-probability of every sampled token, as a penalty for leaving it needs."""
        with self.ledger.timed("update"):
            return self._policy.logprobs([r.sample for r in rollouts], base=True)

    def retold(self, rollouts: Sequence[Rollout], context: str) -> list[Rollout]:
        """The same answers as if they had been given under another context, with the learner's log-probabilities there."""
        conversations = [conversation(context, r.problem.prompt) for r in rollouts]
        with self.ledger.timed("update"):
            samples = self._policy.retold([r.sample for r in rollouts], conversations)
        return [
            replace(r, context=context, messages=(*c, *r.messages[len(conversation(r.context, r.problem.prompt)) :]), sample=s)
            for r, c, s in zip(rollouts, conversations, samples, strict=True)
        ]

    def update(
        self, rollouts: Sequence[Rollout], advantages: Sequence[Sequence[float]], weights: Sequence[Sequence[float]], loss: TokenLoss
    ) -> dict[str, float]:  # fmt: skip
        """One optimizer step of the policy; see `Policy.update`."""
        with self.ledger.timed("update"):
            facts = self._policy.update([r.sample for r in rollouts], advantages, weights, loss)
        self.ledger.optimizer_steps += 1
        return facts

    def reflect(self, prompt: str) -> str:
        """The reflector's answer to a reflection prompt. ReflectionFailure is counted and passed on."""
        self.ledger.reflections += 1
        self.ledger.reflection_characters += len(prompt)
        try:
            with self.ledger.timed("reflect"):
                return self._reflector(prompt, seed_for(self._seed, "reflect", self._step, self.ledger.reflections))
        except ReflectionFailure as failure:
            self.ledger.reflection_failed(str(failure))
            raise

    def record(self, name: str, row: dict[str, Any]) -> None:
        """Append a row to the run's records: what a method wants shown, never what is measured."""
        self._record(name, {"step": self._step, "problems": self.ledger.problems} | row)


@dataclass(frozen=True)
class MethodConfig:
    """The settings a method is built with; `settings` is of its own `Settings` class."""

    seed_prompt: str
    slow: SlowSettings
    fast: FastSettings
    settings: Any


class Method(ABC):
    """A way to learn from a stream. Subclass it in one file.

    - `step(batch)` is called once per batch, in order. It may use `self.lab` and returns facts for the log
      (a dict of JSON values); "reward" is shown as the training reward.
    - `context_for(prompt)` says under which context (system prompt) the method would answer that text now. It
      must not use the lab: evaluation calls it on a frozen copy that has none, and checks that the state stays.
    - `state()` is everything the method remembers besides the policy, as JSON; `load(state)` restores it, so that a
      killed run continues bit for bit. What it does not put there, it has forgotten after a resume.
    - Random choices come from `self.lab.random(purpose)`.
    """

    name: ClassVar[str]
    trains: ClassVar[bool] = False
    """Whether it updates the weights, and whether it evolves prompts: for the estimate of its cost."""
    evolves: ClassVar[bool] = False

    class Settings(BaseModel):
        """A method's own typed settings, reached with `--set settings.key=value`."""

        model_config = ConfigDict(extra="forbid")

    def __init__(self, lab: Lab, config: MethodConfig):
        self.lab, self.config = lab, config

    @abstractmethod
    def step(self, batch: list[Handle]) -> dict[str, Any]: ...

    def context_for(self, prompt: str) -> str:
        return self.config.seed_prompt

    def context_for_task(self, prompt: str, task: str | None) -> str:
        """As `context_for`, which it is unless overridden, with the id that the problem's handles have in training; None where ids are hidden."""
        return self.context_for(prompt)

    def state(self) -> dict[str, Any]:
        return {}

    def load(self, state: dict[str, Any]) -> None:
        assert not state, f"{self.name} keeps no state"
