"""Reflection by a language model outside this process: one of LiteLLM's, or one behind an OpenAI-compatible URL.

Whatever a provider does costs one failed reflection at worst, counted under a reason in our own words; the run
continues. Timeouts and momentary refusals are retried; an answer, however bad, is not requested twice. Everything sent
is charged to the ledger, and a request that could exceed the ceiling is not sent. A request without an answer counts
towards the ceiling with the most it can have cost.

Keys are read from the environment and stored nowhere. A resumed run repeats the work since its last checkpoint,
reflections included: the provider is asked and paid again, which neither the ledger nor the ceiling counts, and its
answers may differ.
"""

import importlib
import logging
import math
import os
import queue
import random
import threading
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx

from fst_bench.method.ledger import Ledger
from fst_bench.method.reflection import ReflectionFailure
from fst_bench.method.settings import ReflectionSettings

LONGEST_BACKOFF = 60.0
RETRIED = {408: "timeout", 429: "rate limited", 504: "timeout"}
"""HTTP status -> reason of the errors that are retried; the other 5xx are too, as `server error`."""
FINAL = {401: "key refused", 403: "key refused", 404: "model or address not found"}
"""HTTP status -> reason of errors that point to a wrong setting; any other is `refused`."""


class TryAgain(ReflectionFailure):
    """A failure that is worth another request, `after` seconds later at least where the provider asks for that."""

    def __init__(self, reason: str, after: float = 0.0):
        super().__init__(reason)
        self.after = after


@dataclass(frozen=True)
class Price:
    """US dollars per million tokens."""

    prompt: float
    reply: float

    def of(self, prompt_tokens: int, reply_tokens: int) -> float:
        """Return the price of one request in US dollars."""
        return (prompt_tokens * self.prompt + reply_tokens * self.reply) / 1e6


def price_of(model: str, settings: ReflectionSettings) -> Price | None:
    """Return the settings' price, or LiteLLM's list price for its own providers (no discounts, no tiers).

    None is an unknown price, not a price of zero.
    """
    if settings.usd_per_million_prompt_tokens is not None and settings.usd_per_million_reply_tokens is not None:
        return Price(settings.usd_per_million_prompt_tokens, settings.usd_per_million_reply_tokens)
    if settings.base_url:
        return None
    litellm, provider = load_litellm(model), provider_of(model)
    for name in (model, model.removeprefix(f"{provider}/")):
        listed = litellm.model_cost.get(name, {})
        prompt, reply = listed.get("input_cost_per_token"), listed.get("output_cost_per_token")
        if listed.get("litellm_provider") == provider and prompt is not None and reply is not None:
            return Price(prompt * 1e6, reply * 1e6)
    return None


def load_litellm(model: str) -> Any:
    """Return LiteLLM, without its network look-ups, its prints and its reading of .env files.

    Raise ValueError where it is not installed.
    """
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    os.environ.setdefault("LITELLM_MODE", "PRODUCTION")
    try:
        litellm: Any = importlib.import_module("litellm")
    except ImportError:
        raise ValueError(f"reflector {model!r} requires litellm: pip install 'fst-bench[reflection]'") from None
    litellm.suppress_debug_info = True
    # both may repeat a server's words, and a server may repeat the key
    logging.getLogger("LiteLLM").disabled = True
    warnings.filterwarnings("ignore", message="Pydantic serializer warnings")
    return litellm


def provider_of(model: str) -> str:
    """Return LiteLLM's name of the model's provider. Raise ValueError for an unknown one."""
    try:
        return str(load_litellm(model).get_llm_provider(model)[1])
    except Exception:
        raise ValueError(
            f"unknown reflector {model!r}: LiteLLM knows no provider {model.partition('/')[0]!r}"
        ) from None


class RemoteReflector:
    """A Reflector, called as `reflector(prompt, seed)`: it asks the model, and retries where that makes sense.

    After a reflection has used up its retries, the next ones are tried once each until one is answered: a dead server
    must not cost every reflection its retries. Raises ValueError where a model, key or price is missing.
    """

    def __init__(
        self,
        model: str,
        settings: ReflectionSettings,
        ledger: Ledger,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ):
        self.settings = settings
        self.ledger = ledger
        self.clock = clock
        self.sleep = sleep
        self.litellm = load_litellm(model)
        self.model = f"openai/{model}" if settings.base_url else model
        self.price = price_of(model, settings)
        if settings.ceiling_usd is not None and self.price is None:
            raise ValueError(
                f"fast.reflection.ceiling_usd requires the price of {model!r}: "
                "set usd_per_million_prompt_tokens and ..._reply_tokens"
            )
        self.check_key()
        provider = provider_of(self.model)
        known = self.litellm.get_supported_openai_params(model=self.model, custom_llm_provider=provider) or []
        if settings.temperature is not None and "temperature" not in known:
            raise ValueError(f"{model!r} takes no temperature: leave fast.reflection.temperature out")
        self.takes_seed = "seed" in known
        self.silent = False
        """Whether the last reflection failed after all its retries."""
        self.next_request = -math.inf

    def check_key(self) -> None:
        """Raise ValueError where a required key is missing: better now than in each reflection."""
        name = self.settings.api_key_env
        if name and name not in os.environ:
            raise ValueError("fast.reflection.api_key_env names no variable of the environment")
        if not name and not self.settings.base_url:
            missing = self.litellm.validate_environment(self.model)["missing_keys"]
            if missing and all(key.endswith("_API_KEY") for key in missing):
                raise ValueError(
                    f"reflector {self.model!r} requires a key: the environment has no {' or '.join(missing)}"
                )

    def key(self) -> str | None:
        """Return the key as it is now in the environment; None leaves it to LiteLLM.

        A server of one's own often needs none.
        """
        name = self.settings.api_key_env or ("OPENAI_API_KEY" if self.settings.base_url else None)
        return os.environ.get(name, "none") if name else None

    def __call__(self, prompt: str, seed: int) -> str:
        retries = 0 if self.silent else self.settings.retries
        for attempt in range(retries + 1):
            try:
                text = self.ask(prompt, seed, retry=attempt > 0)
                self.silent = False
                return text
            except TryAgain as failure:
                if attempt == retries or failure.after > self.settings.timeout:
                    self.silent = True
                    raise
                self.sleep(max(failure.after, backoff(self.settings.backoff, attempt, seed)))
        raise AssertionError("the last attempt returns or raises")

    def ask(self, prompt: str, seed: int, retry: bool = False) -> str:
        """Send one request, paced and charged. Raise TryAgain where a retry may succeed, else ReflectionFailure."""
        most = len(prompt.encode("utf-8", "replace")), self.settings.max_tokens  # a token has a byte or more
        self.afford(most)
        self.pace()
        self.ledger.reflection_retries += retry
        try:
            reply = within(self.settings.timeout, lambda: self.complete(prompt, seed))
        except Exception as error:
            failure, billable = failure_of(error)
            if billable:
                self.ledger.unanswered(sum(most), self.cost(most))
            raise failure from None
        text = text_of(reply)
        tokens = usage_of(reply) or (most[0], len(text.encode("utf-8", "replace")))
        self.ledger.reflected(*tokens, self.cost(tokens))
        if cut_off(reply):
            raise ReflectionFailure("reply cut off")
        if not text.strip():
            raise ReflectionFailure("empty reply")
        return text

    def complete(self, prompt: str, seed: int) -> Any:
        """Return LiteLLM's response to one request."""
        return self.litellm.completion(
            model=self.model,
            messages=[{"role": "user", "content": prompt}],
            api_base=self.settings.base_url,
            api_key=self.key(),
            seed=seed % 2**31 if self.takes_seed else None,  # some providers take 32 bits
            max_tokens=self.settings.max_tokens,
            temperature=self.settings.temperature,
            timeout=self.settings.timeout,
            num_retries=0,
            max_retries=0,
        )

    def cost(self, tokens: tuple[int, int]) -> float | None:
        """Return the cost of (prompt, reply) tokens in USD, None where the price is unknown."""
        return self.price.of(*tokens) if self.price else None

    def afford(self, most: tuple[int, int]) -> None:
        """Raise ReflectionFailure where a request of `most` (prompt, reply) tokens would exceed a ceiling."""
        tokens, usd = self.ledger.reflection_spent()
        price = self.cost(most)
        ceiling_tokens, ceiling_usd = self.settings.ceiling_tokens, self.settings.ceiling_usd
        if ceiling_tokens is not None and tokens + sum(most) > ceiling_tokens:
            raise ReflectionFailure("ceiling")
        if ceiling_usd is not None and (usd is None or price is None or usd + price > ceiling_usd):
            raise ReflectionFailure("ceiling")

    def pace(self) -> None:
        """Wait until the rate limit allows a request."""
        if self.settings.requests_per_minute is not None:
            if (wait := self.next_request - self.clock()) > 0:
                self.sleep(wait)
            self.next_request = self.clock() + 60 / self.settings.requests_per_minute


def backoff(base: float, attempt: int, seed: int) -> float:
    """Return the seconds to wait after `attempt` (0, 1, ...) failed.

    They are between half and all of base * 2**attempt, and a minute at most.
    """
    return min(LONGEST_BACKOFF, base * 2**attempt) * random.Random(f"{seed}/{attempt}").uniform(0.5, 1.0)


def within(seconds: float, call: Callable[[], Any]) -> Any:
    """Return the call's result, or raise TimeoutError.

    A client's own timeout is for each read, and a server may send for ever. A call that is late is abandoned, in a
    daemon thread.
    """
    done: queue.SimpleQueue[tuple[Any, Exception | None]] = queue.SimpleQueue()

    def work() -> None:
        try:
            done.put((call(), None))
        except Exception as error:
            done.put((None, error))

    threading.Thread(target=work, daemon=True).start()
    try:
        result, error = done.get(timeout=seconds)
    except queue.Empty:
        raise TimeoutError from None
    if error:
        raise error
    return result


def failure_of(error: BaseException) -> tuple[ReflectionFailure, bool]:
    """Return (the failure that an exception stands for, whether the provider may bill the request).

    LiteLLM raises many errors as internal server errors; the error of the connection is in the chain of causes.
    """
    cause: BaseException | None = error
    while cause:
        if isinstance(cause, httpx.HTTPStatusError):
            status = cause.response.status_code
            if reason := RETRIED.get(status) or ("server error" if status >= 500 else None):
                return TryAgain(reason, patience(cause.response)), reason == "timeout"
            return ReflectionFailure(FINAL.get(status, "refused")), False
        if isinstance(cause, httpx.ConnectError | httpx.ConnectTimeout):
            return TryAgain("unreachable"), False
        if isinstance(cause, httpx.TimeoutException | TimeoutError):
            return TryAgain("timeout"), True
        if isinstance(cause, httpx.TransportError):
            return TryAgain("broken off"), True
        cause = cause.__cause__ or cause.__context__
    # of LiteLLM's own refusal, or of a body: not always a number
    code = getattr(error, "status_code", None)
    if isinstance(code, int) and 400 <= code < 500:
        return ReflectionFailure("refused"), False
    return ReflectionFailure("garbage"), True


def patience(response: httpx.Response) -> float:
    """Return the seconds of Retry-After; 0 where it is missing, or a date."""
    try:
        seconds = float(response.headers.get("retry-after", 0))
    except ValueError:
        return 0.0
    return seconds if 0 < seconds < math.inf else 0.0


def text_of(reply: Any) -> str:
    """Return the reply's text, empty where it holds none."""
    try:
        text = reply.choices[0].message.content
    except (AttributeError, IndexError, TypeError):
        return ""
    return text if isinstance(text, str) else ""


def cut_off(reply: Any) -> bool:
    """Return whether the provider says that the reply ended before the model had ended it."""
    try:
        return reply.choices[0].finish_reason in ("length", "content_filter")
    except (AttributeError, IndexError, TypeError):
        return False


def usage_of(reply: Any) -> tuple[int, int] | None:
    """Return (prompt, reply) tokens as the provider counted them; None without a plausible count."""
    usage = getattr(reply, "usage", None)
    prompt, sampled = getattr(usage, "prompt_tokens", None), getattr(usage, "completion_tokens", None)
    if not isinstance(prompt, int) or not isinstance(sampled, int) or prompt <= 0 or sampled < 0:
        return None
    return prompt, sampled
