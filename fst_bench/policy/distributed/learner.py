"""One rank's part of the learner: a DeepSpeed engine over the policy, and the frozen reference policy.

Every method here is a collective: all ranks call it with the same arguments. Passes are divided between the ranks;
since a forward pass under ZeRO-3 gathers weights from all of them, every rank runs equally many, an idle one on a copy
that counts for nothing.
"""

import atexit
import json
import os
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import deepspeed
import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.integrations.deepspeed import HfDeepSpeedConfig

from fst_bench.core.errors import NotFinite
from fst_bench.core.types import Sample
from fst_bench.policy.distributed.settings import REDUCE_BUCKET
from fst_bench.policy.interface import TokenLoss
from fst_bench.policy.loading import ready_to_learn, saving
from fst_bench.policy.packing import Packed
from fst_bench.policy.scoring import Mismatch, Scorer, Update, check_finite, exact_kl, per_sample
from fst_bench.policy.settings import PolicySettings

if not torch.cuda.is_available():  # it would be compiled for shared memory between ranks; gloo does not need it
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False

Role = Literal["policy", "reference"]
"""Whose weights: the ones that learn, or the frozen base model's."""
TAG = "deepspeed"
"""The folder of DeepSpeed's files in a checkpoint."""
EXIT_GRACE = 1.0
"""Seconds between the last collective and the end of the process. gloo's threads free a collective's tensors after it
has returned, and need the interpreter for that: in one that ends before, they abort the process (Python before 3.14),
and a run that succeeded, or failed in one line, exits with -6."""


def keep_rotary_precision(model: PreTrainedModel) -> None:
    """Compute the rotary frequencies again, in float32: under ZeRO-3's `zero.Init` they have the model's precision.

    In bfloat16 they are wrong by up to 0.4 %, which is another position some hundred tokens further on, and the sampler
    keeps its own in float32.
    """
    for module in model.modules():
        if any(name.endswith("inv_freq") for name in module._buffers):
            for name, buffer in type(module)(module.config)._buffers.items():
                assert buffer is not None
                module._buffers[name] = buffer.to(model.device)


class Learner:
    """The policy's weights and optimizer, sharded over the ranks."""

    def __init__(self, folder: str, settings: PolicySettings, pad: int):
        self.settings, self.pad = settings, pad
        self.rank, self.world = dist.get_rank(), dist.get_world_size()
        device = torch.device("cuda", torch.cuda.current_device()) if settings.device == "cuda" else torch.device("cpu")
        self.zero3 = settings.distributed.zero == 3
        shared: dict[str, Any] = {
            "train_micro_batch_size_per_gpu": 1,
            "gradient_accumulation_steps": 1,
            "bf16": {"enabled": settings.dtype == "bfloat16", "check_grad_overflow": True},
            "steps_per_print": 2**62,
            "zero_allow_untested_optimizer": True,
            "zero_force_ds_cpu_optimizer": False,
            "data_types": {"grad_accum_dtype": "fp32"},
        }
        zero: dict[str, Any] = {"stage": settings.distributed.zero}
        if self.zero3:
            zero |= {"stage3_gather_16bit_weights_on_model_save": False}
        learning = shared | {"zero_optimization": zero, "gradient_clipping": settings.max_grad_norm}
        self.module = self._load(folder, learning)
        parameters = sum(getattr(p, "ds_numel", p.numel()) for p in self.module.parameters())
        zero["reduce_bucket_size"] = min(REDUCE_BUCKET, parameters)
        optimizer = torch.optim.AdamW(
            self.module.parameters(),
            lr=settings.learning_rate,
            betas=settings.betas,
            weight_decay=settings.weight_decay,
            fused=True if settings.device == "cuda" else None,
        )
        self.engine = deepspeed.initialize(model=self.module, optimizer=optimizer, config=learning)[0]
        frozen = shared | {"zero_optimization": zero if self.zero3 else {"stage": 0}}
        self.frozen = self._load(folder, frozen).eval().requires_grad_(False).to(device)
        if not self.zero3:  # under ZeRO-3 all ranks hold shares of what rank 0 read
            check_alike("the model", [int(p.view(torch.int16).sum()) for p in self.frozen.parameters()])
        self.reference = deepspeed.initialize(model=self.frozen, config=frozen)[0] if self.zero3 else self.frozen
        for scorer in (self.module, self.frozen):
            keep_rotary_precision(scorer.model)
            scorer.prepare()
        self.version = 0

    def _load(self, folder: str, config: dict[str, Any]) -> Scorer:
        """Load the model. Under ZeRO-3 each rank only ever holds its share, by the config that transformers finds."""
        alive = HfDeepSpeedConfig(config)  # transformers holds a weak reference to it
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, self.settings.dtype))
        del alive
        return Scorer(ready_to_learn(model, self.settings), self.settings, self.pad)

    # --- scoring

    def logprobs(self, samples: Sequence[Sample], role: Role = "policy") -> list[list[float]]:
        engine = self.engine if role == "policy" else self.reference

        def score(packed: Packed) -> Iterator[tuple[int, list[float]]]:
            return ((i, part.tolist()) for i, part in per_sample(packed, engine(packed), samples))

        found = self._score_all(samples, score)
        name = "policy" if role == "policy" else "reference policy"
        check_finite(f"a log-probability of the {name}", torch.tensor([x for row in found for x in row]))
        return found

    def kl_to_reference(self, samples: Sequence[Sample], reverse: bool) -> list[float]:
        engines, scorers = (self.engine, self.reference), (self.module, self.frozen)
        order = (1, 0) if reverse else (0, 1)

        def score(packed: Packed) -> Iterator[tuple[int, float]]:
            hidden = [engines[k](packed, "hidden") for k in order]
            heads = [p for scorer in scorers for p in scorer.model.get_output_embeddings().parameters()]
            with deepspeed.zero.GatheredParameters(heads, enabled=self.zero3):
                p, q = (scorers[k].head for k in order)
                kl = exact_kl(p, hidden[0], q, hidden[1], packed.temperatures)
            return ((i, float(part.sum())) for i, part in per_sample(packed, kl, samples))

        found = self._score_all(samples, score) if self.version else [0.0] * len(samples)
        check_finite("a KL divergence to the reference policy", torch.tensor(found))
        return found

    def _score_all(self, samples: Sequence[Sample], score: Callable[[Packed], Iterator[tuple[int, Any]]]) -> list[Any]:
        """Return one result for each sample, on every rank. `score` yields (index of the sample, its result)."""
        mine: dict[int, Any] = {}
        with torch.no_grad():
            for packed, counts in self._own_passes(samples):
                results = dict(score(packed))
                mine |= results if counts else {}
        found = {i: result for part in gather(mine) for i, result in part.items()}
        return [found[i] for i in range(len(samples))]

    def _own_passes(self, samples: Sequence[Sample]) -> Iterator[tuple[Packed, bool]]:
        """Yield (pass, whether it counts) of this rank, equally many on every rank."""
        passes = self.module.passes(samples)
        for start in range(0, len(passes), self.world):
            mine = start + self.rank
            yield (passes[mine], True) if mine < len(passes) else (passes[0], False)

    # --- learning

    def update(
        self,
        samples: Sequence[Sample],
        advantages: Sequence[Sequence[float]],
        weights: Sequence[Sequence[float]],
        loss: TokenLoss,
    ) -> dict[str, float]:
        step = Update(samples, advantages, weights, loss)
        wrong: NotFinite | None = None
        passes = list(self._own_passes(samples))
        for n, (packed, counts) in enumerate(passes, start=1):
            self.engine.set_gradient_accumulation_boundary(n == len(passes))
            logprobs = self.engine(packed)
            part = 0 * logprobs.sum()
            if counts:
                try:
                    part = step.add(packed, logprobs)
                except NotFinite as error:
                    # raised on all ranks together, below: the others wait for this one's backward pass
                    wrong = wrong or error
            self.engine.backward(part * self.world)  # DeepSpeed averages over ranks; the loss is a sum
        totals, mismatches, errors = zip(*gather((step.total, step.mismatch, wrong)), strict=True)
        if first := next((error for error in errors if error is not None), None):
            raise first
        self.engine.step()
        if not self.engine.was_step_applied():  # DeepSpeed leaves the weights as they are
            raise NotFinite("the gradient's norm is not finite: nothing was learned from it")
        self.version += 1
        step.total, step.mismatch = sum(totals), Mismatch.of(mismatches)
        return step.metrics(float(self.engine.get_global_grad_norm()))

    # --- weights

    def weights(self, role: Role = "policy") -> Iterator[tuple[str, Tensor]]:
        """Yield (name in the model, whole tensor); a tensor is valid until the next one is asked for."""
        for name, parameter in (self.module if role == "policy" else self.frozen).model.named_parameters():
            with deepspeed.zero.GatheredParameters([parameter], enabled=self.zero3):
                yield name, parameter.data

    def save(self, folder: Path) -> None:
        """Write each rank's share of the optimizer and, from rank 0, weights.safetensors as the torch backend does."""
        whole = {name: tensor.cpu().clone() for name, tensor in self.weights() if self.rank == 0}
        with saving(folder):
            if self.rank == 0:
                folder.mkdir(parents=True, exist_ok=True)
                save_file(whole, folder / "weights.safetensors")
                saved = {"version": self.version, "ranks": self.world, "zero": self.settings.distributed.zero}
                (folder / "policy.json").write_text(json.dumps(saved))
            dist.barrier()
            self.engine.save_checkpoint(str(folder), tag=TAG, save_latest=False)

    def load(self, folder: Path) -> None:
        """Load what `save` wrote. Raises ValueError where it was written by another number of ranks or ZeRO stage."""
        saved = json.loads((folder / "policy.json").read_text())
        ours = {"ranks": self.world, "zero": self.settings.distributed.zero}
        if {name: saved.get(name) for name in ours} != ours:
            raise ValueError(
                f"{folder} was written by {saved.get('ranks')} ranks with ZeRO-{saved.get('zero')}: "
                "resume it with as many"
            )
        self.engine.load_checkpoint(str(folder), tag=TAG)
        self.version = saved["version"]

    def start_from(self, folder: Path) -> None:
        """Load the weights that `save` wrote, with a fresh optimizer."""
        tensors = load_file(folder / "weights.safetensors")
        with torch.no_grad():
            for name, parameter in self.module.model.named_parameters():
                with deepspeed.zero.GatheredParameters([parameter], modifier_rank=0, enabled=self.zero3):
                    if not self.zero3 or self.rank == 0:
                        parameter.data.copy_(tensors[name])
        self.engine.optimizer.refresh_fp32_params()
        self.engine.optimizer.optimizer.state.clear()
        self.version = json.loads((folder / "policy.json").read_text())["version"]


def gather(value: Any) -> list[Any]:
    """Return every rank's value, on every rank."""
    values: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def check_alike(what: str, value: Any) -> None:
    """Raise ValueError, on every rank, where they do not all hold the same value: they were started differently."""
    values = gather(value)
    if any(other != values[0] for other in values):
        raise ValueError(f"the ranks were not started alike: they differ in {what}")


def join(device: str) -> None:
    """Join the ranks, by the launcher's environment; without a launcher this process is the only one."""
    if "RANK" not in os.environ:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = str(free.getsockname()[1])
        os.environ |= {
            "RANK": "0",
            "LOCAL_RANK": "0",
            "WORLD_SIZE": "1",
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": port,
        }
    if device == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    if not dist.is_initialized():
        deepspeed.init_distributed("nccl" if device == "cuda" else "gloo", verbose=False)
        atexit.register(time.sleep, EXIT_GRACE)  # handlers run last first: after the policy's `stop`
