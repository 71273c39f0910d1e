"""The torch backend on the embedded model, against plain transformers."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig, MistralConfig

from fst_bench.policy import Ask, Sample, TorchPolicy, load_policy
from fst_bench.policy.torch_backend import PolicySettings
from fst_bench.slow.losses import cispo

TEXTS = ["Start and apply in order: 3 +4 *2", "Start and apply in order: 5 +1 -2 +9 *2 +3", "Source:A Goal:B"]


def asks(n: int = 1) -> list[Ask]:
    contexts = ["", "Work step by step. Put the final answer inside \\boxed{}."]
    return [
        Ask((*([{"role": "system", "content": c}] if c else []), {"role": "user", "content": t}), seed=i, n=n)
        for i, (t, c) in enumerate((t, c) for t in TEXTS for c in contexts)
    ]


def flat(samples: list[Sample], weight: float) -> list[list[float]]:
    return [[weight] * s.sampled for s in samples]


def test_greedy_is_transformers_generate(policy: TorchPolicy) -> None:
    for ask, group in zip(asks(), policy.sample(asks(), temperature=0.0), strict=True):
        ids = policy.tokenizer.apply_chat_template(list(ask.messages), add_generation_prompt=True, return_tensors="pt", return_dict=True)["input_ids"]
        expected = policy.model.generate(ids, do_sample=False, max_new_tokens=24, pad_token_id=policy.pad)[0].tolist()
        assert group[0].tokens == expected


def test_logprobs_are_those_of_a_plain_forward_pass(policy: TorchPolicy) -> None:
    for group in policy.sample(asks(3)):
        for sample in group:
            with torch.no_grad():
                logits = policy.model(torch.tensor([sample.tokens])).logits[0, :-1]
            plain = torch.log_softmax(logits, -1).gather(1, torch.tensor(sample.tokens[1:])[:, None])[:, 0]
            chosen = [float(lp) for lp, m in zip(plain, sample.mask[1:], strict=True) if m]
            assert sample.logprobs == pytest.approx(chosen, abs=1e-5)
            assert policy.logprobs([sample])[0] == pytest.approx(chosen, abs=1e-5)


def test_a_sample_does_not_depend_on_its_neighbours() -> None:
    wide, narrow = (load_policy("embedded:tiny", PolicySettings(max_tokens=24, sample_rows=rows)) for rows in (256, 3))
    together = wide.sample(asks(4))
    assert [[s.tokens for s in g] for g in narrow.sample(asks(4))] == [[s.tokens for s in g] for g in together]
    alone = [wide.sample([ask])[0] for ask in asks(4)]
    assert [[s.tokens for s in g] for g in alone] == [[s.tokens for s in g] for g in together]


def test_sampling_follows_the_distribution(policy: TorchPolicy) -> None:
    """The first token of 2,000 samples, against its exact probabilities."""
    ask = Ask(({"role": "user", "content": TEXTS[0]},), seed=7, n=2000)
    policy.settings.max_tokens = 1
    ids = policy.tokenizer.apply_chat_template(list(ask.messages), add_generation_prompt=True, return_tensors="pt", return_dict=True)["input_ids"]
    with torch.no_grad():
        exact = policy.model(ids).logits[0, -1].softmax(-1)
    counts = torch.bincount(torch.tensor([s.tokens[-1] for s in policy.sample([ask])[0]]), minlength=len(exact)) / 2000
    likely = exact > 0.01
    assert likely.any() and ((counts - exact).abs()[likely] < 4 * (exact * (1 - exact) / 2000).sqrt()[likely] + 1e-3).all()


def test_cut_off_answers_are_marked(policy: TorchPolicy) -> None:
    policy.settings.max_tokens = 3
    samples = [s for g in policy.sample(asks(2)) for s in g]
    assert all(s.sampled <= 3 for s in samples) and any(not s.finished for s in samples)
    assert all(s.tokens[-1] not in policy.end for s in samples if not s.finished)


def test_kl_is_the_exact_sum_over_the_vocabulary(policy: TorchPolicy) -> None:
    samples = [g[0] for g in policy.sample(asks())]
    assert policy.kl_to_base(samples) == [0.0] * len(samples)
    policy.update(samples, [1.0] * len(samples), flat(samples, 0.01), cispo)
    for sample, kl in zip(samples, policy.kl_to_base(samples), strict=True):
        with torch.no_grad():
            ours, theirs = (m(torch.tensor([sample.tokens])).logits[0, :-1].double().log_softmax(-1) for m in (policy.model, policy.base))
        per_token = (ours.exp() * (ours - theirs)).sum(-1)
        assert kl == pytest.approx(float(per_token[torch.tensor(sample.mask[1:])].sum()), rel=1e-3, abs=1e-6)
        assert kl > 0


def test_save_and_load_continue_bit_for_bit(policy: TorchPolicy, tmp_path: Path) -> None:
    samples = [g[0] for g in policy.sample(asks())]
    rows = (samples, [1.0, -1.0] * 3, flat(samples, 0.01), cispo)
    policy.update(*rows)
    policy.save(tmp_path)
    policy.update(*rows)
    other = load_policy("embedded:tiny", policy.settings)
    other.load(tmp_path)
    assert other.version == 1
    other.update(*rows)
    assert all(torch.equal(a, b) for a, b in zip(policy.model.parameters(), other.model.parameters(), strict=True))


def test_the_base_stays(policy: TorchPolicy) -> None:
    before = [[s.tokens for s in g] for g in policy.sample(asks(), base=True)]
    samples = [g[0] for g in policy.sample(asks())]
    policy.update(samples, [5.0] * 6, flat(samples, 1.0), cispo)
    assert [[s.tokens for s in g] for g in policy.sample(asks(), base=True)] == before


def test_a_prompt_without_room_is_refused(policy: TorchPolicy) -> None:
    with pytest.raises(ValueError, match="leaves no room"):
        policy.sample([Ask(({"role": "user", "content": "1 " * 3000},), seed=0)])


def test_what_is_no_model_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    for name in (str(tmp_path), str(tmp_path / "nothing"), "embedded:big"):
        with pytest.raises(ValueError) as error:
            load_policy(name, PolicySettings())
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "mistral"])
def test_any_other_causal_lm_goes_the_same_way(policy: TorchPolicy, tmp_path: Path, architecture: str) -> None:
    """A random model of another kind (rotary, absolute positions, sliding window), saved to a folder and given as --model."""
    torch.manual_seed(0)
    small = {"vocab_size": len(policy.tokenizer), "eos_token_id": 1, "pad_token_id": 0, "bos_token_id": None}
    rotary = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1, "intermediate_size": 64}
    config = {
        "llama": lambda: LlamaConfig(**small, **rotary, max_position_embeddings=256),
        "mistral": lambda: MistralConfig(**small, **rotary, max_position_embeddings=256, sliding_window=16),
        "gpt2": lambda: GPT2Config(**small, n_embd=32, n_layer=2, n_head=2, n_positions=256),
    }[architecture]()
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    policy.tokenizer.save_pretrained(tmp_path)
    other = load_policy(str(tmp_path), PolicySettings(max_tokens=24))
    for ask, group in zip(asks(), other.sample(asks(), temperature=0.0), strict=True):
        ids = other.tokenizer.apply_chat_template(list(ask.messages), add_generation_prompt=True, return_tensors="pt", return_dict=True)["input_ids"]
        assert group[0].tokens == other.model.generate(ids, do_sample=False, max_new_tokens=24, pad_token_id=0)[0].tolist()
    samples = [s for g in other.sample(asks(2)) for s in g]
    for sample, again in zip(samples, other.logprobs(samples), strict=True):
        assert sample.logprobs == pytest.approx(again, abs=1e-4)
    other.update(samples, [1.0] * len(samples), flat(samples, 0.01), cispo)
    assert all(kl > 0 for kl in other.kl_to_base(samples))
