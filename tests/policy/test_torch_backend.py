"""The torch backend's own properties; see test_contract.py for those of every backend."""

import hashlib
import shutil
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    PreTrainedModel,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from fst_bench.core.types import Sample, SampleRequest
from fst_bench.policy import PolicySettings, load_policy
from fst_bench.policy.conversation import tokenise
from fst_bench.policy.models import fingerprint, model_folder, other_parts, refuse_other_model
from fst_bench.policy.template import Template
from fst_bench.policy.torch import fused
from fst_bench.policy.torch.backend import TorchPolicy
from fst_bench.policy.torch.decoders import FusedDecoder, TransformersDecoder, new_decoder
from fst_bench.policy.torch.sampler import batches
from fst_bench.slow.losses import cispo

TEXTS = ["Start and apply in order: 3 +4 *2", "Start and apply in order: 5 +1 -2 +9 *2 +3", "Source:A Goal:B"]


def requests(n: int = 1) -> list[SampleRequest]:
    contexts = ["", "Work step by step. Put the final answer inside \\boxed{}."]
    return [
        SampleRequest((*([{"role": "system", "content": c}] if c else []), {"role": "user", "content": t}), seed=i, n=n)
        for i, (t, c) in enumerate((t, c) for t in TEXTS for c in contexts)
    ]


def flat(samples: list[Sample], weight: float) -> list[list[float]]:
    return [[weight] * s.sampled for s in samples]


def test_batches_hold_prompts_of_one_length_together() -> None:
    prompts = [[0] * n for n in (9, 2, 9, 2, 5)]
    assert batches(prompts, [1] * 5, 2) == [[1, 3], [4, 0], [2]]
    assert batches(prompts, [1] * 5, 8) == [[0, 1, 2, 3, 4]], "as given, where one batch holds all"
    assert batches(prompts, [2, 3, 2, 1, 9], 4) == [[1, 3], [4], [0, 2]]


def test_a_sample_does_not_depend_on_its_neighbours() -> None:
    wide, narrow = (load_policy("embedded:tiny", PolicySettings(max_tokens=24, max_num_seqs=n)) for n in (256, 3))
    together = wide.sample(requests(4))
    assert [[s.tokens for s in g] for g in narrow.sample(requests(4))] == [[s.tokens for s in g] for g in together]
    alone = [wide.sample([request])[0] for request in requests(4)]
    assert [[s.tokens for s in g] for g in alone] == [[s.tokens for s in g] for g in together]


def test_cut_off_answers_are_marked(policy: TorchPolicy) -> None:
    policy.settings.max_tokens = 3
    samples = [s for g in policy.sample(requests(2)) for s in g]
    assert all(s.sampled <= 3 for s in samples) and any(not s.finished for s in samples)
    assert all(s.tokens[-1] not in policy.end for s in samples if not s.finished)


def test_save_and_load_continue_bit_for_bit(policy: TorchPolicy, tmp_path: Path) -> None:
    samples = [g[0] for g in policy.sample(requests())]
    rows = (samples, [[(-1.0) ** i] * s.sampled for i, s in enumerate(samples)], flat(samples, 0.01), cispo)
    policy.update(*rows)
    policy.save(tmp_path)
    policy.update(*rows)
    other = load_policy("embedded:tiny", policy.settings)
    other.load(tmp_path)
    assert other.version == 1
    other.update(*rows)
    assert all(torch.equal(a, b) for a, b in zip(policy.model.parameters(), other.model.parameters(), strict=True))


def test_a_path_that_is_not_a_model_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    for name in (str(tmp_path), str(tmp_path / "nothing"), "embedded:big"):
        with pytest.raises(ValueError) as error:
            load_policy(name, PolicySettings())
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "mistral"])
def test_any_other_causal_lm_goes_the_same_way(policy: TorchPolicy, tmp_path: Path, architecture: str) -> None:
    """A random model of another kind (rotary, absolute positions, sliding window), in a folder, as with --model."""
    torch.manual_seed(0)
    small = {"vocab_size": len(policy.tokenizer), "eos_token_id": 1, "pad_token_id": 0, "bos_token_id": None}
    rotary = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "intermediate_size": 64,
    }
    config = {
        "llama": lambda: LlamaConfig(**small, **rotary, max_position_embeddings=256),
        "mistral": lambda: MistralConfig(**small, **rotary, max_position_embeddings=256, sliding_window=16),
        "gpt2": lambda: GPT2Config(**small, n_embd=32, n_layer=2, n_head=2, n_positions=256),
    }[architecture]()
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    policy.tokenizer.save_pretrained(tmp_path)
    other = load_policy(str(tmp_path), PolicySettings(max_tokens=24))
    for request, group in zip(requests(), other.sample(requests(), temperature=0.0), strict=True):
        ids = other.tokenizer.apply_chat_template(
            list(request.messages), add_generation_prompt=True, return_tensors="pt", return_dict=True
        )["input_ids"]
        expected = other.model.generate(ids, do_sample=False, max_new_tokens=24, pad_token_id=0)[0].tolist()
        assert group[0].tokens == expected
    samples = [s for g in other.sample(requests(2)) for s in g]
    for sample, again in zip(samples, other.logprobs(samples), strict=True):
        assert sample.logprobs == pytest.approx(again, abs=1e-4)
    other.update(samples, flat(samples, 1.0), flat(samples, 0.01), cispo)
    assert all(kl > 0 for kl in other.kl_to_reference(samples))


def test_checkpointing_changes_nothing_but_rounding(policy: TorchPolicy) -> None:
    samples = [g[0] for g in policy.sample(requests())]
    rows = (samples, [[(-1.0) ** i] * s.sampled for i, s in enumerate(samples)], flat(samples, 0.01), cispo)
    thrifty = load_policy("embedded:tiny", policy.settings.model_copy(update={"gradient_checkpointing": True}))
    metrics, theirs = policy.update(*rows), thrifty.update(*rows)
    assert theirs == pytest.approx(metrics, rel=1e-4, abs=1e-5)
    ours, again = (torch.cat([p.grad.flatten() for p in made.model.parameters()]) for made in (policy, thrifty))
    assert float((ours - again).norm() / ours.norm()) < 1e-4
    assert thrifty.kl_to_reference(samples) == pytest.approx(policy.kl_to_reference(samples), abs=1e-3)


def test_checkpointing_refuses_dropout(tmp_path: Path, policy: TorchPolicy) -> None:
    shape = {"vocab_size": len(policy.tokenizer), "n_positions": 64, "n_embd": 32, "n_layer": 1, "n_head": 2}
    config = GPT2Config(**shape, attn_pdrop=0.1, resid_pdrop=0.0, embd_pdrop=0.0)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    policy.tokenizer.save_pretrained(tmp_path)
    load_policy(str(tmp_path), PolicySettings(max_tokens=8))
    with pytest.raises(ValueError, match="attn_pdrop"):
        load_policy(str(tmp_path), PolicySettings(max_tokens=8, gradient_checkpointing=True))


def test_thinking_reaches_a_template_that_knows_it(policy: TorchPolicy) -> None:
    empty = "<think>\n\n</think>\n\n"
    tokenizer, conversations = policy.tokenizer, [request.messages for request in requests()]

    def prompts(thinking: bool) -> list[list[int]]:
        template = Template(tokenizer, PolicySettings(thinking=thinking))
        return [prompt.tokens for prompt in tokenise(template, conversations, 500)]

    plain = prompts(False)
    assert plain == prompts(True)  # the embedded model's template does not know it
    tokenizer.chat_template += "{% if enable_thinking is defined and not enable_thinking %}" + empty + "{% endif %}"
    assert prompts(True) == plain
    assert [tokenizer.decode(ids) for ids in prompts(False)] == [tokenizer.decode(ids) + empty for ids in plain]


def test_many_tiny_updates_move_bfloat16_weights_as_float32_ones() -> None:
    """One update of 1e-5 is less than half the spacing of bfloat16 from 0.005 on; a hundred are more up to 0.5."""
    moved = []
    samples = load_policy("embedded:tiny", PolicySettings(max_tokens=16)).sample(requests()[:1])[0]
    for dtype in ("float32", "bfloat16"):
        policy = load_policy("embedded:tiny", PolicySettings(dtype=dtype, learning_rate=1e-5))
        before = torch.cat([p.detach().double().flatten() for p in policy.model.parameters()])
        for _ in range(100):
            policy.update(samples, flat(samples, 1.0), flat(samples, 0.1), cispo)
        moved.append(torch.cat([p.detach().double().flatten() for p in policy.model.parameters()]) - before)
    expected, found = moved
    share = float((found * expected).sum() / (expected * expected).sum())
    print(f"{share:.3f} of the way")
    assert share == pytest.approx(1, abs=0.1)


def test_bfloat16_continues_bit_for_bit(tmp_path: Path) -> None:
    policy = load_policy("embedded:tiny", PolicySettings(max_tokens=16, dtype="bfloat16", learning_rate=1e-6))
    samples = policy.sample(requests(2)[:1])[0]
    rows = (samples, flat(samples, 1.0), flat(samples, 0.1), cispo)
    for _ in range(3):
        policy.update(*rows)
    policy.save(tmp_path)
    other = load_policy("embedded:tiny", policy.settings)
    other.load(tmp_path)
    for _ in range(3):
        assert policy.update(*rows) == other.update(*rows)
    for name, master in policy.optimizer.masters.items():
        assert master.dtype == torch.float32 and torch.equal(master, other.optimizer.masters[name])


def test_gradients_of_bfloat16_weights_add_up_in_float32() -> None:
    """Each pass's own gradient is in bfloat16; a sum in bfloat16 would lose what is smaller than a 256th of it."""
    policy = load_policy("embedded:tiny", PolicySettings(max_tokens=16, dtype="bfloat16"))
    samples = [s for group in policy.sample(requests(1)) for s in group]
    expected: dict[str, torch.Tensor] = {}
    for sample in samples:
        (packed,) = policy.scorer.passes([sample])
        policy.optimizer.zero_grad()
        policy.scorer(packed).sum().backward()
        for name, master in policy.optimizer.masters.items():
            assert master.grad is not None and torch.equal(master.grad, master.grad.bfloat16().float())
            expected[name] = expected.get(name, 0) + master.grad
    policy.optimizer.zero_grad()
    for sample in samples:
        policy.scorer(policy.scorer.passes([sample])[0]).sum().backward()
    for name, master in policy.optimizer.masters.items():
        assert master.grad is not None and master.grad.dtype == torch.float32
        assert torch.equal(master.grad, expected[name])


@pytest.mark.parametrize(
    ("file", "part"),
    [
        ("model.safetensors", "weights"),
        ("tokenizer.json", "tokenizer"),
        ("chat_template.jinja", "tokenizer"),
        ("config.json", "config"),
        ("generation_config.json", "config"),
        ("README.md", None),
    ],
)
def test_a_model_is_known_by_what_decides_its_numbers(file: str, part: str | None, tmp_path: Path) -> None:
    base = tmp_path / "base"
    shutil.copytree(model_folder("embedded:tiny"), base)
    before = fingerprint("embedded:tiny")
    assert fingerprint(str(base)) == before
    refuse_other_model(str(base), before)
    with (base / file).open("a") as f:
        f.write(" ")
    assert other_parts(before, fingerprint(str(base))) == ([part] if part else [])
    refuse_other_model(str(base), {})  # recorded by an older fst-bench
    if part:
        with pytest.raises(ValueError, match=f"another model: {base} now has another {part}$"):
            refuse_other_model(str(base), before)


def test_a_hub_model_is_known_by_its_commit_and_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    assert fingerprint("o/n") == {}  # it was loaded from elsewhere
    repository = tmp_path / "models--o--n"

    def cached(commit: str, weights: bytes) -> dict[str, str]:
        """Return the fingerprint with a commit in the cache, its large file a link as the hub's client makes it."""
        (snapshot := repository / "snapshots" / commit).mkdir(parents=True)
        (repository / "refs").mkdir(exist_ok=True)
        (repository / "refs" / "main").write_text(commit)
        (repository / "blobs").mkdir(exist_ok=True)
        blob = repository / "blobs" / hashlib.sha256(weights).hexdigest()
        blob.write_bytes(weights)
        (snapshot / "model.safetensors").symlink_to(blob)
        (snapshot / "config.json").write_text("{}")
        return fingerprint("o/n")

    first, same, other = cached("a" * 40, b"w"), cached("b" * 40, b"w"), cached("c" * 40, b"v")
    assert first["commit"] == "a" * 40 and other_parts(first, same) == [] and other_parts(first, other) == ["weights"]
    (local := tmp_path / "local").mkdir()
    (local / "model.safetensors").write_bytes(b"w")
    (local / "config.json").write_text("{}")
    assert fingerprint(str(local)) == {part: digest for part, digest in first.items() if part != "commit"}
    with pytest.raises(ValueError, match=r"model \(commit a{12}\): o/n \(commit c{12}\) now has another weights$"):
        refuse_other_model("o/n", first)


# --- both decoders, step by step, against the plain forward pass over the whole text


TINY = {
    "vocab_size": 50,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "intermediate_size": 16,
    "num_attention_heads": 2,
    "head_dim": 8,
}


def check(model: PreTrainedModel, decoder: FusedDecoder | TransformersDecoder, common: int = 0) -> None:
    """Hold the decoder to the model; the first `common` tokens of all prompts are the same."""
    generator = torch.Generator().manual_seed(0)
    lengths = [3, 9, 6]
    texts = [torch.randint(5, model.config.vocab_size, (n,), generator=generator).tolist() for n in lengths]
    texts = [texts[1][:common] + text[common:] for text in texts]
    ids, seen = torch.zeros(3, 9, dtype=torch.long), torch.zeros(3, 9, dtype=torch.long)
    for i, text in enumerate(texts):
        ids[i, 9 - len(text) :] = torch.tensor(text)
        seen[i, 9 - len(text) :] = 1

    def plain() -> torch.Tensor:
        return torch.stack([model(torch.tensor([text])).logits[0, -1] for text in texts])

    with torch.no_grad():
        assert torch.allclose(decoder.prefill(ids, seen), plain(), atol=1e-5)
        decoder.select(torch.tensor([0, 0, 1, 2, 2]))  # each prompt for several samples
        texts = [list(texts[i]) for i in (0, 0, 1, 2, 2)]
        for step in range(6):
            if step == 3:
                decoder.select(torch.tensor([1, 2, 4]))  # finished rows are dropped
                texts = [texts[i] for i in (1, 2, 4)]
            tokens = torch.randint(5, model.config.vocab_size, (len(texts),), generator=generator)
            for text, token in zip(texts, tokens.tolist(), strict=True):
                text.append(token)
            assert torch.allclose(decoder.step(tokens), plain(), atol=1e-5)


def test_the_embedded_model(policy: TorchPolicy) -> None:
    assert isinstance(new_decoder(policy.model, 32), FusedDecoder)
    check(policy.model, FusedDecoder(policy.model, 32))
    check(policy.model, TransformersDecoder(policy.model))


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
@pytest.mark.parametrize(
    ("config", "tied"),
    [(Qwen3Config, False), (LlamaConfig, False), (LlamaConfig, True)],
    ids=["qwen3", "llama", "tied"],
)
def test_grouped_heads_and_both_kinds_of_head(config: Any, tied: bool, kv_heads: int) -> None:
    torch.manual_seed(kv_heads)
    shape = config(
        vocab_size=50,
        hidden_size=24,
        num_hidden_layers=2,
        intermediate_size=40,
        num_attention_heads=4,
        num_key_value_heads=kv_heads,
        head_dim=8,
        tie_word_embeddings=tied,
        rope_theta=5000.0,
        initializer_range=0.3,
    )
    model = AutoModelForCausalLM.from_config(shape).eval()
    for norm in [p for name, p in model.named_parameters() if "norm" in name]:
        torch.nn.init.uniform_(norm, 0.5, 1.5)
    assert isinstance(new_decoder(model, 32), FusedDecoder)
    check(model, FusedDecoder(model, 32))


@pytest.mark.parametrize(
    "extra",
    [
        {"attention_bias": True},
        {"mlp_bias": True},
        {"hidden_act": "gelu"},
        {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 10000.0}},
        {
            "rope_parameters": {
                "rope_type": "llama3",
                "rope_theta": 10000.0,
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 8,
            }
        },
    ],
    ids=["attention-bias", "mlp-bias", "gelu", "linear-rope", "llama3-rope"],
)
def test_a_llama_that_the_fast_one_does_not_cover_goes_through_transformers(extra: dict[str, Any]) -> None:
    model = LlamaForCausalLM(LlamaConfig(**TINY, **extra)).eval()
    decoder = new_decoder(model, 32)
    assert isinstance(decoder, TransformersDecoder)
    check(model, decoder)


def test_a_qwen3_that_the_fast_one_does_not_cover_goes_through_transformers() -> None:
    for extra in ({"attention_bias": True}, {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 0}):
        model = Qwen3ForCausalLM(Qwen3Config(**TINY, **extra))
        assert isinstance(new_decoder(model, 8), TransformersDecoder)


@pytest.mark.parametrize("common", [0, 1, 2])
def test_prompts_that_begin_alike(common: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused, "LARGE", 1)
    torch.manual_seed(common)
    model = LlamaForCausalLM(LlamaConfig(**TINY, initializer_range=0.3)).eval()
    calls: list[tuple[int, ...]] = []
    decoder = FusedDecoder(model, 32)
    real = decoder._prompt

    def prompt(ids: torch.Tensor, *rest: Any) -> Any:
        calls.append(tuple(ids.shape))
        return real(ids, *rest)

    monkeypatch.setattr(decoder, "_prompt", prompt)
    check(model, decoder, common)
    assert calls == ([(1, common)] if common else []) + [(3, 9 - common)]
