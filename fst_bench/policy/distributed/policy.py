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

from fst_bench.core.errors import RunError
from fst_bench.core.types import Completion, Message, Sample, SampleRequest
from fst_bench.policy.conversation import prefixes, samples_from, with_prompt
from fst_bench.policy.distributed.learner import TAG, Learner, Role, join, same_everywhere
from fst_bench.policy.distributed.sampler import Sampler
from fst_bench.policy.distributed.weights import Comparison
from fst_bench.policy.interface import TokenLoss
from fst_bench.policy.models import model_folder
from fst_bench.policy.settings import PolicySettings
from fst_bench.policy.torch.backend import check_device, ends_of, load_tokenizer, pad_of

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
        self.learner = Learner(
            folder, settings, pad_of(self.tokenizer)
        )  # before the sampler: vLLM uses the process group that DeepSpeed opens
        self.rank, self.world = self.learner.rank, self.learner.world
        self.control = dist.new_group(
            backend="gloo", timeout=IDLE
        )  # other collectives give up after DeepSpeed's ten minutes
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

    def sync(self, role: Role) -> None:
        """Bring the samplers' weights up to date, and prove it: nobody else would notice."""
        wanted = ("reference", 0) if role == "reference" else ("policy", self.learner.version)
        if self.holds != wanted or self.sampler.asleep:
            self.sampler.receive(self.learner.weights(role))
            self.compare(role)
            self.holds = wanted
            self.canary(role)

    def compare(self, role: Role) -> None:
        """SyncError, on every rank, where any sampler holds a tensor that is not the learner's bit for bit."""
        found = self.sampler.compare(self.learner.weights(role))
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

    def canary(self, role: Role) -> None:
        """The sampler's log-probabilities of a few tokens against the learner's: what tensors don't show.

        The prompt is the same every time and fills several blocks of the cache, so a cache that outlived the old weights is seen.
        Tokens are greedy. SyncError where any differs by more than `canary`.
        """
        prompt = self.canary_prompt
        greedy = self.sampler.sample([prompt], [1], [0], [CANARY_TOKENS], 0.0)[0][0]
        mask = [False] * len(prompt) + [True] * len(greedy.tokens)
        row = Sample(prompt + greedy.tokens, mask, greedy.logprobs, "", True)
        everyone: list[Any] = [None] * self.world
        dist.all_gather_object(everyone, row)
        ours = self.learner.logprobs(everyone, role)
        gap = max(
            abs(a - b) for row, own in zip(everyone, ours, strict=True) for a, b in zip(row.logprobs, own, strict=True)
        )
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
        return ids[: min(640, self.sampler.max_model_len - self.settings.max_tokens - CANARY_TOKENS)]

    def sample(
        self,
        prompts: list[list[int]],
        counts: list[int],
        seeds: list[int],
        max_new_tokens: list[int],
        temperature: float,
        role: Role,
    ) -> list[list[Completion]]:
        """The prompts shared out between the engines, one by one in turn; all results on every rank."""
        self.sync(role)
        mine = range(self.engine, len(prompts), self.engines)
        done = self.sampler.sample(
            [prompts[i] for i in mine],
            [counts[i] for i in mine],
            [seeds[i] for i in mine],
            [max_new_tokens[i] for i in mine],
            temperature,
        )
        everyone: list[Any] = [None] * self.world
        dist.all_gather_object(everyone, dict(zip(mine, done, strict=True)))
        found = {i: group for part in everyone for i, group in part.items()}
        return [found[i] for i in range(len(prompts))]

    # What needs the learner's memory puts the sampler to sleep, and not `sample`: evaluations and evolution sample many times in a row.

    def logprobs(self, samples: Sequence[Sample], role: Role) -> list[list[float]]:
        self.sampler.rest()
        return self.learner.logprobs(samples, role)

    def kl_to_reference(self, samples: Sequence[Sample], reverse: bool) -> list[float]:
        self.sampler.rest()
        return self.learner.kl_to_reference(samples, reverse)

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

    def gathered(self, role: Role) -> dict[str, Any]:
        """All weights, on rank 0's CPU."""
        return {name: tensor.cpu().clone() for name, tensor in self.learner.weights(role) if self.rank == 0}


class DistributedModel:
    """The policy or its reference policy, on rank 0. Each call runs on all ranks."""

    def __init__(self, ranks: "Ranks", role: Role):
        self.ranks, self.role = ranks, role
        self.settings, self.tokenizer, self.ranked = ranks.settings, ranks.ranked.tokenizer, ranks.ranked

    def sample(self, requests: Sequence[SampleRequest], *, temperature: float = 1.0) -> list[list[Sample]]:
        if not requests:
            return []
        sampler, s = self.ranked.sampler, self.settings
        begun = prefixes(self.tokenizer, requests, set(sampler.end), sampler.max_model_len, s.max_tokens, s.thinking)
        live = [(r, prefix) for r, prefix in zip(requests, begun, strict=True) if prefix.max_new_tokens > 0]
        rows = (
            [prefix.tokens for _, prefix in live],
            [r.n for r, _ in live],
            [r.seed for r, _ in live],
            [prefix.max_new_tokens for _, prefix in live],
        )
        completions = self.ranks.everywhere("sample", *rows, temperature, self.role) if live else []
        return samples_from(self.tokenizer, requests, begun, completions)

    def logprobs(self, samples: Sequence[Sample]) -> list[list[float]]:
        return self.ranks.everywhere("logprobs", samples, self.role)

    def export(self, folder: Path) -> None:
        weights = self.ranks.everywhere("gathered", self.role)
        model = AutoModelForCausalLM.from_pretrained(self.ranks.folder, dtype=self.settings.dtype)
        model.load_state_dict(weights, strict=False)  # a tied head is not among the parameters
        model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)


class Ranks:
    """All ranks, as rank 0 commands them."""

    def __init__(self, name: str, settings: PolicySettings):
        self.settings, self.folder = settings, model_folder(name)
        self.ranked = Ranked(name, settings)
        self.waiting = self.ranked.world > 1
        """Whether the other ranks wait for a command."""
        atexit.register(self.stop)

    def everywhere(self, command: str, *arguments: Any) -> Any:
        """Run a method of `Ranked` on all ranks and return this one's result."""
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


class DistributedPolicy(DistributedModel):
    """The policy that the harness sees. See `Policy` for the contract."""

    def __init__(self, name: str, settings: PolicySettings):
        super().__init__(Ranks(name, settings), "policy")
        self.reference = DistributedModel(self.ranks, "reference")

    @property
    def version(self) -> int:
        return self.ranked.learner.version

    def with_prompt(self, samples: Sequence[Sample], conversations: Sequence[tuple[Message, ...]]) -> list[Sample]:
        room = self.ranked.sampler.max_model_len - self.settings.max_tokens
        return with_prompt(self, self.tokenizer, samples, conversations, room, self.settings.thinking)

    def kl_to_reference(self, samples: Sequence[Sample], *, reverse: bool = False) -> list[float]:
        return self.ranks.everywhere("kl_to_reference", samples, reverse)

    def update(
        self,
        samples: Sequence[Sample],
        advantages: Sequence[Sequence[float]],
        weights: Sequence[Sequence[float]],
        loss: TokenLoss,
    ) -> dict[str, float]:
        return self.ranks.everywhere("update", samples, advantages, weights, loss)

    def save(self, folder: Path) -> None:
        self.ranks.everywhere("save", folder.absolute())
        shares, ranks = len(list((folder / TAG).glob("*_optim_states.pt"))), self.ranked.world
        if shares < ranks:
            raise RunError(
                f"{folder} holds the shares of {shares} ranks of {ranks}: all machines have to see the run directory under one path"
            )

    def load(self, folder: Path) -> None:
        self.ranks.everywhere("load", folder.absolute())

    def start_from(self, folder: Path) -> None:
        self.ranks.everywhere("start_from", folder.absolute())


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
