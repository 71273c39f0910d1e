"""What a method may do, and the contract it keeps.

A method gets problem handles with prompt text, and a lab. It is not told the task, the stage, a boundary or an
answer, but for what a stream makes visible (`Handle`). It reaches the model through the lab alone, and the lab charges everything to the ledger.
"""

import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial, wraps
from typing import Any, ClassVar, Protocol, TypeVar, cast, runtime_checkable

from pydantic import BaseModel, ConfigDict

from fst_bench.errors import ContractError
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


@runtime_checkable
class BatchReflector(Protocol):
    """A reflector that answers several reflection prompts in one call."""

    def reflect_many(self, prompts: Sequence[str], seeds: Sequence[int]) -> list[str | ReflectionFailure]:
        """The reply to each prompt, as if it were asked alone, or the failure of that one, which is not raised."""
        ...


Reflector = Callable[[str, int], str] | BatchReflector
"""(reflection prompt, seed) -> reply, which raises ReflectionFailure; or the same for several prompts at a time."""


def replies(reflector: Reflector, prompts: Sequence[str], seeds: Sequence[int]) -> list[str | ReflectionFailure]:
    """The reply to each reflection prompt or its failure: in one call where the reflector can, else one by one."""
    if isinstance(reflector, BatchReflector):
        return reflector.reflect_many(prompts, seeds)
    found: list[str | ReflectionFailure] = []
    for prompt, seed in zip(prompts, seeds, strict=True):
        try:
            found.append(reflector(prompt, seed))
        except ReflectionFailure as failure:
            found.append(failure)
    return found


def conversation(context: str, prompt: str) -> tuple[Message, ...]:
    """The context in front of the problem, as every backend and every mode of evaluation writes it."""
    system: tuple[Message, ...] = ({"role": "system", "content": context},) if context else ()
    return (*system, {"role": "user", "content": prompt})


class Watched:
    """A policy that counts how often it is turned to, so that the lab knows of every time."""

    def __init__(self, policy: Policy):
        self.policy, self.uses = policy, 0

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.policy, name)
        self.uses += callable(found)
        return found


Call = TypeVar("Call", bound=Callable[..., Any])


def charged(call: Call) -> Call:
    """A call of the lab: the books have to be right before it, and are made up after it."""

    @wraps(call)
    def audited(lab: "Lab", *arguments: Any, **named: Any) -> Any:
        lab.audit()
        try:
            return call(lab, *arguments, **named)
        finally:
            lab.close_books()

    return cast(Call, audited)


class Lab:
    """A method's only way to the model, the verifiers and the coming problems. Every call is charged."""

    def __init__(
        self, policy: Policy, ledger: Ledger, seed: int, respond: Callable[[int, Sequence[str]], str | None],
        verify: Callable[[int, str, Sequence[str]], Verdict], handle: Callable[[int], Handle], batch: Callable[[int], range], reflector: Reflector, record: Callable[[str, dict[str, Any]], None],
    ):  # fmt: skip
        # respond, verify and handle are closures over the stream: a method that walks attributes finds no task and no answer
        self._watched, self.ledger, self._seed = Watched(policy), ledger, seed
        self._policy = cast(Policy, self._watched)
        self._respond, self._verify, self._reflector, self._record = respond, verify, reflector, record
        self._handle, self._batch = cache(handle), batch
        self._step, self._calls = 0, 0
        self.close_books()

    def begin(self, step: int) -> list[Handle]:
        """Called by the harness: the batch of `step`. Random numbers are named by (step, call), so a resume needs no state."""
        self._step, self._calls = step, 0
        self.close_books()
        return self.peek(1)[0]

    def audit(self) -> None:
        """ContractError where the policy was used or the ledger written since the lab's last call: both move in the lab's calls only."""
        (charges, *used), (then, *before) = self._now(), self._books
        if used != before:
            raise ContractError("ledger", "used the policy without the lab, so nothing was charged for it")
        if changed := [name for name, value in charges.items() if value != then[name]]:
            raise ContractError("ledger", f"wrote to the ledger: {', '.join(changed)}")

    def close_books(self) -> None:
        """What the ledger says and the policy did until now is in order."""
        self._books = self._now()

    def _now(self) -> tuple[dict[str, Any], int, int]:
        return self.ledger.counts(), self._watched.uses, self._policy.version

    @charged
    def peek(self, batches: int) -> list[list[Handle]]:
        """This step's batch and the coming ones, `batches` in all, fewer at the end of the stream."""
        ahead = [[self._handle(i) for i in indices] for k in range(batches) if (indices := self._batch(self._step + k))]
        self.ledger.problems = max([self.ledger.problems, *(handle.index + 1 for batch in ahead for handle in batch)])
        return ahead

    def random(self, purpose: str) -> random.Random:
        """A generator for a method's own choices in this step, the same after a resume."""
        return random.Random(seed_for(self._seed, purpose, self._step))

    @charged
    def sample(self, attempts: Sequence[Attempt], purpose: str, temperature: float = 1.0) -> list[list[Rollout]]:
        """Sampled and verified rollouts, `attempt.n` for each attempt; charged under `purpose`."""
        if unseen := [a.problem.index for a in attempts if not 0 <= a.problem.index < self.ledger.problems]:
            raise ContractError("lab", f"asked for answers to problem {unseen[0]}, which it was not shown yet")
        if reworded := [a.problem.index for a in attempts if a.problem.prompt != self._handle(a.problem.index).prompt]:
            raise ContractError("lab", f"asked for answers to problem {reworded[0]} with its text changed: what a method may choose is the context")
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

    @charged
    def reanchor(self, groups: list[list[Rollout]]) -> list[list[Rollout]]:
        """The same rollouts with the learner's current log-probabilities in place of the sampler's."""
        with self.ledger.timed("update"):
            flat = iter(self._policy.logprobs([r.sample for group in groups for r in group]))
        return [[replace(r, sample=replace(r.sample, logprobs=next(flat))) for r in group] for group in groups]

    @charged
    def base_logprobs(self, rollouts: Sequence[Rollout]) -> list[list[float]]:
        """The base's log-probability of every sampled token, as a penalty for leaving it needs."""
        with self.ledger.timed("update"):
            return self._policy.logprobs([r.sample for r in rollouts], base=True)

    @charged
    def retold(self, rollouts: Sequence[Rollout], context: str) -> list[Rollout]:
        """The same answers as if they had been given under another context, with the learner's log-probabilities there."""
        conversations = [conversation(context, r.problem.prompt) for r in rollouts]
        with self.ledger.timed("update"):
            samples = self._policy.retold([r.sample for r in rollouts], conversations)
        return [
            replace(r, context=context, messages=(*c, *r.messages[len(conversation(r.context, r.problem.prompt)) :]), sample=s)
            for r, c, s in zip(rollouts, conversations, samples, strict=True)
        ]

    @charged
    def update(
        self, rollouts: Sequence[Rollout], advantages: Sequence[Sequence[float]], weights: Sequence[Sequence[float]], loss: TokenLoss
    ) -> dict[str, float]:  # fmt: skip
        """One optimizer step of the policy; see `Policy.update`."""
        with self.ledger.timed("update"):
            facts = self._policy.update([r.sample for r in rollouts], advantages, weights, loss)
        self.ledger.optimizer_steps += 1
        return facts

    @charged
    def reflect(self, prompt: str) -> str:
        """The reflector's answer to a reflection prompt. ReflectionFailure is counted and passed on."""
        (reply,) = self.reflect_many([prompt])
        if isinstance(reply, ReflectionFailure):
            raise reply
        return reply

    @charged
    def reflect_many(self, prompts: Sequence[str]) -> list[str | ReflectionFailure]:
        """The reflector's answer to each reflection prompt, or the failure of that one, which is counted."""
        seeds = []
        for prompt in prompts:
            self.ledger.reflections += 1
            self.ledger.reflection_characters += len(prompt)
            seeds.append(seed_for(self._seed, "reflect", self._step, self.ledger.reflections))
        with self.ledger.timed("reflect"):
            found = replies(self._reflector, prompts, seeds)
        for reply in found:
            if isinstance(reply, ReflectionFailure):
                self.ledger.reflection_failed(str(reply))
        return found

    @charged
    def refused(self, reason: str) -> ReflectionFailure:
        """The failure to raise where a reflector's reply can't be a prompt; it is counted."""
        self.ledger.reflection_failed(reason)
        return ReflectionFailure(reason)

    def record(self, name: str, row: dict[str, Any]) -> None:
        """Append a row to the run's records: what a method wants shown, never what is measured.

        `name` is "prompts", and the row's "population" its prompts, the best first, each as {"prompt": text, "score": number}.
        """
        if name != "prompts":
            raise ContractError("lab", f"wrote to the run's record {name!r}: a method has the record 'prompts'")
        population = row.get("population")
        if not (isinstance(population, list) and population and all(isinstance(p, dict) and {"prompt", "score"} <= p.keys() for p in population)):
            raise ContractError("lab", 'recorded prompts without "population", a list of {"prompt": text, "score": number}')
        if complaint := not_json(row):
            raise ContractError("lab", f"recorded prompts with {complaint}")
        row = {"step": self._step, "problems": self.ledger.problems} | row
        counts = {"rescored": [], "candidates": 0, "rollouts": 0, "reflections": 0, "reflection_failures": 0}
        self._record(name, row | {key: value for key, value in counts.items() if key not in row})


@dataclass(frozen=True)
class MethodConfig:
    """The settings a method is built with; `settings` is of its own `Settings` class."""

    seed_prompt: str
    slow: SlowSettings
    fast: FastSettings
    settings: Any


class Method(ABC):
    """A way to learn from a stream. Subclass it in one file: this is the whole contract, and the harness enforces it.

    Its life has two phases. While it learns, the harness calls `step` with one batch after another, in the stream's order, on one object
    that holds the lab. Whenever the stream's tasks are evaluated, copies of the method answer: each is built as `type(method)(no lab, config)`
    and given the method's state, and says under which context it would answer a problem. Nothing learnt there comes back. A resumed run and
    a probe of a finished one build the method in the same way.

    WHAT IT GETS. `self.config`: the seed prompt, the settings of the slow and the fast loop, and `self.config.settings`, its own, of its class
    `Settings` (typed; `--set settings.key=value` reaches them). `self.lab`: sample and verify, update, reflect, look ahead. In `step`, a batch
    of problem handles: each a place in the stream and a prompt text.

    WHAT IT MUST NOT SEE. Which task a problem is of, where a stage ends, an answer, a held-out problem. Nothing it is handed leads there,
    unless the stream says so (`announced`: `Handle.boundary`; `task_visible`: `Handle.task`, and `context_for_task` in evaluation); what it is
    told of a problem is the verdict on its own rollouts.

    THE RULES. Breaking one stops the run with one line that names it; nothing recorded until then is lost.

    - step: `step(batch)` returns the facts of the step for the log, a dict of JSON values under text keys. "reward", a number, is shown as the
      training reward. The keys kind, step, stage, problems and seconds are the harness's own.
    - context: `context_for(prompt)` returns the context, a str: the system prompt it would answer that text under now, empty for none. It runs
      on a copy without a lab, and changes nothing in the method: no counter, no cache but a `functools.cached_property`.
    - state: `state()` returns all that the method remembers besides the policy's weights, as a dict of JSON values under text keys (what it
      returns is copied), and `load(state)` restores it in a new object, so that a killed run goes on bit for bit. At every checkpoint the
      method is compared with a copy that was loaded from its state, attribute by attribute: containers element by element, objects of its own
      by their attributes, tensors and random generators by what they hold. Left out are the lab, the config, functions, and what a
      `cached_property` computed. So what `step` keeps in an attribute has to be in the state, or to be a local variable instead.
      `__init__` does not use the lab.
    - lab: the model, the verifiers and the coming problems are reached through the lab's own calls only. Rollouts are asked for problems of
      this batch, of earlier ones, and of those it has peeked at, in the problem's own words. (A handle is kept in the state as
      `dataclasses.astuple(handle)`, and is `Handle(*values)` again.) `lab.record` is for prompts it wants shown; what is measured, the
      harness records.
    - ledger: every call of the lab is charged to the ledger when it is made: problems when they are first seen (peeked ones too),
      rollouts by the purpose they are asked for, tokens, optimizer steps, reflections. Evaluation is charged to nobody. A method may read
      `lab.ledger` and never writes to it, and what it has the policy do without the lab counts as cheating, wanted or not.
    - random: every random choice is taken from `self.lab.random(purpose)`, which gives the same numbers again after a resume; `context_for`
      makes none. `fst-bench validate methods FILE` runs a method twice and once with a resume, and compares.
    """

    name: ClassVar[str]
    trains: ClassVar[bool] = False
    """Whether it updates the weights, and whether it evolves prompts: for the estimate of its cost."""
    evolves: ClassVar[bool] = False

    class Settings(BaseModel):
        """A method's own typed settings, each with a default, reached with `--set settings.key=value`; the text under one describes it."""

        model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    def __init__(self, lab: Lab, config: MethodConfig):
        self.lab, self.config = lab, config

    @classmethod
    def most_rollouts(cls, config: MethodConfig, batch: int) -> tuple[int, int]:
        """(of the slow loop for each problem, of the fast loop in each round), at most: what a dry run reckons with. Override it where it is more."""
        iteration = config.fast.proposals * (2 * config.fast.minibatch + config.fast.anchor)  # gepa may begin one with its budget almost spent
        return config.slow.group * cls.trains, (config.fast.budget + iteration) * cls.evolves

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
        if state:
            raise ContractError("state", "returns a state and has no load(state) to restore it")


def not_json(value: Any, where: str = "") -> str | None:
    """What in a value is not JSON, in words; None where all of it is."""
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                return f"the key {key!r}{where and ' in '}{where}: JSON has text keys only"
            if complaint := not_json(item, f"{where}[{key!r}]"):
                return complaint
        return None
    if isinstance(value, list | tuple):
        return next((complaint for i, item in enumerate(value) if (complaint := not_json(item, f"{where}[{i}]"))), None)
    return None if value is None or isinstance(value, str | int | float) else f"a {type(value).__name__} at {where}, which is no JSON value"
