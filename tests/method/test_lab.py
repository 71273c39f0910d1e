"""The reach of a method, and its charges."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from fst_bench.core.types import RolloutRequest
from fst_bench.harness.evaluate import NO_LAB, Snapshot
from fst_bench.harness.loop import Bench, Callback, StreamProblems
from fst_bench.harness.store import Store
from fst_bench.method.lab import Lab
from fst_bench.method.method import Method
from fst_bench.method.reflection import ReflectionFailure
from fst_bench.tasks import TASKS, Problem, Task
from fst_bench.tasks.stream import Stream


def reachable(root: Any) -> list[Any]:
    """Everything within reach by attributes, items and elements: what honest code could stumble over."""
    seen: dict[int, Any] = {}
    work = [root]
    while work:
        thing = work.pop()
        if (
            id(thing) in seen
            or isinstance(thing, int | float | bytes | type | type(pytest))
            or type(thing).__module__.startswith(("torch", "transformers", "tokenizers"))
        ):
            continue
        seen[id(thing)] = thing
        if isinstance(thing, dict):
            work += [*thing.keys(), *thing.values()]
        elif isinstance(thing, list | tuple | set | frozenset):
            work += list(thing)
        elif isinstance(thing, BaseModel):
            work.append(dict(thing))
        elif not isinstance(thing, str):
            work += [
                getattr(thing, name, None) for name in dir(thing) if not (name.startswith("__") and name.endswith("__"))
            ]
    return list(seen.values())


@pytest.mark.parametrize(
    ("stream", "method"), [("continual-4", "rl"), ("continual-4", "fst"), ("single-hover-search", "fst")]
)
def test_a_method_reaches_no_task_and_no_answer(bench: Callable[..., Bench], stream: str, method: str) -> None:
    b = bench(stream, method)
    batch = b.lab.begin(0)
    b.method.step(batch)
    b.pending.clear()  # the run's records belong to the harness
    source = b.lab._problems
    assert isinstance(source, StreamProblems) and source.handle(0) == batch[0]
    secret = set(TASKS) | {b.stream.problem(p.index).id for p in batch}
    for root in ([b.method, batch], source):
        found = reachable(root)
        assert any(thing is source for thing in found)
        assert not [thing for thing in found if isinstance(thing, Problem | Task | Stream)]
        assert not {thing for thing in found if isinstance(thing, str)} & secret
    found = reachable([b.method, batch])
    assert any(thing is b.lab for thing in found) and any(thing is b.policy for thing in found)
    vars(source)["stream"] = b.stream  # the walk would find it
    found = reachable([b.method, batch])
    assert any(thing is b.stream for thing in found) and {thing for thing in found if isinstance(thing, str)} & secret


def test_a_stream_that_shows_ids_and_boundaries_shows_no_more(bench: Callable[..., Bench]) -> None:
    b = bench("continual-4-told", "rl")
    seen = [handle for batch in (b.lab.begin(0), *b.lab.peek(6)[1:]) for handle in batch]
    assert [handle.index for handle in seen if handle.boundary] == [0, 12]
    assert [handle.task for handle in seen] == ["task 1"] * 12 + ["task 2"] * 12
    b.method.step(b.lab.begin(0))
    b.pending.clear()
    assert not {thing for thing in reachable([b.method, seen]) if isinstance(thing, str)} & set(TASKS)
    assert all((handle.boundary, handle.task) == (None, None) for handle in bench("continual-4", "rl").lab.begin(0))


class Asking(Method):
    """Repeats in its context the id it was asked for."""

    name = "asking"

    def step(self, batch: list[Any]) -> dict[str, Any]:
        return {}

    def context_for_task(self, prompt: str, task: str | None) -> str:
        return f"You see {task}."


def test_an_evaluation_shows_the_ids_that_training_shows(bench: Callable[..., Bench], tmp_path: Path) -> None:
    for stream, ids in (("continual-4-told", ["task 1", "task 2", "task 3", "task 4"]), ("continual-4", [None] * 4)):
        b = bench(stream, evaluation={"boundary": 1})
        b.method = Asking(b.lab, b.method.config)
        store = Store.create(tmp_path, (stream, "asking", "0"))
        b._evaluate(store, Callback(), b.schedule[0])
        asked = {row["task"]: row["context"] for row in store.rows("evals") if row["prompt_mode"] == "system"}
        assert list(asked.values()) == [f"You see {id}." for id in ids] and list(asked) == [
            "math",
            "codeio",
            "hover",
            "star-graph",
        ]


def test_every_channel_is_charged(bench: Callable[..., Bench]) -> None:
    b = bench()
    batch = b.lab.begin(0)
    groups = b.lab.sample([RolloutRequest(p, "Work step by step.", 3) for p in batch], "probe")
    flat = [r for group in groups for r in group]
    assert b.ledger.rollouts == {"probe": 12} and b.ledger.total_rollouts == 12
    assert b.ledger.sampled_tokens == sum(r.sample.sampled for r in flat)
    assert b.ledger.prompt_tokens == sum(len(r.sample.tokens) - r.sample.sampled for r in flat)
    b.lab.reflect("```\nx\n```")
    assert (b.ledger.reflections, b.ledger.reflection_characters) == (1, 9)
    replies = b.lab.reflect_many(["```\ny\n```", "no fence", "```\nzz\n```"])
    assert [isinstance(reply, ReflectionFailure) for reply in replies] == [False, True, False]
    assert (b.ledger.reflections, b.ledger.reflection_failures, b.ledger.reflection_characters) == (4, 1, 36)
    assert b.ledger.problems == 4


def test_sampling_twice_gives_other_samples_and_a_rerun_the_same(bench: Callable[..., Bench]) -> None:
    texts = []
    for _ in range(2):
        b = bench()
        batch = b.lab.begin(0)
        texts.append(
            [
                [r.sample.text for g in b.lab.sample([RolloutRequest(p, "", 4) for p in batch], "x") for r in g]
                for _ in range(2)
            ]
        )
    assert texts[0] == texts[1] and texts[0][0] != texts[0][1]


def test_peek_stops_at_the_end_of_the_stream(bench: Callable[..., Bench]) -> None:
    b = bench()
    b.lab.begin(2)
    assert [[p.index for p in batch] for batch in b.lab.peek(5)] == [[8, 9, 10, 11]]  # the stream has 12 problems


def test_all_that_a_method_samples_has_the_temperature_of_training(bench: Callable[..., Bench]) -> None:
    b = bench(method="fst", training={"temperature": 0.5}, slow={"num_minibatches": 1})
    found: list[float] = []
    sample = b.policy.sample

    def noted(*arguments: Any, **named: Any) -> Any:
        found.append(named["temperature"])
        return sample(*arguments, **named)

    b.policy.sample = noted  # type: ignore[method-assign]
    metrics = b.method.step(b.lab.begin(0))
    assert len(found) > 2 and set(found) == {0.5}
    # the learner's log-probabilities are at that temperature too: at 1 they would be off by nats
    assert metrics["max_logprob_gap"] < 1e-4
    request = RolloutRequest(b.lab.peek(1)[0][0], "")
    assert b.lab.sample([request], "train", 2.0)[0][0].sample.temperature == 2.0


class Meddling(Method):
    name = "meddling"

    def step(self, batch: list[Any]) -> dict[str, Any]:
        return {}

    def context_for(self, prompt: str) -> str:
        self.asked = prompt
        return "x"

    def state(self) -> dict[str, Any]:
        return {"asked": getattr(self, "asked", "")}

    def load(self, state: dict[str, Any]) -> None:
        self.asked = state["asked"]


def test_evaluation_has_no_lab_and_notices_meddling(bench: Callable[..., Bench]) -> None:
    b = bench()
    with pytest.raises(RuntimeError, match="without a lab"):
        NO_LAB.sample([], "x")
    snapshot = Snapshot(Meddling(b.lab, b.method.config), {"asked": ""})
    assert not isinstance(snapshot.method.lab, Lab)
    snapshot.check()
    snapshot.context_for("1 + 1")
    with pytest.raises(RuntimeError, match="changed itself in context_for"):
        snapshot.check()
