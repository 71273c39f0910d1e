"""Answers of reference code verified per second: a fresh process for each, in the way this machine holds them.

make benchmark
"""

import statistics
from typing import Any

import pytest

from fst_bench.tasks.sandbox import Sandbox, sandbox_kind

ANSWERS = 200
CODE = """
import re, math
from collections import Counter

def main_solution(words, limit):
    counts = Counter(w.lower() for w in words if re.fullmatch(r"[A-Za-z]+", w))
    return {"top": sorted(counts.items(), key=lambda c: (-c[1], c[0]))[:limit], "root": math.sqrt(sum(counts.values()))}
"""


@pytest.mark.parametrize("workers", [1, 2])
def test_answers_per_second(benchmark: Any, workers: int) -> None:
    box = Sandbox(workers=workers)
    calls = [
        (CODE, "main_solution", {"words": ["the", "The", "cat", "x1", str(i)] * 20, "limit": 2}) for i in range(ANSWERS)
    ]
    outcomes = benchmark.pedantic(box.map, args=(calls,), rounds=5, warmup_rounds=1)
    assert {o.status for o in outcomes} == {"ok"}
    benchmark.extra_info |= {
        "answers_per_second": ANSWERS / statistics.median(benchmark.stats.stats.data),
        "sandbox": sandbox_kind(),
    }
