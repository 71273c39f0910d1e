"""Both decoders, step by step, against the plain forward pass over the whole text."""

import pytest
import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from fst_bench.policy.torch.backend import TorchPolicy
from fst_bench.policy.torch.decoders import Qwen3Decoder, TransformersDecoder, new_decoder


def check(model: Qwen3ForCausalLM, decoder: Qwen3Decoder | TransformersDecoder) -> None:
    generator = torch.Generator().manual_seed(0)
    lengths = [3, 9, 6]
    texts = [torch.randint(5, model.config.vocab_size, (n,), generator=generator).tolist() for n in lengths]
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
    assert isinstance(new_decoder(policy.model, 32), Qwen3Decoder)
    check(policy.model, Qwen3Decoder(policy.model, 32))
    check(policy.model, TransformersDecoder(policy.model))


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_grouped_heads_and_an_untied_head(kv_heads: int) -> None:
    torch.manual_seed(kv_heads)
    config = Qwen3Config(
        vocab_size=50,
        hidden_size=24,
        num_hidden_layers=2,
        intermediate_size=40,
        num_attention_heads=4,
        num_key_value_heads=kv_heads,
        head_dim=8,
        tie_word_embeddings=False,
        rope_theta=5000.0,
        initializer_range=0.3,
    )
    model = Qwen3ForCausalLM(config).eval()
    assert isinstance(new_decoder(model, 32), Qwen3Decoder)
    check(model, Qwen3Decoder(model, 32))


def test_a_model_that_the_fast_one_does_not_cover_goes_through_transformers() -> None:
    tiny = {
        "vocab_size": 50,
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "intermediate_size": 16,
        "num_attention_heads": 2,
        "head_dim": 8,
    }
    for extra in ({"attention_bias": True}, {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 0}):
        model = Qwen3ForCausalLM(Qwen3Config(**tiny, **extra))
        assert isinstance(new_decoder(model, 8), TransformersDecoder)
