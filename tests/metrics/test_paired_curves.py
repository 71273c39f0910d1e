"""Peak ratios and KL at matched accuracy, worked by hand on curves of a few points."""

import numpy as np
import pytest

from fst_bench.metrics import Curve, matched_kl, ratios_to_peak
from fst_bench.metrics.paired_curves import ratios_of_means, seed_rows


def steps(accuracy: list[list[float]], rollouts: float) -> Curve:
    y = np.array(accuracy)
    x = np.arange(y.shape[1]) * 10.0
    every = np.tile(x, (len(y), 1))
    return Curve("m", list(range(len(y))), x, {"problems": every, "rollouts": rollouts * every}, y, y.copy())


def test_the_ratio_by_hand() -> None:
    rl = steps([[0.0, 0.1, 0.2, 0.3, 0.5, 0.4], [0.0, 0.1, 0.2, 0.3, 0.3, 0.4]], rollouts=8)
    fst = steps([[0.0, 0.3, 0.6, 0.6, 0.6, 0.6], [0.0, 0.1, 0.2, 0.2, 0.2, 0.2]], rollouts=16)
    # rl's mean is .4 at its highest, first at 40; fst's mean is .4 first at 20: half the problems, the same rollouts
    ratios = ratios_of_means(fst, rl, [0, 1])
    assert ratios["problems"] == (2.0, False) and ratios["rollouts"] == (1.0, False)
    assert np.isnan(ratios["tokens"][0])  # tokens were not recorded
    # with the second seed alone fst never gets to .4: rl is there at 50, fst not at 50 either
    assert ratios_of_means(fst, rl, [1, 1])["problems"] == (1.0, True)
    problems, rollouts, tokens = ratios_to_peak(fst, rl)
    assert problems is not None and not problems.censored
    assert problems.estimate.low == 0.0 and problems.estimate.high >= 2.0
    assert rollouts is not None and rollouts.estimate.value == 1.0 and tokens is None
    assert ratios_to_peak(steps([[0.5, 0.5]], 1), steps([[0.1, 0.4]], 1)) == [None] * 3  # there before learning


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


def test_only_the_seeds_of_both_are_paired() -> None:
    rl = steps([[0.0, 0.2], [0.0, 0.4], [0.0, 0.6]], rollouts=8)
    fst = Curve("fst", [2, 7, 0], rl.problems, rl.spent, rl.accuracy[::-1], rl.kl)
    ours, theirs = seed_rows(fst, rl)
    assert ours.seeds == theirs.seeds == [2, 0]
    assert ours.accuracy[:, 1].tolist() == [0.6, 0.2] and theirs.accuracy[:, 1].tolist() == [0.6, 0.2]
    assert ratios_to_peak(fst.rows([]), rl.rows([])) == [None] * 3
