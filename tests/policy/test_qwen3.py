"""Scoring with shared prompts and packed tokens against transformers' own forward and backward pass, row by row."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import Qwen3Config, Qwen3ForCausalLM

from fst_bench.policy import Sample
from fst_bench.policy.qwen3 import score


def tiny(kv_heads: int, tied: bool) -> Qwen3ForCausalLM:
    torch.manual_seed(kv_heads)
    config = Qwen3Config(
        vocab_size=50, hidden_size=24, num_hidden_layers=2, intermediate_size=40, num_attention_heads=4, num_key_value_heads=kv_heads, head_dim=8,
        tie_word_embeddings=tied, rope_theta=5000.0, initializer_range=0.3,
    )  # fmt: skip
    return Qwen3ForCausalLM(config).eval()


def plain(model: Qwen3ForCausalLM, samples: list[Sample]) -> torch.Tensor:
    """Logits where the next token was sampled, one sample at a time, without any batching."""
    rows = [model(torch.tensor([s.tokens])).logits[0, :-1][torch.tensor(s.mask[1:])] for s in samples]
    return torch.cat(rows)


def sample(prompt: list[int], answer: list[int], mask: list[bool] | None = None) -> Sample:
    sampled = mask or [True] * len(answer)
    return Sample(prompt + answer, [False] * len(prompt) + sampled, [0.0] * sum(sampled), "", True)


tokens = st.lists(st.integers(0, 49), min_size=1, max_size=9)


@settings(max_examples=40, deadline=None)
@given(st.lists(tokens, min_size=1, max_size=3), st.lists(st.tuples(st.integers(0, 2), tokens), min_size=1, max_size=6), st.sampled_from([1, 2, 4]))
def test_logits_of_any_batch(prompts: list[list[int]], answers: list[tuple[int, list[int]]], kv_heads: int) -> None:
    model = tiny(kv_heads, tied=kv_heads == 2)
    samples = [sample(prompts[i % len(prompts)], answer) for i, answer in answers]
    with torch.no_grad():
        assert torch.allclose(score(model, samples), plain(model, samples), atol=1e-5)


@pytest.mark.parametrize("tied", [True, False])
def test_gradients_too(tied: bool) -> None:
    model = tiny(2, tied)
    samples = [sample([1, 2, 3], [4, 5]), sample([1, 2, 3], [6]), sample([7], [8, 9, 10, 11]), sample([1, 2], [3, 4])]
    found = []
    for logits in (score(model, samples), plain(model, samples)):
        model.zero_grad()
        torch.log_softmax(logits, -1)[torch.arange(len(logits)), torch.arange(len(logits))].sum().backward()
        found.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
    assert len(found[0]) == len(found[1]) == len(list(model.parameters()))
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(*found, strict=True))


def test_a_tools_output_between_two_turns_is_context_and_not_scored() -> None:
    model = tiny(4, True)
    samples = [sample([1, 2], [3, 4, 20, 21, 5], [True, True, False, False, True]), sample([1, 2], [9, 8])]
    with torch.no_grad():
        found = score(model, samples)
        assert len(found) == 5
        assert torch.allclose(found, plain(model, samples), atol=1e-5)
