"""One round of prompt evolution: score the survivors again, run gepa from the best of them, select K.

A score belongs to a policy version, so nothing is carried over but the texts: each round has a fresh gepa run and a
fresh valset, and survivors are scored again before any decision (gepa's own cache and state know no version).
"""

from collections.abc import Sequence

import gepa
from gepa.strategies.proposal_sampling import IndependentSampling

from fst_bench.core.types import Candidate, ProblemHandle, ReflectionExample
from fst_bench.fast.gepa_adapter import COMPONENT, Adapter, Reflections
from fst_bench.fast.selection import distinct, select, split
from fst_bench.method.lab import Lab
from fst_bench.method.settings import FastSettings


def evolve(
    lab: Lab,
    survivors: Sequence[str],
    lookahead: Sequence[ProblemHandle],
    settings: FastSettings,
    earlier: Sequence[ReflectionExample] = (),
) -> list[Candidate]:
    """Return K prompts for the coming cycle, best first.

    `lookahead` holds the cycle's problems, `survivors` the last K prompts. Where `earlier` rollouts are given,
    reflections read about their problems, and one that was sampled under the prompt in question is used in place of a
    fresh one.
    """
    # the generator's name decides its numbers: it keeps the name that the valset had when runs were first committed
    valset, trainset = split(lookahead, settings, lab.random("anchor"))
    if earlier:
        trainset = list({e.problem.index: e.problem for e in earlier}.values())
    spent, reflections, failures = lab.ledger.total_rollouts, lab.ledger.reflections, lab.ledger.reflection_failures
    adapter = Adapter(lab, valset, earlier)
    rescored = adapter.rescore(survivors)
    best = max(rescored, key=lambda candidate: candidate.mean)
    result: gepa.GEPAResult[str, int] = gepa.optimize(
        seed_candidate={COMPONENT: best.prompt},
        trainset=trainset,
        valset=valset,
        adapter=adapter,
        reflection_strategy=Reflections(lab, settings.max_prompt_characters),
        reflection_minibatch_size=settings.reflection_minibatch_size,
        sampling_strategy=IndependentSampling(settings.proposals),
        # gepa counts the scores of its seed candidate itself
        max_metric_calls=settings.max_metric_calls - (len(rescored) - 1) * len(valset),
        seed=lab.random("gepa").randrange(2**31),
        logger=Quiet(),
        track_best_outputs=False,
    )
    found = [
        Candidate(candidate[COMPONENT], tuple(scores[i] for i in range(len(valset))))
        for candidate, scores in zip(result.candidates, result.val_subscores, strict=True)
    ]
    population = select(distinct([*rescored, *found]), settings.population_size)
    lab.record(
        "prompts",
        {
            "population": [{"prompt": c.prompt, "score": c.mean} for c in population],
            "rescored": [{"prompt": c.prompt, "score": c.mean} for c in rescored],
            "candidates": len(found),
            "rollouts": lab.ledger.total_rollouts - spent,
            "reflections": lab.ledger.reflections - reflections,
            "reflection_failures": lab.ledger.reflection_failures - failures,
        },
    )
    return population


class Quiet:
    """A logger that drops gepa's lines, which repeat the run's own records."""

    def log(self, message: str) -> None:
        pass
