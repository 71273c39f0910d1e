"""A difficulty that is a mixture of levels: its problems, its held-out strata, its verdicts and its rows."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fst_bench.analysis.report import write_report
from fst_bench.cli.validate import run as validate_run
from fst_bench.harness import loop
from fst_bench.harness.collection import Collection, collect
from fst_bench.harness.config import resolve
from fst_bench.tasks import load_task
from fst_bench.tasks.base import over
from fst_bench.tasks.hover_search import search
from fst_bench.tasks.stream import Stream, StreamSpec

MATH = {"max_value": 60, "max_operand": 9}
SHARES = {"operations 1": 1, "operations 2": 2, "operations 5": 5}
MIXTURE = [{"operations": int(level.split()[1]), "share": share} for level, share in SHARES.items()]


@given(st.lists(st.floats(0.1, 1), min_size=1, max_size=8), st.integers(1, 2000))
def test_every_stretch_of_held_out_problems_has_nearly_the_shares(shares: list[float], n: int) -> None:
    mixture = [{"operations": i + 1, "share": share} for i, share in enumerate(shares)]
    task = load_task("math", mixture=mixture)
    counts = Counter(task.part("test", 0, i) for i in range(n))
    assert all(abs(counts[f"operations {i + 1}"] - n * s / sum(shares)) < 3 for i, s in enumerate(shares))


def test_problems_to_train_on_have_the_shares_at_random() -> None:
    task = load_task("math", mixture=MIXTURE)
    counts = Counter(task.part("train", seed, i) for seed in range(10) for i in range(400))
    assert all(abs(counts[level] / 4000 - share / 8) < 0.03 for level, share in SHARES.items())
    assert [task.part("train", 0, i) for i in range(40)] != [task.part("train", 1, i) for i in range(40)]


def test_a_problem_is_that_of_its_level() -> None:
    task = load_task("math", **MATH, mixture=MIXTURE)
    for split in ("train", "test"):
        for i in range(30):
            problem = task.problem(split, 0, i)
            alone = load_task("math", **MATH, operations=int(problem.level.split()[1])).problem(split, 0, i)
            assert (problem.id, problem.prompt, problem.answer) == (alone.id, alone.prompt, alone.answer)
    assert load_task("math").problem("train", 0, 0).level == ""


def test_an_answer_is_judged_at_its_problems_level() -> None:
    task = load_task("math", **MATH, mixture=[{"answer_format": "tag"}, {"answer_format": "json"}])
    for problem in task.problems("test", 0, 6):
        answers = {"answer_format tag": f"<answer>{problem.answer}</answer>"}
        answers["answer_format json"] = f'{{"output": {problem.answer}}}'
        earned = {level: task.verify(problem, text).reward for level, text in answers.items()}
        assert earned == {level: float(level == problem.level) for level in answers}


def test_a_tool_replies_at_its_problems_level() -> None:
    levels = [{"results": 1}, {"results": 3}]
    task = load_task("hover-search", chains=4, hops=2, style="bare", mixture=levels)
    for problem in task.problems("test", 0, 4):
        turn = search(" ".join(title for title, _, _ in problem.data["passages"]))
        reply = task.at(problem).respond(problem, [turn])
        assert reply is not None and reply.count(".") == int(problem.level.split()[1])
        alone = load_task("hover-search", chains=4, hops=2, style="bare", results=int(problem.level.split()[1]))
        assert task.verify(problem, "x", [turn]) == alone.verify(alone.problem("test", 0, 0), "x", [turn])


@pytest.mark.parametrize(
    ("mixture", "more", "complaint"),
    [
        ([{"operations": 99}], {}, "level operations 99 of the mixture: operations: Input should be less than"),
        ([{"lines": 3}], {}, "unknown key 'lines'"),
        ([{"share": 2}], {}, "a level has difficulty parameters"),
        ([{"operations": 3, "share": 0}], {}, "a share is a number above 0, not 0"),
        ([{"operations": 3, "share": "half"}], {}, "a share is a number above 0, not 'half'"),
        ([{"operations": 3, "mixture": []}], {}, "no mixture of its own"),
        ([{"operations": 3}], {"operations": 4}, "operations: set beside a mixture whose levels have it"),
    ],
)
def test_a_wrong_mixture_is_one_line(mixture: list[dict[str, Any]], more: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint) as error:
        load_task("math", mixture=mixture, **more)
    assert "\n" not in str(error.value)


def test_only_the_levels_have_to_be_possible() -> None:
    small = {"pool": 20, "labels": "letters"}
    task = load_task("star-graph", **small, mixture=[{"degree": 2, "path_length": 3}, {"degree": 4, "path_length": 4}])
    assert {len(p.data["path"]) for p in task.problems("test", 0, 8)} == {3, 4}
    with pytest.raises(
        ValueError, match="level degree 9, path_length 9 of the mixture: degree 9 and path_length 9 need 73"
    ):
        load_task("star-graph", **small, mixture=[{"degree": 9, "path_length": 9}])


def test_equal_levels_are_one_with_the_share_of_both() -> None:
    task = load_task("math", mixture=[{"operations": 3}, {"operations": 4, "share": 2}, {"operations": 3}])
    assert {level: share for level, (share, _) in task.parts.items()} == {"operations 3": 0.5, "operations 4": 0.5}


def test_what_is_set_later_wins() -> None:
    mixed = {"max_value": 60, "mixture": MIXTURE}
    assert over({"operations": 3, "max_value": 60}, {"mixture": MIXTURE}) == mixed
    assert over(mixed, {"max_value": 90}) == {"max_value": 90, "mixture": MIXTURE}
    assert over(mixed, {"operations": 4}) == {"max_value": 60, "operations": 4}
    assert over(mixed, {"operations": 4, "mixture": []}) == {"max_value": 60, "operations": 4, "mixture": []}
    settings = {"difficulty.math.mixture": MIXTURE}
    difficulty = resolve("continual-4", "rl", "tiny", 0, settings)[0].difficulty["math"]
    assert difficulty == {"max_value": 60, "max_operand": 9, "mixture": MIXTURE}
    with pytest.raises(ValueError, match="mixture: Input should be a valid list"):
        resolve("continual-4", "rl", "tiny", 0, {"difficulty.math.mixture": "x"})
    stages = [{"task": "math", "problems": 48, "difficulty": {"operations": 3}}]
    spec = StreamSpec.model_validate({"name": "one", "version": 1, "description": "", "stages": stages})
    assert Stream(spec, 0, {"math": mixed}).held_out()["math"].parts == {}


def test_a_drift_leads_each_level_to_its_own_value() -> None:
    spec = StreamSpec.model_validate(
        {
            "name": "drifting",
            "version": 1,
            "description": "",
            "stages": [{"task": "math", "problems": 65, "drift": {"operations": [2, None], "max_operand": [3, 9]}}],
        }
    )
    mixture = [{"operations": 4}, {"operations": 8, "share": 3}]
    stream = Stream(spec, 0, {"math": {"max_value": 60, "mixture": mixture}})
    levels = [stream.verifier_of(i).parts for i in (0, 32, 64)]
    assert [*levels[0]] == ["operations 2"] and [*levels[1]] == ["operations 3", "operations 5"]
    assert [*levels[2]] == ["operations 4", "operations 8"]
    assert [share for share, _ in levels[2].values()] == [0.25, 0.75]
    assert [next(iter(parts.values()))[1].difficulty.max_operand for parts in levels] == [3, 6, 9]


@pytest.mark.parametrize("mixture", ["x", 3, [3], [{"operations": 3}, 4], [{"operations": 3, "lines": 1}]])
def test_a_mixture_of_any_kind_in_a_drift_is_one_line(mixture: Any) -> None:
    stages = [{"task": "math", "problems": 48, "difficulty": {"mixture": mixture}, "drift": {"operations": [1, 2]}}]
    spec = StreamSpec.model_validate({"name": "odd", "version": 1, "description": "", "stages": stages})
    with pytest.raises(ValueError, match="mixture") as error:
        Stream(spec, 0, {})
    assert "\n" not in str(error.value)


def test_evaluation_rows_have_the_accuracy_of_each_level_and_kl_where_it_is_asked_for(tmp_path: Path) -> None:
    levels = [{"operations": 1, "share": 3}, {"operations": 6}]
    settings = {"boundary": 16, "small": 8, "interval": 4, "kl": "boundary"}
    mixed = {"stage_problems": 8, "batch": 4, "evaluation": settings, "difficulty": {"math": {"mixture": levels}}}
    run = loop.run("single-math", "base", tmp_path, preset="smoke", **mixed)
    rows = run.typed("evals")
    assert {row.problems for row in rows} == {0, 4, 8}
    for row in rows:
        n = 16 if row.boundary else 8
        assert [(level.level, level.n) for level in row.levels] == [
            ("operations 1", 3 * n / 4),
            ("operations 6", n / 4),
        ]
        assert row.accuracy == pytest.approx(sum(level.accuracy * level.n for level in row.levels) / n)
        assert (row.kl is not None) == (row.kl_per_answer is not None) == (row.boundary and row.prompt_mode == "system")
    assert [stage["kl"] for stage in run.metrics["stages"]] == [{"system": 0.0}]
    collect([("base/one", run)], tmp_path / "kept")
    collection = Collection.at(tmp_path / "kept")
    assert collection is not None
    assert collection.runs()[0].typed("evals") == rows
    assert all(wrong is None for _, wrong in validate_run(str(run.path)))
    assert write_report(run.path).exists()
    (small,) = (row for row in rows if not row.boundary and row.prompt_mode == "system")
    (run.path / "evals.jsonl").write_text(
        "".join((row.model_copy(update={"kl": 0.0}) if row is small else row).model_dump_json() + "\n" for row in rows)
    )
    assert "its KL is 0.0, with evaluation.kl=boundary" in str(list(validate_run(str(run.path))))
