import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fst_bench.metrics import Ratio, Reached, efficiency_ratio, samples_to_threshold

X = [0, 100, 200, 300, 400, 500]


@pytest.mark.parametrize(
    ("accuracy", "hold", "expected"),
    [
        ([0.1, 0.2, 0.5, 0.6, 0.7, 0.8], 2, Reached(200.0, 100.0)),  # at the threshold counts
        ([0.1, 0.6, 0.2, 0.6, 0.7, 0.8], 2, Reached(300.0, 200.0)),  # the lone peak at 100 is not held
        ([0.1, 0.6, 0.2, 0.6, 0.7, 0.8], 1, Reached(100.0, 0.0)),
        ([0.1, 0.6, 0.6, 0.2, 0.7, 0.8], 3, Reached(None, 500.0)),
        ([0.1, 0.2, 0.3, 0.4, 0.4, 0.9], 2, Reached(None, 500.0)),  # one evaluation at the end is no run of two
        ([0.6, 0.7, 0.3, 0.4, 0.4, 0.4], 2, Reached(0.0, 0.0)),  # had it before learning
        ([0.1, 0.2, 0.3, 0.4, 0.5, 0.5], 2, Reached(400.0, 300.0)),
    ],
)
def test_the_first_run_that_holds(accuracy: list[float], hold: int, expected: Reached) -> None:
    assert samples_to_threshold(X, accuracy, 0.5, hold) == expected


def test_it_is_shown_with_its_censoring() -> None:
    assert (str(Reached(1200.0, 1000.0)), str(Reached(None, 5040.0))) == ("1,200", ">5,040")


@given(st.lists(st.floats(0, 1), min_size=3, max_size=12), st.floats(0, 1), st.integers(1, 3))
def test_a_higher_threshold_or_longer_hold_never_comes_sooner(
    accuracy: list[float], threshold: float, hold: int
) -> None:
    x = list(range(len(accuracy)))

    def when(t: float, h: int) -> float:
        reached = samples_to_threshold(x, accuracy, t, h).samples
        return math.inf if reached is None else reached

    assert when(threshold, hold) <= when(min(1.0, threshold + 0.1), hold)
    assert when(threshold, hold) <= when(threshold, hold + 1)
    at = when(threshold, hold)
    if at < math.inf:
        assert all(a >= threshold for a in accuracy[int(at) : int(at) + hold])


def test_ratios_keep_what_censoring_leaves() -> None:
    assert efficiency_ratio(Reached(1200.0, 1100.0), Reached(400.0, 300.0)) == Ratio(3.0, "exactly")
    assert efficiency_ratio(Reached(None, 1200.0), Reached(400.0, 300.0)) == Ratio(3.0, "at least")
    assert efficiency_ratio(Reached(600.0, 500.0), Reached(None, 1200.0)) == Ratio(0.5, "at most")
    assert efficiency_ratio(Reached(None, 1200.0), Reached(None, 1200.0)) == Ratio(None, "unknown")
    with pytest.raises(ValueError, match="other curve has no samples"):
        efficiency_ratio(Reached(600.0, 500.0), Reached(0.0, 0.0))


@pytest.mark.parametrize(
    ("samples", "accuracy", "complaint"),
    [
        ([0, 1], [0.1, math.nan], r"accuracy \(1,\) is nan"),
        ([0, 2, 2], [0.1, 0.2, 0.3], "2 is followed by 2"),
        ([0, 1], [0.1], r"got \(2,\) and \(1,\)"),
        ([-1, 1], [0.1, 0.2], "negative: -1"),
        ([], [], "at least 1 points"),
    ],
)
def test_what_is_no_curve_is_refused(samples: list, accuracy: list, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        samples_to_threshold(samples, accuracy, 0.5)
