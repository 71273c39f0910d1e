"""Typed rows: writer and reader agree, a run is read in one place, and a collection holds the same."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from fst_bench.core.types import Problem
from fst_bench.harness import loop
from fst_bench.harness.collection import Collection, collect
from fst_bench.harness.loop import Callback, dumped
from fst_bench.harness.rows import ROWS, AnswerRow, EvaluationRow, PopulationRow, RolloutRow, Row, StepRow, label
from fst_bench.harness.run import Run
from fst_bench.harness.store import RECORDS, Store
from fst_bench.tasks.hover_search import HoverSearch

SHORT: dict[str, Any] = {"stage_problems": 8, "threads": 1, "evaluation": {"boundary": 4, "small": 4}}


class Stop(Exception):
    """The end of a run before its time."""


class Stops(Callback):
    """A callback that stops a run after its first step."""

    def on_step(self, row: StepRow, ledger: Any) -> None:
        raise Stop


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def fst(out: Path) -> Run:
    return loop.run("single-math", "fst", out, preset="smoke", **SHORT)


@pytest.fixture(scope="module")
def rl(out: Path) -> Run:
    return loop.run("single-math", "rl", out, preset="smoke", **SHORT)


@pytest.fixture(scope="module")
def searching(out: Path) -> Iterator[Run]:
    """A run with a tool that replies to every first turn: the model, at this difficulty, never calls it by itself."""

    def respond(task: HoverSearch, problem: Problem, turns: list[str]) -> str | None:
        return "a reply" if len(turns) == 1 else None

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(HoverSearch, "respond", respond)
        yield loop.run("single-hover-search", "fst", out, preset="smoke", **SHORT)


def lines(run: Run, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run.path / f"{name}.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("which", ["fst", "searching"])
def test_a_row_that_was_written_is_the_row_that_is_read(which: str, request: pytest.FixtureRequest) -> None:
    """Also its keys and their order, except in populations, whose optional keys a method may leave out."""
    run = request.getfixturevalue(which)
    assert set(ROWS) == set(RECORDS)
    for name in RECORDS:
        written, read = lines(run, name), run.typed(name)
        assert written and dumped(read) == written, name
        if name != "prompts":
            assert [list(row) for row in dumped(read)] == [list(row) for row in written]
    turns = [row.turns for name in ("rollouts", "answers") for row in run.typed(name)]
    assert all(len(t) == (which == "searching") for t in turns) and len(turns) > 40
    if which == "searching":
        assert {t[0].tool for t in turns} == {"a reply"}
    else:
        assert not any("turns" in row for row in lines(run, "answers"))


def test_the_number_of_rows(fst: Run) -> None:
    assert len(fst.steps) == 2 and list(fst.steps.problems) == [4, 8]
    assert len(fst.evals) == 2 + 3 and set(fst.evals.prompt_mode) == {"system", "seed", "oracle"}
    spent = fst.ledger["rollouts"]
    assert len(fst.typed("rollouts")) == sum(spent.values()) and set(spent) == {"train", "valset", "feedback"}
    answers = fst.typed("answers")
    assert sum(len(row.prompt_modes) for row in answers) == fst.evals.n_problems.sum()
    for row in fst.evals.itertuples():
        own = [a.reward for a in answers if a.step == row.step and row.prompt_mode in a.prompt_modes]
        assert row.accuracy == sum(own) / row.n_problems


EVALUATION = {
    "step": 1,
    "stage": 1,
    "boundary": True,
    "task": "math",
    "prompt_mode": "system",
    "problems": 4,
    "fetched": 4,
    "rollouts": 8,
    "tokens": 80,
    "accuracy": 0.5,
    "kl": 0.0,
    "kl_per_answer": 0.0,
    "tokens_per_answer": 10.0,
    "n_problems": 4,
    "n_samples": 1,
    "context": None,
}
ANSWER = {
    "step": 1,
    "stage": 1,
    "task": "math",
    "prompt_modes": ["system"],
    "problem": "a",
    "text": "",
    "reward": 1.0,
    "status": "ok",
}
ROLLOUT = {
    "step": 0,
    "purpose": "train",
    "problem": 0,
    "context": "",
    "text": "",
    "reward": 1.0,
    "status": "ok",
    "tokens": 2,
    "version": 0,
}
STEP = {"kind": "step", "step": 1, "stage": 1, "problems": 4, "reward": None, "seconds": 1.0}
POPULATION = {"step": 0, "problems": 4, "population": [{"prompt": "p", "score": 0.5}]}


@pytest.mark.parametrize(
    ("model", "row", "wrong"),
    [
        (EvaluationRow, EVALUATION, {"accurracy": 0.5}),
        (EvaluationRow, EVALUATION, {"problems": True}),
        (EvaluationRow, EVALUATION, {"problems": 4.0}),
        (EvaluationRow, EVALUATION, {"problems": "4"}),
        (EvaluationRow, EVALUATION, {"tokens": -1}),
        (EvaluationRow, EVALUATION, {"boundary": 1}),
        (EvaluationRow, EVALUATION, {"accuracy": 1.5}),
        (EvaluationRow, EVALUATION, {"accuracy": True}),
        (EvaluationRow, EVALUATION, {"kl": math.nan}),
        (EvaluationRow, EVALUATION, {"prompt_mode": "recalled"}),
        (EvaluationRow, EVALUATION, {"context": 3}),
        (AnswerRow, ANSWER, {"turns": [{"said": "", "heard": ""}]}),
        (AnswerRow, ANSWER, {"status": "fine"}),
        (AnswerRow, ANSWER, {"step": True}),
        (RolloutRow, ROLLOUT, {"tokens": False}),
        (RolloutRow, ROLLOUT, {"extra": 1}),
        (StepRow, STEP, {"kind": "other"}),
        (StepRow, STEP, {"step": True}),
        (PopulationRow, POPULATION, {"population": []}),
        (PopulationRow, POPULATION, {"population": [{"prompt": 3, "score": 0.5}]}),
        (PopulationRow, POPULATION, {"rollouts": True}),
    ],
)
def test_a_wrong_row_is_refused(model: type[Row], row: dict[str, Any], wrong: dict[str, Any]) -> None:
    assert model.model_validate(row)
    with pytest.raises(ValueError, match=next(iter(wrong))):
        model.model_validate(row | wrong)


def test_columns_of_a_methods_own_stay(tmp_path: Path) -> None:
    """Steps and populations may have more of them, and a step's may be no finite numbers."""
    step = StepRow(**STEP, loss=math.inf, note="x", parts=[1, {"a": 0.5}])
    store = Store(tmp_path)
    store.append("events", dumped([step]))
    assert store.rows("events") == [STEP | {"loss": math.inf, "note": "x", "parts": [1, {"a": 0.5}]}]
    own = {"generation": 3, "population": [{"prompt": "p", "score": None, "parent": 1}]}
    assert dumped([PopulationRow(**(POPULATION | own))])[0].items() >= own.items()


def test_half_a_character_survives(tmp_path: Path) -> None:
    half, store = "a\ud800b", Store(tmp_path)
    rows: dict[str, Row] = {
        "answers": AnswerRow(**ANSWER | {"text": half, "turns": [{"assistant": half, "tool": half}]}),
        "rollouts": RolloutRow(**ROLLOUT | {"text": half, "context": half}),
        "evals": EvaluationRow(**EVALUATION | {"context": half}),
        "prompts": PopulationRow(**POPULATION | {"population": [{"prompt": half, "score": 0.5}]}),
    }
    for name, row in rows.items():
        store.append(name, dumped([row]))
        assert Run(store).typed(name) == [row], name


def test_a_bad_row_is_named(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.append("answers", [ANSWER, ANSWER | {"tsak": "math"}])
    with pytest.raises(ValueError, match=r"answers.jsonl row 2: unknown key 'tsak': did you mean task"):
        Run(store).typed("answers")


def test_a_line_that_is_not_a_mapping_is_named(tmp_path: Path) -> None:
    (tmp_path / "evals.jsonl").write_text("3\n")
    with pytest.raises(ValueError, match=r"evals.jsonl row 1: '3' is not a mapping"):
        Run(Store(tmp_path)).typed("evals")


def test_a_run_that_is_not_finished(tmp_path: Path) -> None:
    with pytest.raises(Stop):
        loop.run("single-math", "rl", tmp_path, preset="smoke", callback=Stops(), **SHORT)
    (config,) = tmp_path.rglob("config.json")
    run = Run(Store(config.parent))
    assert not run.finished and run.method == "rl" and run.seed == 0
    assert [(stage.stage, stage.tasks, stage.start, stage.end) for stage in run.stages] == [(1, ("math",), 0, 8)]
    assert list(run.steps.step) == [1] and set(run.evals.step) == {0}
    assert run.populations == [] and run.probe("ood").empty and "torch" in run.env
    for name in ("metrics", "ledger"):
        with pytest.raises(ValueError, match=rf"is not a finished run: {name}\.json: No such file"):
            getattr(run, name)
    done = loop.resume(run.path)
    assert done.finished and list(done.steps.step) == [1, 2] and done.metrics["stages"][0]["tasks"] == ["math"]


def test_a_run_of_an_older_fst_bench_is_refused(fst: Run, tmp_path: Path) -> None:
    store = Store(tmp_path)
    config = dict(fst.saved["config"])
    config["slow"] = {"cap": 4.0}
    store.write("config", fst.saved | {"config": config})
    for read in (lambda: Run(store).saved, lambda: loop.resume(tmp_path)):
        with pytest.raises(ValueError, match=r"slow\.cap is now slow\.ratio_clip_max$"):
            read()
    store.write("config", {"config": []})
    with pytest.raises(ValueError, match=r"is not a run: config\.json has no"):
        loop.resume(tmp_path)


def test_a_stages_tasks_are_shown_with_plus() -> None:
    assert label(("math",)) == "math" and label(["math", "codeio"]) == "math+codeio"


PROBE = [
    {"key": {"task": "math", "step": 0}, "accuracy": 0.25, "scores": [0.0, 1.0]},
    {"key": {"task": "ood", "step": 8}, "accuracy": 0.5},
]


def test_a_collection_holds_the_same(fst: Run, rl: Run, tmp_path: Path) -> None:
    probes = fst.path / "probes"
    probes.mkdir()
    (probes / "ood.jsonl").write_text("".join(json.dumps(row) + "\n" for row in PROBE))
    runs = {f"{run.method}/{run.path.name}": run for run in (fst, rl)}
    assert Collection.at(tmp_path) is None
    collect(list(runs.items()), tmp_path, ["ood", "drift"])
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {f"{kind}.parquet" for kind in ("runs", "evals", "events", "prompts", "probes-ood")}
    collection = Collection.at(tmp_path)
    assert collection is not None
    for (id, run), kept in zip(runs.items(), collection.runs(), strict=True):
        assert kept.finished and kept.path == tmp_path / id and (kept.method, kept.seed) == (run.method, run.seed)
        assert (kept.saved, kept.env, kept.metrics, kept.ledger) == (run.saved, run.env, run.metrics, run.ledger)
        assert kept.stages == run.stages and kept.populations == run.populations
        for name in ("evals", "events"):
            assert dumped(kept.typed(name)) == dumped(run.typed(name))
        pd.testing.assert_frame_equal(kept.evals, run.evals)
        pd.testing.assert_frame_equal(kept.steps, run.steps, check_like=True)
        pd.testing.assert_frame_equal(kept.probe("ood"), run.probe("ood"), check_like=True)
        assert len(kept.probe("ood")) == (len(PROBE) if run is fst else 0) and kept.probe("drift").empty
        assert kept.source.rows("answers") == []
        with pytest.raises(ValueError, match=r"has no manifest\.json: a collection keeps config, env, metrics, ledger"):
            kept.source.read("manifest")
    assert "oracle" in set(fst.evals.prompt_mode) and fst.populations and not rl.populations


def test_a_collection_that_is_written_again_is_read_again(fst: Run, rl: Run, tmp_path: Path) -> None:
    collect([("a", fst)], tmp_path)
    assert [run.method for run in Collection(tmp_path).runs()] == ["fst"]
    collect([("a", fst), ("b", rl)], tmp_path)
    assert [run.method for run in Collection(tmp_path).runs()] == ["fst", "rl"]


def test_half_a_character_becomes_its_escape_in_a_collection(fst: Run, tmp_path: Path) -> None:
    store = Store(tmp_path / "run")
    store.path.mkdir()
    for part in ("config", "env", "metrics", "ledger"):
        store.write(part, fst.source.read(part))
    population = POPULATION | {"population": [{"prompt": "a\ud800b", "score": 0.5}]}
    store.append("prompts", dumped([PopulationRow(**population)]))
    collect([("a", Run(store))], tmp_path / "all")
    (kept,) = Collection(tmp_path / "all").runs()
    assert kept.populations[0].population[0].prompt == "a\\ud800b"
