import pytest

from fst_bench.metrics import difference, interaction


def test_the_interaction_by_hand() -> None:
    cells = {("base", "seed"): 0.1, ("trained", "seed"): 0.3, ("base", "evolved"): 0.4, ("trained", "evolved"): 0.9}
    assert interaction(cells) == pytest.approx(0.3)  # .9 - .1 - (.2 + .3)


def test_the_paired_difference_by_hand() -> None:
    # deltas 0, -1, 0, -1: mean -.5, variance 1/3, standard error sqrt(1/12)
    assert difference([1, 1, 0, 1], [1, 0, 0, 0]) == pytest.approx((-0.5, 0.288675), abs=1e-6)
    with pytest.raises(ValueError, match="2 and 3 documents"):
        difference([1, 0], [1, 0, 1])
