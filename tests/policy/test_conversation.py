"""A chat template's text behind a turn of the model's, without that turn being written again."""

import json
import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import fst_bench
from fst_bench.cli import validate
from fst_bench.core.types import Problem, Rollout, RolloutRequest, Sample, SampleRequest, Trajectory, Turn
from fst_bench.fast.evolve import evolve
from fst_bench.fast.gepa_adapter import REPLY_CHARACTERS, Adapter, reflection_example
from fst_bench.harness.evaluate import ScheduledEvaluation, evaluate
from fst_bench.harness.loop import Bench
from fst_bench.harness.store import Store
from fst_bench.method.lab import conversation
from fst_bench.method.settings import FastSettings
from fst_bench.policy import PolicySettings
from fst_bench.policy.conversation import prefixes
from fst_bench.policy.loading import load_tokenizer
from fst_bench.policy.rollout import Tool, generate
from fst_bench.policy.template import Template
from fst_bench.policy.torch.backend import TorchPolicy
from fst_bench.tasks import load_task
from fst_bench.tasks.hover_search import ERRORS, HoverSearch

MESSAGES = (
    {"role": "user", "content": "7"},
    {"role": "assistant", "content": "\ue000<think>?</think><|end|>"},
    {"role": "tool", "content": "Ana Corvex."},
)
QWEN3 = (
    "{% for m in messages %}"
    "{% if m.role == 'tool' %}<|user|>\n<tool_response>\n{{ m.content }}\n</tool_response><|end|>\n"
    "{% elif m.role == 'assistant' %}<|assistant|>\n"
    "{% if loop.last %}<think>\n\n</think>\n\n{% endif %}{{ m.content }}<|end|>\n"
    "{% else %}<|{{ m.role }}|>\n{{ m.content }}<|end|>\n{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
"""As Qwen3's: a tool's reply is a user's, and only the last turn of the model's has an empty thought in front."""


def loop(body: str) -> str:
    """Return the template that writes `body` for each message m."""
    return f"{{% for m in messages %}}{body}{{% endfor %}}"


def replied(chat_template: str | None = None, last: str = "<|end|>") -> tuple[str, Any]:
    """Return what follows an answer that ended with the token `last`, once the tool has replied."""
    tokenizer = load_tokenizer("embedded:tiny")
    tokenizer.chat_template = chat_template or tokenizer.chat_template
    template = Template(tokenizer, PolicySettings(max_tokens=24))
    answer = Sample([9, *tokenizer.convert_tokens_to_ids(["7", last])], [False, True, True], [0.0, 0.0], "7", True)
    (prefix,) = prefixes(template, [SampleRequest(MESSAGES, 0, after=answer)], {tokenizer.eos_token_id}, 500)
    assert prefix.tokens[:3] == answer.tokens and prefix.mask == [False, True, True] + [False] * len(prefix.tokens[3:])
    return tokenizer.decode(prefix.tokens[3:], skip_special_tokens=False), prefix.tokens[3:]


def test_the_embedded_models_template_has_replies() -> None:
    assert replied()[0] == "<|tool|>Ana Corvex.<|assistant|>"


def test_a_template_in_qwen3s_form() -> None:
    text, tokens = replied(QWEN3)
    assert text == "\n<|user|>\n<tool_response>\nAna Corvex.\n</tool_response><|end|>\n<|assistant|>\n"
    tokenizer = load_tokenizer("embedded:tiny")
    assert [t for t in tokens if t in tokenizer.all_special_ids] == tokenizer.convert_tokens_to_ids(
        ["<|user|>", "<|end|>", "<|assistant|>"]
    )


def test_an_answer_that_a_stop_string_ended_gets_its_end_token() -> None:
    assert replied(QWEN3, last="7")[0] == "<|end|>" + replied(QWEN3)[0]


@pytest.mark.parametrize(
    ("template", "complaint"),
    [
        (
            loop("{% if m.role == 'tool' %}{{ raise_exception('only user and assistant') }}{% endif %}{{ m.content }}"),
            "cannot write a reply of the role tool: only user and assistant",
        ),
        (loop("{% if m.role != 'tool' %}{{ m.content }}{% endif %}"), "leaves out a reply of the role tool"),
        (loop("{% if m.role != 'assistant' %}{{ m.content }}{% endif %}"), "leaves out the model's own turn"),
    ],
)
def test_a_template_without_replies_is_named_in_one_line(template: str, complaint: str) -> None:
    tokenizer = load_tokenizer("embedded:tiny")
    tokenizer.chat_template = template
    loaded = Template(tokenizer, PolicySettings())  # other tasks need no replies
    with pytest.raises(ValueError, match=complaint) as error:
        loaded.check_replies()
    assert "\n" not in str(error.value)


# --- trajectories of several turns, on the real model: a task whose tool always replies makes it write twice

REPLY = "Error: one call at a time."


class Talkative(HoverSearch):
    """Replies to every first turn, as to a bad call; and once more after every other second one."""

    def respond(self, problem: Problem, turns: Sequence[str]) -> str | None:
        return REPLY if len(turns) == 1 or (len(turns) == 2 and len(turns[-1]) % 2) else None


DIFFICULTY = {"chains": 3, "hops": 2, "style": "bare", "shown": 3}
TASK = Talkative(HoverSearch.Difficulty(**DIFFICULTY))


@pytest.fixture
def talking(bench: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Bench]:
    monkeypatch.setattr(HoverSearch, "respond", Talkative.respond)
    return lambda method="base", **settings: bench(
        "single-hover-search", method, **({"policy.max_tokens": 40} | settings)
    )


def requests(n: int) -> list[SampleRequest]:
    return [
        SampleRequest(conversation("Work step by step.", p.prompt), i, n)
        for i, p in enumerate(TASK.problems("test", 0, 6))
    ]


def tools(n: int) -> list[Tool]:
    return [partial(TASK.respond, p) for p in TASK.problems("test", 0, n)]


def texts_of(policy: TorchPolicy, sample: Sample) -> list[str]:
    """Return the text of each stretch of sampled tokens, the ends of turns cut off."""
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
    expected = policy.sample(requests(2))
    sampling, made = policy.sample, []

    def counted(*arguments: Any, **options: Any) -> list[list[Sample]]:
        made.append(arguments)
        return sampling(*arguments, **options)

    monkeypatch.setattr(policy, "sample", counted)
    plain = load_task("hover", chains=3, hops=2, style="bare")
    found = generate(policy, requests(2), [partial(plain.respond, p) for p in plain.problems("test", 0, 6)])
    assert found == [[Trajectory(sample) for sample in group] for group in expected] and len(made) == 1


def test_turns_continue_from_the_tokens_that_were_sampled(policy: TorchPolicy) -> None:
    policy.settings.max_tokens = 40
    first = [sample for group in policy.sample(requests(4)) for sample in group]
    found = [trajectory for group in generate(policy, requests(4), tools(6)) for trajectory in group]
    lengths = set()
    for one, trajectory in zip(first, found, strict=True):
        earlier = trajectory.earlier
        assert trajectory.sample.tokens[: len(one.tokens)] == one.tokens
        assert [*earlier, trajectory.sample.text] == texts_of(policy, trajectory.sample)
        assert len(earlier) <= 2 and set(trajectory.turns) <= {Turn(text, REPLY) for text in earlier}
        assert trajectory.sample.sampled == sum(trajectory.sample.mask) <= 40
        assert one.finished or trajectory == Trajectory(one)
        assert not one.finished or one.sampled == 40 or earlier
        lengths.add(len(earlier))
    assert lengths == {1, 2}
    assert all(t.turns[0].tool in policy.tokenizer.decode(t.sample.tokens) for t in found if t.turns)


def test_an_answer_that_is_cut_off_in_its_first_turn_gets_no_reply(policy: TorchPolicy) -> None:
    policy.settings.max_tokens = 4
    found = generate(policy, requests(2), tools(6))
    assert found == [[Trajectory(sample) for sample in group] for group in policy.sample(requests(2))]


def test_a_conversation_does_not_depend_on_others(policy: TorchPolicy) -> None:
    policy.settings.max_tokens = 60
    together = generate(policy, requests(3), tools(6))
    assert together == generate(policy, requests(3), tools(6))
    for request, tool, group in zip(requests(3), tools(6), together, strict=True):
        (alone,) = generate(policy, [request], [tool])
        assert [(t.sample.tokens, t.turns) for t in alone] == [(t.sample.tokens, t.turns) for t in group]
    assert len({t.sample.text for t in together[0]}) > 1


def test_the_reference_policy_has_conversations_too(policy: TorchPolicy) -> None:
    """Before learning they are the policy's own."""
    policy.settings.max_tokens = 40
    assert generate(policy.reference, requests(2), tools(6)) == generate(policy, requests(2), tools(6))


def test_a_reply_that_leaves_no_room_ends_the_conversation_unfinished(policy: TorchPolicy) -> None:
    long: list[Tool] = [lambda turns: "Ana Corvex. " * 2_000] * 6
    found = generate(policy, requests(1), long)
    for (one,), (trajectory,) in zip(policy.sample(requests(1)), found, strict=True):
        sample = trajectory.sample
        assert (sample.tokens, sample.text, sample.finished) == (one.tokens, one.text, False) and not trajectory.turns
    endless = [group[0] for group in generate(policy, requests(1), [lambda turns: "Go on."] * 6)]
    assert all(not t.sample.finished and t.sample.sampled == policy.settings.max_tokens for t in endless), (
        "every turn costs tokens"
    )


def test_the_lab_charges_all_turns_and_records_them(talking: Callable[..., Bench]) -> None:
    b = talking()
    batch = b.lab.begin(0)
    groups = b.lab.sample([RolloutRequest(p, "Work step by step.", 12) for p in batch], "probe")
    flat = [rollout for group in groups for rollout in group]
    assert b.ledger.sampled_tokens == sum(sum(r.sample.mask) for r in flat)
    assert b.ledger.prompt_tokens == sum(len(r.sample.mask) - sum(r.sample.mask) for r in flat)
    assert b.ledger.total_rollouts == len(flat) == 48
    rows = [row for name, row in b.pending if name == "rollouts"]
    assert {len(row.get("turns", [])) for row in rows} == {1, 2}
    assert isinstance(b.policy, TorchPolicy)
    for r, row in zip(flat, rows, strict=True):
        earlier = [turn["assistant"] for turn in row.get("turns", [])]
        exchanges = [message for text in earlier for message in Turn(text, REPLY).messages]
        assert list(r.messages) == [*conversation("Work step by step.", r.problem.prompt), *exchanges]
        assert [*earlier, row["text"]] == texts_of(b.policy, r.sample) and ("turns" in row) == bool(earlier)
        assert (ERRORS[REPLY.removeprefix("Error: ")] in r.score.feedback) == bool(earlier)


def test_reflection_reads_the_conversation_and_the_tools_errors(talking: Callable[..., Bench]) -> None:
    """A real round of evolution: its reflection prompts, and the data set behind one of them."""
    b = talking()
    prompts: list[str] = []
    reflector = b.lab._reflector

    def recording(prompt: str, seed: int) -> str:
        prompts.append(prompt)
        return reflector(prompt, seed)

    b.lab._reflector = recording
    b.lab.begin(0)
    lookahead = [p for batch in b.lab.peek(3) for p in batch]
    settings = FastSettings(population_size=2, max_metric_calls=60, valset_size=4, reflection_minibatch_size=4, cycle=3)
    evolve(b.lab, [b.config.seed_prompt], lookahead, settings)
    assert any(
        f"[the tool replied] {REPLY}" in prompt and ERRORS[REPLY.removeprefix("Error: ")] in prompt
        for prompt in prompts
    )
    adapter = Adapter(b.lab, lookahead[:4])
    (batch,) = adapter.batch_evaluate([({"system_prompt": ""}, lookahead[4:10])])
    (records,) = adapter.make_reflective_dataset({}, batch, ["system_prompt"]).values()
    for example, record in zip(batch.trajectories or [], records, strict=True):
        assert record == {
            "Inputs": example.problem.prompt,
            "Generated Outputs": example.text,
            "Feedback": example.feedback,
        }
    for (r,) in b.lab.sample([RolloutRequest(p, "") for p in lookahead], "probe"):
        earlier = [m["content"] for m in r.messages if m["role"] == "assistant"]
        lines = [*(f"{text}\n[the tool replied] {REPLY}" for text in earlier), r.sample.text]
        assert reflection_example(r).text == "\n".join(lines)
        assert reflection_example(r).feedback == r.score.feedback


def test_a_long_reply_is_cut_for_reflection(talking: Callable[..., Bench]) -> None:
    b = talking()
    (r,) = b.lab.sample([RolloutRequest(b.lab.begin(0)[0], "")], "probe")[0]
    long = Rollout(r.problem, "", ({"role": "tool", "content": "x" * (REPLY_CHARACTERS + 7)},), r.sample, r.score, 0)
    assert (
        reflection_example(long).text
        == f"[the tool replied] {'x' * REPLY_CHARACTERS} ... (7 characters more)\n{r.sample.text}"
    )


def test_learning_and_kl_count_sampled_tokens_only(talking: Callable[..., Bench]) -> None:
    b = talking("rl", **{"evaluation.samples": 2})
    metrics = b.method.step(b.lab.begin(0))
    assert metrics["reward"] >= 0
    groups = b.lab.sample([RolloutRequest(p, b.config.seed_prompt, 4) for p in b.lab.begin(1)], "train")
    flat = [r for group in groups for r in group]
    weights = [[0.01] * r.sample.sampled for r in flat]
    advantages = [[(-1.0) ** i] * r.sample.sampled for i, r in enumerate(flat)]
    updated = b.lab.update(flat, advantages, weights, lambda new, old, advantages: -advantages * new)
    assert updated["tokens"] == sum(r.sample.sampled for r in flat) and updated["max_logprob_gap"] < 1e-4
    scheduled = ScheduledEvaluation(step=0, stage=0, boundary=True, problems=0, n=8, ended=(), cells=())
    rows, answers = evaluate(
        b.policy,
        {("hover-search", "seed"): lambda prompt: ""},
        {"hover-search": load_task("hover-search", **DIFFICULTY)},
        scheduled,
        b.ledger,
        b.config.evaluation,
        seed=0,
    )
    assert rows[0].kl > 0 and len(answers) == 16 and any(answer.turns for answer in answers)


@pytest.mark.parametrize("method", ["rl", "gepa", "fst"])
def test_a_run_can_be_scored_and_resumed(
    talking: Callable[..., Bench], tmp_path: Path, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = fst_bench.run("single-hover-search", method, preset="smoke", out=tmp_path, **{"policy.max_tokens": 60})
    assert any("turns" in row for row in Store(run.path).rows("answers"))
    assert [complaint for _, complaint in validate.run(str(run.path)) if complaint] == []
    again = tmp_path / "again"
    shutil.copytree(run.path, again)
    (again / "manifest.json").unlink()
    shutil.rmtree(Store(again).checkpoints()[-1])
    fst_bench.resume(again)
    for name in ("rollouts.jsonl", "answers.jsonl", "evals.jsonl", "metrics.json"):
        assert not (run.path / name).exists() or (run.path / name).read_bytes() == (again / name).read_bytes()
    monkeypatch.undo()  # the tool that is shipped replies something else
    complaints = [complaint for _, complaint in validate.run(str(run.path)) if complaint]
    assert any("has a reply that its tool does not give" in complaint for complaint in complaints)


@pytest.mark.parametrize("method", ["rl", "gepa", "fst"])
def test_a_run_with_the_tool_as_it_is(tmp_path: Path, method: str) -> None:
    run = fst_bench.run("single-hover-search", method, preset="smoke", out=tmp_path)
    assert run.evals.accuracy.between(0, 1).all() and run.ledger["sampled_tokens"] > 0
    assert [complaint for _, complaint in validate.run(str(run.path)) if complaint] == []
    assert json.loads((run.path / "config.json").read_text())["stages"][0]["tasks"] == ["hover-search"]
