"""One round of prompt evolution: re-score the survivors, run gepa from the best of them, choose K.

A score belongs to a policy version, so nothing is carried over but the texts: a fresh gepa run and a fresh
anchor set each round, and survivors scored anew before any decision (gepa's own cache and state know no version).
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from typing import Any

import gepa
from gepa.core.adapter import EvaluationBatch, GEPAAdapter
from gepa.proposer.reflective_mutation.reflection_lm import ReflectionJob, ReflectionProposal
from gepa.strategies.instruction_proposal import InstructionProposalSignature
from gepa.strategies.proposal_sampling import IndependentSampling

from fst_bench.lab import Attempt, Handle, Lab, ReflectionFailure, Rollout

from .settings import FastSettings

COMPONENT = "system_prompt"
MAX_SAID, MAX_HEARD = 2_000, 1_000
"""Characters of a turn before the last, and of a tool's reply, that a reflector reads."""


@dataclass(frozen=True)
class Scored:
    """A prompt with its reward on each anchor problem, under the policy version that was current in its round."""

    prompt: str
    scores: tuple[float, ...]

    @property
    def mean(self) -> float:
        return sum(self.scores) / len(self.scores)


@dataclass(frozen=True)
class Evidence:
    """A rollout as a reflection reads it."""

    problem: Handle
    context: str
    text: str
    reward: float
    feedback: str

    @classmethod
    def of(cls, rollout: Rollout) -> "Evidence":
        return cls(rollout.problem, rollout.context, transcript(rollout), rollout.verdict.reward, rollout.verdict.feedback)

    def to_json(self) -> list[Any]:
        return [list(astuple(self.problem)), self.context, self.text, self.reward, self.feedback]

    @classmethod
    def from_json(cls, values: list[Any]) -> "Evidence":
        return cls(Handle(*values[0]), *values[1:])


def evolve(
    lab: Lab, survivors: Sequence[str], lookahead: Sequence[Handle], settings: FastSettings, evidence: Sequence[Evidence] = ()
) -> list[Scored]:  # fmt: skip
    """K prompts for the coming cycle, best first. `lookahead` holds the cycle's problems, `survivors` the last K.

    With `evidence`, reflections read about its problems, and where it has a rollout under the prompt in question that one is taken.
    """
    anchor, feedback = split(lookahead, settings, lab.random("anchor"))
    if evidence:
        feedback = list({e.problem.index: e.problem for e in evidence}.values())
    spent, reflections, failures = lab.ledger.total_rollouts, lab.ledger.reflections, lab.ledger.reflection_failures
    adapter = Adapter(lab, anchor, evidence)
    rescored = adapter.rescore(survivors)
    best = max(rescored, key=lambda s: s.mean)
    result: gepa.GEPAResult[str, int] = gepa.optimize(
        seed_candidate={COMPONENT: best.prompt},
        trainset=feedback,
        valset=anchor,
        adapter=adapter,
        reflection_strategy=Reflections(lab, settings.max_prompt_characters),
        reflection_minibatch_size=settings.minibatch,
        sampling_strategy=IndependentSampling(settings.proposals),
        max_metric_calls=settings.budget - (len(rescored) - 1) * len(anchor),  # gepa counts the seed's scores itself
        seed=lab.random("gepa").randrange(2**31),
        logger=Quiet(),
        track_best_outputs=False,
    )
    found = [
        Scored(candidate[COMPONENT], tuple(scores[i] for i in range(len(anchor))))
        for candidate, scores in zip(result.candidates, result.val_subscores, strict=True)
    ]
    population = choose(distinct([*rescored, *found]), settings.population)
    lab.record("prompts", {
        "population": [{"prompt": s.prompt, "score": s.mean} for s in population],
        "rescored": [{"prompt": s.prompt, "score": s.mean} for s in rescored],
        "candidates": len(found), "rollouts": lab.ledger.total_rollouts - spent,
        "reflections": lab.ledger.reflections - reflections,
        "reflection_failures": lab.ledger.reflection_failures - failures,
    })  # fmt: skip
    return population


def split(lookahead: Sequence[Handle], settings: FastSettings, rng: random.Random) -> tuple[list[Handle], list[Handle]]:
    """(anchor set, problems reflections draw from): disjoint where the lookahead is large enough for both."""
    shuffled = rng.sample(list(lookahead), len(lookahead))
    anchor, rest = shuffled[: settings.anchor], shuffled[settings.anchor :]
    return anchor, rest if len(rest) >= settings.minibatch else shuffled


def choose(candidates: Sequence[Scored], k: int) -> list[Scored]:
    """K candidates: the best by mean, then whoever wins most anchor problems that no one chosen wins, then by mean.

    A candidate wins a problem where it has the highest score of all, and that is above zero (the per-instance
    Pareto front). Ties go to the higher mean, then to the earlier candidate. Returned best first.
    """
    order = sorted(range(len(candidates)), key=lambda i: (-candidates[i].mean, i))
    top = [max(column) for column in zip(*(c.scores for c in candidates), strict=True)]
    wins = {i: {p for p, s in enumerate(candidates[i].scores) if s == top[p] > 0} for i in order}
    chosen, covered = order[:1], set(wins[order[0]])
    while len(chosen) < min(k, len(order)):
        pick = max((i for i in order if i not in chosen), key=lambda i: (len(wins[i] - covered), -order.index(i)))
        chosen.append(pick)
        covered |= wins[pick]
    return [candidates[i] for i in sorted(chosen, key=order.index)]


def distinct(candidates: Sequence[Scored]) -> list[Scored]:
    """The first of each text: a survivor's re-scoring stands before gepa's copy of it."""
    first: dict[str, Scored] = {}
    for candidate in candidates:
        first.setdefault(candidate.prompt, candidate)
    return list(first.values())


def reflect(lab: Lab, prompts: Sequence[str], max_characters: int) -> list[str | ReflectionFailure]:
    """What each reflection proposes, or its failure: no reply, or an empty or oversized prompt in it."""
    replies = lab.reflect_many(prompts)
    return [reply if isinstance(reply, ReflectionFailure) else proposed(lab, reply, max_characters) for reply in replies]


def proposed(lab: Lab, reply: str, max_characters: int) -> str | ReflectionFailure:
    """The prompt in a reflector's reply, refused where it is empty or oversized."""
    prompt = InstructionProposalSignature.output_extractor(reply.strip())["new_instruction"].strip()
    if not prompt or len(prompt) > max_characters:
        return lab.refused("oversized prompt" if prompt else "empty prompt")
    return prompt


class Reflections:
    """gepa's view of the reflector: the reflections of an iteration are asked for together.

    One that fails costs its own proposal only.
    """

    def __init__(self, lab: Lab, max_characters: int):
        self.lab, self.max_characters = lab, max_characters

    def reflect(
        self,
        candidate: dict[str, str],
        reflective_dataset: Mapping[str, Sequence[Mapping[str, Any]]],
        components_to_update: list[str],
    ) -> tuple[ReflectionProposal, "Reflections"]:
        return self.reflect_many([(candidate, reflective_dataset, components_to_update)])[0]

    def reflect_many(self, jobs: list[ReflectionJob]) -> list[tuple[ReflectionProposal, "Reflections"]]:
        """A proposal for each job, without a text where the reflection failed: gepa then leaves the candidate."""
        prompts = [reflection_prompt(candidate[COMPONENT], dataset[COMPONENT]) for candidate, dataset, _ in jobs]
        found = reflect(self.lab, prompts, self.max_characters)
        if failed := [i for i, text in enumerate(found) if isinstance(text, ReflectionFailure)]:
            # once more, as gepa's own reflections are; those that did not fail are kept
            again = reflect(self.lab, [prompts[i] for i in failed], self.max_characters)
            for i, text in zip(failed, again, strict=True):
                found[i] = text
        texts = [{} if isinstance(text, ReflectionFailure) else {COMPONENT: text} for text in found]
        return [(ReflectionProposal(new), self) for new in texts]


def reflection_prompt(current: str, records: Sequence[Mapping[str, Any]]) -> str:
    """gepa's own, from the prompt in question and what its rollouts got."""
    parts = {"current_instruction_doc": current, "dataset_with_feedback": records, "prompt_template": None}
    prompt = InstructionProposalSignature.prompt_renderer(parts)
    assert isinstance(prompt, str), "gepa renders text-only reflection prompts as one string"
    return prompt


class Adapter(GEPAAdapter[Handle, Evidence, str]):
    """gepa's view of the policy: a candidate is a system prompt, an example is a problem handle."""

    propose_new_texts = None  # gepa leaves the proposals of an iteration to `Reflections`

    def __init__(self, lab: Lab, anchor: list[Handle], evidence: Sequence[Evidence] = ()):
        self.lab, self.anchor = lab, anchor
        self.known: dict[str, list[Evidence]] = {}
        """Prompt -> what it did on the anchor set, a moment ago."""
        self.older = {(e.problem.index, e.context): e for e in evidence}

    def rescore(self, prompts: Sequence[str]) -> list[Scored]:
        """Every survivor on the whole anchor set, in one sampling call."""
        attempts = [Attempt(problem, prompt) for prompt in prompts for problem in self.anchor]
        rollouts = [Evidence.of(group[0]) for group in self.lab.sample(attempts, "anchor")]
        size = len(self.anchor)
        self.known = {prompt: rollouts[i * size : (i + 1) * size] for i, prompt in enumerate(prompts)}
        return [Scored(prompt, tuple(r.reward for r in self.known[prompt])) for prompt in prompts]

    def evaluate(self, batch: list[Handle], candidate: dict[str, str], capture_traces: bool = False) -> EvaluationBatch[Evidence, str]:
        return self.batch_evaluate([(candidate, batch)])[0]

    def batch_evaluate(self, items: list[tuple[dict[str, str], list[Handle]]]) -> list[EvaluationBatch[Evidence, str]]:
        """What gepa wants evaluated at a time, in one sampling call."""
        anchored = all(batch == self.anchor for _, batch in items)
        found = [self.known.get(candidate[COMPONENT]) if batch == self.anchor else self.remembered(candidate, batch) for candidate, batch in items]
        attempts = [
            Attempt(problem, candidate[COMPONENT])
            for (candidate, batch), known in zip(items, found, strict=True) if known is None for problem in batch
        ]  # fmt: skip
        sampled = (Evidence.of(group[0]) for group in self.lab.sample(attempts, "anchor" if anchored else "feedback")) if attempts else iter(())
        evaluated = []
        for (_, batch), known in zip(items, found, strict=True):
            # the same problems under the same policy version, scored a moment ago: known
            rollouts = [next(sampled) for _ in batch] if known is None else known
            evaluated.append(EvaluationBatch([r.text for r in rollouts], [r.reward for r in rollouts], rollouts))
        return evaluated

    def remembered(self, candidate: dict[str, str], batch: list[Handle]) -> list[Evidence] | None:
        """What the evidence holds of a prompt on these problems, if it holds all of it."""
        there = [self.older.get((problem.index, candidate[COMPONENT])) for problem in batch]
        return [e for e in there if e] if all(there) else None

    def make_reflective_dataset(
        self, candidate: dict[str, str], eval_batch: EvaluationBatch[Evidence, str], components_to_update: list[str]
    ) -> Mapping[str, Sequence[Mapping[str, Any]]]:
        records = [
            {"Inputs": r.problem.prompt, "Generated Outputs": r.text, "Feedback": r.feedback}
            for r in eval_batch.trajectories or []
        ]  # fmt: skip
        return dict.fromkeys(components_to_update, records)


def transcript(rollout: Rollout) -> str:
    """What the policy said, as a reflector reads it: its answer, and before it any turns that went to and fro between it and a tool."""
    lines = []
    for message in rollout.messages:
        if message["role"] == "assistant":
            lines.append(shortened(message["content"], MAX_SAID))
        elif message["role"] == "tool":
            lines.append(f"[the tool replied] {shortened(message['content'], MAX_HEARD)}")
    return "\n".join([*lines, rollout.sample.text])


def shortened(text: str, limit: int) -> str:
    return text if len(text) <= limit else f"{text[:limit]} ... ({len(text) - limit} characters more)"


class Quiet:
    """gepa prints every iteration; the run's own records say the same."""

    def log(self, message: str) -> None:
        pass
