"""Typed settings of the fast loop."""

import re
from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, field_validator, model_validator

EMBEDDED = ("extractive", "base-policy")
"""Reflectors that need no server."""


class ReflectionSettings(BaseModel):
    """How a reflection LM outside this process is asked. The embedded reflectors read nothing of it.

    Keys come from the environment only, and no setting may hold one: config.json keeps every setting.
    """

    model_config = ConfigDict(extra="forbid")

    base_url: str | None = None
    """An OpenAI-compatible server, as in http://localhost:8000/v1; `fast.reflector` is then the model's name there."""
    api_key_env: str | None = None
    """The NAME of the environment variable with the key. None: the one LiteLLM knows for the provider, OPENAI_API_KEY for a base_url."""
    timeout: Annotated[FiniteFloat, Field(gt=0)] = 300.0
    """Seconds of one request, all in all."""
    retries: Annotated[int, Field(ge=0, le=10)] = 3
    """Requests after the first of a reflection, where it timed out, broke off, or was turned away for the moment (429, 5xx)."""
    backoff: Annotated[FiniteFloat, Field(ge=0)] = 1.0
    """Seconds before the first retry at most; twice that before each next one, up to a minute."""
    requests_per_minute: Annotated[FiniteFloat, Field(gt=0)] | None = None
    max_tokens: Annotated[int, Field(ge=1)] = 8_192
    """Of a reply, the reasoning in it included."""
    temperature: Annotated[FiniteFloat, Field(ge=0)] | None = None
    """None: the provider's own."""
    ceiling_usd: Annotated[FiniteFloat, Field(gt=0)] | None = None
    """What a run may spend on reflection: a request that could exceed it is not sent. It needs a known price."""
    ceiling_tokens: Annotated[int, Field(ge=1)] | None = None
    """The same in tokens, prompts and replies together."""
    usd_per_million_prompt_tokens: Annotated[FiniteFloat, Field(ge=0)] | None = None
    usd_per_million_reply_tokens: Annotated[FiniteFloat, Field(ge=0)] | None = None
    """The price, where LiteLLM knows none or another one."""

    @field_validator("base_url")
    @classmethod
    def holds_no_secret(cls, value: str | None) -> str | None:
        if value is None:
            return value
        try:
            url = urlsplit(value)
            sound = url.scheme in ("http", "https") and bool(url.hostname)
        except ValueError:  # no words of its own: they could repeat what has to stay unsaid
            sound = False
        if not sound:
            raise ValueError("wants an address such as http://localhost:8000/v1")
        if "@" in url.netloc or "?" in value or "#" in value:
            raise ValueError("may hold no user, password or query: config.json keeps it. A key comes from the environment, see api_key_env")
        return value

    @field_validator("api_key_env")
    @classmethod
    def is_a_name(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"[A-Z][A-Z0-9_]*", value):  # no key of a provider looks like this
            raise ValueError("wants the NAME of an environment variable, in capitals such as MY_API_KEY, never the key")
        return value

    @model_validator(mode="after")
    def whole_price(self) -> Self:
        if (self.usd_per_million_prompt_tokens is None) != (self.usd_per_million_reply_tokens is None):
            raise ValueError("a price wants both usd_per_million_prompt_tokens and usd_per_million_reply_tokens")
        return self


class FastSettings(BaseModel):
    """How the fast loop evolves prompts. The paper's cycle is 6 steps, its populations 4 or 8."""

    model_config = ConfigDict(extra="forbid")

    cycle: Annotated[int, Field(ge=1)] = 6
    """RL steps, and batches of lookahead, between two rounds of evolution (T)."""
    population: Annotated[int, Field(ge=1)] = 4
    """Prompts kept (K)."""
    budget: Annotated[int, Field(ge=1)] = 160
    """Metric calls (rollouts) of one round, the re-scoring of survivors included."""
    anchor: Annotated[int, Field(ge=1)] = 16
    """Problems on which candidates are scored."""
    minibatch: Annotated[int, Field(ge=1)] = 4
    """Problems a reflection reads."""
    proposals: Annotated[int, Field(ge=1)] = 1
    """Candidates gepa proposes at a time, each from its own parent and minibatch. More are faster: one sampling
    call for all, and with `base-policy` one for all their reflections."""
    max_prompt_characters: Annotated[int, Field(ge=1)] = 1_000
    """A proposed prompt longer than this is a failed reflection."""
    reflector: str = "extractive"
    """`extractive` (embedded), `base-policy`, a LiteLLM model string such as openai/gpt-5.2, or with `reflection.base_url` a model's name there."""
    reflection: ReflectionSettings = ReflectionSettings()

    @model_validator(mode="after")
    def served(self) -> Self:
        if self.reflection.base_url and self.reflector in EMBEDDED:
            raise ValueError("reflection.base_url wants reflector to be the name of the model that is served there")
        return self

    @model_validator(mode="after")
    def affordable(self) -> Self:
        need = self.anchor * self.population + 2 * self.minibatch * self.proposals
        if self.budget < need:
            raise ValueError(
                f"budget {self.budget} is too small: {self.population} survivors on {self.anchor} anchors and {self.proposals} proposals need {need}"
            )
        return self
