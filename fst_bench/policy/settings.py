"""Typed settings of the policy."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from fst_bench.policy.distributed.settings import DistributedSettings

NO_GPU = "policy.device is cuda, and torch sees no GPU here: fst-bench doctor says which presets this machine can run"


class PolicySettings(BaseModel):
    """Settings of sampling and of the optimizer."""

    model_config = ConfigDict(extra="forbid")

    max_tokens: Annotated[int, Field(ge=1)] = 64
    """Most tokens sampled for one answer, over all its turns."""
    learning_rate: Annotated[float, Field(gt=0)] = 3e-4
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    """Largest gradient norm."""
    max_num_seqs: Annotated[int, Field(ge=1)] = 192
    """Sequences sampled at a time; more are slower on a CPU, whose cache they overflow."""
    micro_batch_tokens: Annotated[int, Field(ge=1)] = 8192
    """Padded tokens in one forward-backward pass (one answer where it is longer); changes nothing but memory."""
    gradient_checkpointing: bool = False
    """Whether a layer's activations are computed again in the backward pass instead of kept. Changes nothing but
    memory and time."""
    thinking: bool = True
    """Handed to chat templates that know `enable_thinking`, as Qwen3's does."""
    template: Literal["chat", "plain"] = "chat"
    """How a conversation becomes text: by the tokenizer's chat template, or for a base model as `wording` has it."""
    wording: Annotated[str, Field(pattern=r"\{user\}")] = "{system}\n\nProblem: {user}\nSolution:"
    """The text of `template: plain`, with the context as {system} and the problem as {user}."""
    stop: tuple[Annotated[str, Field(min_length=1)], ...] | None = None
    """Texts that end an answer and are no part of it; None: the end of a line with `template: plain`, else none."""
    device: Literal["cpu", "cuda"] = "cpu"
    dtype: Literal["float32", "bfloat16"] = "float32"
    float32_head: bool = False
    """Whether the head runs in float32 where the model does not, for sampler and learner alike: their log-probabilities
    then differ less."""

    distributed: DistributedSettings = DistributedSettings()
    """Settings of the vllm-deepspeed backend."""

    @property
    def stops(self) -> tuple[str, ...]:
        """The texts that end an answer."""
        return (("\n",) if self.template == "plain" else ()) if self.stop is None else self.stop
