"""Answers in several turns, on the real model: a task whose environment always replies makes it speak twice."""

import json
import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import fst_bench
from fst_bench import validate
from fst_bench.harness.loop import Bench
from fst_bench.harness.evaluate import Point, evaluate
from fst_bench.fast.evolve import MAX_HEARD, evolve
from fst_bench.fast.gepa_adapter import Adapter
from fst_bench.core.types import ReflectionExample
from fst_bench.method.settings import FastSettings
from fst_bench.core.types import RolloutRequest, Rollout
from fst_bench.method.lab import conversation
from fst_bench.core.types import SampleRequest, Sample
from fst_bench.policy.torch.backend import TorchPolicy
from fst_bench.harness.store import Store
from fst_bench.tasks import Problem, load_task
from fst_bench.tasks.hover_search import ERRORS, HoverSearch
from fst_bench.policy.rollout import Answer, generate
from fst_bench.core.types import Turn

HEARD = "Error: one call at a time."


class Talkative(HoverSearch):
    """Replies to whatever is said first, as to a bad call; and once more to every other text."""

    def respond(self, problem: Problem, turns: Sequence[str]) -> str | None:
        return HEARD if len(turns) == 1 or (len(turns) == 2 and len(turns[-1]) % 2) else None


KNOBS = {"chains": 3, "hops": 2, "style": "bare", "shown": 3}
TASK = Talkative(HoverSearch.Difficulty(**KNOBS))


@pytest.fixture
def talking(bench: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Bench]:
    monkeypatch.setattr(HoverSearch, "respond", Talkative.respond)
    return lambda method="base", **settings: bench(
        "single-hover-search", method, **({"policy.max_tokens": 40} | settings)
    )


def asks(n: int) -> list[SampleRequest]:
    return [
        SampleRequest(conversation("Work step by step.", p.prompt), i, n)
        for i, p in enumerate(TASK.problems("test", 0, 6))
    ]


def responds(n: int) -> list[Callable[[Sequence[str]], str | None]]:
    return [partial(TASK.respond, p) for p in TASK.problems("test", 0, n)]


def spoken(policy: TorchPolicy, sample: Sample) -> list[str]:
    """The text of each stretch of sampled tokens, the ends of turns cut off."""
    stretches: list[list[int]] = []
    for i, (token, own) in enumerate(zip(sample.tokens, sample.mask, strict=True)):
        if own:
            if not sample.mask[i - 1]:
                stretches.append([])
            stretches[-1].append(token)
    return [
        policy.tokenizer.decode([t for t in stretch if t not in policy.end], skip_special_tokens=False)
        for stretch in stretches
    ]


def test_a_task_without_a_tool_is_one_call_of_the_policy(policy: TorchPolicy, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = policy.sample(asks(2))
    sampling, made = policy.sample, []

    def counted(*arguments: Any, **options: Any) -> list[list[Sample]]:
        made.append(arguments)
        return sampling(*arguments, **options)

    monkeypatch.setattr(policy, "sample", counted)
    plain = load_task("hover", chains=3, hops=2, style="bare")
    got = answers(policy, asks(2), [partial(plain.respond, p) for p in plain.problems("test", 0, 6)])
    assert got == [[Answer(sample) for sample in group] for group in wanted] and len(made) == 1


def test_turns_go_on_from_the_tokens_that_were_sampled(policy: TorchPolicy) -> None:
    policy.settings.max_tokens = 40
    first = policy.sample(asks(4))
    got = answers(policy, asks(4), responds(6))
    lengths = set()
    for one, answer in zip((s for g in first for s in g), (a for g in got for a in g), strict=True):
        assert answer.sample.tokens[: len(one.tokens)] == one.tokens
        assert [*answer.said, answer.sample.text] == spoken(policy, answer.sample)
        assert len(answer.said) <= 2 and set(answer.before) <= {Turn(said, HEARD) for said in answer.said}
        assert answer.sample.sampled == sum(answer.sample.mask) <= 40
        assert one.finished or answer == Answer(one)
        assert not one.finished or one.sampled == 40 or answer.said
        lengths.add(len(answer.said))
    assert lengths == {1, 2}
    assert all(a.before[0].heard in policy.tokenizer.decode(a.sample.tokens) for g in got for a in g if a.before)


def test_what_is_cut_off_in_its_first_turn_is_not_replied_to(policy: TorchPolicy) -> None:
    policy.settings.max_tokens = 4
    assert answers(policy, asks(2), responds(6)) == [
        [Answer(sample) for sample in group] for group in policy.sample(asks(2))
    ]


def test_a_conversation_does_not_depend_on_others(policy: TorchPolicy) -> None:
    policy.settings.max_tokens = 60
    together = answers(policy, asks(3), responds(6))
    assert together == answers(policy, asks(3), responds(6))
    for ask, respond, group in zip(asks(3), responds(6), together, strict=True):
        (alone,) = answers(policy, [ask], [respond])
        assert [(a.sample.tokens, a.before) for a in alone] == [(a.sample.tokens, a.before) for a in group]
    assert len({a.sample.text for a in together[0]}) > 1


def test_a_reply_that_leaves_no_room_ends_the_conversation_unfinished(policy: TorchPolicy) -> None:
    long = [lambda turns: "Ana Corvex. " * 2_000] * 6
    for (one,), (answer,) in zip(policy.sample(asks(1)), answers(policy, asks(1), long), strict=True):
        assert (answer.sample.tokens, answer.sample.text, answer.sample.finished, answer.before) == (
            one.tokens,
            one.text,
            False,
            (),
        )
    endless = [g[0] for g in answers(policy, asks(1), [lambda turns: "Go on."] * 6)]
    assert all(not a.sample.finished and a.sample.sampled == policy.settings.max_tokens for a in endless), (
        "every turn costs tokens"
    )


def test_the_lab_charges_all_turns_and_keeps_what_was_said(talking: Callable[..., Bench]) -> None:
    b = talking()
    batch = b.lab.begin(0)
    flat = [
        r
        for group in b.lab.sample([RolloutRequest(p, "Work step by step.", 12) for p in batch], "probe")
        for r in group
    ]
    assert b.ledger.sampled_tokens == sum(sum(r.sample.mask) for r in flat)
    assert b.ledger.prompt_tokens == sum(len(r.sample.mask) - sum(r.sample.mask) for r in flat)
    assert b.ledger.total_rollouts == len(flat) == 48
    rows = [row for name, row in b.pending if name == "rollouts"]
    assert {len(row.get("turns", [])) for row in rows} == {1, 2}
    for r, row in zip(flat, rows, strict=True):
        said = [turn["said"] for turn in row.get("turns", [])]
        replies = [
            message
            for text in said
            for message in ({"role": "assistant", "content": text}, {"role": "tool", "content": HEARD})
        ]
        assert list(r.messages) == [*conversation("Work step by step.", r.problem.prompt), *replies]
        assert [*said, row["text"]] == spoken(b.policy, r.sample) and ("turns" in row) == bool(said)  # type: ignore[arg-type]
        assert (ERRORS[HEARD.removeprefix("Error: ")] in r.score.feedback) == bool(said)


def test_reflection_reads_the_conversation_and_the_tools_errors(talking: Callable[..., Bench]) -> None:
    """A real round of evolution: its reflection prompts, and the data set behind one of them."""
    b, prompts = talking(), []
    reflector = b.lab._reflector
    b.lab._reflector = lambda prompt, seed: prompts.append(prompt) or reflector(prompt, seed)  # type: ignore[func-returns-value]
    b.lab.begin(0)
    lookahead = [p for batch in b.lab.peek(3) for p in batch]
    evolve(
        b.lab, [b.config.seed_prompt], lookahead, FastSettings(population=2, budget=60, anchor=4, minibatch=4, cycle=3)
    )
    assert any(
        f"[the tool replied] {HEARD}" in prompt and ERRORS[HEARD.removeprefix("Error: ")] in prompt
        for prompt in prompts
    )
    adapter = Adapter(b.lab, lookahead[:4])
    (batch,) = adapter.batch_evaluate([({"system_prompt": ""}, lookahead[4:10])])
    (records,) = adapter.make_reflective_dataset({}, batch, ["system_prompt"]).values()
    for evidence, record in zip(batch.trajectories or [], records, strict=True):
        assert record == {
            "Inputs": evidence.problem.prompt,
            "Generated Outputs": evidence.text,
            "Feedback": evidence.feedback,
        }
    for (r,) in b.lab.sample([RolloutRequest(p, "") for p in lookahead], "probe"):
        said = [m["content"] for m in r.messages if m["role"] == "assistant"]
        assert ReflectionExample.of(r).text == "\n".join(
            [*(f"{text}\n[the tool replied] {HEARD}" for text in said), r.sample.text]
        )
        assert ReflectionExample.of(r).feedback == r.score.feedback


def test_a_long_reply_is_cut_for_reflection(talking: Callable[..., Bench]) -> None:
    b = talking()
    (r,) = b.lab.sample([RolloutRequest(b.lab.begin(0)[0], "")], "probe")[0]
    long = Rollout(r.problem, "", ({"role": "tool", "content": "x" * (MAX_HEARD + 7)},), r.sample, r.verdict, 0)
    assert (
        ReflectionExample.of(long).text
        == f"[the tool replied] {'x' * MAX_HEARD} ... (7 characters more)\n{r.sample.text}"
    )


def test_learning_and_kl_count_sampled_tokens_only(talking: Callable[..., Bench]) -> None:
    b = talking("rl")
    facts = b.method.step(b.lab.begin(0))
    assert facts["reward"] >= 0
    groups = b.lab.sample([RolloutRequest(p, b.config.seed_prompt, 4) for p in b.lab.begin(1)], "train")
    flat = [r for group in groups for r in group]
    weights = [[0.01] * r.sample.sampled for r in flat]
    advantages = [[(-1.0) ** i] * r.sample.sampled for i, r in enumerate(flat)]
    updated = b.lab.update(flat, advantages, weights, lambda new, old, advantages: -advantages * new)
    assert updated["tokens"] == sum(r.sample.sampled for r in flat) and updated["max_logprob_gap"] < 1e-4
    task = load_task("hover-search", **KNOBS)
    rows, records = evaluate(
        b.policy, {("hover-search", "seed"): lambda prompt: ""}, {"hover-search": task}, Point(0, 0, True, 0, 0, 0, 0),
        seed=0, n=8, samples=2, temperature=1.0,
    )  # fmt: skip
    assert rows[0]["kl"] > 0 and any("turns" in record for record in records)


@pytest.mark.parametrize("method", ["rl", "gepa", "fst"])
def test_a_run_can_be_scored_and_resumed(
    talking: Callable[..., Bench], tmp_path: Path, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = fst_bench.run("single-hover-search", method, preset="smoke", out=tmp_path, **{"policy.max_tokens": 60})
    stored = Store(run.path).rows("answers")
    assert any("turns" in row for row in stored)
    assert [complaint for _, complaint in validate.run(str(run.path)) if complaint] == []
    again = tmp_path / "again"
    shutil.copytree(run.path, again)
    (again / "manifest.json").unlink()
    shutil.rmtree(Store(again).checkpoints()[-1])
    fst_bench.resume(again)
    for name in ("rollouts.jsonl", "answers.jsonl", "evals.jsonl", "metrics.json"):
        assert not (run.path / name).exists() or (run.path / name).read_bytes() == (again / name).read_bytes()
    monkeypatch.undo()  # the tool that is shipped says something else
    assert [
        complaint
        for _, complaint in validate.run(str(run.path))
        if complaint and "was told what its tool does not say" in complaint
    ]


@pytest.mark.parametrize("method", ["rl", "gepa", "fst"])
def test_a_run_with_the_tool_as_it_is(tmp_path: Path, method: str) -> None:
    run = fst_bench.run("single-hover-search", method, preset="smoke", out=tmp_path)
    assert run.evals.accuracy.between(0, 1).all() and run.ledger["sampled_tokens"] > 0
    assert [complaint for _, complaint in validate.run(str(run.path)) if complaint] == []
    assert json.loads((run.path / "config.json").read_text())["stages"][0]["task"] == "hover-search"
