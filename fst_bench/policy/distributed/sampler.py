"""One rank's vLLM engine, in this process: it samples with the weights that it received last."""

import os
from collections.abc import Iterable, Sequence
from typing import ClassVar

os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"  # the engine in this process
os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")  # or two ranks would be bound to the same core
os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")

import torch
from torch import Tensor
from vllm import LLM, SamplingParams
from vllm.config import WeightTransferConfig

from fst_bench.core.types import Completion
from fst_bench.policy.distributed.settings import BATCHED_TOKENS
from fst_bench.policy.distributed.weights import Comparison, compare
from fst_bench.policy.settings import PolicySettings


class Sampler:
    """A vLLM engine that samples from prompts given as tokens.

    On a GPU it sleeps while the learner works: it gives back the memory of weights and KV cache. vLLM's allocator can
    do that for one engine a process, so a second one is a ValueError there.
    """

    sleeper: ClassVar[bool] = False
    """Whether this process has an engine that can sleep."""

    def __init__(self, folder: str, settings: PolicySettings, end: set[int], ranks: int):
        self.settings, self.end = settings, sorted(end)
        own, cuda = settings.distributed, settings.device == "cuda"
        if cuda and Sampler.sleeper:
            raise ValueError(
                "this process has a vllm-deepspeed policy on a GPU already, and vLLM can put one engine a process "
                "to sleep: use another process"
            )
        Sampler.sleeper = Sampler.sleeper or cuda
        assert own.cache_gb != "fit", "a run has replaced it by a number: see `fst_bench.harness.planning.memory`"
        if cuda:
            torch.cuda.empty_cache()
        self.engine = LLM(
            model=folder,
            dtype=settings.dtype,
            tensor_parallel_size=own.tensor_parallel,
            distributed_executor_backend="external_launcher" if ranks > 1 else None,
            max_model_len=own.max_model_len,
            kv_cache_memory_bytes=int(own.cache_gb * 2**30),
            # read as memory that has to be free at start, which the learner has taken; the cache's size is given above
            gpu_memory_utilization=0.05,
            max_num_seqs=settings.max_num_seqs,
            logprobs_mode="processed_logprobs",  # at the temperature of sampling
            generation_config="vllm",  # the model's own would truncate: the ratio to the learner would be biased
            hf_overrides={"head_dtype": "float32"} if settings.float32_head else {},
            weight_transfer_config=WeightTransferConfig(backend="in-memory"),
            enable_sleep_mode=cuda,
            enforce_eager=not cuda,
            enable_chunked_prefill=cuda,  # a chunk's generator is set back, which vLLM cannot do on CPU
            max_num_batched_tokens=BATCHED_TOKENS if cuda else None,
            disable_log_stats=True,
            seed=0,
        )
        self.engine.init_weight_transfer_engine({"init_info": {}})
        self.max_model_len = self.engine.model_config.max_model_len
        self.asleep = False

    def receive(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """Take new weights, (name in the model, whole tensor). What was cached under the old ones is forgotten."""
        if self.asleep:
            torch.cuda.empty_cache()  # vLLM takes memory from the device, not from what torch keeps of the last update
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

    def compare(self, weights: Iterable[tuple[str, Tensor]]) -> Comparison:
        """Compare the weights that the engine holds with these."""
        tied = self.engine.model_config.hf_config.tie_word_embeddings
        return self.engine.apply_model(lambda model: compare(model, weights, tied))[0]

    def sleep(self) -> None:
        """Leave a GPU's memory to the learner; the engine's weights are gone until the next `receive`."""
        if self.settings.device == "cuda" and not self.asleep:
            self.engine.sleep(level=2)
            self.asleep = True

    def sample(
        self,
        prompts: Sequence[list[int]],
        counts: Sequence[int],
        seeds: Sequence[int],
        max_new_tokens: Sequence[int],
        stops: Sequence[tuple[str, ...]],
        temperature: float,
    ) -> list[list[Completion]]:
        """Return `counts[i]` completions of prompt i, of at most `max_new_tokens[i]` tokens, ended by `stops[i]`."""
        parameters = [
            SamplingParams(
                n=n,
                seed=seed,
                temperature=temperature,
                max_tokens=max_tokens,
                logprobs=0,  # one number a position: that of the sampled token itself
                flat_logprobs=True,
                stop_token_ids=self.end,
                stop=list(own),
                detokenize=bool(own),
                skip_special_tokens=False,
            )
            for n, seed, max_tokens, own in zip(counts, seeds, max_new_tokens, stops, strict=True)
        ]
        results = self.engine.generate([{"prompt_token_ids": p} for p in prompts], parameters, use_tqdm=False)
        return [
            [
                Completion(
                    tokens=list(output.token_ids),
                    logprobs=list(output.logprobs.logprobs),
                    finished=output.finish_reason == "stop",
                )
                for output in result.outputs
            ]
            for result in results
        ]
