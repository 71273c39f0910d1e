"""A sweep on a real Ray cluster of three nodes on loopback: one is killed in mid-sweep, and so is the driver."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fst_bench.harness.store import Store
from fst_bench.harness.sweep import State, SweepCallback, sweep

pytest.importorskip("ray")
from ray.cluster_utils import Cluster

LONG: dict[str, Any] = {"stage_problems": 48, "threads": 1, "checkpoint.every": 1}
NUMBERS = ("evals.jsonl", "metrics.json", "rollouts.jsonl")


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    monkeypatch.setenv("RAY_ADDRESS", cluster.address)
    try:
        yield cluster
    finally:
        cluster.shutdown()


class Killer(SweepCallback):
    """Kills a node when the first run on it has taken some steps."""

    def __init__(self, cluster: Cluster, node: Any):
        self.cluster, self.node, self.said = cluster, node, list[tuple[str, State]]()

    def on_state(self, path: Path, state: State, why: str | None = None) -> None:
        self.said.append((path.parent.name, state))
        if self.node and state == "run":
            wait_for_steps(path, 2)
            self.cluster.remove_node(self.node, allow_graceful=False)
            self.node = None


def wait_for_steps(path: Path, steps: int) -> None:
    deadline = time.monotonic() + 120
    while len(Store(path).rows("events")) < steps:
        assert time.monotonic() < deadline, f"{path} does not move"
        time.sleep(0.1)


def numbers(done: dict[Path, str | None]) -> dict[str, list[bytes]]:
    assert set(done.values()) == {None}
    return {f"{p.parent.name} {p.name}": [(p / name).read_bytes() for name in NUMBERS if (p / name).exists()] for p in done}


def test_a_lost_node_loses_nothing_and_rows_are_those_of_a_local_sweep(cluster: Cluster, tmp_path: Path) -> None:
    nodes = [cluster.add_node(num_cpus=1) for _ in range(3)]
    killer = Killer(cluster, nodes[0])
    arguments = ("single-math", ["base", "rl"], [0, 1])
    there = sweep(*arguments, tmp_path / "ray", "smoke", LONG, None, killer, (), "ray")
    assert killer.node is None
    here = sweep(*arguments, tmp_path / "local", "smoke", LONG)
    assert numbers(there) == numbers(here)


def test_a_driver_that_is_killed_or_left_is_joined_by_the_next(cluster: Cluster, tmp_path: Path) -> None:
    cluster.add_node(num_cpus=1)
    command = [sys.executable, "-m", "fst_bench", "sweep", "--stream", "single-math", "--methods", "rl"]
    command += ["--seeds", "0-1", "--preset", "smoke", "--on", "ray", "--out", str(tmp_path)]
    command += [part for key, value in LONG.items() for part in ("--set", f"{key}={value}")]
    for number, how in enumerate((signal.SIGINT, signal.SIGKILL)):
        driver = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        deadline = time.monotonic() + 120
        while not (begun := sorted(tmp_path.glob("*/rl/*/events.jsonl"))):
            assert time.monotonic() < deadline and driver.poll() is None
            time.sleep(0.1)
        os.kill(driver.pid, how)
        _, said = driver.communicate(timeout=60)
        if how == signal.SIGINT:
            assert driver.returncode == 130 and "the sweep goes on without this process" in said
        before = len(Store(begun[0].parent).rows("events"))
        if number == 0:  # nobody looks, and it goes on
            wait_for_steps(begun[0].parent, before + 2)
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "2 of 2 runs are finished" in done.stdout
    assert "resume" not in done.stdout  # no run was disturbed


def test_without_a_cluster_it_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(ValueError, match="no Ray cluster at this machine: ray start --head begins one"):
        sweep("single-math", ["base"], [0], tmp_path, "smoke", LONG, on="ray")
    with pytest.raises(ValueError, match="--on: unknown place 'rai'"):
        sweep("single-math", ["base"], [0], tmp_path, "smoke", LONG, on="rai")
