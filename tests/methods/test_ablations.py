"""Every ablation at its neutral setting is its parent, bit for bit; away from it, it does the one thing of its name."""

import json
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from fst_bench.methods.fst_random import mutate
from hypothesis import given
from hypothesis import strategies as st

from fst_bench.core.types import ProblemHandle, Rollout, RolloutRequest
from fst_bench.fast.archive import Archive, cosine, words
from fst_bench.harness.loop import Bench
from fst_bench.harness.planning.cost import estimate
from fst_bench.method.registry import METHODS
from fst_bench.slow.losses import ppo_clip
from fst_bench.tasks import Score

EASY = {"math": {"operations": 2, "max_value": 60, "max_operand": 9, "format_given": True}}
"""Some answers are right from the start, so that weights move."""
NEVER = 10**9

NEUTRAL: list[tuple[str, dict[str, Any], str, dict[str, Any]]] = [
    ("rl-grpo", {"epsilon_low": 1.0, "epsilon_high": 1e9}, "rl", {"slow": {"ratio_clip_max": 1e9}}),
    ("rl-kl", {"beta": 0.0}, "rl", {}),
    ("rl-prompted", {}, "rl", {}),
    ("rl-informed", {}, "rl", {}),
    ("rl-replay", {"share": 0.0}, "rl", {}),
    ("gepa-matched", {"share": 0.0}, "gepa", {}),
    ("gepa-archive", {"threshold": 0.0}, "gepa", {}),
    ("gepa-then-rl", {"phase": NEVER}, "gepa", {}),
    ("rl-then-gepa", {"phase": NEVER}, "rl", {}),
    ("fst-single", {"population_size": 2}, "fst", {}),
    ("fst-frozen", {"rounds": NEVER}, "fst", {}),
    ("fst-no-lookahead", {"lookahead": True}, "fst", {}),
    ("fst-prompt-advantage", {"per": "problem"}, "fst", {}),
    ("fst-random", {"share": 0.0}, "fst", {}),
    ("fst-drop", {"share": 0.0}, "fst", {}),
    ("fst-archive", {"threshold": 0.0}, "fst", {}),
    ("fst-reuse", {"reuse": False}, "fst", {}),
    ("fst-distill", {"weight": 0.0}, "fst", {}),
]


@pytest.fixture
def bench(bench: Callable[..., Bench]) -> Callable[..., Bench]:
    """A stage of eight steps."""
    return partial(bench, stage_problems=32)


def stepped(b: Bench, steps: int) -> list[dict[str, Any]]:
    return [b.method.step(b.lab.begin(step)) for step in range(steps)]


def rows(b: Bench, name: str) -> list[dict[str, Any]]:
    return [row for n, row in b.pending if n == name]


def numbers(b: Bench) -> dict[str, Any]:
    return {
        "rollouts": rows(b, "rollouts"),
        "prompts": rows(b, "prompts"),
        "answers under": b.method.context_for("Start and apply"),
        "ledger": b.ledger.counts(),
        "weights": [p.detach().numpy().tobytes() for p in b.policy.model.parameters()],
    }


def test_every_ablation_has_a_neutral_setting() -> None:
    assert sorted(method for method, *_ in NEUTRAL) == sorted(METHODS.keys() - {"base", "rl", "gepa", "fst"})


@pytest.mark.parametrize(("method", "settings", "parent", "also"), NEUTRAL, ids=[row[0] for row in NEUTRAL])
def test_at_its_neutral_setting_it_is_its_parent(
    bench: Callable[..., Bench], method: str, settings: dict[str, Any], parent: str, also: dict[str, Any]
) -> None:
    ablation, original = (
        bench(method=method, difficulty=EASY, settings=settings),
        bench(method=parent, difficulty=EASY, **also),
    )
    for b in (ablation, original):
        stepped(b, 3)
    assert numbers(ablation) == numbers(original)
    # something was learned: the comparison is of something
    assert bool(ablation.ledger.optimizer_steps) == METHODS[parent].trains


@pytest.mark.parametrize("method", [row[0] for row in NEUTRAL])
def test_a_state_is_all_it_remembers(bench: Callable[..., Bench], method: str) -> None:
    b, again = bench(method=method, difficulty=EASY), bench(method=method, difficulty=EASY)
    stepped(b, 3)
    again.method.load(json.loads(json.dumps(b.method.state())))
    again.policy.model.load_state_dict(b.policy.model.state_dict())
    again.policy.optimizer.load(b.policy.optimizer.state())
    again.policy.version = b.policy.version
    b.pending.clear()
    for run in (b, again):
        run.method.step(run.lab.begin(3))
    assert rows(again, "rollouts") == rows(b, "rollouts") and again.method.state() == b.method.state()


def rewarded(b: Bench, contexts: list[str], rewards: list[float]) -> list[Rollout]:
    """Real rollouts of the first problem, one for each context, with these rewards."""
    problem = b.lab.begin(0)[0]
    found = b.lab.sample([RolloutRequest(problem, context) for context in contexts], "train")
    return [replace(group[0], score=Score(reward, "", "ok")) for group, reward in zip(found, rewards, strict=True)]


def test_rl_kl_takes_the_penalty_from_the_advantage(bench: Callable[..., Bench]) -> None:
    kls = []
    for beta in (0.0, 5.0):
        b = bench(method="rl-kl", difficulty=EASY, settings={"beta": beta}, slow={"group_size": 8})
        stepped(b, 6)
        samples = [r.sample for r in rewarded(b, ["", "Work step by step."] * 4, [0.0] * 8)]
        kls.append(sum(b.policy.kl_to_reference(samples)))
    assert 0 < kls[1] < kls[0]


def test_rl_prompted_trains_and_answers_under_its_prompt(bench: Callable[..., Bench]) -> None:
    b = bench(method="rl-prompted", difficulty=EASY, settings={"prompt": "Work step by step."})
    stepped(b, 2)
    assert {row["context"] for row in rows(b, "rollouts")} == {"Work step by step."}
    assert b.method.context_for("Start and apply in order: 2 +3") == "Work step by step."


def test_rl_informed_tells_tasks_apart_by_their_text(bench: Callable[..., Bench]) -> None:
    prompts = {"apply in order": "Work step by step.", "Edges:": "Trace the path."}
    b = bench(method="rl-informed", difficulty=EASY, settings={"prompts": prompts})
    stepped(b, 2)
    assert {row["context"] for row in rows(b, "rollouts")} == {"Work step by step."}
    assert b.method.context_for("Edges:B<-A\nSource:A Goal:B") == "Trace the path."
    assert b.method.context_for("def f(a):") == b.config.seed_prompt


def test_rl_replay_trains_on_what_it_has_seen_and_pays(bench: Callable[..., Bench]) -> None:
    b = bench(method="rl-replay", difficulty=EASY, settings={"share": 0.5, "memory": 3})
    metrics = stepped(b, 3)
    assert [f["replayed"] for f in metrics] == [0, 2, 2]
    assert b.ledger.total_rollouts == 4 * (4 + 6 + 6)
    for step in (1, 2):
        earlier = {row["problem"] for row in rows(b, "rollouts") if row["step"] == step} - {
            p.index for p in b.lab.begin(step)
        }
        assert len(earlier) == 2 and max(earlier) < 4 * step
    assert len(b.method.memory) == 3


def test_phases_take_turns(bench: Callable[..., Bench]) -> None:
    for method, expected in (("gepa-then-rl", "ffwwff"), ("rl-then-gepa", "wwffww")):
        b = bench(method=method, difficulty=EASY, settings={"phase": 2}, fast={"cycle": 1})
        seen = ""
        for step in range(6):
            b.pending.clear()
            b.method.step(b.lab.begin(step))
            seen += "w" if {row["purpose"] for row in rows(b, "rollouts")} == {"train"} else "f"
        assert seen == expected


def test_fst_single_samples_under_one_prompt(bench: Callable[..., Bench]) -> None:
    b = bench(method="fst-single", difficulty=EASY)
    stepped(b, 2)
    assert len({row["context"] for row in rows(b, "rollouts") if row["purpose"] == "train"}) == 1


def test_fst_frozen_evolves_once(bench: Callable[..., Bench]) -> None:
    b = bench(method="fst-frozen", difficulty=EASY, fast={"cycle": 1})
    stepped(b, 3)
    assert [row["step"] for row in rows(b, "prompts")] == [0]


def test_fst_no_lookahead_looks_back(bench: Callable[..., Bench]) -> None:
    b = bench(method="fst-no-lookahead", difficulty=EASY, fast={"cycle": 2})
    for step in range(3):
        b.method.step(b.lab.begin(step))
        assert b.ledger.problems == 4 * (step + 1)  # nothing fetched ahead
    evolved = [row for row in rows(b, "rollouts") if row["purpose"] != "train"]
    assert evolved and {row["step"] for row in evolved} == {2} and max(row["problem"] for row in evolved) < 8


def test_fst_prompt_advantage_by_hand(bench: Callable[..., Bench]) -> None:
    b = bench(method="fst-prompt-advantage", difficulty=EASY)
    group = rewarded(b, ["A", "B", "A", "B", "B"], [1.0, 0.0, 0.0, 0.0, 0.0])
    right, wrong = (sum(r.sample.logprobs) for r in (group[0], group[2]))
    # among A: 1 and 0, so +1 and -1; among B nothing but zeros. Every ratio is 1
    assert b.method.slow([group])["loss"] == pytest.approx(
        -(right - wrong) / sum(r.sample.sampled for r in group), rel=1e-4
    )


def test_fst_random_neither_samples_nor_reflects_for_prompts(bench: Callable[..., Bench]) -> None:
    b = bench(method="fst-random", difficulty=EASY, fast={"cycle": 1})
    stepped(b, 3)
    assert set(b.ledger.rollouts) == {"train"} and not b.ledger.reflections
    assert len(b.method.prompts) == 2 and b.method.prompts[0] != b.config.seed_prompt


@given(
    st.text(st.characters(codec="utf-8", categories=("L", "N", "P")), min_size=1).map(lambda t: t + " word"),
    st.integers(0, 999),
)
def test_a_mutation_is_never_empty_nor_too_long(prompt: str, seed: int) -> None:
    changed = mutate(prompt, random.Random(seed), 60)
    assert changed.split() and (len(changed) <= 60 or changed == prompt)
    assert set(changed.split()) <= set(prompt.split())


def test_fst_drop_keeps_none_below_half_of_the_best(bench: Callable[..., Bench]) -> None:
    kept = bench(method="fst-drop", difficulty=EASY, settings={"share": 1.0}, fast={"cycle": 1})
    for step in range(3):
        kept.method.step(kept.lab.begin(step))
        scores = {p["prompt"]: p["score"] for p in rows(kept, "prompts")[-1]["population"]}
        assert set(kept.method.prompts) == {prompt for prompt, score in scores.items() if score >= max(scores.values())}
    assert any(len(row["population"]) > 1 for row in rows(kept, "prompts"))


def test_gepa_matched_spends_what_fst_does(bench: Callable[..., Bench]) -> None:
    spent = {}
    for method in ("gepa-matched", "fst", "gepa"):
        b = bench(method=method, difficulty=EASY)
        stepped(b, 4)
        spent[method] = b.ledger.total_rollouts
    assert abs(spent["gepa-matched"] - spent["fst"]) <= 2 * (4 + 2 * 4) < spent["fst"] - spent["gepa"]


@pytest.mark.parametrize("method", [name for name in METHODS if name != "base"])
def test_no_method_spends_more_than_a_dry_run_says(bench: Callable[..., Bench], method: str) -> None:
    b = bench(method=method, difficulty=EASY)
    stepped(b, 8)
    most = estimate(b.config, b.stream.spec)
    train = b.ledger.rollouts["train"]
    assert train <= most["training_rollouts"] and b.ledger.total_rollouts - train <= most["evolution_rollouts"]


def test_fst_reuse_samples_less_for_reflection(bench: Callable[..., Bench]) -> None:
    spent = {}
    for reuse in (True, False):
        b = bench(
            method="fst-reuse", difficulty=EASY, settings={"reuse": reuse}, fast={"cycle": 1, "population_size": 1}
        )
        stepped(b, 3)
        spent[reuse] = Counter(row["purpose"] for row in rows(b, "rollouts") if row["step"] > 0)
    assert spent[True]["train"] == spent[False]["train"] and spent[True]["feedback"] < spent[False]["feedback"]


def test_fst_distill_raises_right_answers_after_the_seed_prompt(bench: Callable[..., Bench]) -> None:
    b = bench(method="fst-distill", difficulty=EASY)
    right = rewarded(b, ["Work step by step."] * 4, [1.0] * 4)
    before = b.lab.with_prompt(right, b.config.seed_prompt)
    assert [r.sample.text for r in before] == [r.sample.text for r in right] and {r.context for r in before} == {
        b.config.seed_prompt
    }
    metrics = b.method.slow([right])
    tokens = sum(r.sample.sampled for r in right)
    assert metrics["distillation_loss"] == pytest.approx(
        -sum(lp for r in before for lp in r.sample.logprobs) / tokens, rel=1e-4
    )
    assert metrics["distilled"] == 4 and b.ledger.optimizer_steps == 1  # the group has no variance: no RL step
    after = b.lab.with_prompt(right, b.config.seed_prompt)
    assert sum(lp for r in after for lp in r.sample.logprobs) > sum(lp for r in before for lp in r.sample.logprobs)


@pytest.mark.parametrize("overlong", ["zero", "mask"])
def test_fst_distill_learns_no_answer_that_learning_counts_for_nothing(
    bench: Callable[..., Bench], overlong: str
) -> None:
    b = bench(method="fst-distill", difficulty=EASY, slow={"overlong": overlong})
    right = rewarded(b, ["Work step by step."] * 4, [1.0] * 4)
    cut = [replace(r, sample=replace(r.sample, finished=i > 0)) for i, r in enumerate(right)]
    assert b.method.slow([cut])["distilled"] == 3


# --- the archive


def test_cosine_by_hand() -> None:
    assert words("The cat, the CAT and 12 a_b dogs!") == {"the": 2, "cat": 2, "and": 1, "dogs": 1}
    assert cosine(Counter(a=1, b=1), Counter(a=1)) == pytest.approx(0.5**0.5)
    assert cosine(Counter(), Counter(a=1)) == 0


@given(
    st.lists(
        st.lists(st.sampled_from(["alpha", "beta", "gamma", "delta", "eps"]), max_size=5), min_size=1, max_size=12
    ),
    st.floats(0, 1),
)
def test_every_problem_has_one_place(texts: list[list[str]], threshold: float) -> None:
    archive = Archive("seed", threshold)
    problems = [ProblemHandle(i, " ".join(text)) for i, text in enumerate(texts)]
    shares = archive.place(problems)
    assert len(shares) == len(archive.entries) and sorted(p.index for share in shares for p in share) == list(
        range(len(texts))
    )
    if threshold == 0:
        assert len(shares) == 1
    again = Archive("seed", threshold)
    again.load(json.loads(json.dumps(archive.state())))
    assert again.state() == archive.state() and [again.prompts_for(p.prompt) for p in problems] == [
        archive.prompts_for(p.prompt) for p in problems
    ]


def test_tasks_fall_apart_by_their_words(bench: Callable[..., Bench]) -> None:
    b = bench("continual-4")
    stages = [range(stage.start, stage.end) for stage in b.stream.stages]
    problems = [[ProblemHandle(i, b.stream.problem(i).prompt) for i in stage] for stage in stages]
    archive = Archive("seed", 0.3)
    for task in problems:
        archive.place(task)
    assert len(archive.entries) == 4
    for n, entry in enumerate(archive.entries):
        entry.prompts = [f"prompt {n}"]
    assert [{archive.prompts_for(p.prompt)[0] for p in task} for task in problems] == [
        {f"prompt {n}"} for n in range(4)
    ]
    assert archive.prompts_for("Who goes there?") == ["seed"]


def test_an_archive_answers_each_task_under_its_own_prompt(bench: Callable[..., Bench]) -> None:
    b = bench("continual-4", "fst-archive", settings={"threshold": 0.3}, fast={"cycle": 3}, stage_problems=12)
    stepped(b, 6)  # math, then codeio
    assert len(b.method.archive.entries) == 2
    trained = {row["context"] for row in rows(b, "rollouts") if row["purpose"] == "train" and row["step"] >= 3}
    assert trained <= set(b.method.archive.entries[1].prompts)


def test_the_clipped_loss_has_ppos_gradient() -> None:
    torch.manual_seed(0)
    sampled, advantages = torch.randn(200) - 3, torch.randn(200)
    moved = (sampled + torch.randn(200) * 0.3).requires_grad_()
    (ours,) = torch.autograd.grad(ppo_clip(moved, sampled, advantages).sum(), moved)
    rho = torch.exp(moved - sampled)
    textbook = -torch.minimum(rho * advantages, rho.clamp(0.8, 1.2) * advantages).sum()
    (theirs,) = torch.autograd.grad(textbook, moved)
    assert torch.allclose(ours, theirs, atol=1e-6) and bool((ours == 0).any())
