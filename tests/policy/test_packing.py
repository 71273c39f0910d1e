"""Packed answers against plain rows, for several architectures.

The tokens that a token attends to, and the log-probabilities and gradients that follow.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    CohereConfig,
    Gemma2Config,
    Gemma3TextConfig,
    GPT2Config,
    LlamaConfig,
    MambaConfig,
    MistralConfig,
    PretrainedConfig,
    PreTrainedModel,
    Qwen3Config,
)

from fst_bench.core.types import Sample
from fst_bench.policy import PolicySettings, packing
from fst_bench.policy.packing import BLOCK, CONTEXT, ROW_TOKENS, Packed, pack
from fst_bench.policy.scoring import Scorer, per_sample

CPU = torch.device("cpu")
SMALL: dict[str, Any] = {
    "vocab_size": 50,
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "initializer_range": 0.4,
    "pad_token_id": 0,
    "eos_token_id": 1,
}
ROTARY: dict[str, Any] = SMALL | {
    "intermediate_size": 40,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "bos_token_id": 2,
}
SLIDING: dict[str, Any] = {"layer_types": ["sliding_attention", "full_attention"]}
SHAPES: dict[str, Callable[[], PretrainedConfig]] = {
    "qwen3": lambda: Qwen3Config(**ROTARY, tie_word_embeddings=False, rope_theta=5000.0),
    "qwen3 tied, one key head a query head": lambda: Qwen3Config(
        **ROTARY | {"num_key_value_heads": 4}, tie_word_embeddings=True
    ),
    "qwen3 with sliding layers": lambda: Qwen3Config(**ROTARY, **SLIDING, use_sliding_window=True, sliding_window=4),
    "llama": lambda: LlamaConfig(**ROTARY, tie_word_embeddings=False),
    "llama tied": lambda: LlamaConfig(**ROTARY, tie_word_embeddings=True),
    "mistral": lambda: MistralConfig(**ROTARY, sliding_window=5),
    "gemma2": lambda: Gemma2Config(
        **ROTARY,
        sliding_window=5,
        query_pre_attn_scalar=8,
        final_logit_softcapping=3.0,
        attn_logit_softcapping=None,
    ),
    "gemma3": lambda: Gemma3TextConfig(**ROTARY, **SLIDING, sliding_window=5, query_pre_attn_scalar=8),
    "gpt2": lambda: GPT2Config(
        vocab_size=50,
        n_embd=24,
        n_layer=2,
        n_head=2,
        n_positions=64,
        initializer_range=0.4,
        resid_pdrop=0,
        embd_pdrop=0,
        attn_pdrop=0,
    ),
}


def made(config: PretrainedConfig) -> PreTrainedModel:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config).eval()


def scorer(shape: str, **changes: Any) -> Scorer:
    found = Scorer(made(SHAPES[shape]()), PolicySettings(**changes), pad=0)
    found.prepare()
    return found


def sample(prompt: list[int], answer: list[int], mask: list[bool] | None = None) -> Sample:
    sampled = mask or [True] * len(answer)
    return Sample(prompt + answer, [False] * len(prompt) + sampled, [0.0] * sum(sampled), "", True)


MIXED = [
    sample([5, 6, 7, 8, 9, 10, 11], [12, 13, 14, 15]),
    sample([5, 6, 7, 8, 9, 10, 11], [16]),
    sample([4], [20, 21, 22]),
    sample([4], [23, 24]),
    # two turns of a conversation
    sample([5, 6, 7, 8, 9, 10, 11], [30, 31, 40, 41, 42, 32, 33], [True, True, False, False, False, True, True]),
    sample([9, 8], [7, 6, 5, 4, 3, 2, 12, 13, 14]),
]


SHARED = [3 + k % 40 for k in range(CONTEXT)]
OTHER = [9, *SHARED[1:]]
IN_CONTEXT = MIXED + [
    sample(SHARED + rest, answer)
    for rest, answer in (
        ([5, 6, 7], [12, 13, 14]),
        ([5, 6, 7], [15]),
        ([5, 6, 7], [16, 17]),
        ([8], [18, 19, 20]),
        ([8], [21, 22, 23, 24, 25]),
        ([5, 9, 9, 9, 9], [26, 27]),
        ([4], [28]),
    )
]
IN_CONTEXT += [sample([*OTHER, k], [k, 12]) for k in (20, 20, 30)]
"""Two contexts: one shared by three prompts of two and more answers and by two of one answer, one by two prompts."""


def plain(model: PreTrainedModel, samples: list[Sample]) -> torch.Tensor:
    """Return the sampled tokens' log-probabilities, by the model's own forward pass over one sample at a time."""
    rows = []
    for s in samples:
        logits = model(torch.tensor([s.tokens])).logits[0, :-1].log_softmax(-1)
        rows.append(logits.gather(1, torch.tensor(s.tokens[1:])[:, None])[:, 0][torch.tensor(s.mask[1:])])
    return torch.cat(rows)


def packed_logprobs(scorer: Scorer, samples: list[Sample]) -> torch.Tensor:
    found = {i: part for p in scorer.passes(samples) for i, part in per_sample(p, scorer(p), samples)}
    return torch.cat([found[i] for i in range(len(samples))])


def gradients(model: PreTrainedModel, logprobs: torch.Tensor) -> torch.Tensor:
    model.zero_grad()
    (logprobs * torch.linspace(-1, 2, len(logprobs))).sum().backward()
    assert all(p.grad is not None for p in model.parameters())
    return torch.cat([p.grad.flatten().clone() for p in model.parameters() if p.grad is not None])


@pytest.mark.parametrize("tokens", [8192, 14])
@pytest.mark.parametrize("shape", SHAPES)
def test_packed_answers_are_scored_like_separate_ones(shape: str, tokens: int) -> None:
    made = scorer(shape, micro_batch_tokens=tokens)
    assert made.shared, "the trial at loading found that this architecture can't"
    ours, theirs = packed_logprobs(made, MIXED), plain(made.model, MIXED)
    assert float((ours - theirs).detach().abs().max()) < 1e-5
    assert theirs.std() > 0.3, "log-probabilities that are all alike would agree anyway"
    expected = gradients(made.model, theirs)
    assert float((gradients(made.model, ours) - expected).norm() / expected.norm()) < 1e-5


@pytest.mark.parametrize("tokens", [8192, 60])
@pytest.mark.parametrize("shape", SHAPES)
def test_prompts_share_their_context(shape: str, tokens: int) -> None:
    made = scorer(shape, micro_batch_tokens=tokens)
    made.contexts = True
    ours, theirs = packed_logprobs(made, IN_CONTEXT), plain(made.model, IN_CONTEXT)
    assert float((ours - theirs).detach().abs().max()) < 1e-5
    expected = gradients(made.model, theirs)
    assert float((gradients(made.model, ours) - expected).norm() / expected.norm()) < 1e-5


def test_small_models_share_no_context() -> None:
    """Their numbers, the embedded model's among them, depend on how their answers are packed."""
    assert not scorer("llama").contexts
    large = made(LlamaConfig(**ROTARY | {"hidden_size": 512, "num_hidden_layers": 1}))
    assert Scorer(large, PolicySettings(), pad=0).contexts


def test_a_tree_is_attended_to_prompt_by_prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    """In every layer, and not by a dense mask, which gives the same numbers."""
    made, seen = scorer("llama"), []
    real = packing._one_tree
    monkeypatch.setattr(packing, "_one_tree", lambda *arguments: seen.append(arguments[3].branches) or real(*arguments))
    packed_logprobs(made, MIXED)
    assert seen == 2 * [[[2], [1]]] + 2 * [[[3], [0], [6]]]


@pytest.mark.parametrize("shape", ["qwen3", "qwen3 with sliding layers", "gemma3"])
def test_flex_attention_over_long_rows_too(shape: str) -> None:
    """As on a GPU, but uncompiled: all trees in one row of whole blocks, behind a block mask."""
    made = scorer(shape, micro_batch_tokens=256)
    theirs = plain(made.model, MIXED).detach()
    made.flex = True
    (only,) = made.passes(MIXED)
    assert only.ids.shape[0] == 1 and only.ids.shape[1] % BLOCK == 0 and not only.causal
    with torch.no_grad():  # on a CPU it has no backward pass: tests/gpu compares gradients
        ours = packed_logprobs(made, MIXED)
    assert float((ours - theirs).detach().abs().max()) < 1e-5


@pytest.mark.parametrize(
    "config",
    [
        BloomConfig(vocab_size=50, hidden_size=24, n_layer=2, n_head=2, initializer_range=0.4),
        MambaConfig(vocab_size=50, hidden_size=24, num_hidden_layers=2, state_size=4, initializer_range=0.4),
    ],
)
def test_a_model_that_cannot_share_a_prompt_scores_separate_answers(config: PretrainedConfig) -> None:
    """One with distances of its own (ALiBi), and one with a state that runs through the row."""
    made_scorer = Scorer(made(config), PolicySettings(), pad=0)
    made_scorer.prepare()
    assert not made_scorer.shared
    assert float((packed_logprobs(made_scorer, MIXED) - plain(made_scorer.model, MIXED)).detach().abs().max()) < 1e-5


def test_a_head_that_is_not_covered_is_refused() -> None:
    config = CohereConfig(**{key: value for key, value in ROTARY.items() if key != "head_dim"}, logit_scale=0.3)
    cohere = Scorer(made(config), PolicySettings(), pad=0)
    with pytest.raises(ValueError, match="a CohereForCausalLM can't be trained here: its head does more"):
        cohere.prepare()


tokens_of = st.lists(st.integers(3, 49), min_size=1, max_size=9)
turns = st.lists(st.tuples(st.integers(3, 49), st.booleans()), max_size=8)


@settings(max_examples=60)
@given(
    st.lists(tokens_of, min_size=1, max_size=3),
    st.lists(st.tuples(st.integers(0, 2), st.integers(3, 49), turns), min_size=1, max_size=7),
    st.integers(1, 60),
    st.booleans(),
    st.booleans(),
    st.one_of(st.none(), st.integers(1, 4)),
)
def test_every_token_sees_its_own_sequence_and_nothing_else(
    prompts: list[list[int]],
    answers: list[tuple[int, int, list[tuple[int, bool]]]],
    tokens: int,
    shared: bool,
    long_rows: bool,
    contexts: int | None,
) -> None:
    begin = [7] * (contexts or 0)  # a context of few tokens, so that it falls short of CONTEXT where that is 3
    samples = [
        sample(begin + prompts[i % len(prompts)], [first, *(t for t, _ in rest)], [True, *(m for _, m in rest)])
        for i, first, rest in answers
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packing, "CONTEXT", 3)
        passes = pack(
            samples, tokens, CPU, pad=0, shared=shared, long_rows=long_rows, contexts=shared and contexts is not None
        )
    assert sorted(i for p in passes for i in p.samples) == list(range(len(samples)))
    for p in passes:
        masks = p.dense_mask(torch.float32)[:, 0] == 0
        for i, (sources, targets) in zip(p.samples, by_sample(p, samples), strict=True):
            s = samples[i]
            assert targets == [t for t, sampled in zip(s.tokens, s.mask, strict=True) if sampled]
            for source, place in zip(sources, (at for at, sampled in enumerate(s.mask) if sampled), strict=True):
                row, at = divmod(source, p.ids.shape[1])
                seen = masks[row, at]
                assert p.ids[row][seen].tolist() == s.tokens[:place]
                assert p.positions[row][seen].tolist() == list(range(place))


def by_sample(packed: Packed, samples: list[Sample]) -> list[tuple[list[int], list[int]]]:
    """Return the (sources, targets) of each sample."""
    lengths = [samples[i].sampled for i in packed.samples]
    parts = zip(packed.sources.split(lengths), packed.targets.split(lengths), strict=True)
    return [(sources.tolist(), targets.tolist()) for sources, targets in parts]


def test_a_prompt_is_once_in_a_row_for_all_its_answers() -> None:
    samples = [sample(list(range(3, 43)), [i, i + 1, i + 2]) for i in range(8)]
    (tree,) = pack(samples, 8192, CPU, pad=0)
    assert tree.ids.numel() == 40 + 8 * 2
    (rows,) = pack(samples, 8192, CPU, pad=0, shared=False)
    assert rows.ids.shape == (8, 42) and rows.causal


def test_a_context_is_once_in_a_row_for_all_its_prompts() -> None:
    """8 prompts of 40 + 4 tokens, with 3 answers of 2 (the last token is only a target), and with one answer each."""
    context = list(range(3, 43))
    several = [sample([*context, k, k, k, k], [i, i]) for k in range(3, 11) for i in range(3)]
    (tree,) = pack(several, 8192, CPU, pad=0, contexts=True)
    assert tree.ids.numel() == 40 + 8 * (4 + 3)
    one_each = several[::3]
    (tree,) = pack(one_each, 8192, CPU, pad=0, contexts=True)
    assert tree.ids.numel() == 40 + 8 * (4 + 1)
    # two contexts that begin alike are two trees where that takes fewer tokens
    longer = [sample([*context[:33], *context[:20], k], [k, k]) for k in range(3, 11)]
    passes = pack(one_each + longer, 8192, CPU, pad=0, contexts=True)
    assert sorted(p.ids.numel() for p in passes) == [53 + 8 * (1 + 1), 40 + 8 * (4 + 1)]


@settings(max_examples=60)
@given(
    st.lists(st.tuples(st.integers(0, 2), st.lists(st.integers(0, 1), max_size=4)), min_size=1, max_size=7),
    st.integers(30, 90),
)
def test_contexts_are_cut_at_the_fewest_tokens(prompts: list[tuple[int, list[int]]], tokens: int) -> None:
    """No cut of the prompts in their order takes fewer: tried one by one."""
    samples = [sample([SHARED, OTHER, OTHER[:10]][k] + [4, *rest], [5, 6]) for k, rest in prompts]
    samples = [s for i, s in enumerate(samples) if s.tokens not in [other.tokens for other in samples[:i]]]

    def cost(part: list[list[int]]) -> float:
        if len(part) == 1:
            return len(part[0]) + 1
        root = min(packing._alike(a, b) for a in part for b in part if a is not b)
        size = root + sum(len(p) + 1 - root for p in part)
        return size if root >= CONTEXT and size <= tokens else float("inf")

    def least(rest: list[list[int]]) -> float:
        return min((cost(rest[:n]) + least(rest[n:]) for n in range(1, len(rest) + 1)), default=0)

    passes = pack(samples, tokens, CPU, pad=0, contexts=True)
    assert sum(int((p.branch >= 0).sum()) for p in passes) == least(sorted(s.tokens[:-2] for s in samples))


def test_passes_keep_to_their_size() -> None:
    samples = [sample([k] * (20 + k), [5] * length) for k in range(3, 9) for length in (10, 40, 90, 200)]
    for long_rows, most in ((False, min(400, ROW_TOKENS)), (True, 400)):
        passes = pack(samples, 400, CPU, pad=0, long_rows=long_rows)
        assert all(int((p.branch >= 0).sum()) <= most for p in passes) and len(passes) < len(samples)
    alone = pack(samples[:1], 4, CPU, pad=0)  # one answer is not cut
    assert [p.ids.numel() for p in alone] == [len(samples[0].tokens) - 1]


def test_widths_on_a_gpu_are_few() -> None:
    """flex_attention compiles for each width."""
    widths = {
        p.ids.shape[1]
        for n in range(1, 60)
        for p in pack([sample([7] * n, [8] * (9 * n))], 1000, CPU, pad=0, long_rows=True)
    }
    assert widths == {512, 1024}


def test_block_masks_are_dense_ones() -> None:
    (p,) = pack(MIXED, 200, CPU, pad=0, long_rows=True)
    at = torch.arange(p.ids.shape[1])
    first = torch.tensor(0)
    for window in (None, 3):
        seen = p.block_mask(window).mask_mod(first, first, at[:, None], at[None])
        assert torch.equal(seen, p.dense_mask(torch.float32, window)[0, 0] == 0)
