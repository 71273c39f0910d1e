"""The figures plot every row once, where it belongs."""

import random
import re

import matplotlib
import pandas as pd
import pytest

from fst_bench.analysis.report import figures
from fst_bench.analysis.report.prompts import LONGEST, changes, cycles
from fst_bench.analysis.report.tables import Table, number, tables
from fst_bench.harness.rows import PopulationRow
from fst_bench.harness.run import Run
from fst_bench.harness.store import Store


def read(path):
    return Run(Store(path))


@pytest.fixture(params=[None, 33], ids=["finished", "unfinished"])
def run(make_run, request):
    return read(make_run(steps=request.param))


TASKS = ["math", "codeio", "hover", "star-graph"]


def lines(axes, label):
    return [line for line in axes.get_lines() if line.get_label() == label]


def test_continual_plots_every_row(run):
    figure = figures.continual(run.evals, run.stages, TASKS)
    modes = ["system", "seed", "oracle"]
    assert len(figure.axes) == len(modes)
    plotted = 0
    for axes, mode in zip(figure.axes, modes, strict=True):
        for task in TASKS:
            rows = run.evals.query("task == @task and prompt_mode == @mode")
            (line,) = lines(axes, task)
            assert line.get_xdata().tolist() == rows["problems"].tolist()
            assert line.get_ydata().tolist() == rows["accuracy"].tolist()
            plotted += len(line.get_xdata())
        larger = [line for line in axes.get_lines() if line.get_markersize() > 8 and line.get_linestyle() == "None"]
        assert sum(len(line.get_xdata()) for line in larger) == int(
            run.evals.query("prompt_mode == @mode")["boundary"].sum()
        )
        assert {line.get_linestyle() for task in TASKS for line in lines(axes, task)} == {figures.MODES[mode][0]}
    assert plotted == len(run.evals)
    assert len({line.get_marker() for task in TASKS for line in lines(figure.axes[0], task)}) == len(TASKS), (
        "readable without colour"
    )
    assert [text.get_text() for text in figure.axes[0].texts] == ["1 math", "2 codeio", "3 hover", "4 star-graph"]


def test_narrow_stages_are_numbered_only():
    stages = [figures.StageSpan(i, ("star-graph",), 16 * i - 16, 16 * i) for i in range(1, 21)]
    steps = pd.DataFrame({"step": [1], "stage": [1], "problems": [16], "reward": [0.5]})
    figure = figures.reward(steps, stages, ["star-graph"])
    assert [text.get_text() for text in figure.axes[0].texts] == [str(i) for i in range(1, 21)]


def test_reward_plots_every_step(run):
    (axes,) = figures.reward(run.steps, run.stages, TASKS).axes
    (dots,) = lines(axes, "each step")
    assert dots.get_ydata().tolist() == run.steps["reward"].tolist()
    means = [line for line in axes.get_lines() if line.get_linewidth() == 1.8]
    assert sum(len(line.get_xdata()) for line in means) == len(run.steps)
    first = run.steps.query("stage == 1")["reward"].to_numpy()
    assert means[0].get_ydata()[2] == pytest.approx(first[:5].mean())
    assert means[0].get_ydata()[-1] == pytest.approx(first[-3:].mean()), "the next stage is not mixed in"


def test_kl_plots_every_system_row_and_fills_the_own_stage(run):
    evals = run.evals.query("prompt_mode == 'system'")
    figure = figures.kl_accuracy(evals, run.stages, TASKS)
    for axes, (stage, task) in zip(figure.axes, enumerate(TASKS, start=1), strict=True):
        rows = evals.query("task == @task")
        (path,) = lines(axes, task)
        assert (
            path.get_xdata().tolist() == rows["kl"].tolist() and path.get_ydata().tolist() == rows["accuracy"].tolist()
        )
        (own,) = [line for line in axes.get_lines() if line.get_markersize() == 7]
        assert own.get_xdata().tolist() == rows[rows["stage"] == stage]["kl"].tolist()


@pytest.mark.parametrize("count", [1, 5, 9])
def test_any_number_of_tasks(make_run, count):
    run = read(make_run(tasks=[f"task{i}" for i in range(count)]))
    tasks = [stage.tasks[0] for stage in run.stages]
    kl = figures.kl_accuracy(run.evals.query("prompt_mode == 'system'"), run.stages, tasks)
    assert [axes.get_title(loc="left") for axes in kl.axes] == tasks
    looks = {(colour, marker) for _, colour, marker in figures.styled(tasks)}
    assert len(looks) == len(tasks)


def test_svg_is_named_and_stable(finished_run):
    run = read(finished_run)

    def draw(name):
        return figures.to_svg(figures.continual(run.evals, run.stages, TASKS), name, 'a "label" <b>')

    first = draw("one")
    assert first == draw("one")
    assert all(name.startswith("one-") for name in re.findall(r'\bid="([^"]*)"', first))
    assert set(re.findall(r'\bid="([^"]*)"', first)).isdisjoint(re.findall(r'\bid="([^"]*)"', draw("two")))
    assert "a &quot;label&quot; &lt;b&gt;" in first and "<metadata" not in first and "<style" not in first


def test_drawing_leaves_the_global_style_alone(finished_run):
    run = read(finished_run)
    before = dict(matplotlib.rcParams)
    figures.to_svg(figures.continual(run.evals, run.stages, TASKS), "one", "label")
    assert dict(matplotlib.rcParams) == before


# --- nested records of any shape become readable tables


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (True, "True"),
        (12345, "12,345"),
        (0, "0"),
        (0.013249, "0.01325"),
        (1234.56, "1,235"),
        (float("nan"), "nan"),
        (">672", ">672"),
        ([0.9, 95], "0.9, 95"),
    ],
)
def test_numbers_read_well(value, text):
    assert number(value) == text


def test_flat_records_are_one_table():
    assert tables({"a": 1, "b": None}) == [Table("", [], [("a", [1]), ("b", [None])])]
    assert tables({}) == []


def test_unlike_parts_are_tables_of_their_own():
    assert tables({"a": 1, "b": {"c": 2}, "d": {"e": {"f": 3}}}) == [
        Table("overall", [], [("a", [1])]),
        Table("b", [], [("c", [2])]),
        Table("d.e", [], [("f", [3])]),
    ]


def test_like_parts_stand_side_by_side_the_longer_way_down():
    matrix = {"0": {"math": 0.1, "hover": 0.2}, "1": {"math": 0.3, "hover": 0.4}, "2": {"math": 0.5}}
    assert tables({"matrix": {"system": matrix}}) == [
        Table("matrix.system", ["math", "hover"], [("0", [0.1, 0.2]), ("1", [0.3, 0.4]), ("2", [0.5, None])])
    ]
    modes = {"system": {"a": 1, "b": 2, "c": 3}, "seed": {"a": 4, "b": 5, "c": 6}}
    assert tables(modes) == [Table("", ["system", "seed"], [("a", [1, 4]), ("b", [2, 5]), ("c", [3, 6])])]


def test_lists_of_records_are_numbered():
    assert tables({"stages": [{"task": "math", "end": {"seed": 0.1}}]}) == [
        Table("stages.1", [], [("task", ["math"])]),
        Table("stages.1.end", [], [("seed", [0.1])]),
    ]


# --- the changes between two prompts are exact and read well

BASE = "Solve the problem. End with the final answer."


@pytest.mark.parametrize("seed", range(30))
def test_both_prompts_can_be_read_back(seed):
    rng = random.Random(seed)

    words = ["a", "bc", "Solve it", " ", "  ", "\n", ". ", "! ", ": ", "é", "<b>", ".", "1.5"]

    def text():
        return "".join(rng.choice(words) for _ in range(rng.randrange(40)))

    before, after = text(), text()
    pieces = changes(before, after)
    assert "".join(part for kind, part in pieces if kind != "removed") == after
    assert "".join(part for kind, part in pieces if kind != "added") == before
    assert all(part for _, part in pieces)


def test_nothing_changed():
    assert changes(BASE, BASE) == [("same", BASE)]
    assert changes("", "") == []


def test_a_new_sentence_is_one_piece():
    assert changes(BASE, BASE + " Check it twice.") == [("same", BASE), ("added", " Check it twice.")]


def test_a_reworded_sentence_is_compared_by_words():
    assert changes("End with the final answer.", "End with the boxed answer.") == [
        ("same", "End with the "),
        ("removed", "final"),
        ("added", "boxed"),
        ("same", " answer."),
    ]


def test_another_sentence_is_replaced_whole():
    assert changes("End with the final answer.", "Trace back from the goal.") == [
        ("removed", "End with the final answer."),
        ("added", "Trace back from the goal."),
    ]


def test_cycles_follow_the_best():
    def row(step, *prompts):
        population = [{"prompt": prompt, "score": 0.5} for prompt in prompts]
        return PopulationRow(step=step, problems=16 * step, stage=1, population=population)

    first, second = cycles([row(0, BASE + " A.", "B."), row(10, BASE + " A.")], BASE, {1: "math"})
    assert (first.row.step, second.row.step) == (0, 10)
    assert first.changes == [("same", BASE), ("added", " A.")]
    assert [(other.prompt, other.score) for other in first.others] == [("B.", 0.5)]
    assert second.changes == [("same", BASE + " A.")] and second.task == "math"


def test_prompts_too_long_to_compare_are_replaced_whole():
    before, after = "word " * LONGEST, "other " * LONGEST
    assert changes(before, after) == [("removed", before), ("added", after)]
    assert changes(before, before) == [("same", before)] and changes("", after) == [("added", after)]
