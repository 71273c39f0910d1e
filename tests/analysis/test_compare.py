"""Tables over seeds, from run directories written by hand, against intervals worked out by hand.

Runs that do not belong together are refused.
"""

import csv
import io
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from written import SHAPES, write_run

from fst_bench.analysis import latex, load, markdown, spreadsheet, tables, terminal, write_page
from fst_bench.analysis.curves import asymptotes, curve_of, efficiency_ratios
from fst_bench.analysis.report import write_report
from fst_bench.analysis.tables import Cell
from fst_bench.harness.collection import collect
from fst_bench.harness.run import Run
from fst_bench.harness.store import Store
from fst_bench.leaderboard.submit import submit
from fst_bench.metrics import Estimate


def set_end(run: Path, accuracy: float) -> None:
    """Make a run of one stage end at an accuracy, and nothing else of it."""
    metrics = json.loads((run / "metrics.json").read_text())
    metrics["stages"][0]["end"]["system"] = accuracy
    (run / "metrics.json").write_text(json.dumps(metrics))


def test_means_and_differences_paired_by_seed(tmp_path: Path) -> None:
    for seed, (rl, fst) in enumerate([(0.5, 0.7), (0.6, 0.81), (0.4, 0.59)]):
        set_end(write_run(tmp_path, "rl", seed, noise=0), rl)
        set_end(write_run(tmp_path, "fst", seed, noise=0), fst)
    # a seed that rl does not have counts in the mean, not in the difference
    set_end(write_run(tmp_path, "fst", 9, noise=0), 0.0)
    learning = tables(load([tmp_path]))[0]
    assert learning.title == "Learning" and learning.columns == ["1 math", "end-of-stage accuracy", "online accuracy"]
    rl, fst = learning.rows
    assert (rl.label, rl.seeds, fst.label, fst.seeds) == ("rl", 3, "fst", 4)
    # .5 .6 .4: standard deviation .1, t(.975, 2) = 4.3027: +- .2484
    found = rl.cells[0].estimate
    assert (found.value, found.low, found.high) == pytest.approx((0.5, 0.5 - 0.2484, 0.5 + 0.2484), abs=1e-4)
    assert fst.cells[0].estimate.value == pytest.approx(2.1 / 4)
    # the differences .20 .21 .19: mean .20, standard deviation .01: +- .0248
    (difference,) = learning.differences
    cell = difference.cells[0]
    found = cell.estimate
    assert difference.seeds == 3
    assert (found.value, found.low, found.high) == pytest.approx((0.2, 0.1752, 0.2248), abs=1e-4)
    assert cell.clear and str(cell) == "+0.20 ± 0.02"
    assert "| fst | 3 | **+0.20 ± 0.02** |" in markdown(learning)


def test_a_cell_in_words() -> None:
    assert str(Cell(Estimate(math.nan))) == "–" and str(Cell(Estimate(0.5))) == "0.50"
    assert str(Cell(Estimate(2.0, 1.5, 3.5))) == "2.00 (1.50 to 3.50)"
    assert str(Cell(Estimate(1234.5, 1000.0, 1469.0), digits=0)) == "1,234"
    assert str(Cell(Estimate(0.75), mark="<")) == "<0.75"


def test_transfer_is_shown_where_there_are_stages(tmp_path: Path) -> None:
    for seed in range(2):
        write_run(tmp_path, "rl", seed, tasks=("math", "hover"), length=160)
    learning, remembering, spending, equal = tables(load([tmp_path]))
    assert learning.columns == ["1 math", "2 hover", "end-of-stage accuracy", "online accuracy"]
    assert remembering.columns == [
        "so far",
        "end, own prompt",
        "end, seed prompt",
        "anytime",
        "bwt",
        "forgetting",
        "fwt",
    ]
    values = dict(zip(remembering.columns, remembering.rows[0].cells, strict=True))
    assert values["bwt"].estimate.value == pytest.approx(-0.1) and values["anytime"].estimate.value == 0.5
    assert equal.title == "At equal tokens" and equal.columns == ["so far", "online", "all tasks"]
    there = dict(zip(equal.columns, equal.rows[0].cells, strict=True))
    assert there["all tasks"].estimate == values["end, own prompt"].estimate, "rl's own tokens are all of its stream's"
    spent = dict(zip(spending.columns, spending.rows[0].cells, strict=True))
    assert spent["seconds"].estimate.value == 3.0
    # seed 1 has 16 more problems a stage
    assert spent["rollouts"].estimate.value == pytest.approx(8 * (320 + 352) / 2)


def test_dollars_are_shown_where_some_were_spent_or_may_have_been(tmp_path: Path) -> None:
    runs = {
        (method, seed): write_run(tmp_path, method, seed, tasks=("math", "hover"), length=160)
        for method in ("rl", "fst")
        for seed in range(2)
    }

    def charge(method: str, seed: int, usd: float | None) -> None:
        ledger = json.loads((runs[method, seed] / "ledger.json").read_text())
        (runs[method, seed] / "ledger.json").write_text(json.dumps(ledger | {"reflection_usd": usd}))

    def dollars() -> list[str]:
        spending = next(table for table in tables(load([tmp_path])) if table.title == "Spending")
        return [
            str(dict(zip(spending.columns, row.cells, strict=True)).get("reflection USD")).split(" ")[0]
            for row in spending.rows
        ]

    charge("fst", 0, 0.0)
    assert dollars() == ["None", "None"]
    charge("fst", 0, 1.0)
    charge("fst", 1, 2.0)
    assert dollars() == ["0.00", "1.50"]  # rl, fst; an older ledger without the key spent nothing
    charge("fst", 1, None)
    assert dollars() == ["0.00", "–"]


def test_every_format_has_every_number(tmp_path: Path) -> None:
    for method in ("rl", "fst", "gepa"):
        for seed in range(3):
            write_run(tmp_path, method, seed, length=320)
    made = tables(load([tmp_path]))
    rows = list(csv.DictReader(io.StringIO(spreadsheet(made))))
    assert len(rows) == sum(len(row.cells) for table in made for row in (*table.rows, *table.differences))
    for table in made:
        console = Console(width=400, record=True, file=io.StringIO())
        console.print(terminal(table))
        texts = (
            markdown(table),
            latex(table)
            .replace(r"$\pm$", "±")
            .replace("--", "–")
            .replace(r"\textless{}", "<")
            .replace(r"\textgreater{}", ">"),
            console.export_text(),
        )
        for row in (*table.rows, *table.differences):
            for cell in row.cells:
                assert all(str(cell) in text for text in texts), (table.title, str(cell))
    mine = [
        r
        for r in rows
        if r["table"] == "Learning" and r["kind"] == "mean" and r["method"] == "fst" and r["column"] == "1 math"
    ]
    (row,) = [row for row in made[0].rows if row.label == "fst"]
    assert float(mine[0]["value"]) == row.cells[0].estimate.value
    for text in map(latex, made):
        assert text.count(r"\begin{table}") == 1 and text.count(r"\toprule") == 1
        body = [line for line in text.splitlines() if line.endswith(r"\\") and "multicolumn" not in line]
        assert len({line.count(" & ") for line in body}) == 1  # every row has every column


def test_the_difficulty_of_a_task_that_a_stream_does_not_hold_keeps_no_runs_apart(tmp_path: Path) -> None:
    """A task that came later is in the settings of newer runs only."""
    old, new = {"math": {"operations": 8}}, {"math": {"operations": 8}, "hover-search": {"shown": 3}}
    write_run(tmp_path, "rl", 0, change={"difficulty": old})
    for method, seed in (("rl", 1), ("fst", 0)):
        write_run(tmp_path, method, seed, change={"difficulty": new})
    assert len(load([tmp_path])) == 3
    write_run(tmp_path, "gepa", 0, change={"difficulty": {"math": {"operations": 2}}})
    with pytest.raises(ValueError, match="does not belong in this table: difficulty"):
        load([tmp_path])


def test_what_does_not_belong_together_is_refused(tmp_path: Path) -> None:
    write_run(tmp_path / "a", "rl", 0)
    cases = [
        ("b", {"tasks": ("hover",)}, "stream single-hover@1, the others have single-math@1"),
        ("c", {}, "second run of rl with seed 0"),
        ("e", {"change": {"stage_problems": 12}}, "stage_problems 12, the others have None"),
        ("f", {"change": {"batch": 16}}, "batch 16, the others have 8"),
        ("g", {"change": {"evaluation": {"boundary": 8}}}, "evaluation {'boundary': 8}, the others have"),
    ]
    for name, options, reason in cases:
        write_run(tmp_path / name, "rl", 0, **options)
        with pytest.raises(ValueError, match=reason):
            load([tmp_path / "a", tmp_path / name])
    with pytest.raises(ValueError, match=r"stream single-hover@1, .* one stream at a time"):
        load([tmp_path / "a", tmp_path / "b"])
    write_run(tmp_path / "i", "fst", 0, change={"slow": {"ratio_clip_max": 2.0}})
    assert [run.method for run in load([tmp_path / "a", tmp_path / "i"])] == ["rl", "fst"]
    with pytest.raises(ValueError, match="no finished run"):
        load([tmp_path / "d"])


def test_a_setting_that_is_younger_than_a_run_had_its_default(tmp_path: Path) -> None:
    old = write_run(tmp_path / "old", "rl", 0)
    evaluation = json.loads((old / "config.json").read_text())["config"]["evaluation"]
    write_run(tmp_path / "new", "rl", 1, change={"backend": "torch", "evaluation": evaluation | {"samples": 1}})
    assert len(load([tmp_path])) == 2
    write_run(tmp_path / "other", "rl", 2, change={"backend": "vllm-deepspeed"})
    assert [run.method for run in load([tmp_path])] == [
        "rl (backend=torch)",
        "rl (backend=torch)",
        "rl (backend=vllm-deepspeed)",
    ]


def test_a_method_under_several_settings_is_several_rows(tmp_path: Path) -> None:
    for seed in (0, 1):
        for cap in (2.0, 5.0):
            write_run(
                tmp_path / f"cap-{cap}",
                "fst",
                seed,
                change={"slow": {"ratio_clip_max": cap, "group_size": 8}, "settings": {"share": cap / 10}},
            )
        write_run(tmp_path, "rl", seed)
    runs = load([tmp_path])
    ours = ["fst (settings.share=0.2, slow.ratio_clip_max=2.0)", "fst (settings.share=0.5, slow.ratio_clip_max=5.0)"]
    made = tables(runs)[0]
    assert [row.label for row in made.rows] == ["rl", *ours] and {row.seeds for row in made.rows} == {2}
    assert [row.label for row in made.differences] == ours
    assert [row.label for row in tables(runs, ours[0])[0].differences] == ["rl", ours[1]]
    page = write_page(runs, tmp_path / "page").read_text()
    assert all(name in page for name in ours)
    with pytest.raises(ValueError, match="a submission is one method's, these runs are of"):
        submit([tmp_path / "cap-2.0", tmp_path / "cap-5.0"], "n", "o", "open", "", tmp_path / "n.zip")


def test_a_run_that_is_not_finished_is_left_out(tmp_path: Path) -> None:
    path = write_run(tmp_path, "rl", 0)
    (write_run(tmp_path, "fst", 0) / "manifest.json").unlink()  # killed after its metrics were written
    assert [run.path for run in load([tmp_path])] == [path]


def test_a_run_with_the_old_name_of_a_setting_is_refused(tmp_path: Path) -> None:
    write_run(tmp_path, "rl", 0, change={"slow": {"cap": 5.0}})
    with pytest.raises(ValueError, match=r"tiny-s0-000000: slow\.cap is now slow\.ratio_clip_max"):
        load([tmp_path])


def test_committed_runs_are_read_as_their_directories_are(tmp_path: Path) -> None:
    for method in ("base", "rl", "fst"):
        for seed in range(2):
            write_run(tmp_path, method, seed, tasks=("math", "hover"), length=160, probes=method == "fst")
    runs = load([tmp_path])
    for run in runs:
        (run.path / "env.json").write_text("{}")
    committed = tmp_path / "committed" / "several@1"
    collect([(f"{run.method}/{run.path.name}", run) for run in runs], committed, ["channels"])
    found = load([committed])
    assert [(run.method, run.seed) for run in found] == [(run.method, run.seed) for run in runs]
    assert spreadsheet(tables(found)) == spreadsheet(tables(runs))
    for one, other in zip(found, runs, strict=True):
        assert one.evals.equals(other.evals) and one.probe("channels").equals(other.probe("channels"))
        assert one.steps.to_dict("records") == other.steps.to_dict("records")
    assert [run.seed for run in load([committed / "rl"])] == [0, 1]
    with pytest.raises(ValueError, match=r"no finished run in .*gepa"):
        load([committed / "gepa"])


def test_runs_of_a_probe_are_no_runs_of_the_sweep(tmp_path: Path) -> None:
    path = write_run(tmp_path, "rl", 0)
    write_run(path / "probes" / "plasticity" / "hover", "rl", 0)
    assert [run.path for run in load([tmp_path])] == [path]


def repeat(run: Path, name: str) -> None:
    """Repeat the last row of a record file, as a second process does that works on the same run."""
    with (run / f"{name}.jsonl").open("r+") as f:
        f.write(f.readlines()[-1])


def change(run: Path) -> None:
    (run / "manifest.json").write_text(json.dumps({"evals.jsonl": "0" * 64}))


@pytest.mark.parametrize(
    ("disturb", "complaint"),
    [
        (lambda run: repeat(run, "events"), r"events\.jsonl row 121 is of step 120 at 960 of 960 problems"),
        (lambda run: repeat(run, "evals"), r"evals\.jsonl row 51 is out of order or there twice: step 120, math, seed"),
        (lambda run: lose_first(run), r"events\.jsonl row 1 is of step 2 at 16 of 960 problems"),
        (change, r"was changed since the run: evals\.jsonl$"),
    ],
    ids=["a step twice", "an evaluation twice", "a step lost", "changed"],
)
def test_a_run_that_two_processes_wrote_is_refused(tmp_path: Path, disturb: Any, complaint: str) -> None:
    run = write_run(tmp_path, "rl", 0)
    write_run(tmp_path, "fst", 0)
    disturb(run)
    readers: list[Callable[[], object]] = [
        lambda: load([tmp_path]),
        lambda: submit([run], "n", "o", "open", "", tmp_path / "s.zip"),
        lambda: write_report(run),
        lambda: collect([("a", Run(Store(run)))], tmp_path / "collected"),
    ]
    for reader in readers:
        with pytest.raises(ValueError, match=complaint) as raised:
            reader()
        assert str(run) in str(raised.value) and "\n" not in str(raised.value)
    assert not (tmp_path / "collected").exists()
    if disturb is not change:  # a collection has no files to hash, and rows all the same
        (run / "env.json").write_text("{}")
        unchecked = [("a", Run(Store(run)))]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("fst_bench.harness.collection.sound", lambda run: run)
            collect(unchecked, tmp_path / "collected")
        with pytest.raises(ValueError, match=complaint):
            load([tmp_path / "collected"])


def lose_first(run: Path) -> None:
    lines = (run / "events.jsonl").read_text().splitlines(keepends=True)
    (run / "events.jsonl").write_text("".join(lines[1:]))


def test_a_run_in_progress_has_a_page_whatever_its_rows(tmp_path: Path) -> None:
    run = write_run(tmp_path, "rl", 0)
    repeat(run, "events")
    (run / "manifest.json").unlink()
    assert write_report(run).exists()


def test_models_are_told_apart_by_content_and_not_by_place(tmp_path: Path) -> None:
    def made(method: str, folder: str, weights: str) -> Path:
        run = write_run(tmp_path, method, 0)
        saved = json.loads((run / "config.json").read_text())
        place = f"{folder}/base"
        saved |= {"model": place, "fingerprint": {"model": {"weights": weights}, "init": None}}
        saved["config"]["model"] = place
        (run / "config.json").write_text(json.dumps(saved))
        return run

    runs = [made("rl", "/home/a", "1"), made("fst", "/home/b", "1")]
    assert len(load(runs)) == 2
    with pytest.raises(ValueError, match=r"its /home/a/base is not that of \S+: another weights$"):
        load([*runs, made("gepa", "/home/a", "2")])


# --- curves over seeds, asymptotes and ratios, against shapes that are known


def test_a_curve_keeps_where_every_seed_was_evaluated(tmp_path: Path) -> None:
    for seed in range(3):  # stages of 160, 176 and 192 problems, evaluated every 80 and at their ends
        write_run(tmp_path, "rl", seed, tasks=("math", "hover"), length=160, every=80, noise=0)
    curve = curve_of(load([tmp_path]), "rl", "math")
    assert curve.seeds == [0, 1, 2] and curve.problems.tolist() == [0, 80, 160, 240, 320]
    assert curve.accuracy.shape == curve.kl.shape == (3, 5)
    assert curve.spent["tokens"][2].tolist() == [240.0 * x for x in curve.problems]
    assert curve.accuracy[0, 2] == pytest.approx(0.05 + 0.75 * 160**2 / (160**2 + 400**2))


def test_asymptotes_are_found(tmp_path: Path) -> None:
    for method in ("gepa", "fst"):
        for seed in range(5):
            write_run(tmp_path, method, seed)
    fits = asymptotes(load([tmp_path]))
    for method, fit in fits.items():
        assert fit is not None and fit.identifiable and pytest.approx(SHAPES[method][0], abs=0.03) == fit.A
        assert fit.low <= SHAPES[method][0] <= fit.high


def test_the_ratio_of_known_curves(tmp_path: Path) -> None:
    for method in ("base", "gepa", "rl", "fst"):
        for seed in range(4):
            write_run(tmp_path, method, seed, noise=0)
    runs = load([tmp_path])
    # rl is at .5 where .05 + .75 x^2 / (x^2 + 400^2) = .5: x = 489.9; fst where .8 x^2 / (x^2 + 150^2) = .45: 170.1
    ratios = efficiency_ratios(runs, "rl")
    found = ratios["fst"][0.5]
    assert found["problems"].bound == "exactly"
    assert found["problems"].estimate.value == pytest.approx(489.9 / 170.1, rel=0.02)
    assert found["rollouts"].estimate.value == pytest.approx(found["problems"].estimate.value * 8 / 10)
    assert found["tokens"].estimate.value == pytest.approx(found["rollouts"].estimate.value)
    assert "rl" not in ratios and efficiency_ratios(runs, "other") == {}
    assert ratios["gepa"][0.5]["problems"].bound == "at most" and ratios["fst"][0.9] == {}
    fewer = {table.title: table for table in tables(runs)}
    cells = {row.label: [str(cell) for cell in row.cells] for row in fewer["Times fewer problems"].rows}
    assert cells["fst"][1] == f"{found['problems'].estimate.value:.2f} ± 0.00" and cells["gepa"][1].startswith("<")
    assert cells["rl"] == ["–"] * 4 and cells["base"][2] == "–" and cells["fst"][3] == "–"
    assert "they are 40 problems apart" in fewer["Times fewer problems"].note
    assert [*fewer][-3:] == ["Times fewer problems", "Times fewer rollouts", "Times fewer tokens"]


def test_problems_looked_at_ahead_count(tmp_path: Path) -> None:
    for seed in range(2):
        write_run(tmp_path, "rl", seed, noise=0)
        write_run(tmp_path, "fst", seed, noise=0, fetch=200)
    ratio = efficiency_ratios(load([tmp_path]), "rl")["fst"][0.5]["problems"]
    # there at 170 problems, when 200 had been looked at
    assert ratio.estimate.value == pytest.approx(489.9 / 200, rel=0.02)
