"""Statistics of probes."""

import math
from collections.abc import Sequence


def interaction(cells: dict[tuple[str, str], float]) -> float:
    """Return the accuracy that both channels add together beyond the sum of each alone.

    `cells` are accuracies by (weights, prompt): base or trained, seed or evolved.
    """
    slow = cells["trained", "seed"] - cells["base", "seed"]
    fast = cells["base", "evolved"] - cells["base", "seed"]
    return cells["trained", "evolved"] - cells["base", "seed"] - slow - fast


def difference(before: Sequence[float], after: Sequence[float]) -> tuple[float, float]:
    """Return the mean of after - before and its standard error, paired by document.

    Raises ValueError for unlike numbers of documents, or fewer than two.
    """
    if len(before) != len(after) or len(before) < 2:
        raise ValueError(f"paired scores of {len(before)} and {len(after)} documents")
    deltas = [b - a for a, b in zip(before, after, strict=True)]
    mean = sum(deltas) / len(deltas)
    variance = sum((d - mean) ** 2 for d in deltas) / (len(deltas) - 1)
    return mean, math.sqrt(variance / len(deltas))
