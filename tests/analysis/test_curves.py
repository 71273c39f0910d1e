"""Curves over seeds, asymptotes and ratios, against shapes that are known."""

from pathlib import Path

import pytest
from written import SHAPES, write_run

from fst_bench.analysis import load, tables
from fst_bench.analysis.curves import asymptotes, curve_of, peak_ratios
from fst_bench.metrics import Estimate


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
    # rl ends at .05 + .75 * 960^2 / (960^2 + 400^2) = .689
    # fst is there at x: .8 x^2 / (x^2 + 150^2) = .639, x = 299.2: first evaluated at 320
    ratios = peak_ratios(runs, "rl")
    problems, rollouts, tokens = ratios["fst"]
    assert problems is not None and problems.estimate == Estimate(3.0, 3.0, 3.0)
    assert rollouts is not None and tokens is not None
    assert rollouts.estimate.value == tokens.estimate.value == pytest.approx(3.0 * 8 / 10)
    assert "rl" not in ratios and peak_ratios(runs, "other") == {}
    gepa = ratios["gepa"][0]
    assert gepa is not None and gepa.censored and gepa.estimate.value == 1.0  # never there
    efficiency = tables(runs)[-1]
    cells = {row.label: [str(cell) for cell in row.cells] for row in efficiency.rows}
    assert cells["fst"][1] == "3.00 ± 0.00" and cells["gepa"][1] == "<1.00"
    assert cells["rl"][1:] == ["–"] * 3 and cells["base"][2] == "–"
    assert "Evaluations are 40 problems apart" in efficiency.note


def test_problems_looked_at_ahead_count(tmp_path: Path) -> None:
    for seed in range(2):
        write_run(tmp_path, "rl", seed, noise=0)
        write_run(tmp_path, "fst", seed, noise=0, fetch=200)
    ratio = peak_ratios(load([tmp_path]), "rl")["fst"][0]
    # there at 320 problems, when 400 were looked at
    assert ratio is not None and ratio.estimate.value == pytest.approx(960 / 400)
