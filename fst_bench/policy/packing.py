"""Answers packed for scoring: each prompt is once in a row, followed by the answers to it.

A packed row is a tree. Its root is a prompt, its branches are answers, and a token attends to what precedes it in its
own branch and in the root:

    prompt [a b c], answers [d e f] and [g h]      (the last token of an answer predicts nothing: it is only a target)

    ids        a b c  d e  g
    positions  0 1 2  3 4  3      positions continue from the prompt in every branch
    branch     0 0 0  1 1  2
    root       0 0 0  0 0  0
    sources    2 3 4  2 5         the places whose hidden states predict ...
    targets    d e f  g h         ... the sampled tokens

Any transformers decoder that takes `position_ids` and a mask scores such rows like separate ones. The attention is
registered with transformers under the name `tree`: on a CPU, SDPA over each prompt and then over each answer with its
prompt, on a GPU flex_attention with a block mask over one long row of many trees. Anything else, such as sampling, is
left to SDPA.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention
from transformers import PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask
from transformers.modeling_utils import AttentionInterface

from fst_bench.core.types import Sample

ROW_TOKENS = 640
"""Tokens of a row on a CPU. Shorter rows repeat the prompt more often (320: 1.8 s an update, 640 to 1600: 1.1 s, on
16 x 8 answers of 60 tokens); longer ones keep more activations."""
BLOCK = 128
"""Side of a block of the block mask; rows on a GPU are padded to multiples of it."""
TREE = "tree"
"""Our name among transformers' attention implementations."""


@dataclass(frozen=True)
class Tree:
    """The shape of a row that holds one tree and nothing else."""

    prompt: int
    """Tokens of the root."""
    answers: list[int]
    """Tokens of each branch, in order."""
    window: int | None = None
    """The window of sliding attention, in tokens."""


@dataclass(frozen=True)
class Packed:
    """Rows that are scored in one forward pass.

    `rows` and `width` are the shape of `ids`, n is the number of sampled tokens in them.
    """

    samples: list[int]
    """Indices of the samples, in the order of their tokens in `sources` and `targets`."""
    ids: Tensor
    """(rows, width)"""
    positions: Tensor
    """(rows, width)"""
    branch: Tensor
    """(rows, width): number of the token's branch in its row; -1 is padding."""
    root: Tensor
    """(rows, width): number of the branch that holds the token's prompt."""
    sources: Tensor
    """(n,) places in the flattened rows."""
    targets: Tensor
    """(n,) token ids."""
    temperatures: Tensor | None
    """(n,) that of each token's sample; None where all are 1."""
    causal: bool
    """Whether every row is one sequence, so that the model's own causal mask is the right one."""
    tree: Tree | None
    """The shape of the only row, where it holds one tree."""
    long: bool
    """Whether it is one long row for flex_attention."""

    def sees(self, row: Any, query: Any, key: Any, window: int | None = None) -> Any:
        """Return whether the token at `query` of a row attends to the one at `key`, elementwise.

        `window` is that of sliding attention, in tokens.
        """
        branch = self.branch[row, key]
        seen = (key <= query) & ((branch == self.branch[row, query]) | (branch == self.root[row, query]))
        return seen if window is None else seen & (self.positions[row, query] - self.positions[row, key] < window)

    def dense_mask(self, dtype: torch.dtype, window: int | None = None) -> Tensor:
        """Return the mask (rows, 1, width, width): 0 where a token is seen, -inf elsewhere."""
        rows, width = self.ids.shape
        at = torch.arange(width, device=self.ids.device)
        seen = self.sees(torch.arange(rows, device=self.ids.device)[:, None, None], at[:, None], at[None], window)
        return torch.zeros(seen.shape, dtype=dtype, device=self.ids.device).masked_fill_(~seen, float("-inf"))[:, None]

    def tree_mask(self, dtype: torch.dtype, window: int | None = None) -> Tensor:
        """Return the mask for `tree_attention`: it carries the tree's shape through the model, and hides nothing."""
        assert self.tree is not None
        mask: Any = torch.zeros(1, 1, 1, 1, dtype=dtype, device=self.ids.device)
        mask.tree = replace(self.tree, window=window)
        return mask

    def block_mask(self, window: int | None = None) -> BlockMask:
        """Return the mask for flex_attention."""
        rows, width = self.ids.shape

        def sees(row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
            return self.sees(row, query, key, window)

        return create_block_mask(sees, rows, None, width, width, device=self.ids.device, BLOCK_SIZE=BLOCK)


def pack(
    samples: Sequence[Sample],
    tokens: int,
    device: torch.device,
    *,
    pad: int,
    shared: bool = True,
    long_rows: bool = False,
) -> list[Packed]:
    """Return the samples in passes of at most `tokens` tokens, or of one answer where it is longer.

    Without `shared` each answer has a row of its own, prompt included, for models that can't run trees. `long_rows`
    puts all trees of a pass into one row. `pad` fills shorter rows up. The result depends on nothing but the arguments,
    so every rank cuts alike.
    """
    groups: dict[tuple[int, ...], list[int]] = {}
    for i, sample in enumerate(samples):
        key = tuple(sample.tokens[: sample.mask.index(True)])
        groups.setdefault(key if shared else (*key, -i), []).append(i)
    row_tokens = tokens if long_rows else min(tokens, ROW_TOKENS)
    trees: list[tuple[int, list[int]]] = []  # (tokens, samples)
    for members in groups.values():
        prompt = samples[members[0]].mask.index(True)
        size = prompt
        tree: list[int] = []
        for i in members:
            own = len(samples[i].tokens) - prompt - 1
            if tree and size + own > row_tokens:
                trees.append((size, tree))
                size, tree = prompt, []
            size, tree = size + own, [*tree, i]
        trees.append((size, tree))
    trees.sort(key=lambda tree: tree[0])  # rows of a pass are padded to the longest
    passes: list[list[list[list[int]]]] = []  # passes of rows of trees of samples
    filled = 0
    for size, tree in trees:
        last = passes[-1] if passes else None
        if last is not None and long_rows and filled + size <= tokens:
            last[0].append(tree)
            filled += size
        elif (
            last is not None
            and not long_rows
            and len(tree) == len(last[0][0]) == 1
            and (len(last) + 1) * size <= tokens
        ):
            last.append([tree])  # rows of one answer each; a tree of several is a pass of its own
        else:
            passes.append([[tree]])
            filled = size
    return [_packed(samples, rows, tokens if long_rows else None, pad, device) for rows in passes]


def _packed(
    samples: Sequence[Sample], rows: list[list[list[int]]], tokens: int | None, pad: int, device: torch.device
) -> Packed:
    """Return one pass.

    On a GPU (`tokens` is given) widths are rounded up to halves of a full row: flex_attention compiles for each width.
    """
    laid = [_row(samples, trees) for trees in rows]
    width = max(len(row.ids) for row in laid)
    if tokens is not None:
        half = math.ceil(tokens / (2 * BLOCK)) * BLOCK
        width = math.ceil(width / half) * half

    def grid(lists: list[list[int]], fill: int) -> Tensor:
        return torch.tensor([values + [fill] * (width - len(values)) for values in lists], device=device)

    return Packed(
        samples=[i for trees in rows for tree in trees for i in tree],
        ids=grid([row.ids for row in laid], pad),
        positions=grid([row.positions for row in laid], 0),
        branch=grid([row.branch for row in laid], -1),
        root=grid([row.root for row in laid], -1),
        sources=torch.tensor([n * width + at for n, row in enumerate(laid) for at in row.sources], device=device),
        targets=torch.tensor([target for row in laid for target in row.targets], device=device),
        temperatures=_temperatures([samples[i] for trees in rows for tree in trees for i in tree], device),
        causal=tokens is None and all(len(trees) == len(trees[0]) == 1 for trees in rows),
        tree=laid[0].tree if len(rows) == len(rows[0]) == 1 and tokens is None else None,
        long=tokens is not None,
    )


def _temperatures(samples: Sequence[Sample], device: torch.device) -> Tensor | None:
    """Return the temperature of each sampled token; None where all are 1."""
    if all(sample.temperature == 1 for sample in samples):
        return None
    return torch.tensor([sample.temperature for sample in samples for _ in range(sample.sampled)], device=device)


@dataclass
class _Row:
    """One row as lists; see `Packed`."""

    ids: list[int]
    positions: list[int]
    branch: list[int]
    root: list[int]
    sources: list[int]
    targets: list[int]
    tree: Tree
    """The shape of the last tree."""


def _row(samples: Sequence[Sample], trees: list[list[int]]) -> _Row:
    """Return the row that holds these trees (indices of their samples), one after the other."""
    row = _Row([], [], [], [], [], [], Tree(0, []))
    number = 0
    for tree in trees:
        length = samples[tree[0]].mask.index(True)
        start, root = len(row.ids), number
        row.tree = Tree(length, [len(samples[i].tokens) - length - 1 for i in tree])
        row.ids += samples[tree[0]].tokens[:length]
        row.positions += range(length)
        row.branch += [root] * length
        row.root += [root] * length
        for i in tree:
            number += 1
            tokens, mask = samples[i].tokens[length:], samples[i].mask[length:]
            first = len(row.ids)
            # the place before each token of the branch
            before = [start + length - 1, *range(first, first + len(tokens) - 1)]
            row.sources += [at for at, sampled in zip(before, mask, strict=True) if sampled]
            row.targets += [token for token, sampled in zip(tokens, mask, strict=True) if sampled]
            row.ids += tokens[:-1]
            row.positions += range(length, length + len(tokens) - 1)
            row.branch += [number] * (len(tokens) - 1)
            row.root += [root] * (len(tokens) - 1)
        number += 1
    return row


def hidden_states(model: PreTrainedModel, packed: Packed) -> Tensor:
    """Return the hidden states (n, hidden) that predict the sampled tokens."""
    if packed.causal:
        states = model.base_model(input_ids=packed.ids, use_cache=False).last_hidden_state
    else:
        states = model.base_model(
            input_ids=packed.ids, position_ids=packed.positions, attention_mask=masks(model, packed), use_cache=False
        ).last_hidden_state
    return states.flatten(0, 1)[packed.sources]


def masks(model: PreTrainedModel, packed: Packed) -> Any:
    """Return the model's `attention_mask`: one mask, or one for each kind of layer where its config names kinds."""
    config = model.config
    by_tree = packed.tree is not None and config._attn_implementation == TREE
    make: Any = packed.block_mask
    if not packed.long:
        make = partial(packed.tree_mask if by_tree else packed.dense_mask, model.dtype)
    window = getattr(config, "sliding_window", None)
    kinds = set(getattr(config, "layer_types", None) or [])
    if not kinds:
        return make(window=window)
    return {kind: make(window=window if kind == "sliding_attention" else None) for kind in kinds}


_compiled = torch.compile(flex_attention, dynamic=False)


def tree_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Any,
    scaling: float | None = None,
    softcap: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attend, as transformers calls it: from (rows, heads, width, size) to (rows, width, heads, size)."""
    if isinstance(attention_mask, BlockMask):
        mixed = _flex(query, key, value, attention_mask, scaling, softcap)
    elif (tree := getattr(attention_mask, "tree", None)) is not None:
        mixed = _one_tree(query, key, value, tree, scaling)
    else:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, softcap=softcap, **kwargs
        )
    return mixed.transpose(1, 2).contiguous(), None


def _flex(
    query: Tensor, key: Tensor, value: Tensor, mask: BlockMask, scaling: float | None, softcap: float | None
) -> Tensor:
    """Attend by flex_attention: compiled on GPUs; on CPUs, where it has no backward pass, for tests."""

    def capped(score: Tensor, row: Tensor, head: Tensor, q: Tensor, k: Tensor) -> Tensor:
        assert softcap is not None
        return softcap * torch.tanh(score / softcap)

    attend = _compiled if query.is_cuda else flex_attention
    grouped = query.shape[1] != key.shape[1]
    return attend(
        query, key, value, score_mod=capped if softcap else None, block_mask=mask, scale=scaling, enable_gqa=grouped
    )


def _one_tree(query: Tensor, key: Tensor, value: Tensor, tree: Tree, scaling: float | None) -> Tensor:
    """Attend within the prompt, then from all answers at once, as rows of a batch, each to the prompt and itself."""
    grouped = query.shape[1] != key.shape[1]
    attend = partial(functional.scaled_dot_product_attention, scale=scaling, enable_gqa=grouped)
    start, window = tree.prompt, tree.window

    def ahead(queries: int, before: int) -> Tensor:
        """Return a mask (queries, before + queries): -inf after a token, and before its window."""
        keys = torch.arange(before + queries, device=query.device)
        at = keys[before:, None]
        hidden = (keys > at) if window is None else (keys > at) | (at - keys >= window)
        return torch.zeros(hidden.shape, dtype=query.dtype, device=query.device).masked_fill_(hidden, float("-inf"))

    q, k, v = (x[:, :, :start] for x in (query, key, value))
    mixed = [attend(q, k, v, is_causal=True) if window is None else attend(q, k, v, attn_mask=ahead(start, 0))]
    if lengths := [n for n in tree.answers if n]:
        longest = max(lengths)

        def apart(x: Tensor) -> Tensor:
            """Return (answers, heads, longest, size). Padding comes last, so nothing but padding attends to it."""
            # not pad_sequence: it pads the first dimension, and the transposed result would be slower to attend to
            parts = zip(x[0, :, start:].split(lengths, 1), lengths, strict=True)
            return torch.stack(
                [part if n == longest else functional.pad(part, (0, 0, 0, longest - n)) for part, n in parts]
            )

        def after_prompt(x: Tensor) -> Tensor:
            """Return (answers, heads, prompt + longest, size)."""
            return torch.cat([x[:, :, :start].expand(len(lengths), -1, -1, -1), apart(x)], 2)

        answers = attend(apart(query), after_prompt(key), after_prompt(value), attn_mask=ahead(longest, start)).unbind()
        mixed += [answer[None, :, :n] for answer, n in zip(answers, lengths, strict=True)]
    return torch.cat(mixed, 2)


AttentionInterface.register(TREE, tree_attention)
AttentionMaskInterface.register(TREE, sdpa_mask)
