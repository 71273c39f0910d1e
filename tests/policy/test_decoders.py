"""Both decoders, step by step, against the plain forward pass over the whole text."""

from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from fst_bench.policy.torch import fused
from fst_bench.policy.torch.backend import TorchPolicy
from fst_bench.policy.torch.decoders import FusedDecoder, TransformersDecoder, new_decoder

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
