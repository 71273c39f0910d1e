"""The `vllm-deepspeed` backend's policy: rank 0 speaks for all ranks.

Every rank builds the same `Ranked` part: a learner and a sampler. Rank 0 wraps its own in a `DistributedPolicy`, which
is the policy that the harness sees; the others wait for its commands until it sends `stop`. So the harness runs once,
on rank 0, and has no rank anywhere.
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
from fst_bench.policy.distributed.learner import TAG, Learner, Role, check_alike, gather, join
from fst_bench.policy.distributed.sampler import Sampler
from fst_bench.policy.distributed.weights import Comparison
from fst_bench.policy.interface import Progress, TokenLoss
from fst_bench.policy.loading import check_device, end_tokens, load_tokenizer, pad_token, saving
from fst_bench.policy.models import model_folder
from fst_bench.policy.settings import PolicySettings
from fst_bench.policy.template import Template

CANARY = "The quick brown fox counts 1 2 3 4 5 6 7 8 9 10 and then it jumps over the lazy dog. "
CANARY_TOKENS = 8
TOLERANCE = {"float32": 1e-4, "bfloat16": 0.2}
"""Default of `DistributedSettings.canary` by dtype, in nats."""
IDLE = timedelta(days=1)
"""How long a rank waits for rank 0's next command: as long as reflecting and scoring between two commands may take."""


class SyncError(RunError):
    """The sampler does not hold the learner's weights."""


class Ranked:
    """One rank's learner and sampler. Every method is a collective: all ranks call it together."""

    def __init__(self, name: str, settings: PolicySettings):
        folder = model_folder(name)
        check_alike("the policy's settings", settings.model_dump_json())
        self.settings, self.template = settings, Template(load_tokenizer(name), settings, name)
        self.tokenizer = self.template.tokenizer
        # before the sampler: vLLM uses the process group that DeepSpeed opens
        self.learner = Learner(folder, settings, pad_token(self.tokenizer))
        self.rank, self.world = self.learner.rank, self.learner.world
        # a group of its own: collectives of the common one give up after DeepSpeed's ten minutes
        self.control = dist.new_group(backend="gloo", timeout=IDLE)
        tensor_parallel = settings.distributed.tensor_parallel
        if self.world % tensor_parallel:
            raise ValueError(f"tensor_parallel {tensor_parallel} does not divide {self.world} ranks")
        self.engine, self.engines = self.rank // tensor_parallel, self.world // tensor_parallel
        self.sampler = Sampler(folder, settings, end_tokens(self.learner.module.model, self.tokenizer), self.world)
        self.holds: tuple[str, int] = ("policy", 0)
        """Whose weights the samplers hold, and their version."""
        self.compared: Comparison | None = None
        """The last comparison of weights."""

    def broadcast(self, command: Any = None) -> Any:
        """Return rank 0's command, on all ranks."""
        box = [command]
        dist.broadcast_object_list(box, src=0, group=self.control)
        return box[0]

    def sync(self, role: Role) -> None:
        """Bring the samplers' weights up to date, and prove it: nothing else would notice.

        Raises SyncError, on every rank, where a sampler does not hold the learner's weights.
        """
        required = (role, 0 if role == "reference" else self.learner.version)
        if self.holds != required or self.sampler.asleep:
            self.sampler.receive(self.learner.weights(role))
            self.compare(role)
            self.holds = required
            self.canary(role)

    def compare(self, role: Role) -> None:
        """Raise SyncError, on every rank, where any sampler holds a tensor that is not the learner's bit for bit."""
        found = self.sampler.compare(self.learner.weights(role))
        if wrong := [name for part in gather(found) for name in part.different]:
            raise SyncError(
                f"after a weight sync the sampler does not hold the learner's weights: {len(wrong)} of "
                f"{len(found.same) + len(found.different)} tensors differ, the first is {wrong[0]}"
            )
        if found.unknown and self.compared is None and self.rank == 0:
            logging.getLogger(__name__).warning(
                "%d tensors of this model can't be compared with the sampler's, the first is %s: "
                "only the canary watches them",
                len(found.unknown),
                found.unknown[0],
            )
        self.compared = found

    def canary(self, role: Role) -> None:
        """Compare the sampler's log-probabilities of a few greedy tokens with the learner's: tensors don't show all.

        The prompt is the same every time and fills several blocks of the cache, so a cache that outlived the old
        weights is seen. Raises SyncError where any differs by more than `canary`.
        """
        prompt = self.canary_prompt
        greedy = self.sampler.sample([prompt], [1], [0], [CANARY_TOKENS], [()], 0.0)[0][0]
        mask = [False] * len(prompt) + [True] * len(greedy.tokens)
        samples = gather(Sample(prompt + greedy.tokens, mask, greedy.logprobs, "", True))
        gap = max(
            abs(sampled - learned)
            for sample, logprobs in zip(samples, self.learner.logprobs(samples, role), strict=True)
            for sampled, learned in zip(sample.logprobs, logprobs, strict=True)
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
        stops: list[tuple[str, ...]],
        temperature: float,
        role: Role,
    ) -> list[list[Completion]]:
        """Sample prompts, divided between the engines one by one in turn. Returns all results on every rank."""
        self.sync(role)
        mine = range(self.engine, len(prompts), self.engines)
        completions = self.sampler.sample(
            [prompts[i] for i in mine],
            [counts[i] for i in mine],
            [seeds[i] for i in mine],
            [max_new_tokens[i] for i in mine],
            [stops[i] for i in mine],
            temperature,
        )
        parts = gather(dict(zip(mine, completions, strict=True)))
        found = {i: group for part in parts for i, group in part.items()}
        return [found[i] for i in range(len(prompts))]

    # The methods that need the learner's memory put the sampler to sleep, not the end of `sample`: evaluations and
    # evolution sample many times in a row.

    def logprobs(self, samples: Sequence[Sample], role: Role) -> list[list[float]]:
        self.sampler.sleep()
        return self.learner.logprobs(samples, role)

    def kl_to_reference(self, samples: Sequence[Sample], reverse: bool) -> list[float]:
        self.sampler.sleep()
        return self.learner.kl_to_reference(samples, reverse)

    def update(self, *arguments: Any) -> dict[str, float]:
        self.sampler.sleep()
        return self.learner.update(*arguments)

    def save(self, folder: Path) -> None:
        self.learner.save(folder)

    def load(self, folder: Path) -> None:
        self.learner.load(folder)
        self.holds = ("nothing", 0)

    def start_from(self, folder: Path) -> None:
        self.learner.start_from(folder)
        self.holds = ("nothing", 0)

    def gathered(self, role: Role) -> dict[str, Any]:
        """Return all weights, on rank 0's CPU; nothing on other ranks."""
        return {name: tensor.cpu().clone() for name, tensor in self.learner.weights(role) if self.rank == 0}


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
            self.ranked.broadcast((command, arguments))
        result = getattr(self.ranked, command)(*arguments)
        self.waiting = self.ranked.world > 1
        return result

    def stop(self) -> None:
        """End the other ranks. Where a command broke off here they wait for none: they fail once this process ends."""
        if self.waiting:
            self.waiting = False
            self.ranked.broadcast(("stop", ()))


class DistributedModel:
    """The policy or its reference policy, on rank 0. Each call runs on all ranks."""

    def __init__(self, ranks: Ranks, role: Role):
        self.ranks, self.role = ranks, role
        self.settings, self.ranked = ranks.settings, ranks.ranked
        self.template, self.tokenizer = self.ranked.template, self.ranked.tokenizer

    def sample(
        self, requests: Sequence[SampleRequest], *, temperature: float = 1.0, progress: Progress | None = None
    ) -> list[list[Sample]]:
        if not requests:
            return []
        sampler = self.ranked.sampler
        begun = prefixes(self.template, requests, set(sampler.end), sampler.max_model_len)
        live = [(r, prefix) for r, prefix in zip(requests, begun, strict=True) if prefix.max_new_tokens > 0]
        completions: list[list[Completion]] = []
        if live:
            completions = self.ranks.everywhere(
                "sample",
                [prefix.tokens for _, prefix in live],
                [request.n for request, _ in live],
                [request.seed for request, _ in live],
                [prefix.max_new_tokens for _, prefix in live],
                [prefix.stops for _, prefix in live],
                temperature,
                self.role,
            )
        return samples_from(self.template, requests, begun, completions, temperature)

    def logprobs(self, samples: Sequence[Sample]) -> list[list[float]]:
        return self.ranks.everywhere("logprobs", samples, self.role)

    def export(self, folder: Path) -> None:
        weights = self.ranks.everywhere("gathered", self.role)
        model = AutoModelForCausalLM.from_pretrained(self.ranks.folder, dtype=self.settings.dtype)
        model.load_state_dict(weights, strict=False)  # a tied head is not among the parameters
        with saving(folder):
            model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)


class DistributedPolicy(DistributedModel):
    """The policy that the harness sees. See `Policy` for the contract."""

    def __init__(self, name: str, settings: PolicySettings):
        super().__init__(Ranks(name, settings), "policy")
        self.reference = DistributedModel(self.ranks, "reference")

    @property
    def version(self) -> int:
        return self.ranked.learner.version

    @property
    def max_prompt_tokens(self) -> int:
        return self.ranked.sampler.max_model_len - self.settings.max_tokens

    def with_prompt(self, samples: Sequence[Sample], conversations: Sequence[tuple[Message, ...]]) -> list[Sample]:
        return with_prompt(self, self.template, samples, conversations, self.max_prompt_tokens)

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
                f"{folder} holds the shares of {shares} ranks of {ranks}: "
                "all machines have to see the run directory under one path"
            )

    def load(self, folder: Path) -> None:
        self.ranks.everywhere("load", folder.absolute())

    def start_from(self, folder: Path) -> None:
        self.ranks.everywhere("start_from", folder.absolute())


def load_policy(name: str, settings: PolicySettings) -> DistributedPolicy:
    """Load the policy, on rank 0. On every other rank this works for rank 0 until the end, and then ends the process.

    Raises ValueError where this machine does not have the device, the model's chat template cannot be used, or the
    ranks were started differently.
    """
    check_device(settings)
    join(settings.device)
    if int(os.environ["RANK"]) == 0:
        return DistributedPolicy(name, settings)
    ranked = Ranked(name, settings)
    while True:
        command, arguments = ranked.broadcast()
        if command == "stop":
            raise SystemExit(0)
        getattr(ranked, command)(*arguments)
