"""Numbers and learning curves given as arrays: nested lists or tuples, numpy, pandas or torch."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


def floats(values: ArrayLike, name: str) -> Floats:
    """Return numbers as an array. Raises ValueError, which names them, where they are ragged or no numbers."""
    try:
        return np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} are no array of numbers: {str(error)[:100]}") from None


def listed(values: ArrayLike, name: str) -> list[float]:
    """Return numbers (n,) as a list. Raises ValueError for another shape, or none."""
    found = floats(values, name)
    if found.ndim != 1 or not len(found):
        raise ValueError(f"{name} are (n,) with n at least 1, got {found.shape}")
    return found.tolist()


def checked(samples: ArrayLike, accuracy: ArrayLike, at_least: int = 1) -> tuple[Floats, Floats]:
    """Return samples (points,) and accuracies (points,) or (seeds, points) as arrays.

    Raises ValueError that says which point is wrong.
    """
    x, y = floats(samples, "samples"), floats(accuracy, "accuracies")
    if x.ndim != 1 or y.ndim not in (1, 2) or y.shape[-1] != len(x):
        raise ValueError(
            f"samples are (points,) and accuracies (points,) or (seeds, points), got {x.shape} and {y.shape}"
        )
    if len(x) < at_least:
        raise ValueError(f"a curve needs at least {at_least} points here, got {len(x)}")
    for name, values in (("sample count", x), ("accuracy", y)):
        bad = np.argwhere(~np.isfinite(values))
        if len(bad):
            raise ValueError(f"{name} {tuple(map(int, bad[0]))} is {values[tuple(bad[0])]}")
    if (x < 0).any():
        raise ValueError(f"a sample count is negative: {x.min():g}")
    if (np.diff(x) <= 0).any():
        at = int(np.argmax(np.diff(x) <= 0))
        raise ValueError(f"sample counts must increase: {x[at]:g} is followed by {x[at + 1]:g}")
    return x, y
