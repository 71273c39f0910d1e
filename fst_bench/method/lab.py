"""The lab: what a method may do. It samples, learns, reflects and looks ahead, and charges each of them to the ledger.

A method gets problem handles with prompt text, and a lab. It sees no task, stage, boundary or answer, except for what a
stream makes visible (see `ProblemHandle`). It reaches the model through the lab alone.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache, partial, wraps
from typing import Any, Protocol, TypeVar, cast

from fst_bench.core.errors import ContractError
from fst_bench.core.seeds import seed_for
from fst_bench.core.types import Message, ProblemHandle, Rollout, RolloutRequest, SampleRequest, Score
from fst_bench.method.ledger import Ledger
from fst_bench.method.reflection import ReflectionFailure, Reflector, replies
from fst_bench.policy import Policy
from fst_bench.policy.interface import TokenLoss
from fst_bench.policy.rollout import generate


class ProblemSource(Protocol):
    """The lab's only view of the stream: handles, a tool's replies, and scores, each by a problem's index.

    An implementation must not hold the stream, its tasks or its problems in an attribute: a method that walks
    attributes from its lab must not find an answer.
    """

    def batch(self, step: int) -> range:
        """Return the indices of the batch of `step` (from 0); empty after the end of the stream."""
        ...

    def handle(self, index: int) -> ProblemHandle:
        """Return what a method may see of a problem."""
        ...

    def respond(self, index: int, turns: Sequence[str]) -> str | None:
        """Return the tool's reply to the policy's turns so far, or None where the conversation ends."""
        ...

    def verify(self, index: int, text: str, earlier: Sequence[str]) -> Score:
        """Score `text` as the answer to a problem; `earlier` are the policy's turns before it."""
        ...

    def longest(self) -> Sequence[str]:
        """Return the longest text among each task's problems, those held out included."""
        ...


def conversation(context: str, prompt: str) -> tuple[Message, ...]:
    """Return the context in front of the problem, as every backend and every mode of evaluation writes it."""
    system: tuple[Message, ...] = ({"role": "system", "content": context},) if context else ()
    return (*system, {"role": "user", "content": prompt})


class Counted:
    """A policy that counts its calls and those of its reference policy, so that the lab notices every use."""

    def __init__(self, policy: Any, count: list[int]):
        self.policy, self.count = policy, count

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.policy, name)
        if name == "reference":
            return Counted(found, self.count)
        self.count[0] += callable(found)
        return found


Call = TypeVar("Call", bound=Callable[..., Any])


def charged(call: Call) -> Call:
    """Mark a call of the lab: the books are audited before it and closed after it."""

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
        self,
        policy: Policy,
        ledger: Ledger,
        seed: int,
        problems: ProblemSource,
        reflector: Reflector,
        record: Callable[[str, dict[str, Any]], None],
        temperature: float = 1.0,
    ):
        self._calls_of_the_policy = [0]
        self._policy = cast(Policy, Counted(policy, self._calls_of_the_policy))
        self.ledger = ledger
        self._seed = seed
        self._problems = problems
        self._reflector = reflector
        self._record = record
        self._temperature = temperature
        self._handle = cache(problems.handle)
        self._step = 0
        self._calls = 0
        self.close_books()

    def begin(self, step: int) -> list[ProblemHandle]:
        """Return the batch of `step`; called by the harness.

        Random numbers are named by (step, call), so a resume needs no state.
        """
        self._step = step
        self._calls = 0
        self.close_books()
        return self.peek(1)[0]

    def audit(self) -> None:
        """Raise ContractError where the policy was used or the ledger written outside of the lab's calls."""
        (charges, *used), (then, *before) = self._now(), self._books
        if used != before:
            raise ContractError("ledger", "used the policy without the lab, so nothing was charged for it")
        if changed := [name for name, value in charges.items() if value != then[name]]:
            raise ContractError("ledger", f"wrote to the ledger: {', '.join(changed)}")

    def close_books(self) -> None:
        """Remember the ledger's counts and the number of the policy's calls, for the next audit."""
        self._books = self._now()

    def _now(self) -> tuple[dict[str, Any], int, int]:
        return self.ledger.counts(), self._calls_of_the_policy[0], self._policy.version

    @charged
    def peek(self, batches: int) -> list[list[ProblemHandle]]:
        """Return this step's batch and the coming ones: `batches` in all, fewer at the end of the stream."""
        ahead = [
            [self._handle(i) for i in indices]
            for k in range(batches)
            if (indices := self._problems.batch(self._step + k))
        ]
        self.ledger.problems = max([self.ledger.problems, *(handle.index + 1 for batch in ahead for handle in batch)])
        return ahead

    def random(self, purpose: str) -> random.Random:
        """Return a generator for a method's own choices in this step, the same after a resume."""
        return random.Random(seed_for(self._seed, purpose, self._step))

    @charged
    def sample(
        self, requests: Sequence[RolloutRequest], purpose: str, temperature: float | None = None
    ) -> list[list[Rollout]]:
        """Return sampled and verified rollouts, `request.n` for each request, charged under `purpose`.

        Without a temperature of the method's own it is the run's `training.temperature`.
        """
        if unseen := [r.problem.index for r in requests if not 0 <= r.problem.index < self.ledger.problems]:
            raise ContractError("lab", f"asked for answers to problem {unseen[0]}, which it was not shown yet")
        if reworded := [r.problem.index for r in requests if r.problem.prompt != self._handle(r.problem.index).prompt]:
            raise ContractError(
                "lab",
                f"asked for answers to problem {reworded[0]} with its text changed: a method chooses the context only",
            )
        self._calls += 1
        conversations = [conversation(r.context, r.problem.prompt) for r in requests]
        samples = [
            SampleRequest(messages, seed_for(self._seed, "sample", self._step, self._calls, i), request.n)
            for i, (request, messages) in enumerate(zip(requests, conversations, strict=True))
        ]
        tools = [partial(self._problems.respond, r.problem.index) for r in requests]
        with self.ledger.timed("sample"):
            groups = generate(
                self._policy, samples, tools, temperature=self._temperature if temperature is None else temperature
            )
        with self.ledger.timed("verify"):
            rollouts = [
                [
                    Rollout(
                        problem=request.problem,
                        context=request.context,
                        messages=(*messages, *trajectory.messages),
                        sample=trajectory.sample,
                        score=self._problems.verify(request.problem.index, trajectory.sample.text, trajectory.earlier),
                        version=self._policy.version,
                    )
                    for trajectory in group
                ]
                for request, messages, group in zip(requests, conversations, groups, strict=True)
            ]
        for group, made in zip(groups, rollouts, strict=True):
            for trajectory, r in zip(group, made, strict=True):
                self.ledger.rollouts[purpose] += 1
                self.ledger.prompt_tokens += len(r.sample.tokens) - r.sample.sampled
                self.ledger.sampled_tokens += r.sample.sampled
                row = {
                    "step": self._step,
                    "purpose": purpose,
                    "problem": r.problem.index,
                    "context": r.context,
                    "text": r.sample.text,
                    "reward": r.score.reward,
                    "status": r.score.status,
                    "tokens": r.sample.sampled,
                    "version": r.version,
                }
                self._record("rollouts", row | trajectory.record)
        return rollouts

    @charged
    def recompute_logprobs(self, groups: list[list[Rollout]]) -> list[list[Rollout]]:
        """Return the same rollouts with the learner's current log-probabilities in place of the sampler's."""
        with self.ledger.timed("update"):
            flat = iter(self._policy.logprobs([r.sample for group in groups for r in group]))
        return [[replace(r, sample=replace(r.sample, logprobs=next(flat))) for r in group] for group in groups]

    @charged
    def reference_logprobs(self, rollouts: Sequence[Rollout]) -> list[list[float]]:
        """Return the reference policy's log-probability of every sampled token, as a KL penalty needs."""
        with self.ledger.timed("update"):
            return self._policy.reference.logprobs([r.sample for r in rollouts])

    @charged
    def with_prompt(self, rollouts: Sequence[Rollout], context: str) -> list[Rollout]:
        """Return the same answers as if given under another context, with the learner's log-probabilities there."""
        conversations = [conversation(context, r.problem.prompt) for r in rollouts]
        with self.ledger.timed("update"):
            samples = self._policy.with_prompt([r.sample for r in rollouts], conversations)
        return [
            replace(
                rollout,
                context=context,
                messages=(*start, *rollout.messages[len(conversation(rollout.context, rollout.problem.prompt)) :]),
                sample=sample,
            )
            for rollout, start, sample in zip(rollouts, conversations, samples, strict=True)
        ]

    @charged
    def update(
        self,
        rollouts: Sequence[Rollout],
        advantages: Sequence[Sequence[float]],
        weights: Sequence[Sequence[float]],
        loss: TokenLoss,
    ) -> dict[str, float]:
        """Take one optimizer step of the policy; see `Policy.update`."""
        with self.ledger.timed("update"):
            metrics = self._policy.update([r.sample for r in rollouts], advantages, weights, loss)
        self.ledger.optimizer_steps += 1
        return metrics

    @charged
    def reflect(self, prompt: str) -> str:
        """Return the reflector's reply to a reflection prompt. ReflectionFailure is counted and raised."""
        (reply,) = self.reflect_many([prompt])
        if isinstance(reply, ReflectionFailure):
            raise reply
        return reply

    @charged
    def reflect_many(self, prompts: Sequence[str]) -> list[str | ReflectionFailure]:
        """Return the reflector's reply to each reflection prompt, or the failure of that one, which is counted."""
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

    def leaves_room(self, context: str) -> bool:
        """Return whether a context leaves room for any problem of the run and its answer.

        A longer one would end the run when it is sampled under.
        """
        conversations = [conversation(context, text) for text in self._problems.longest()]
        lengths = [len(prompt.tokens) for prompt in self._policy.template.prompts(conversations)]
        return max(lengths) <= self._policy.max_prompt_tokens

    @charged
    def refused(self, reason: str) -> ReflectionFailure:
        """Return the failure to raise where a reflector's reply cannot be a prompt; it is counted."""
        self.ledger.reflection_failed(reason)
        return ReflectionFailure(reason)

    def record(self, name: str, row: dict[str, Any]) -> None:
        """Append a row to the run's record of prompts, which is shown and never measured.

        `name` is "prompts", and the row's "population" holds its prompts, the best first, each as {"prompt": text,
        "score": number}.
        """
        if name != "prompts":
            raise ContractError("lab", f"wrote to the run's record {name!r}: a method has the record 'prompts'")
        population = row.get("population")
        shaped = isinstance(population, list) and all(
            isinstance(p, dict) and {"prompt", "score"} <= p.keys() for p in population
        )
        if not (population and shaped):
            raise ContractError(
                "lab", 'recorded prompts without "population", a list of {"prompt": text, "score": number}'
            )
        if complaint := not_json(row):
            raise ContractError("lab", f"recorded prompts with {complaint}")
        row = {"step": self._step, "problems": self.ledger.problems} | row
        counts = {"rescored": [], "candidates": 0, "rollouts": 0, "reflections": 0, "reflection_failures": 0}
        self._record(name, row | {key: value for key, value in counts.items() if key not in row})


def not_json(value: Any, where: str = "") -> str | None:
    """Return what in a value is not JSON, in words; None where all of it is."""
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                return f"the key {key!r}{where and ' in '}{where}: JSON has text keys only"
            if complaint := not_json(item, f"{where}[{key!r}]"):
                return complaint
        return None
    if isinstance(value, list | tuple):
        return next((complaint for i, item in enumerate(value) if (complaint := not_json(item, f"{where}[{i}]"))), None)
    if value is None or isinstance(value, str | int | float):
        return None
    return f"a {type(value).__name__} at {where}, which is not a JSON value"
