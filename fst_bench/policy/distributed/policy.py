"""The `vllm-deepspeed` backend's policy: rank 0 speaks for all ranks.

Every rank builds the same `Ranked` part: a learner and a sampler. Rank 0 wraps its own in a `DistributedPolicy`, which is the
policy that the harness sees; the others wait for commands until they are told to stop. So the harness runs once, on rank 0, and
has no rank anywhere.
"""

import atexit
import logging
import os
from collections.abc import Sequence
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

import torch.distributed as dist
from transformers import AutoModelForCausalLM

from fst_bench.errors import RunError
from fst_bench.model import model_folder
from fst_bench.policy.base import Ask, Message, Sample, TokenLoss
from fst_bench.policy.conversation import retold, samples_of, starts
from fst_bench.policy.settings import PolicySettings
from fst_bench.policy.torch_backend import check_device, ends_of, load_tokenizer, pad_of

from .learner import TAG, Learner, join, same_everywhere
from .sampler import Sampler
from .weights import Comparison

CANARY = "The quick brown fox counts 1 2 3 4 5 6 7 8 9 10 and then it jumps over the lazy dog. "
CANARY_TOKENS = 8
TOLERANCE = {"float32": 1e-4, "bfloat16": 0.2}
IDLE = timedelta(days=1)
"""How long a rank waits for rank 0's next command: as long as reflections and verdicts between two of them may take."""


class SyncError(RunError):
    """The sampler does not hold the learner's weights."""


class Ranked:
    """What one rank does. Every method is a collective: all ranks are in it together."""

    def __init__(self, name: str, settings: PolicySettings):
        folder = model_folder(name)
        same_everywhere("the policy's settings", settings.model_dump_json())
        self.settings, self.tokenizer = settings, load_tokenizer(name)
        self.learner = Learner(folder, settings, pad_of(self.tokenizer))  # before the sampler: vLLM uses the process group that DeepSpeed opens
        self.rank, self.world = self.learner.rank, self.learner.world
        self.control = dist.new_group(backend="gloo", timeout=IDLE)  # other collectives give up after DeepSpeed's ten minutes
        together = settings.distributed.tensor_parallel
        if self.world % together:
            raise ValueError(f"tensor_parallel {together} does not divide {self.world} ranks")
        self.engine, self.engines = self.rank // together, self.world // together
        self.sampler = Sampler(folder, settings, ends_of(self.learner.module.model, self.tokenizer), self.world)
        self.holds: tuple[str, int] = ("policy", 0)
        """Whose weights the samplers hold, and of which version."""
        self.compared: Comparison | None = None
        """What the last comparison of weights found."""

    def told(self, command: Any = None) -> Any:
        """Rank 0's command, on all ranks."""
        box = [command]
        dist.broadcast_object_list(box, src=0, group=self.control)
        return box[0]

    def sync(self, base: bool) -> None:
        """Bring the samplers' weights up to date, and prove it: nobody else would notice."""
        wanted = ("base", 0) if base else ("policy", self.learner.version)
        if self.holds != wanted or self.sampler.asleep:
            self.sampler.receive(self.learner.weights(base))
            self.compare(base)
            self.holds = wanted
            self.canary(base)

    def compare(self, base: bool) -> None:
        """SyncError, on every rank, where any sampler holds a tensor that is not the learner's bit for bit."""
        found = self.sampler.compare(self.learner.weights(base))
        everyone: list[Any] = [None] * self.world
        dist.all_gather_object(everyone, found)
        if wrong := [name for part in everyone for name in part.different]:
            raise SyncError(
                f"after a weight sync the sampler does not hold the learner's weights: {len(wrong)} of "
                f"{len(found.same) + len(found.different)} tensors differ, the first is {wrong[0]}"
            )
        if found.unknown and self.compared is None and self.rank == 0:
            logging.getLogger(__name__).warning(
                "%d tensors of this model can't be compared with the sampler's, the first is %s: only the canary watches them",
                len(found.unknown), found.unknown[0],
            )  # fmt: skip
        self.compared = found

    def canary(self, base: bool) -> None:
        """The sampler's log-probabilities of a few tokens against the learner's: what tensors don't show.

        The prompt is the same every time and fills several blocks of the cache, so a cache that outlived the old weights is seen.
        Tokens are greedy. SyncError where any differs by more than `canary`.
        """
        prompt = self.canary_prompt
        tokens, logprobs, _ = self.sampler.sample([prompt], [1], [0], [CANARY_TOKENS], 0.0)[0][0]
        row = Sample(prompt + tokens, [False] * len(prompt) + [True] * len(tokens), logprobs, "", True)
        everyone: list[Any] = [None] * self.world
        dist.all_gather_object(everyone, row)
        ours = self.learner.logprobs(everyone, base)
        gap = max(abs(a - b) for row, own in zip(everyone, ours, strict=True) for a, b in zip(row.logprobs, own, strict=True))
        allowed = self.settings.distributed.canary or TOLERANCE[self.settings.dtype]
        if not gap <= allowed:
            raise SyncError(
                f"after a weight sync the sampler's log-probabilities are off by {gap:.2g} (allowed: {allowed:g}): "
                "it does not hold the learner's weights, or kept what it had computed with the old ones"
            )
        self.gap = gap

    @cached_property
    def canary_prompt(self) -> list[int]:
        ids: list[int] = self.tokenizer(CANARY * 16, add_special_tokens=False)["input_ids"]
        return ids[: min(640, self.sampler.positions - self.settings.max_tokens - CANARY_TOKENS)]

    def sample(
        self, prompts: list[list[int]], counts: list[int], seeds: list[int], rooms: list[int], temperature: float, base: bool
    ) -> list[list[Any]]:  # fmt: skip
        """The prompts shared out between the engines, one by one in turn; all results on every rank."""
        self.sync(base)
        mine = range(self.engine, len(prompts), self.engines)
        done = self.sampler.sample(
            [prompts[i] for i in mine], [counts[i] for i in mine], [seeds[i] for i in mine], [rooms[i] for i in mine], temperature
        )  # fmt: skip
        everyone: list[Any] = [None] * self.world
        dist.all_gather_object(everyone, dict(zip(mine, done, strict=True)))
        found = {i: group for part in everyone for i, group in part.items()}
        return [found[i] for i in range(len(prompts))]

    # What needs the learner's memory puts the sampler to sleep, and not `sample`: evaluations and evolution sample many times in a row.

    def logprobs(self, samples: Sequence[Sample], base: bool) -> list[list[float]]:
        self.sampler.rest()
        return self.learner.logprobs(samples, base)

    def kl_to_base(self, samples: Sequence[Sample], reverse: bool) -> list[float]:
        self.sampler.rest()
        return self.learner.kl_to_base(samples, reverse)

    def update(self, *rows: Any) -> dict[str, float]:
        self.sampler.rest()
        return self.learner.update(*rows)

    def save(self, folder: Path) -> None:
        self.learner.save(folder)

    def load(self, folder: Path) -> None:
        self.learner.load(folder)
        self.holds = ("nothing", 0)

    def start_from(self, folder: Path) -> None:
        self.learner.start_from(folder)
        self.holds = ("nothing", 0)

    def gathered(self, base: bool) -> dict[str, Any]:
        """All weights, on rank 0's CPU."""
        return {name: tensor.cpu().clone() for name, tensor in self.learner.weights(base) if self.rank == 0}


class DistributedPolicy:
    """See `Policy` for the contract."""

    def __init__(self, name: str, settings: PolicySettings):
        self.settings, self.folder = settings, model_folder(name)
        self.ranked = Ranked(name, settings)
        self.tokenizer = self.ranked.tokenizer
        self.waiting = self.ranked.world > 1
        """Whether the other ranks wait for a command."""
        atexit.register(self.stop)

    @property
    def version(self) -> int:
        return self.ranked.learner.version

    def everywhere(self, command: str, *arguments: Any) -> Any:
        """Run a method of `Ranked` on all ranks; this one's result."""
        if self.ranked.world > 1:
            self.waiting = False
            self.ranked.told((command, arguments))
        result = getattr(self.ranked, command)(*arguments)
        self.waiting = self.ranked.world > 1
        return result

    def stop(self) -> None:
        """Send the other ranks home. In a command that broke off here they would not hear it: they fail when this process is gone."""
        if self.waiting:
            self.waiting = False
            self.ranked.told(("stop", ()))

    def sample(self, asks: Sequence[Ask], *, temperature: float = 1.0, base: bool = False) -> list[list[Sample]]:
        if not asks:
            return []
        sampler = self.ranked.sampler
        begun = starts(self.tokenizer, asks, set(sampler.end), sampler.positions, self.settings.max_tokens, self.settings.thinking)
        going = [(ask, start) for ask, start in zip(asks, begun, strict=True) if start.room > 0]
        wanted = [start.tokens for _, start in going], [ask.n for ask, _ in going], [ask.seed for ask, _ in going], [start.room for _, start in going]
        return samples_of(self.tokenizer, asks, begun, self.everywhere("sample", *wanted, temperature, base) if going else [])

    def retold(self, samples: Sequence[Sample], conversations: Sequence[tuple[Message, ...]]) -> list[Sample]:
        room = self.ranked.sampler.positions - self.settings.max_tokens
        return retold(self, self.tokenizer, samples, conversations, room, self.settings.thinking)

    def logprobs(self, samples: Sequence[Sample], *, base: bool = False) -> list[list[float]]:
        return self.everywhere("logprobs", samples, base)

    def kl_to_base(self, samples: Sequence[Sample], *, reverse: bool = False) -> list[float]:
        return self.everywhere("kl_to_base", samples, reverse)

    def update(
        self, samples: Sequence[Sample], advantages: Sequence[Sequence[float]], weights: Sequence[Sequence[float]], loss: TokenLoss
    ) -> dict[str, float]:  # fmt: skip
        return self.everywhere("update", samples, advantages, weights, loss)

    def save(self, folder: Path) -> None:
        self.everywhere("save", folder.absolute())
        shares, ranks = len(list((folder / TAG).glob("*_optim_states.pt"))), self.ranked.world
        if shares < ranks:
            raise RunError(f"{folder} holds the shares of {shares} ranks of {ranks}: all machines have to see the run directory under one path")

    def load(self, folder: Path) -> None:
        self.everywhere("load", folder.absolute())

    def start_from(self, folder: Path) -> None:
        self.everywhere("start_from", folder.absolute())

    def export(self, folder: Path, *, base: bool = False) -> None:
        weights = self.everywhere("gathered", base)
        model = AutoModelForCausalLM.from_pretrained(self.folder, dtype=self.settings.dtype)
        model.load_state_dict(weights, strict=False)  # a tied head is not among the parameters
        model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)


def load_policy(name: str, settings: PolicySettings) -> DistributedPolicy:
    """The policy, on rank 0. On every other rank this does not return before the end: it works for rank 0, then ends the process."""
    check_device(settings)
    join(settings.device)
    if int(os.environ["RANK"]) == 0:
        return DistributedPolicy(name, settings)
    ranked = Ranked(name, settings)
    while True:
        command, arguments = ranked.told()
        if command == "stop":
            raise SystemExit(0)
        getattr(ranked, command)(*arguments)
