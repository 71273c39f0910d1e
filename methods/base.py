"""base: no learning. The model answers every problem under the seed prompt."""

from typing import Any

from fst_bench.method import Method, ProblemHandle


class Base(Method):
    """The floor that every method is measured from."""

    name = "base"

    def step(self, batch: list[ProblemHandle]) -> dict[str, Any]:
        return {}
