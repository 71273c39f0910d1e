"""One rank's vLLM engine, in this process: it samples, and takes the learner's weights through vLLM's weight-transfer API.

Weights change hands in memory: learner and engine share the process and its device. vLLM's own transports (`nccl`, `ipc`) carry
weights between processes; this one is registered beside them and goes the same way through start, update and finish.
"""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"  # the engine in this process
os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")  # or two ranks would be bound to the same core
os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")

from torch import Tensor
from vllm import LLM, SamplingParams
from vllm.config import WeightTransferConfig
from vllm.distributed.weight_transfer.base import WeightTransferEngine, WeightTransferInitInfo, WeightTransferUpdateInfo
from vllm.distributed.weight_transfer.factory import WeightTransferEngineFactory
from vllm.model_executor.model_loader.reload import finalize_layerwise_reload, initialize_layerwise_reload

from fst_bench.policy.settings import PolicySettings


@dataclass
class NoInfo(WeightTransferInitInfo): ...


@dataclass
class Handover(WeightTransferUpdateInfo):
    weights: list[tuple[str, Tensor]]


class InMemory(WeightTransferEngine[NoInfo, Handover]):
    """Weights of a checkpoint's names and shapes, handed over as tensors of this process."""

    init_info_cls = NoInfo
    update_info_cls = Handover

    def init_transfer_engine(self, init_info: NoInfo) -> None: ...

    def start_weight_update(self) -> None:
        initialize_layerwise_reload(self.model)

    def receive_weights(self, update_info: Handover) -> None:
        self.model.load_weights(update_info.weights)

    def finish_weight_update(self) -> None:
        finalize_layerwise_reload(self.model, self.model_config)
        head = getattr(self.model, "lm_head", None)
        if self.model_config.hf_config.tie_word_embeddings and head is not None:
            # the CPU build keeps the head packed for its kernels, and a tied head has no weights of its own that would remake it
            head.quant_method.process_weights_after_loading(head)

    def shutdown(self) -> None: ...


WeightTransferEngineFactory.register_engine("in-memory", InMemory)


class Sampler:
    """Samples prompts given as tokens. It holds whatever weights it was given last."""

    def __init__(self, folder: str, settings: PolicySettings, end: set[int], ranks: int):
        self.settings, self.end = settings, sorted(end)
        own, cuda = settings.distributed, settings.device == "cuda"
        self.engine = LLM(
            model=folder,
            dtype=settings.dtype,
            tensor_parallel_size=own.tensor_parallel,
            distributed_executor_backend="external_launcher" if ranks > 1 else None,
            max_model_len=own.positions,
            kv_cache_memory_bytes=int(own.cache_gb * 2**30),
            gpu_memory_utilization=0.05,  # read as free memory to begin with, which the learner has taken; the cache's size is given
            max_num_seqs=settings.sample_rows,
            generation_config="vllm",  # the model's own would truncate: the ratio to the learner would be biased
            hf_overrides={"head_dtype": "float32"} if settings.float32_head else {},
            weight_transfer_config=WeightTransferConfig(backend="in-memory"),
            enable_sleep_mode=cuda,
            enforce_eager=not cuda,
            enable_chunked_prefill=cuda,  # a chunk's generator is set back, which vLLM cannot do on CPU
            disable_log_stats=True,
            seed=0,
        )
        self.engine.init_weight_transfer_engine({"init_info": {}})
        self.positions = self.engine.model_config.max_model_len
        self.asleep = False

    def receive(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """New weights. What was cached under the old ones is forgotten."""
        if self.asleep:
            self.engine.wake_up(["weights"])
        self.engine.start_weight_update()
        for name, tensor in weights:
            self.engine.update_weights({"update_info": {"weights": [(name, tensor)]}})
        self.engine.finish_weight_update()
        if self.asleep:
            self.engine.wake_up(["kv_cache"])
            self.asleep = False
        if not self.engine.reset_prefix_cache():
            raise RuntimeError("vLLM did not reset its prefix cache: requests were still running")

    def rest(self) -> None:
        """Leave the device's memory to the learner, where the platform can; the weights are gone until the next `receive`."""
        if self.settings.device == "cuda" and not self.asleep:
            self.engine.sleep(level=2)
            self.asleep = True

    def sample(
        self, prompts: Sequence[list[int]], counts: Sequence[int], seeds: Sequence[int], rooms: Sequence[int], temperature: float
    ) -> list[list[Any]]:
        """`counts[i]` completions of prompt i, of at most `rooms[i]` tokens, as vLLM gives them: token ids, log-probabilities at temperature 1, whether it ended."""
        asked = [
            SamplingParams(n=n, seed=seed, temperature=temperature, max_tokens=room, logprobs=0, stop_token_ids=self.end, detokenize=False)
            for n, seed, room in zip(counts, seeds, rooms, strict=True)
        ]
        done = self.engine.generate([{"prompt_token_ids": prompt} for prompt in prompts], asked, use_tqdm=False)
        return [
            [
                (list(c.token_ids), [of[token].logprob for token, of in zip(c.token_ids, c.logprobs, strict=True)], c.finish_reason == "stop")
                for c in request.outputs
            ]
            for request in done
        ]
