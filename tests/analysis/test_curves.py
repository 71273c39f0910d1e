"""Curves over seeds, asymptotes and ratios, against shapes that are known."""

from pathlib import Path

import numpy as np
import pytest
from written import SHAPES, write_run

from fst_bench.analysis import load, tables
from fst_bench.analysis.curves import (
    Curve,
    asymptotes,
    curve_of,
    matched_kl,
    peak_ratios,
    ratios_of_means,
    ratios_to_peak,
)


def test_a_curve_keeps_where_every_seed_was_evaluated(tmp_path: Path) -> None:
    for seed in range(3):  # stages of 160, 176 and 192 problems, evaluated every 80 and at their ends
        write_run(tmp_path, "rl", seed, tasks=("math", "hover"), length=160, every=80, noise=0)
    curve = curve_of(load([tmp_path]), "rl", "math")
    assert curve.seeds == [0, 1, 2] and curve.problems.tolist() == [0, 80, 160, 240, 320]
    assert curve.accuracy.shape == curve.kl.shape == (3, 5) and curve.spent["tokens"][2].tolist() == [
        240.0 * x for x in curve.problems
    ]
    assert curve.accuracy[0, 2] == pytest.approx(0.05 + 0.75 * 160**2 / (160**2 + 400**2))


def test_asymptotes_are_found(tmp_path: Path) -> None:
    for method in ("gepa", "fst"):
        for seed in range(5):
            write_run(tmp_path, method, seed)
    fits = asymptotes(load([tmp_path]))
    for method, fit in fits.items():
        assert fit is not None and fit.identifiable and pytest.approx(SHAPES[method][0], abs=0.03) == fit.A
        assert fit.low <= SHAPES[method][0] <= fit.high


def steps(accuracy: list[list[float]], rollouts: float) -> Curve:
    y = np.array(accuracy)
    x = np.arange(y.shape[1]) * 10.0
    return Curve(
        "m",
        list(range(len(y))),
        x,
        {"problems": np.tile(x, (len(y), 1)), "rollouts": rollouts * np.tile(x, (len(y), 1))},
        y,
        y.copy(),
    )


def test_the_ratio_by_hand() -> None:
    rl = steps([[0.0, 0.1, 0.2, 0.3, 0.5, 0.4], [0.0, 0.1, 0.2, 0.3, 0.3, 0.4]], rollouts=8)
    fst = steps([[0.0, 0.3, 0.6, 0.6, 0.6, 0.6], [0.0, 0.1, 0.2, 0.2, 0.2, 0.2]], rollouts=16)
    # rl's mean is .4 at its highest, first at 40; fst's mean is .4 first at 20: half the problems, the same rollouts
    ratios = ratios_of_means(fst, rl, [0, 1])
    assert (
        ratios["problems"] == (2.0, False) and ratios["rollouts"] == (1.0, False) and np.isnan(ratios["tokens"][0])
    )  # tokens were not recorded
    # with the second seed alone fst never gets to .4: rl is there at 50, fst not at 50 either
    assert ratios_of_means(fst, rl, [1, 1])["problems"] == (1.0, True)
    problems, rollouts, tokens = ratios_to_peak(fst, rl)
    assert problems is not None and not problems.censored and problems.low == 0.0 and problems.high >= 2.0
    assert rollouts is not None and rollouts.value == 1.0 and tokens is None
    assert ratios_to_peak(steps([[0.5, 0.5]], 1), steps([[0.1, 0.4]], 1)) == [None] * 3  # there before learning


def test_the_ratio_of_known_curves(tmp_path: Path) -> None:
    for method in ("base", "gepa", "rl", "fst"):
        for seed in range(4):
            write_run(tmp_path, method, seed, noise=0)
    runs = load([tmp_path])
    # rl ends at .05 + .75 * 960^2 / (960^2 + 400^2) = .689; fst is there at x: .8 x^2 / (x^2 + 150^2) = .639, x = 299.2: first evaluated at 320
    ratios = peak_ratios(runs, "rl")
    problems, rollouts, tokens = ratios["fst"]
    assert problems is not None and (problems.value, problems.low, problems.high) == (3.0, 3.0, 3.0)
    assert rollouts is not None and tokens is not None and rollouts.value == tokens.value == pytest.approx(3.0 * 8 / 10)
    assert "rl" not in ratios and peak_ratios(runs, "other") == {}
    gepa = ratios["gepa"][0]
    assert gepa is not None and gepa.censored and gepa.value == 1.0  # never there
    efficiency = tables(runs)[-1]
    cells = {row.label: [str(cell) for cell in row.cells] for row in efficiency.rows}
    assert (
        cells["fst"][1] == "3.00 ± 0.00"
        and cells["gepa"][1] == "<1.00"
        and cells["rl"][1:] == ["–"] * 3
        and cells["base"][2] == "–"
    )
    assert "Evaluations are 40 problems apart" in efficiency.note


def test_problems_looked_at_ahead_count(tmp_path: Path) -> None:
    for seed in range(2):
        write_run(tmp_path, "rl", seed, noise=0)
        write_run(tmp_path, "fst", seed, noise=0, fetch=200)
    ratio = peak_ratios(load([tmp_path]), "rl")["fst"][0]
    assert ratio is not None and ratio.value == pytest.approx(
        960 / 400
    )  # there at 320 problems, when 400 were looked at


def test_kl_at_matched_accuracy_by_hand() -> None:
    rl = steps([[0.0, 0.2, 0.4, 0.5]] * 2, rollouts=8)  # the KL of these made-up curves is their accuracy
    fst = steps([[0.0, 0.3, 0.6, 0.9]] * 2, rollouts=8)
    fst.kl[:] = fst.accuracy / 10
    # matched at .5, rl's highest: rl is there with .5, fst first at .6 with .06
    lower = matched_kl(fst, rl)
    assert (lower.value, lower.low, lower.high) == pytest.approx((1 - 0.06 / 0.5,) * 3)
    assert matched_kl(rl, fst).value == pytest.approx(1 - 0.5 / 0.06)
    fst.kl[:] = 0
    assert np.isnan(matched_kl(rl, fst).value)
