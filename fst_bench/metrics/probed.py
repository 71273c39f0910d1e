"""Statistics of probes."""

import math
from collections.abc import Mapping

from numpy.typing import ArrayLike

from fst_bench.metrics.curve import listed


def interaction(cells: Mapping[tuple[str, str], float]) -> float:
    """Return the accuracy that both channels add together beyond the sum of each alone.

    `cells` are accuracies by (weights, prompt): base or trained, seed or evolved.
    """
    slow = cells["trained", "seed"] - cells["base", "seed"]
    fast = cells["base", "evolved"] - cells["base", "seed"]
    return cells["trained", "evolved"] - cells["base", "seed"] - slow - fast


def difference(before: ArrayLike, after: ArrayLike) -> tuple[float, float]:
    """Return the mean of after - before and its standard error, paired by document.

    Raises ValueError for unlike numbers of documents, or fewer than two.
    """
    before, after = listed(before, "scores before"), listed(after, "scores after")
    if len(before) != len(after) or len(before) < 2:
        raise ValueError(f"paired scores of {len(before)} and {len(after)} documents")
    deltas = [b - a for a, b in zip(before, after, strict=True)]
    mean = sum(deltas) / len(deltas)
    variance = sum((d - mean) ** 2 for d in deltas) / (len(deltas) - 1)
    return mean, math.sqrt(variance / len(deltas))
