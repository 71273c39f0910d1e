"""Typed settings of a method: the slow loop (RL), the fast loop (GEPA), and the reflection LM.

Names are those of TRL and gepa.
"""

import re
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, field_validator, model_validator

EMBEDDED_REFLECTORS = ("extractive", "bank", "demonstrations", "base-policy")
"""Reflectors that need no server."""


class SlowSettings(BaseModel):
    """How the slow loop learns from a batch of groups."""

    model_config = ConfigDict(extra="forbid")

    group_size: Annotated[int, Field(ge=2)] = 8
    """Rollouts of one problem (G)."""
    ratio_clip_max: Annotated[float, Field(gt=0)] = 5.0
    """CISPO's cap on the importance ratio.

    It is absolute: where a library clips at 1 + epsilon_high, it is that sum.
    """
    old_logprobs: Literal["sampler", "recomputed"] = "sampler"
    """Denominator of the importance ratio: the sampler's log-probabilities, or the learner's before the batch."""
    loss_aggregation: Literal["problem", "token", "sequence"] = "problem"
    """Unit that counts alike in the loss: each problem, each token, or each rollout (see
    `slow.advantages.token_weights`)."""
    num_minibatches: Annotated[int, Field(ge=1)] = 2
    """Optimizer steps a batch, each on its own share of the problems."""
    tis_cap: Annotated[float, Field(gt=0)] | None = None
    """Cap on pi_learner / pi_sampler, which weights every token (truncated importance sampling).

    It requires old_logprobs: recomputed.
    """
    overlong: Literal["verify", "zero", "mask"] = "verify"
    """Reward in learning of an answer cut off at `max_tokens`: the verifier's, zero, or no gradient (its reward still
    counts for its group, its tokens nowhere in the loss). Such answers are counted as `unfinished` in any case."""

    @model_validator(mode="after")
    def one_ratio(self) -> Self:
        if self.tis_cap is not None and self.old_logprobs == "sampler":
            raise ValueError(
                "tis_cap requires old_logprobs: recomputed; otherwise the loss already has the ratio to the sampler"
            )
        return self


class ReflectionSettings(BaseModel):
    """How a reflection LM outside this process is asked. The embedded reflectors ignore it.

    Keys come from the environment only, and no setting may hold one: config.json keeps every setting.
    """

    model_config = ConfigDict(extra="forbid")

    base_url: str | None = None
    """An OpenAI-compatible server, as in http://localhost:8000/v1; `fast.reflector` is then the model's name there."""
    api_key_env: str | None = None
    """The NAME of the environment variable with the key.

    None: LiteLLM's for the provider, OPENAI_API_KEY for a base_url.
    """
    timeout: Annotated[FiniteFloat, Field(gt=0)] = 300.0
    """Seconds that one request may take in all."""
    retries: Annotated[int, Field(ge=0, le=10)] = 3
    """Further requests of a reflection, after a timeout, a broken connection or a momentary error (429, 5xx)."""
    backoff: Annotated[FiniteFloat, Field(ge=0)] = 1.0
    """Seconds before the first retry at most; doubled before each further one, up to a minute."""
    requests_per_minute: Annotated[FiniteFloat, Field(gt=0)] | None = None
    """None: no limit."""
    max_tokens: Annotated[int, Field(ge=1)] = 8_192
    """Tokens of a reply, the reasoning in it included."""
    temperature: Annotated[FiniteFloat, Field(ge=0)] | None = None
    """None: the provider's own."""
    ceiling_usd: Annotated[FiniteFloat, Field(gt=0)] | None = None
    """US dollars that a run may spend on reflection: a request that could exceed them is not sent.

    It needs a known price.
    """
    ceiling_tokens: Annotated[int, Field(ge=1)] | None = None
    """The same in tokens, prompts and replies together."""
    usd_per_million_prompt_tokens: Annotated[FiniteFloat, Field(ge=0)] | None = None
    usd_per_million_reply_tokens: Annotated[FiniteFloat, Field(ge=0)] | None = None
    """The price, where LiteLLM has none or another one."""

    @field_validator("base_url")
    @classmethod
    def holds_no_secret(cls, value: str | None) -> str | None:
        if value is None:
            return value
        try:
            url = urlsplit(value)
            sound = url.scheme in ("http", "https") and bool(url.hostname)
        except ValueError:  # its own message could repeat a secret
            sound = False
        if not sound:
            raise ValueError("requires an address such as http://localhost:8000/v1")
        if "@" in url.netloc or "?" in value or "#" in value:
            raise ValueError(
                "must not hold a user, password or query: config.json keeps it. "
                "A key comes from the environment, see api_key_env"
            )
        return value

    @field_validator("api_key_env")
    @classmethod
    def is_a_name(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"[A-Z][A-Z0-9_]*", value):  # no provider's key looks like this
            raise ValueError(
                "requires the NAME of an environment variable, in capitals such as MY_API_KEY, never the key"
            )
        return value

    @model_validator(mode="after")
    def whole_price(self) -> Self:
        if (self.usd_per_million_prompt_tokens is None) != (self.usd_per_million_reply_tokens is None):
            raise ValueError("a price requires both usd_per_million_prompt_tokens and usd_per_million_reply_tokens")
        return self


class BasePolicySettings(BaseModel):
    """How long the reflector `base-policy` replies, and what ends a reply: `policy.stop` is for answers."""

    model_config = ConfigDict(extra="forbid")

    max_tokens: Annotated[int, Field(ge=1)] | None = None
    """None: policy.max_tokens."""
    stop: tuple[Annotated[str, Field(min_length=1)], ...] = ()


class FastSettings(BaseModel):
    """How the fast loop evolves prompts. The paper's cycle is 6 steps, its populations 4 or 8."""

    model_config = ConfigDict(extra="forbid")

    cycle: Annotated[int, Field(ge=1)] = 6
    """Steps from one round of evolution to the next, and batches of its lookahead (T)."""
    population_size: Annotated[int, Field(ge=1)] = 4
    """Prompts kept (K)."""
    max_metric_calls: Annotated[int, Field(ge=1)] = 160
    """Metric calls (rollouts) of one round, the re-scoring of survivors included."""
    valset_size: Annotated[int, Field(ge=1)] = 16
    """Problems on which candidates are scored."""
    reflection_minibatch_size: Annotated[int, Field(ge=1)] = 4
    """Problems that one reflection reads."""
    proposals: Annotated[int, Field(ge=1)] = 1
    """Candidates that gepa proposes at a time, each from its own parent and minibatch. More are faster: one sampling
    call for all, and with `base-policy` one for all their reflections."""
    max_prompt_characters: Annotated[int, Field(ge=1)] = 1_000
    """A proposed prompt longer than this is a failed reflection."""
    demonstration_tokens: Annotated[int, Field(ge=1)] = 512
    """Tokens that the worked examples of a prompt by the reflector `demonstrations` may have together."""
    reflector: str = "extractive"
    """`extractive` or `demonstrations` (embedded), `base-policy`, a LiteLLM model such as openai/gpt-5.2, or one at
    base_url."""
    reflection: ReflectionSettings = ReflectionSettings()
    base_policy: BasePolicySettings = BasePolicySettings()

    @model_validator(mode="after")
    def served(self) -> Self:
        if self.reflection.base_url and self.reflector in EMBEDDED_REFLECTORS:
            raise ValueError("reflection.base_url requires reflector to be the name of the model that is served there")
        return self

    @model_validator(mode="after")
    def affordable(self) -> Self:
        need = self.valset_size * self.population_size + 2 * self.reflection_minibatch_size * self.proposals
        if self.max_metric_calls < need:
            raise ValueError(
                f"max_metric_calls {self.max_metric_calls} is too small: {self.population_size} survivors on "
                f"{self.valset_size} validation problems and {self.proposals} proposals need {need}"
            )
        return self


@dataclass(frozen=True)
class MethodConfig:
    """The settings a method is built with; `settings` is of its own `Settings` class."""

    seed_prompt: str
    slow: SlowSettings
    fast: FastSettings
    settings: Any
