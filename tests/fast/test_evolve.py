"""A round of evolution with the real gepa, the embedded model and a real stream."""

import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from gepa.strategies.proposal_sampling import IndependentSampling
from hypothesis import given
from hypothesis import strategies as st

from fst_bench.core.types import Candidate, ProblemHandle, Sample, SampleRequest
from fst_bench.fast.evolve import evolve
from fst_bench.fast.selection import distinct, select, split
from fst_bench.harness.loop import Bench
from fst_bench.method.reflection import ReflectionFailure
from fst_bench.method.settings import FastSettings

SETTINGS = FastSettings(population_size=2, max_metric_calls=40, valset_size=4, reflection_minibatch_size=2, cycle=3)


def lookahead(b: Bench) -> list[ProblemHandle]:
    b.lab.begin(0)
    return [p for batch in b.lab.peek(SETTINGS.cycle) for p in batch]


def test_the_selection_covers_the_pareto_front() -> None:
    a, b = Candidate("a", (1, 1, 0, 0, 0)), Candidate("b", (1, 1, 1, 0, 0))
    c, d = Candidate("c", (0, 0, 0, 1, 0)), Candidate("d", (1, 0, 1, 0, 0))
    # b is best by mean; c alone wins problem 3; nobody wins problem 4; then a before d (same mean, earlier)
    assert [s.prompt for s in select([a, b, c, d], 2)] == ["b", "c"]
    assert [s.prompt for s in select([a, b, c, d], 3)] == ["b", "a", "c"]
    assert [s.prompt for s in select([a, b, c, d], 9)] == ["b", "a", "d", "c"]


@given(st.lists(st.tuples(*[st.sampled_from([0.0, 1.0])] * 4), min_size=1, max_size=8), st.integers(1, 6))
def test_the_selection_has_the_best_first_and_k_distinct(rows: list[tuple[float, ...]], k: int) -> None:
    candidates = [Candidate(str(i), row) for i, row in enumerate(rows)]
    chosen = select(candidates, k)
    assert len(chosen) == min(k, len(rows)) == len({s.prompt for s in chosen})
    assert chosen[0].mean == max(c.mean for c in candidates)
    assert [s.mean for s in chosen] == sorted((s.mean for s in chosen), reverse=True)


def test_a_survivor_scored_again_comes_before_its_copy() -> None:
    assert distinct([Candidate("a", (1.0,)), Candidate("b", (0.0,)), Candidate("a", (0.0,))]) == [
        Candidate("a", (1.0,)),
        Candidate("b", (0.0,)),
    ]


@given(st.integers(1, 60))
def test_valset_and_trainset_are_disjoint_where_they_can_be(n: int) -> None:
    problems = [ProblemHandle(i, str(i)) for i in range(n)]
    valset, trainset = split(problems, SETTINGS, random.Random(0))
    assert valset and trainset and len(valset) == min(n, SETTINGS.valset_size)
    if n >= SETTINGS.valset_size + SETTINGS.reflection_minibatch_size:
        assert not set(valset) & set(trainset) and len(valset) + len(trainset) == n


def test_the_ledger_holds_what_was_spent(bench: Callable[..., Bench]) -> None:
    b = bench()
    evolve(b.lab, [b.config.seed_prompt], lookahead(b), SETTINGS)
    rollouts = [row for name, row in b.pending if name == "rollouts"]
    assert b.ledger.rollouts["valset"] == sum(row["purpose"] == "valset" for row in rollouts)
    assert b.ledger.total_rollouts == len(rollouts)
    # gepa stops at the first check after the budget is spent: at most one iteration over (two minibatches and a valset)
    iteration = 2 * SETTINGS.reflection_minibatch_size + SETTINGS.valset_size
    assert SETTINGS.max_metric_calls <= b.ledger.total_rollouts <= SETTINGS.max_metric_calls + iteration
    assert b.ledger.sampled_tokens == sum(row["tokens"] for row in rollouts)
    assert b.ledger.problems == 12  # three batches of four were looked at
    assert b.ledger.reflections > 0 and b.ledger.reflection_failures == 0


def test_survivors_are_scored_again_by_the_current_policy(bench: Callable[..., Bench]) -> None:
    b = bench()
    survivors = ["You are a helpful assistant.", "Work step by step."]
    b.policy.version = 3  # as after three updates; only the number matters here
    evolve(b.lab, survivors, lookahead(b), SETTINGS)
    rollouts = [row for name, row in b.pending if name == "rollouts"]
    first = rollouts[: 2 * SETTINGS.valset_size]
    assert [row["context"] for row in first] == [survivors[0]] * 4 + [survivors[1]] * 4
    assert {row["purpose"] for row in first} == {"valset"} and {row["version"] for row in rollouts} == {3}
    population = next(row for name, row in b.pending if name == "prompts")
    means = [sum(row["reward"] for row in first[i : i + 4]) / 4 for i in (0, 4)]
    assert [s["score"] for s in population["rescored"]] == means


def test_a_round_is_reproducible(bench: Callable[..., Bench]) -> None:
    rounds = [evolve(b.lab, [b.config.seed_prompt], lookahead(b), SETTINGS) for b in (bench(), bench())]
    assert rounds[0] == rounds[1]


@pytest.mark.parametrize("reply", ["refuse", "```\n\n```", "```\n" + "word " * 1000 + "\n```"])
def test_a_reflection_that_fails_keeps_the_population(bench: Callable[..., Bench], reply: str) -> None:
    b = bench()

    def failing(prompt: str, seed: int) -> str:
        if reply == "refuse":
            raise ReflectionFailure("the provider is down")
        return reply

    b.lab._reflector = failing
    population = evolve(b.lab, ["You are a helpful assistant.", "Work step by step."], lookahead(b), SETTINGS)
    assert {s.prompt for s in population} == {"You are a helpful assistant.", "Work step by step."}
    assert b.ledger.reflection_failures == b.ledger.reflections > 0
    record = next(row for name, row in b.pending if name == "prompts")
    assert record["reflection_failures"] == b.ledger.reflection_failures


def test_one_failure_costs_one_proposal(bench: Callable[..., Bench]) -> None:
    b = bench()
    replies = iter(["fail", "fail"])  # gepa asks once more after a failure

    def flaky(prompt: str, seed: int) -> str:
        if next(replies, None):
            raise ReflectionFailure("once")
        return "```\nWork step by step. Put the final answer inside \\boxed{}.\n```"

    b.lab._reflector = flaky
    evolve(b.lab, [b.config.seed_prompt], lookahead(b), SETTINGS)
    assert b.ledger.reflection_failures == 2 < b.ledger.reflections


def test_one_failure_of_four_is_asked_once_more_and_costs_no_other(bench: Callable[..., Bench]) -> None:
    """The second of the first four fails, and once more: the other three are not asked again, and are proposed."""
    b = bench()
    asked: list[tuple[str, int]] = []

    def flaky(prompt: str, seed: int) -> str:
        asked.append((prompt, seed))
        if len(asked) in (2, 5):
            raise ReflectionFailure("twice")
        return f"```\nPrompt {len(asked)}.\n```"

    b.lab._reflector = flaky
    evolve(
        b.lab,
        [b.config.seed_prompt],
        lookahead(b),
        SETTINGS.model_copy(update={"proposals": 4, "max_metric_calls": 24}),
    )
    assert asked[4][0] == asked[1][0] and len({seed for _, seed in asked}) == len(asked)
    tried = {row["context"] for name, row in b.pending if name == "rollouts"}
    assert {"Prompt 1.", "Prompt 3.", "Prompt 4."} <= tried and not {"Prompt 2.", "Prompt 5."} & tried
    assert b.ledger.reflection_reasons == {"twice": 2} and b.ledger.reflections == len(asked)


class Counting:
    """The reference policy's own sampling, with the requests and texts of each call."""

    def __init__(self, sample: Callable[..., list[list[Sample]]]):
        self.sample = sample
        self.calls: list[tuple[list[SampleRequest], list[str]]] = []

    def __call__(self, requests: Sequence[SampleRequest], **options: Any) -> list[list[Sample]]:
        groups = self.sample(requests, **options)
        self.calls.append((list(requests), [group[0].text for group in groups]))
        return groups


@pytest.mark.parametrize("method", ["gepa", "fst"])
def test_the_base_policy_reflects_once_in_an_iteration(
    bench: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """Two rounds, four proposals at a time: one call of the reference policy for all four, and the same texts.

    Answers that do not end are failures: a second call asks for those of one iteration again.
    """
    b = bench(method=method, fast={"reflector": "base-policy", "proposals": 4, "max_metric_calls": 48})
    iterations: list[int] = []
    sample_tasks = IndependentSampling.sample_tasks

    def counted(self: IndependentSampling, *arguments: Any) -> list[Any]:
        tasks = sample_tasks(self, *arguments)
        iterations.append(len(tasks))
        return tasks

    monkeypatch.setattr(IndependentSampling, "sample_tasks", counted)
    counting = Counting(b.policy.reference.sample)
    monkeypatch.setattr(b.policy.reference, "sample", counting)
    for step in range(3):
        b.method.step(b.lab.begin(step))
    assert len(iterations) > 2 and set(iterations) == {4}
    sizes = [len(requests) for requests, _ in counting.calls]
    assert sizes.count(4) >= len(iterations) >= len(sizes) / 2 and b.ledger.reflections == sum(sizes)
    assert set(b.ledger.reflection_reasons) <= {"reply cut off"} and b.ledger.reflection_failures < sum(sizes)
    for requests, texts in counting.calls:
        assert [counting.sample([request])[0][0].text for request in requests] == texts


def test_a_round_in_batches_is_the_round_one_by_one(bench: Callable[..., Bench]) -> None:
    """Populations, rollouts and ledger, to the last of them."""
    rounds = []
    for one_by_one in (False, True):
        b = bench(fast={"reflector": "base-policy"})
        if one_by_one:
            together = b.lab._reflector
            b.lab._reflector = lambda prompt, seed, r=together: r.reflect_many([prompt], [seed])[0]  # type: ignore[misc]
        evolve(b.lab, [b.config.seed_prompt], lookahead(b), SETTINGS.model_copy(update={"proposals": 4}))
        rounds.append((b.pending, b.ledger.counts()))
    assert rounds[0] == rounds[1] and rounds[0][1]["reflections"] > 4


def test_worked_examples_are_right_answers_to_problems_that_do_not_decide(bench: Callable[..., Bench]) -> None:
    prompt = "Put the answer in \\boxed{}. Handle a single operation before the next one."
    easy = {"math": {"operations": 2, "max_value": 20, "max_operand": 5}}
    b = bench(seed_prompt=prompt, batch=16, difficulty=easy, fast={"reflector": "demonstrations"})
    settings = SETTINGS.model_copy(update={"max_metric_calls": 80})
    problems = lookahead(b)
    evolve(b.lab, [prompt], problems, settings)
    rows = [row for name, row in b.pending if name == "rollouts"]
    decide = {row["problem"] for row in rows if row["purpose"] == "valset"}
    contexts = {row["context"] for row in rows} - {prompt}
    assert len(contexts) > 3 and all(context.startswith(prompt + "\n\nProblem: ") for context in contexts)
    right = {
        f"Problem: {b.stream.problem(row['problem']).prompt}\nSolution: {row['text'].strip()}"
        for row in rows
        if row["reward"] == 1 and row["problem"] not in decide
    }
    shown = {f"Problem: {part}" for context in contexts for part in context.split("\n\nProblem: ")[1:]}
    assert shown and shown <= right


def test_a_budget_that_cannot_pay_is_refused() -> None:
    with pytest.raises(ValueError, match="too small"):
        FastSettings(population_size=8, valset_size=16, max_metric_calls=100)
