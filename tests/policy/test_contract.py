"""The contract of `Policy`, held by every backend that is installed.

The expected numbers come from plain transformers on an exported model.
"""

import importlib.util
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from fst_bench.core.types import Sample, SampleRequest
from fst_bench.policy import Policy, PolicySettings, load_policy
from fst_bench.policy.interface import LanguageModel
from fst_bench.policy.rollout import Tool, generate
from fst_bench.slow.losses import cispo

BACKENDS = (
    ["torch", "vllm-deepspeed"]
    if importlib.util.find_spec("vllm") and importlib.util.find_spec("deepspeed")
    else ["torch"]
)
TEXTS = ["Start and apply in order: 3 +4 *2", "Start and apply in order: 5 +1 -2 +9 *2 +3", "Source:A Goal:B"]
TOKENS = 24
REPLY = "Facts: Ana Corvex. Corvex Lima."


@pytest.fixture(scope="module", params=BACKENDS)
def loaded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Policy, Path]:
    """A policy, and the folder that it saved before learning."""
    made = load_policy("embedded:tiny", PolicySettings(max_tokens=TOKENS), request.param)
    folder = tmp_path_factory.mktemp("start")
    made.save(folder)
    return made, folder


@pytest.fixture
def policy(loaded: tuple[Policy, Path]) -> Iterator[Policy]:
    """The policy as it was before learning."""
    loaded[0].start_from(loaded[1])
    yield loaded[0]


def requests(n: int = 1) -> list[SampleRequest]:
    contexts = ["", "Work step by step. Put the final answer inside \\boxed{}."]
    return [
        SampleRequest((*([{"role": "system", "content": c}] if c else []), {"role": "user", "content": t}), seed=i, n=n)
        for i, (t, c) in enumerate((t, c) for t in TEXTS for c in contexts)
    ]


def two_turns(policy: Policy, n: int = 4) -> list[Sample]:
    """Return answers that continue after a reply, by a tool that always replies once."""
    replies: list[Tool] = [lambda turns: REPLY if len(turns) == 1 else None] * 6
    found = [a.sample for group in generate(policy, requests(n), replies) for a in group if a.turns]
    assert len(found) > n
    return found


def all_of(groups: list[list[Sample]]) -> list[Sample]:
    return [s for group in groups for s in group]


def even(samples: list[Sample], weight: float) -> list[list[float]]:
    return [[weight] * s.sampled for s in samples]


def spread(values: list[float], samples: list[Sample]) -> list[list[float]]:
    """Return one value for each sample, on each of its tokens."""
    return [[value] * s.sampled for value, s in zip(values, samples, strict=True)]


def exported(model: LanguageModel, folder: Path) -> torch.nn.Module:
    model.export(folder)
    return AutoModelForCausalLM.from_pretrained(folder).eval()


def plain(model: torch.nn.Module, sample: Sample) -> torch.Tensor:
    """Return (sampled tokens, vocabulary) log-probabilities by a forward pass of nothing but this row."""
    with torch.no_grad():
        logits = model(torch.tensor([sample.tokens])).logits[0, :-1]
    return logits.double().log_softmax(-1)[torch.tensor(sample.mask[1:])]


def learn(policy: Policy, samples: list[Sample]) -> dict[str, float]:
    advantages = [1.0 if i % 2 else -1.0 for i in range(len(samples))]
    return policy.update(samples, spread(advantages, samples), even(samples, 0.01), cispo)


def test_what_a_sample_is(policy: Policy) -> None:
    groups = policy.sample(requests(3))
    assert [len(group) for group in groups] == [3] * 6 and policy.sample([]) == []
    for group in groups:
        prompts = {tuple(s.tokens[: s.mask.index(True)]) for s in group}
        assert len(prompts) == 1  # one prompt, then the answer and nothing else
        for s in group:
            assert s.mask == [False] * (len(s.tokens) - s.sampled) + [True] * s.sampled
            assert 1 <= s.sampled <= TOKENS and all(lp <= 0 for lp in s.logprobs)
            assert s.finished or s.sampled == TOKENS
    assert len({tuple(s.tokens) for s in groups[0]}) > 1


def test_text_is_the_answer_without_its_end(policy: Policy) -> None:
    samples = all_of(policy.sample(requests(4)))
    assert any(s.finished for s in samples)
    for s in samples:
        answer = s.tokens[len(s.tokens) - s.sampled :]
        assert s.text == policy.tokenizer.decode(answer[:-1] if s.finished else answer, skip_special_tokens=False)


@pytest.mark.parametrize("stops", [(" ",), ("tput",), ("never there", "\n", "=1"), ("never there",)])
def test_a_stop_string_ends_an_answer_and_changes_nothing_before_it(policy: Policy, stops: tuple[str, ...]) -> None:
    free = all_of(policy.sample(requests(3)))
    policy.settings.stop = stops
    try:
        ended = all_of(policy.sample(requests(3)))
    finally:
        policy.settings.stop = None
    for before, now in zip(free, ended, strict=True):
        answer = before.tokens[len(before.tokens) - before.sampled :]
        texts = [policy.tokenizer.decode(answer[:n], skip_special_tokens=False) for n in range(1, len(answer) + 1)]
        n = next((n for n, text in enumerate(texts, 1) if any(stop in text for stop in stops)), None)
        if n is None:
            assert (now.tokens, now.text, now.finished) == (before.tokens, before.text, before.finished)
        else:
            assert now.tokens == before.tokens[: len(before.tokens) - len(answer) + n] and now.finished
            assert now.text == texts[n - 1][: min(texts[n - 1].find(s) for s in stops if s in texts[n - 1])]
            assert len(now.mask) == len(now.tokens) and len(now.logprobs) == now.sampled == n
            assert now.logprobs == pytest.approx(before.logprobs[:n], abs=5e-5)
    assert (sum(s.sampled for s in ended) < sum(s.sampled for s in free)) == (stops != ("never there",))


def test_greedy_is_transformers_generate(policy: Policy, tmp_path: Path) -> None:
    model = exported(policy, tmp_path)
    for (sample,) in policy.sample(requests(), temperature=0.0):
        prompt = torch.tensor([sample.tokens[: sample.mask.index(True)]])
        expected = model.generate(prompt, do_sample=False, max_new_tokens=TOKENS, pad_token_id=0)[0].tolist()
        assert sample.tokens == expected


def test_logprobs_are_those_of_a_plain_forward_pass(policy: Policy, tmp_path: Path) -> None:
    learn(policy, all_of(policy.sample(requests(2))))
    model = exported(policy, tmp_path)
    samples = all_of(policy.sample(requests(3)))
    for s, again in zip(samples, policy.logprobs(samples), strict=True):
        answer = torch.tensor(s.tokens[len(s.tokens) - s.sampled :])
        chosen = plain(model, s).gather(1, answer[:, None])[:, 0].tolist()
        assert s.logprobs == pytest.approx(chosen, abs=5e-5) and again == pytest.approx(chosen, abs=5e-5)


def test_logprobs_are_at_the_temperature_of_sampling(policy: Policy, tmp_path: Path) -> None:
    model = exported(policy, tmp_path)
    samples = all_of(policy.sample(requests(2), temperature=0.5)) + all_of(policy.sample(requests(2), temperature=1.7))
    greedy = all_of(policy.sample(requests(), temperature=0.0))
    assert {s.temperature for s in samples} == {0.5, 1.7} and {s.temperature for s in greedy} == {1.0}
    together = samples + greedy  # scored in one call, each at its own temperature
    for s, again in zip(together, policy.logprobs(together), strict=True):
        answer = torch.tensor(s.tokens[len(s.tokens) - s.sampled :])
        exact = (plain(model, s) / s.temperature).log_softmax(-1).gather(1, answer[:, None])[:, 0].tolist()
        assert s.logprobs == pytest.approx(exact, abs=5e-5) and again == pytest.approx(exact, abs=5e-5)


def test_the_same_requests_give_the_same_samples_alongside_any_others(policy: Policy) -> None:
    together = policy.sample(requests(4))
    assert [[s.tokens for s in g] for g in policy.sample(requests(4))] == [[s.tokens for s in g] for g in together]
    for request, group in zip(requests(4), together, strict=True):
        assert [s.tokens for s in policy.sample([request])[0]] == [s.tokens for s in group]


def test_more_prompts_than_fit_into_one_pass(policy: Policy) -> None:
    long = [SampleRequest(({"role": "user", "content": f"{i} " + "Source:A Goal:B " * 40},), seed=i) for i in range(80)]
    groups = policy.sample(long)
    assert sum(len(s.tokens) for s in all_of(groups)) > 20_000
    assert policy.sample(long[-1:])[0][0].tokens == groups[-1][0].tokens


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_sampling_follows_the_distribution(
    policy: Policy, tmp_path: Path, temperature: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first token of 2,000 samples against its exact probabilities, untruncated."""
    monkeypatch.setattr(policy.settings, "max_tokens", 1)
    same = [SampleRequest(({"role": "user", "content": TEXTS[0]},), seed=1000 * i, n=100) for i in range(20)]
    samples = all_of(policy.sample(same, temperature=temperature))
    start = samples[0].mask.index(True)
    with torch.no_grad():
        logits = exported(policy, tmp_path)(torch.tensor([samples[0].tokens[:start]])).logits[0, -1]
    exact = (logits / temperature).softmax(-1)
    found = torch.bincount(torch.tensor([s.tokens[start] for s in samples]), minlength=len(exact)) / len(samples)
    likely = exact > 0.005
    deviation = (exact * (1 - exact) / len(samples)).sqrt()
    assert likely.sum() > 3 and ((found - exact).abs()[likely] < 4 * deviation[likely] + 1e-3).all()


def test_kl_is_the_exact_sum_over_the_vocabulary(policy: Policy, tmp_path: Path) -> None:
    samples = all_of(policy.sample(requests()))
    assert policy.kl_to_reference(samples) == [0.0] * 6
    learn(policy, samples)
    ours, theirs = exported(policy, tmp_path / "policy"), exported(policy.reference, tmp_path / "reference")
    forward, backward = policy.kl_to_reference(samples), policy.kl_to_reference(samples, reverse=True)
    for s, kl, reverse in zip(samples, forward, backward, strict=True):
        p, q = plain(ours, s), plain(theirs, s)
        assert kl == pytest.approx(float((p.exp() * (p - q)).sum()), rel=2e-3, abs=1e-5) and kl > 0
        assert reverse == pytest.approx(float((q.exp() * (q - p)).sum()), rel=2e-3, abs=1e-5)


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_an_update_is_one_step_on_the_weighted_loss(policy: Policy, temperature: float) -> None:
    samples = all_of(policy.sample(requests(2), temperature=temperature))
    version = policy.version
    metrics = learn(policy, samples)
    # every ratio is 1
    expected = sum((0.01 if i % 2 == 0 else -0.01) * lp for i, s in enumerate(samples) for lp in s.logprobs)
    assert policy.version == version + 1
    assert metrics["loss"] == pytest.approx(expected, rel=1e-4, abs=1e-5) and metrics["gradient_norm"] > 0
    assert metrics["tokens"] == sum(s.sampled for s in samples)
    assert metrics["max_logprob_gap"] < 5e-5 and metrics["effective_sample_size"] == pytest.approx(1, abs=1e-6)
    assert policy.logprobs(samples) != [s.logprobs for s in samples]


def test_what_is_rewarded_becomes_likelier(policy: Policy) -> None:
    samples = all_of(policy.sample(requests(4)))
    for _ in range(3):
        learn(policy, samples)
    now = policy.logprobs(samples)
    gains = [sum(after) - sum(s.logprobs) for s, after in zip(samples, now, strict=True)]
    assert sum(gains[1::2]) > 0 > sum(gains[0::2])


def test_samples_come_from_the_new_weights(policy: Policy) -> None:
    """After every update, and long prompts too: nothing computed under old weights may be used again."""
    long = [SampleRequest(({"role": "user", "content": "Start and apply in order: 3 +4 " * 40},), seed=1, n=2)]
    for _ in range(3):
        learn(policy, all_of(policy.sample(requests(2))))
        samples = all_of(policy.sample(long))
        for s, again in zip(samples, policy.logprobs(samples), strict=True):
            assert s.logprobs == pytest.approx(again, abs=1e-4)


def test_save_and_load_continue_bit_for_bit(policy: Policy, tmp_path: Path) -> None:
    samples = all_of(policy.sample(requests()))
    learn(policy, samples)
    policy.save(tmp_path)
    metrics, sampled = learn(policy, samples), policy.sample(requests(2))
    learn(policy, samples)
    policy.load(tmp_path)
    assert policy.version == 1
    assert learn(policy, samples) == metrics and policy.sample(requests(2)) == sampled


def test_start_from_keeps_weights_and_forgets_the_optimizer(policy: Policy, tmp_path: Path) -> None:
    samples = all_of(policy.sample(requests()))
    for _ in range(2):
        learn(policy, samples)
    policy.save(tmp_path)
    before = policy.logprobs(samples)
    continued = learn(policy, samples), policy.logprobs(samples)
    policy.start_from(tmp_path)
    assert policy.logprobs(samples) == before
    # the same gradient, other moments
    assert learn(policy, samples) == continued[0] and policy.logprobs(samples) != continued[1]


def test_the_reference_policy_stays(policy: Policy) -> None:
    before = [s.tokens for s in all_of(policy.reference.sample(requests(2)))]
    samples = all_of(policy.sample(requests(2)))
    assert [s.tokens for s in samples] == before
    for _ in range(3):
        learn(policy, samples)
    assert [s.tokens for s in all_of(policy.reference.sample(requests(2)))] == before
    assert [s.tokens for s in all_of(policy.sample(requests(2)))] != before


def test_a_second_turn_continues_from_the_first_ones_tokens(policy: Policy) -> None:
    firsts = {tuple(s.tokens) for s in all_of(policy.sample(requests(4)))}
    for s in two_turns(policy):
        start = s.mask.index(True)
        reply = s.mask.index(False, start)
        second = s.mask.index(True, reply)
        assert tuple(s.tokens[:reply]) in firsts, "what was sampled is never tokenised again"
        written = policy.tokenizer.decode(s.tokens[reply:second], skip_special_tokens=False)
        assert written == f"<|tool|>{REPLY}<|assistant|>"
        assert all(s.mask[second:]) and s.sampled == sum(s.mask) <= TOKENS and (s.finished or s.sampled == TOKENS)
        last = s.tokens[second:-1] if s.finished else s.tokens[second:]
        assert s.text == policy.tokenizer.decode(last, skip_special_tokens=False)


def test_two_turns_are_scored_as_they_were_sampled(policy: Policy, tmp_path: Path) -> None:
    learn(policy, all_of(policy.sample(requests(2))))
    samples = two_turns(policy)
    ours, theirs = exported(policy, tmp_path / "policy"), exported(policy.reference, tmp_path / "reference")
    for s, again, kl in zip(samples, policy.logprobs(samples), policy.kl_to_reference(samples), strict=True):
        p, q = plain(ours, s), plain(theirs, s)
        own = torch.tensor([t for t, sampled in zip(s.tokens, s.mask, strict=True) if sampled])
        chosen = p.gather(1, own[:, None])[:, 0].tolist()
        assert s.logprobs == pytest.approx(chosen, abs=1e-4) and again == pytest.approx(chosen, abs=5e-5)
        assert kl == pytest.approx(float((p.exp() * (p - q)).sum()), rel=2e-3, abs=1e-5) and kl > 0


def test_a_replys_tokens_have_no_gradient_of_their_own(policy: Policy, tmp_path: Path) -> None:
    """The norm of the gradient is that of a loss over the sampled tokens alone, by plain transformers."""
    model, samples = exported(policy, tmp_path), two_turns(policy)
    total = torch.zeros((), dtype=torch.float32)
    for i, s in enumerate(samples):
        logp = model(torch.tensor([s.tokens])).logits[0, :-1].log_softmax(-1)
        chosen = logp.gather(1, torch.tensor(s.tokens[1:])[:, None])[:, 0]
        total = total - (0.01 if i % 2 else -0.01) * chosen[torch.tensor(s.mask[1:])].sum()
    total.backward()
    norm = float(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]).norm())
    metrics = learn(policy, samples)
    assert metrics["gradient_norm"] == pytest.approx(norm, rel=1e-3)
    assert metrics["tokens"] == sum(s.sampled for s in samples) and metrics["max_logprob_gap"] < 1e-4


def test_later_turns_do_not_depend_on_others_either(policy: Policy) -> None:
    replies: list[Tool] = [lambda turns: REPLY if len(turns) == 1 else None] * 6
    together = generate(policy, requests(3), replies)
    for request, group in zip(requests(3), together, strict=True):
        assert [a.sample.tokens for a in generate(policy, [request], replies[:1])[0]] == [
            a.sample.tokens for a in group
        ]


def test_a_reply_without_room_leaves_the_answer_unfinished(policy: Policy) -> None:
    messages = requests()[1].messages
    first = next(s for s in (policy.sample([SampleRequest(messages, i)])[0][0] for i in range(20)) if s.finished)
    exchange = ({"role": "assistant", "content": first.text}, {"role": "tool", "content": "1 " * 3000})
    (same,) = policy.sample([SampleRequest((*messages, *exchange), 0, after=first)])[0]
    assert same == replace(first, finished=False)


def test_a_prompt_without_room_is_refused(policy: Policy) -> None:
    with pytest.raises(ValueError, match="leaves no room"):
        policy.sample([SampleRequest(({"role": "user", "content": "1 " * 3000},), seed=0)])


def test_answers_after_another_prompt_have_the_log_probabilities_of_their_new_place(
    policy: Policy, tmp_path: Path
) -> None:
    learn(policy, all_of(policy.sample(requests(2))))
    model, samples = exported(policy, tmp_path), all_of(policy.sample(requests()))
    elsewhere = requests()[::-1]
    moved = policy.with_prompt(samples, [request.messages for request in elsewhere])
    for new, old, (there,) in zip(moved, samples, policy.sample(elsewhere), strict=True):
        first = there.mask.index(True)
        assert new.tokens[:first] == there.tokens[:first]
        assert new.tokens[first:] == old.tokens[len(old.tokens) - old.sampled :]
        chosen = plain(model, new).gather(1, torch.tensor(new.tokens[first:])[:, None])[:, 0].tolist()
        assert new.logprobs == pytest.approx(chosen, abs=5e-5)


def test_log_probabilities_of_the_reference_policy(policy: Policy, tmp_path: Path) -> None:
    for _ in range(3):
        learn(policy, all_of(policy.sample(requests(2))))
    reference, samples = exported(policy.reference, tmp_path), all_of(policy.sample(requests()))
    for s, theirs in zip(samples, policy.reference.logprobs(samples), strict=True):
        answer = torch.tensor(s.tokens[len(s.tokens) - s.sampled :])
        assert theirs == pytest.approx(plain(reference, s).gather(1, answer[:, None])[:, 0].tolist(), abs=5e-5)
