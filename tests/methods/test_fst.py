"""FST to the letter of the paper, on the embedded model with the real gepa."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from fst_bench.methods.fst import spread
from hypothesis import given
from hypothesis import strategies as st

from fst_bench.harness.loop import Bench


def test_a_group_of_eight_over_three_prompts() -> None:
    assert [spread(8, 3, offset) for offset in (0, 1, 2, 3)] == [[3, 3, 2], [2, 3, 3], [3, 2, 3], [3, 3, 2]]
    assert spread(8, 4, 1) == [2, 2, 2, 2]
    assert spread(2, 4, 3) == [1, 0, 0, 1]


@given(st.integers(1, 32), st.integers(1, 9), st.integers(0, 100))
def test_the_spread_is_even(group: int, prompts: int, offset: int) -> None:
    shares = spread(group, prompts, offset)
    assert sum(shares) == group and max(shares) - min(shares) <= 1


def rows(b: Bench, name: str) -> list[dict[str, Any]]:
    return [row for n, row in b.pending if n == name]


def test_lookahead_is_charged_when_it_is_seen(bench: Callable[..., Bench]) -> None:
    b = bench(method="fst", fast={"cycle": 3})
    seen = []
    for step in range(3):
        b.method.step(b.lab.begin(step))
        seen.append(b.ledger.problems)
    assert seen == [12, 12, 12]  # three batches of four at the first step, nothing new after it
    assert len(rows(b, "prompts")) == 1


def test_a_cycle_that_straddles_a_switch_is_an_ordinary_cycle(bench: Callable[..., Bench]) -> None:
    """Stages of 12 problems, batches of 4, cycles of 2: the second cycle spans math and codeio."""
    b = bench("continual-4", "fst")
    for step in range(4):
        b.method.step(b.lab.begin(step))
    second = [row for row in rows(b, "rollouts") if row["step"] == 2 and row["purpose"] != "train"]
    assert {task for row in second for task in b.stream.stage_of(row["problem"]).tasks} == {"math", "codeio"}
    assert {row["problem"] for row in second} <= set(range(8, 16))
    assert len(rows(b, "prompts")) == 2


def test_the_group_is_spread_over_the_population(bench: Callable[..., Bench]) -> None:
    b = bench(method="fst", slow={"group_size": 5}, fast={"cycle": 2})
    b.method.load({"steps": 1, "prompts": ["Work step by step.", "Answer directly."]})  # inside a cycle: no evolution
    b.method.step(b.lab.begin(0))
    train = rows(b, "rollouts")
    assert {row["purpose"] for row in train} == {"train"}
    for problem in range(4):
        shares = Counter(row["context"] for row in train if row["problem"] == problem)
        assert set(shares) == set(b.method.prompts) and sorted(shares.values()) == [2, 3]
    assert len({tuple(row["context"] for row in train if row["problem"] == p) for p in (0, 1)}) == 2  # the offset moves


def test_prompts_stay_within_a_cycle(bench: Callable[..., Bench]) -> None:
    b = bench(method="fst", fast={"cycle": 2}, stage_problems=16)
    prompts = []
    for step in range(4):
        b.method.step(b.lab.begin(step))
        prompts.append(list(b.method.prompts))
    assert prompts[0] == prompts[1] and prompts[2] == prompts[3]
    assert b.method.context_for("anything") == prompts[3][0]


@pytest.mark.parametrize("method", ["base", "rl", "gepa", "fst"])
def test_state_is_all_a_method_remembers(bench: Callable[..., Bench], method: str) -> None:
    """A method rebuilt from its state does the same step."""
    first, second = bench(method=method), bench(method=method)
    first.method.step(first.lab.begin(0))
    second.method.step(second.lab.begin(0))
    second.method = type(second.method)(second.lab, second.method.config)
    second.method.load(first.method.state())
    for b in (first, second):
        b.method.step(b.lab.begin(1))
    assert rows(first, "rollouts") == rows(second, "rollouts")


def test_gepa_changes_no_weight_and_rl_no_prompt(bench: Callable[..., Bench]) -> None:
    g, r = bench(method="gepa"), bench(method="rl")
    for b in (g, r):
        b.method.step(b.lab.begin(0))
    assert g.policy.version == 0 and "train" not in g.ledger.rollouts
    assert set(r.ledger.rollouts) == {"train"} and r.method.context_for("x") == r.config.seed_prompt
