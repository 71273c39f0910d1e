"""The table of runs, from run directories written by hand, against intervals worked out by hand."""

import json
import math
from pathlib import Path

import pytest

from fst_bench.compare import compare, interval, load


def write(folder: Path, method: str, seed: int, accuracy: float, stream: str = "s", kl: float = 0.1) -> None:
    stage = {"stage": 1, "task": "math", "within": accuracy - 0.1, "end": {"system": accuracy}, "kl": {"system": kl}}
    final = {"system": accuracy, "seed": accuracy / 2, "recalled": accuracy}
    path = folder / f"{stream}@1" / method / f"tiny-s{seed}"
    path.mkdir(parents=True)
    config = {"stream": stream, "stream_version": 1, "method": method, "preset": "tiny", "seed": seed, "model": "m"}
    ledger = {"rollouts": {"train": 100 * seed}, "seconds": {"sample": 2.0, "update": 1.0}}
    (path / "config.json").write_text(json.dumps(config))
    (path / "metrics.json").write_text(json.dumps({"stages": [stage], "final_average": final}))
    (path / "ledger.json").write_text(json.dumps(ledger))


def test_the_interval_by_hand() -> None:
    # mean 3, standard deviation sqrt(2.5), t(.975, 4) = 2.7764: 2.7764 * sqrt(2.5) / sqrt(5) = 1.9632
    assert interval([1.0, 2.0, 3.0, 4.0, 5.0]) == pytest.approx((3.0, 1.9632), abs=1e-4)
    assert interval([0.5])[0] == 0.5 and math.isnan(interval([0.5])[1])


def test_means_and_differences_paired_by_seed(tmp_path: Path) -> None:
    for seed, (rl, fst) in enumerate([(0.5, 0.7), (0.6, 0.81), (0.4, 0.59)]):
        write(tmp_path, "rl", seed, rl)
        write(tmp_path, "fst", seed, fst, kl=0.1 - 0.01 * seed)
    write(tmp_path, "fst", 9, 0.0)  # a seed that rl does not have counts in the mean, not in the difference
    lines = compare(load([tmp_path])).splitlines()
    assert lines[0].startswith("| method | seeds | 1 math | stages' ends | within stages | end, own prompt | end, weights only |")
    assert lines[2].startswith("| rl | 3 | 0.50 ± 0.25 | 0.50 ± 0.25 | 0.40 ± 0.25 |") and lines[2].endswith("| 100 | 3 |")
    assert lines[3].startswith("| fst | 4 |")
    # the differences .20 .21 .19: mean .20, standard deviation .01, t(.975, 2) = 4.3027: +- .0248
    assert lines[-1].startswith("| fst | 3 | **+0.20 ± 0.02** |")
    assert "| -0.010 ± 0.025 |" in lines[-1]  # an interval that holds zero is not bold


def test_what_does_not_belong_together_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "a", "rl", 0, 0.5)
    write(tmp_path / "b", "rl", 0, 0.5, stream="other")
    write(tmp_path / "c", "rl", 0, 0.6)
    with pytest.raises(ValueError, match="stream other@1, the others have stream s@1"):
        load([tmp_path / "a", tmp_path / "b"])
    with pytest.raises(ValueError, match="second run of rl with seed 0"):
        load([tmp_path / "a", tmp_path / "c"])
    with pytest.raises(ValueError, match="no finished run"):
        load([tmp_path / "d"])
