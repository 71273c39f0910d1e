"""gepa's two views of a run.

`Adapter` evaluates candidates with the policy, `Reflections` proposes new ones with the reflector.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from gepa.core.adapter import EvaluationBatch, GEPAAdapter
from gepa.proposer.reflective_mutation.reflection_lm import ReflectionJob, ReflectionProposal
from gepa.strategies.instruction_proposal import InstructionProposalSignature

from fst_bench.core.types import Candidate, ProblemHandle, ReflectionExample, Rollout, RolloutRequest
from fst_bench.method.lab import Lab
from fst_bench.method.reflection import ReflectionFailure, caught, fence_around, prompt_in

COMPONENT = "system_prompt"
"""The one component of a gepa candidate."""
TURN_CHARACTERS, REPLY_CHARACTERS = 2_000, 1_000
"""Characters of a turn before the last, and of a tool's reply, that a reflector reads."""


class Adapter(GEPAAdapter[ProblemHandle, ReflectionExample, str]):
    """gepa's view of the policy: a candidate is a system prompt, an example is a problem handle."""

    propose_new_texts = None  # gepa leaves the proposals of an iteration to `Reflections`

    def __init__(self, lab: Lab, valset: list[ProblemHandle], earlier: Sequence[ReflectionExample] = ()):
        self.lab, self.valset = lab, valset
        self.rescored: dict[str, list[ReflectionExample]] = {}
        """Prompt -> its rollouts on the valset, sampled at the start of this round."""
        self.earlier = {(e.problem.index, e.context): e for e in earlier}
        """Rollouts of the slow loop that are used in place of fresh ones, by (problem, prompt)."""

    def rescore(self, prompts: Sequence[str]) -> list[Candidate]:
        """Score every survivor on the whole valset, in one sampling call."""
        examples = self.sampled(
            [RolloutRequest(problem, prompt) for prompt in prompts for problem in self.valset], "valset"
        )
        size = len(self.valset)
        self.rescored = {prompt: examples[i * size : (i + 1) * size] for i, prompt in enumerate(prompts)}
        return [Candidate(prompt, tuple(e.reward for e in self.rescored[prompt])) for prompt in prompts]

    def evaluate(
        self, batch: list[ProblemHandle], candidate: dict[str, str], capture_traces: bool = False
    ) -> EvaluationBatch[ReflectionExample, str]:
        """Evaluate one candidate; gepa's interface."""
        return self.batch_evaluate([(candidate, batch)])[0]

    def batch_evaluate(
        self, items: list[tuple[dict[str, str], list[ProblemHandle]]]
    ) -> list[EvaluationBatch[ReflectionExample, str]]:
        """Evaluate all (candidate, batch) pairs that gepa asks for at a time, in one sampling call."""
        known = [self.known(candidate[COMPONENT], batch) for candidate, batch in items]
        requests = [
            RolloutRequest(problem, candidate[COMPONENT])
            for (candidate, batch), examples in zip(items, known, strict=True)
            if examples is None
            for problem in batch
        ]
        purpose = "valset" if all(batch == self.valset for _, batch in items) else "feedback"
        fresh = iter(self.sampled(requests, purpose) if requests else [])
        evaluated = []
        for (_, batch), examples in zip(items, known, strict=True):
            examples = [next(fresh) for _ in batch] if examples is None else examples
            evaluated.append(EvaluationBatch([e.text for e in examples], [e.reward for e in examples], examples))
        return evaluated

    def known(self, prompt: str, batch: list[ProblemHandle]) -> list[ReflectionExample] | None:
        """Return rollouts that need not be sampled again; None unless one exists for every problem of the batch.

        On the valset those are the rescoring of this round: same problems, same policy version.
        """
        if batch == self.valset:
            return self.rescored.get(prompt)
        found = [self.earlier.get((problem.index, prompt)) for problem in batch]
        return [e for e in found if e] if all(found) else None

    def sampled(self, requests: list[RolloutRequest], purpose: str) -> list[ReflectionExample]:
        """Return one fresh rollout for each request, as reflections read it."""
        return [reflection_example(group[0]) for group in self.lab.sample(requests, purpose)]

    def make_reflective_dataset(
        self,
        candidate: dict[str, str],
        eval_batch: EvaluationBatch[ReflectionExample, str],
        components_to_update: list[str],
    ) -> Mapping[str, Sequence[Mapping[str, Any]]]:
        """Return the records that gepa's reflection prompt shows; gepa's interface."""
        records = [
            {"Inputs": e.problem.prompt, "Generated Outputs": e.text, "Feedback": e.feedback}
            for e in eval_batch.trajectories or []
        ]
        return dict.fromkeys(components_to_update, records)


class Reflections:
    """gepa's view of the reflector: the reflections of an iteration are requested together.

    A failed one costs its own proposal only.
    """

    def __init__(self, lab: Lab, max_characters: int):
        self.lab, self.max_characters = lab, max_characters

    def reflect(
        self,
        candidate: dict[str, str],
        reflective_dataset: Mapping[str, Sequence[Mapping[str, Any]]],
        components_to_update: list[str],
    ) -> tuple[ReflectionProposal, "Reflections"]:
        """Return one proposal; gepa's interface."""
        return self.reflect_many([(candidate, reflective_dataset, components_to_update)])[0]

    def reflect_many(self, jobs: list[ReflectionJob]) -> list[tuple[ReflectionProposal, "Reflections"]]:
        """Return a proposal for each job, without a text where the reflection failed: gepa then keeps the candidate."""
        prompts = [reflection_prompt(candidate[COMPONENT], dataset[COMPONENT]) for candidate, dataset, _ in jobs]
        found = propose(self.lab, prompts, self.max_characters)
        if failed := [i for i, text in enumerate(found) if isinstance(text, ReflectionFailure)]:
            # retried once, as gepa does with its own reflections; those that succeeded are kept
            again = propose(self.lab, [prompts[i] for i in failed], self.max_characters)
            for i, text in zip(failed, again, strict=True):
                found[i] = text
        texts = [{} if isinstance(text, ReflectionFailure) else {COMPONENT: text} for text in found]
        return [(ReflectionProposal(new), self) for new in texts]


def propose(lab: Lab, prompts: Sequence[str], max_characters: int) -> list[str | ReflectionFailure]:
    """Return the new prompt of each reflection, or its failure: no reply, or nothing in it that can be a prompt."""
    replies = lab.reflect_many(prompts)
    return [reply if isinstance(reply, ReflectionFailure) else extract(lab, reply, max_characters) for reply in replies]


def extract(lab: Lab, reply: str, max_characters: int) -> str | ReflectionFailure:
    """Return the prompt in a reflector's reply, refused where it is cut off, empty or too long."""
    prompt = caught(prompt_in, reply)
    if isinstance(prompt, ReflectionFailure):
        return lab.refused(str(prompt))
    if not prompt or len(prompt) > max_characters:
        return lab.refused("oversized prompt" if prompt else "empty prompt")
    return prompt if lab.leaves_room(prompt) else lab.refused("prompt leaves no room")


def reflection_prompt(current: str, records: Sequence[Mapping[str, Any]]) -> str:
    """Render gepa's own reflection prompt, from the current prompt and the records of its rollouts.

    Where those hold fences, its own are longer: else the first of them would end its block.
    """
    template = InstructionProposalSignature.default_prompt_template
    fence = fence_around(current, *(str(text) for record in records for text in record.values()))
    for block in ("<curr_param>", "<side_info>"):
        template = template.replace(f"```\n{block}\n```", f"{fence}\n{block}\n{fence}")
    parts = {"current_instruction_doc": current, "dataset_with_feedback": records, "prompt_template": template}
    prompt = InstructionProposalSignature.prompt_renderer(parts)
    assert isinstance(prompt, str), "gepa renders text-only reflection prompts as one string"
    return prompt


def reflection_example(rollout: Rollout) -> ReflectionExample:
    """Return a rollout as a reflection reads it."""
    return ReflectionExample(
        rollout.problem, rollout.context, transcript(rollout), rollout.score.reward, rollout.score.feedback
    )


def transcript(rollout: Rollout) -> str:
    """Return the policy's answer, and before it any turns between it and a tool."""
    lines = []
    for message in rollout.messages:
        if message["role"] == "assistant":
            lines.append(shortened(message["content"], TURN_CHARACTERS))
        elif message["role"] == "tool":
            lines.append(f"[the tool replied] {shortened(message['content'], REPLY_CHARACTERS)}")
    return "\n".join([*lines, rollout.sample.text])


def shortened(text: str, limit: int) -> str:
    """Return a text cut to `limit` characters, with the number of characters that were left out."""
    return text if len(text) <= limit else f"{text[:limit]} ... ({len(text) - limit} characters more)"
