"""Answers packed for scoring: each prompt is once in a row, followed by the answers to it.

A packed row is a tree. Its root is a prompt, its branches are answers, and a token attends to what precedes it in its
own branch and in the root:

    prompt [a b c], answers [d e f] and [g h]      (the last token of an answer predicts nothing: it is only a target)

    ids        a b c  d e  g
    positions  0 1 2  3 4  3      positions continue from the prompt in every branch
    branch     0 0 0  1 1  2
    parent     0 0 0  0 0  0
    root       0 0 0  0 0  0
    sources    2 3 4  2 5         the places whose hidden states predict ...
    targets    d e f  g h         ... the sampled tokens

Prompts share a context as well, in models so large that its tokens cost more than another level of the tree: the
context is then the root, the rests of the prompts are its branches, and a prompt's answers are leaves on its branch.

Any transformers decoder that takes `position_ids` and a mask scores such rows like separate ones. The attention is
registered with transformers under the name `tree`: on a CPU, SDPA over one level after the other, on a GPU
flex_attention with a block mask over one long row of many trees. Anything else, such as sampling, is left to SDPA.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
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
LARGE = 512
"""Hidden size from which matrix products take the time, so that saving tokens is worth more operations around them.
Results of smaller models, the embedded one's among them, stay the same to the last bit."""
CONTEXT = 32
"""Tokens that prompts must have in common to share them."""
TREE = "tree"
"""Our name among transformers' attention implementations."""


@dataclass(frozen=True)
class Tree:
    """The shape of a row that holds one tree and nothing else."""

    root: int
    """Tokens of the root."""
    branches: list[list[int]]
    """Of each branch its tokens, then those of its leaves."""
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
    """(rows, width): number of the token's part in its row (a root, a branch or a leaf); -1 is padding."""
    parent: Tensor
    """(rows, width): number of the part that this one continues; a root's is its own."""
    root: Tensor
    """(rows, width): number of its tree's root."""
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
        above = (branch == self.parent[row, query]) | (branch == self.root[row, query])
        seen = (key <= query) & ((branch == self.branch[row, query]) | above)
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


@dataclass(frozen=True)
class _Plan:
    """The samples of one tree, before it is laid out."""

    root: int
    """Tokens of the root."""
    groups: list[list[int]]
    """Indices of samples: one alone is a branch with its answer; several are leaves on the rest of their prompt."""
    size: int
    """Tokens of the tree."""


def pack(
    samples: Sequence[Sample],
    tokens: int,
    device: torch.device,
    *,
    pad: int,
    shared: bool = True,
    contexts: bool = False,
    long_rows: bool = False,
) -> list[Packed]:
    """Return the samples in passes of at most `tokens` tokens, or of one answer where it is longer.

    Without `shared` each answer has a row of its own, prompt included, for models that can't run trees; with `contexts`
    prompts share what they begin with. `long_rows` puts all trees of a pass into one row. `pad` fills shorter rows up.
    The result depends on nothing but the arguments, so every rank cuts alike.
    """
    groups: dict[tuple[int, ...], list[int]] = {}
    for i, sample in enumerate(samples):
        key = tuple(sample.tokens[: sample.mask.index(True)])
        groups.setdefault(key if shared else (*key, -i), []).append(i)
    row_tokens = tokens if long_rows or contexts else min(tokens, ROW_TOKENS)
    trees: list[_Plan] = []
    for members in groups.values():
        prompt = samples[members[0]].mask.index(True)
        size = prompt
        answers: list[list[int]] = []
        for i in members:
            own = len(samples[i].tokens) - prompt - 1
            if answers and size + own > row_tokens:
                trees.append(_Plan(prompt, answers, size))
                size, answers = prompt, []
            size, answers = size + own, [*answers, [i]]
        trees.append(_Plan(prompt, answers, size))
    if contexts:
        trees = _with_contexts(samples, trees, row_tokens)
    trees.sort(key=lambda tree: tree.size)  # rows of a pass are padded to the longest
    passes: list[list[list[_Plan]]] = []  # passes of rows of trees
    filled = 0
    for tree in trees:
        last = passes[-1] if passes else None
        if last is not None and long_rows and filled + tree.size <= tokens:
            last[0].append(tree)
            filled += tree.size
        elif (
            last is not None
            and not long_rows
            and len(tree.groups) == len(last[0][0].groups) == 1
            and (len(last) + 1) * tree.size <= tokens
        ):
            last.append([tree])  # rows of one answer each; a tree of several is a pass of its own
        else:
            passes.append([[tree]])
            filled = tree.size
    return [_packed(samples, rows, tokens if long_rows else None, pad, device) for rows in passes]


def _with_contexts(samples: Sequence[Sample], trees: list[_Plan], tokens: int) -> list[_Plan]:
    """Return trees of at most `tokens` tokens in which prompts share what they begin with: the fewest tokens in all.

    In order of their tokens, prompts that begin alike are neighbours; the cheapest cut of that order is found by
    dynamic programming.
    """

    def prompt(tree: _Plan) -> list[int]:
        return samples[tree.groups[0][0]].tokens[: tree.root]

    trees = sorted(trees, key=prompt)
    alike = [0, *(_alike(prompt(one), prompt(other)) for one, other in itertools.pairwise(trees))]
    # for the first n trees: tokens in all, which tree their last part begins with, tokens of its root
    best = [(0, 0, 0)]
    for end in range(1, len(trees) + 1):
        root, alone = trees[end - 1].root, trees[end - 1].size
        found = [(best[end - 1][0] + alone, end - 1, root)]
        for start in range(end - 2, -1, -1):
            root, alone = min(root, alike[start + 1]), alone + trees[start].size
            size = alone - (end - start - 1) * root
            if root < CONTEXT or size > tokens:
                break
            found.append((best[start][0] + size, start, root))
        best.append(min(found))
    end, joined = len(trees), []
    while end:
        total, start, root = best[end]
        part = trees[start:end]
        groups = part[0].groups if len(part) == 1 else [list(itertools.chain(*tree.groups)) for tree in part]
        joined.append(_Plan(root, groups, total - best[start][0]))
        end = start
    return joined


def _alike(one: list[int], other: list[int]) -> int:
    """Return how many tokens both prompts begin with, short of either's last one: no rest is empty."""
    pairs = enumerate(zip(one[:-1], other[:-1], strict=False))
    return next((n for n, (a, b) in pairs if a != b), min(len(one), len(other)) - 1)


def _packed(
    samples: Sequence[Sample], rows: list[list[_Plan]], tokens: int | None, pad: int, device: torch.device
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

    order = [i for row in laid for i in row.samples]
    return Packed(
        samples=order,
        ids=grid([row.ids for row in laid], pad),
        positions=grid([row.positions for row in laid], 0),
        branch=grid([row.branch for row in laid], -1),
        parent=grid([row.parent for row in laid], -1),
        root=grid([row.root for row in laid], -1),
        sources=torch.tensor([n * width + at for n, row in enumerate(laid) for at in row.sources], device=device),
        targets=torch.tensor([target for row in laid for target in row.targets], device=device),
        temperatures=_temperatures([samples[i] for i in order], device),
        causal=tokens is None and all(len(row.samples) == 1 for row in laid),
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

    samples: list[int] = field(default_factory=list)
    ids: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    branch: list[int] = field(default_factory=list)
    parent: list[int] = field(default_factory=list)
    root: list[int] = field(default_factory=list)
    sources: list[int] = field(default_factory=list)
    targets: list[int] = field(default_factory=list)
    tree: Tree | None = None
    """The shape of the last tree."""
    parts: int = 0

    def add(self, tokens: list[int], position: int, parent: int | None = None, root: int | None = None) -> int:
        """Append a part of a tree that begins at `position`; return its number. Without `parent` it is a root."""
        number, n = self.parts, len(tokens)
        self.parts += 1
        self.ids += tokens
        self.positions += range(position, position + n)
        self.branch += [number] * n
        self.parent += [number if parent is None else parent] * n
        self.root += [number if root is None else root] * n
        return number

    def add_answer(self, i: int, sample: Sample, position: int, before: int, parent: int, root: int) -> int:
        """Append all of a sample that follows `position`; `before` is the place of the token there. Return its length.

        Its last token predicts nothing: it is only a target.
        """
        tokens, mask, first = sample.tokens[position:], sample.mask[position:], len(self.ids)
        places = [before, *range(first, first + len(tokens) - 1)]  # of the token before each
        self.samples.append(i)
        self.sources += [at for at, sampled in zip(places, mask, strict=True) if sampled]
        self.targets += [token for token, sampled in zip(tokens, mask, strict=True) if sampled]
        self.add(tokens[:-1], position, parent, root)
        return len(tokens) - 1


def _row(samples: Sequence[Sample], trees: list[_Plan]) -> _Row:
    """Return the row that holds these trees, one after the other."""
    row = _Row()
    for tree in trees:
        context = samples[tree.groups[0][0]].tokens[: tree.root]
        root = row.add(context, 0)
        last = len(row.ids) - 1
        branches: list[list[int]] = []
        for group in tree.groups:
            if len(group) == 1:
                branches.append([row.add_answer(group[0], samples[group[0]], tree.root, last, root, root)])
                continue
            prompt = samples[group[0]].mask.index(True)
            branch = row.add(samples[group[0]].tokens[tree.root : prompt], tree.root, root, root)
            end = len(row.ids) - 1
            leaves = [row.add_answer(i, samples[i], prompt, end, branch, root) for i in group]
            branches.append([prompt - tree.root, *leaves])
        row.tree = Tree(tree.root, branches)
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
    """Attend within the root, then from all branches at once, as rows of a batch, each to the root and itself."""
    grouped = query.shape[1] != key.shape[1]
    attend = partial(functional.scaled_dot_product_attention, scale=scaling, enable_gqa=grouped)
    start, window = tree.root, tree.window

    def hiding(hidden: Tensor) -> Tensor:
        return torch.zeros(hidden.shape, dtype=query.dtype, device=query.device).masked_fill_(hidden, float("-inf"))

    def ahead(queries: int, before: int) -> Tensor:
        """Return a mask (queries, before + queries): -inf after a token, and before its window."""
        keys = torch.arange(before + queries, device=query.device)
        at = keys[before:, None]
        return hiding((keys > at) if window is None else (keys > at) | (at - keys >= window))

    q, k, v = (x[:, :, :start] for x in (query, key, value))
    mixed = [attend(q, k, v, is_causal=True) if window is None else attend(q, k, v, attn_mask=ahead(start, 0))]
    if branches := [branch for branch in tree.branches if any(branch)]:
        lengths = [sum(branch) for branch in branches]
        longest = max(lengths)

        def apart(x: Tensor) -> Tensor:
            """Return (branches, heads, longest, size). Padding comes last, so nothing but padding attends to it."""
            # not pad_sequence: it pads the first dimension, and the transposed result would be slower to attend to
            parts = zip(x[0, :, start:].split(lengths, 1), lengths, strict=True)
            return torch.stack(
                [part if n == longest else functional.pad(part, (0, 0, 0, longest - n)) for part, n in parts]
            )

        def after_root(x: Tensor) -> Tensor:
            """Return (branches, heads, root + longest, size)."""
            return torch.cat([x[:, :, :start].expand(len(lengths), -1, -1, -1), apart(x)], 2)

        def beside() -> Tensor:
            """Return a mask (branches, 1, longest, root + longest) for branches with leaves: none sees another one."""
            part = torch.zeros(len(branches), start + longest, dtype=torch.long, device=query.device)
            at = torch.arange(start + longest, device=query.device).repeat(len(branches), 1)
            for i, branch in enumerate(branches):
                places = start + branch[0]
                for number, n in enumerate(branch[1:], 1):
                    part[i, places : places + n] = number
                    at[i, places : places + n] = torch.arange(start + branch[0], start + branch[0] + n)
                    places += n
            keys = torch.arange(start + longest, device=query.device)
            own, own_at = part[:, start:, None], at[:, start:, None]
            hidden = (keys > keys[start:, None]) | ((part[:, None] != own) & (part[:, None] != 0))
            return hiding(hidden if window is None else hidden | (own_at - at[:, None] >= window))[:, None]

        mask = ahead(longest, start) if all(len(branch) == 1 for branch in branches) else beside()
        found = attend(apart(query), after_root(key), after_root(value), attn_mask=mask).unbind()
        mixed += [branch[None, :, :n] for branch, n in zip(found, lengths, strict=True)]
    return torch.cat(mixed, 2)


AttentionInterface.register(TREE, tree_attention)
AttentionMaskInterface.register(TREE, sdpa_mask)
