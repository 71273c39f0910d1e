"""The price of reflection: ceilings, prices, and what a dry run states."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from serving import PRICE, PROMPT, Listening, asking, breaks_off, completion, fast, reflects, says, serving, smoke

import fst_bench
from fst_bench.fast.evolve import evolve
from fst_bench.fast.remote import Price, price_of
from fst_bench.harness.config import resolve
from fst_bench.harness.loop import Bench
from fst_bench.harness.planning.cost import calls, estimate
from fst_bench.harness.rows import StepRow
from fst_bench.method.ledger import Ledger
from fst_bench.method.reflection import ReflectionFailure
from fst_bench.method.settings import FastSettings, ReflectionSettings


def test_the_ceiling_in_dollars_by_hand() -> None:
    """A request costs at most 100 bytes * 2 + 100 * 10 = 1,200 millionths, and really 40 * 2 + 20 * 10 = 280."""
    prompt = PROMPT.ljust(100)
    with serving(says(200, completion({"content": "x"}))) as server:
        reflector = asking(server, ceiling_usd=0.0018, max_tokens=100, **PRICE)
        for _ in range(3):  # 0 + 1,200, 280 + 1,200, 560 + 1,200: within 1,800
            reflector(prompt, 0)
        with pytest.raises(ReflectionFailure, match="ceiling"):  # 840 + 1,200
            reflector(prompt, 0)
        assert len(server.requests) == 3
        assert reflector.ledger.reflection_spent() == (180, pytest.approx(0.00084, abs=1e-12))


def test_the_ceiling_in_tokens_counts_what_got_no_answer() -> None:
    """100 bytes and a reply of 100 tokens are 200 at most; a ceiling of 400 holds two of them, to the token."""
    prompt = PROMPT.ljust(100)
    with serving(breaks_off) as server:
        reflector = asking(server, ceiling_tokens=400, max_tokens=100, retries=9)
        with pytest.raises(ReflectionFailure, match="ceiling"):
            reflector(prompt, 0)
        assert len(server.requests) == 2 and reflector.ledger.reflection_unanswered_tokens == 400
        assert reflector.ledger.reflection_retries == 1  # the third request was never sent
    with serving(says(200, completion({"content": "x"}))) as server:
        reflector = asking(server, ceiling_tokens=320, max_tokens=100)
        for _ in range(3):  # 0, 60, 120 + 200
            reflector(prompt, 0)
        with pytest.raises(ReflectionFailure, match="ceiling"):
            reflector(prompt, 0)
        assert len(server.requests) == 3


def test_a_ceiling_survives_a_kill(tmp_path: Path) -> None:
    """Stopped after its first checkpoint with steps, resumed: the same run to the byte, one note a session."""
    limits = PRICE | {"ceiling_usd": 0.006, "max_tokens": 100}

    class Stopping(Listening):
        def on_step(self, row: StepRow, ledger: Ledger) -> None:
            if row.step == 5:
                raise KeyboardInterrupt

    with serving(reflects) as server:
        callback = Listening()
        whole = smoke(tmp_path / "whole", callback, stage_problems=24, **fast(server, **limits))
        asked = len(server.requests)
        with pytest.raises(KeyboardInterrupt):
            smoke(tmp_path / "cut", Stopping(), stage_problems=24, **fast(server, **limits))
        (cut,) = (path.parent for path in tmp_path.glob("cut/*/*/*/config.json"))
        again = Listening()
        resumed = fst_bench.resume(cut, again)
    assert whole.ledger["reflection_reasons"].keys() == {"ceiling"} and 0 < asked < whole.ledger["reflections"]
    assert 0 < whole.ledger["reflection_usd"] <= 0.006
    assert (whole.path / "metrics.json").read_bytes() == (resumed.path / "metrics.json").read_bytes()
    assert (whole.path / "prompts.jsonl").read_bytes() == (resumed.path / "prompts.jsonl").read_bytes()
    assert len(callback.notes) == len(again.notes) == 1 and "ceiling" in callback.notes[0]


def test_prices() -> None:
    assert price_of("openai/gpt-5.2", ReflectionSettings()) == Price(pytest.approx(1.75), pytest.approx(14.0))
    assert price_of("openai/gpt-5.2", ReflectionSettings(**PRICE)) == Price(2.0, 10.0)
    assert price_of("openai/no-such-model", ReflectionSettings()) is None
    assert price_of("groq/gpt-5.2", ReflectionSettings()) is None  # another provider's price is none
    assert price_of("gpt-5.2", ReflectionSettings(base_url="http://localhost:1/v1")) is None
    assert Price(2.0, 10.0).of(500_000, 100_000) == 2.0


def test_one_unknown_price_makes_the_sum_unknown() -> None:
    ledger = Ledger()
    ledger.reflected(10, 5, 0.5)
    assert ledger.reflection_usd == 0.5
    ledger.reflected(10, 5, None)
    ledger.reflected(10, 5, 0.5)
    assert ledger.reflection_usd is None and ledger.reflection_prompt_tokens == 30
    assert Ledger.from_dict(json.loads(json.dumps(ledger.to_dict()))).counts() == ledger.counts()


def test_an_older_ledger_is_read() -> None:
    counts = {"problems": 3, "prompt_tokens": 1, "sampled_tokens": 2, "reflections": 5, "reflection_failures": 1}
    counts |= {"reflection_characters": 9, "optimizer_steps": 1}
    old = counts | {"rollouts": {"train": 4}, "seconds": {"sample": 1.5}}
    ledger = Ledger.from_dict(old)
    ledger.reflection_failed("timeout")
    assert ledger.reflection_reasons == {"timeout": 1}
    assert ledger.reflection_failures == 2 and ledger.reflection_usd == 0.0
    assert {key: value for key, value in ledger.to_dict().items() if key in old} == old | {"reflection_failures": 2}


def test_a_dry_run_states_calls_and_price(bench: Callable[..., Bench]) -> None:
    overrides = {
        "fast.reflector": "served",
        "fast.reflection": {"base_url": "http://localhost:1/v1", "retries": 1, "max_tokens": 1000, "ceiling_usd": 9}
        | PRICE,
    }
    cost = estimate(*resolve("single-math", "gepa", "smoke", 0, overrides))
    # 12 problems in cycles of 8 and 4, a valset of 4, so 24 metric calls are left: of 4 and of 4 problems (all of the
    # last cycle) reflections read 4, one minibatch: each of its two proposals twice at most, 6 times
    assert cost["reflections"] == 2 * 6 * 2 * 2
    assert cost["reflection_reply_tokens"] == 48 * 2 * 1000
    assert cost["reflection_reply_usd"] == 0.96 and cost["reflection_ceiling_usd"] == 9
    embedded = estimate(*resolve("single-math", "gepa", "smoke"))
    assert embedded["reflections"] == 48 and not any(key.startswith("reflection_") for key in embedded)
    assert "reflections" not in estimate(*resolve("single-math", "rl", "smoke"))


@pytest.mark.parametrize("proposals", [1, 2])
def test_no_round_reflects_more_often_than_a_dry_run_says(bench: Callable[..., Bench], proposals: int) -> None:
    settings = FastSettings(
        population_size=2,
        max_metric_calls=40,
        valset_size=4,
        reflection_minibatch_size=2,
        cycle=3,
        proposals=proposals,
    )
    b = bench()
    b.lab.begin(0)

    def failing(prompt: str, seed: int) -> str:
        raise ReflectionFailure("no")

    b.lab._reflector = failing
    lookahead = [p for batch in b.lab.peek(3) for p in batch]
    evolve(b.lab, [b.config.seed_prompt], lookahead, settings)
    assert 0 < b.ledger.reflections <= calls(settings, len(lookahead))
