"""Sweeps on a real Ray cluster and by a real Slurm, with a node, a driver and a job that are lost in between."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ray.cluster_utils import Cluster

from fst_bench.harness.store import Store
from fst_bench.harness.sweep import State, SweepCallback, sweep

# --- A sweep on a real Ray cluster of three nodes on loopback: one is killed in mid-sweep, and so is the driver


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
    return {
        f"{p.parent.name} {p.name}": [(p / name).read_bytes() for name in NUMBERS if (p / name).exists()] for p in done
    }


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
            assert driver.returncode == 130 and "the sweep continues without this process" in said
        before = len(Store(begun[0].parent).rows("events"))
        if number == 0:  # it continues without a driver
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


# --- A sweep by a real Slurm of one node on this machine, from Debian's packages; a job is requeued in mid-run


DAEMONS = [
    shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin") for name in ("munged", "slurmctld", "slurmd")
]
needs_slurm = pytest.mark.skipif(
    None in DAEMONS or os.geteuid() != 0, reason="no slurmctld, slurmd and munge, or not root"
)
CONFIGURATION = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}
SlurmdSpoolDir={folder}
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
ReturnToService=2
JobRequeue=1
KillWait=5
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    munged, slurmctld, slurmd = map(str, DAEMONS)
    folder = tmp_path / "slurm"
    folder.mkdir(mode=0o755)
    key = folder / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o400)
    files = {"key-file": key, "socket": folder / "munge.socket", "pid-file": folder / "munge.pid"}
    files |= {"log-file": folder / "munge.log", "seed-file": folder / "munge.seed"}
    subprocess.run([munged, "--force", *(f"--{name}={path}" for name, path in files.items())], check=True)
    configuration = folder / "slurm.conf"
    host = socket.gethostname().partition(".")[0]
    ports = free_port(), free_port()
    configuration.write_text(CONFIGURATION.format(host=host, folder=folder, ports=ports, cpus=os.cpu_count()))
    monkeypatch.setenv("SLURM_CONF", str(configuration))
    daemons = [
        subprocess.Popen([name, "-D"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for name in (slurmctld, slurmd)
    ]
    try:
        deadline = time.monotonic() + 60
        while (
            "idle"
            not in subprocess.run(["sinfo", "-h", "-o", "%T"], capture_output=True, text=True, check=False).stdout
        ):
            assert time.monotonic() < deadline, "Slurm's node does not come up"
            time.sleep(0.5)
        yield folder
    finally:
        subprocess.run(["scancel", "-u", "root"], check=False)
        for daemon in daemons[::-1]:
            daemon.terminate()
            daemon.wait()
        os.kill(int((folder / "munge.pid").read_text()), 15)


class Requeue(SweepCallback):
    """Requeues the first job that has taken some steps, and lets it begin at once."""

    def __init__(self) -> None:
        self.states: list[State] = []

    def on_state(self, path: Path, state: State, why: str | None = None) -> None:
        self.states.append(state)
        if self.states == ["run"]:
            while len(Store(path).rows("events")) < 3:
                time.sleep(0.1)
            (job,) = subprocess.run(
                ["squeue", "-h", "-o", "%A"], capture_output=True, text=True, check=True
            ).stdout.split()
            subprocess.run(["scontrol", "requeue", job], check=True)
            threading.Thread(target=self.hurry, args=(job,), daemon=True).start()

    def hurry(self, job: str) -> None:
        """Slurm lets a requeued job wait for two minutes."""
        for _ in range(30):
            time.sleep(1)
            subprocess.run(["scontrol", "update", f"JobId={job}", "StartTime=now"], check=False, capture_output=True)


@needs_slurm
def test_a_job_that_is_requeued_in_mid_run_resumes_and_its_rows_are_those_of_a_local_sweep(
    slurm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"stage_problems": 48, "threads": 1, "checkpoint.every": 1}
    observer = Requeue()
    there = sweep("single-math", ["rl"], [0], tmp_path / "slurm-runs", "smoke", settings, None, observer, (), "slurm")
    here = sweep("single-math", ["rl"], [0], tmp_path / "local", "smoke", settings)
    assert observer.states == ["run", "resume", "done"]
    (a,), (b,) = there, here
    assert [there[a], here[b]] == [None, None]
    for name in ("evals.jsonl", "metrics.json", "rollouts.jsonl"):
        assert (a / name).read_bytes() == (b / name).read_bytes()
    # what is finished is not submitted again, and needs no Slurm
    observer.states.clear()
    with monkeypatch.context() as without:
        without.setenv("PATH", "")
        again = sweep(
            "single-math", ["rl"], [0], tmp_path / "slurm-runs", "smoke", settings, None, observer, (), "slurm"
        )
    assert again == there
    assert observer.states == ["there"]


def test_without_slurm_it_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ValueError, match="no Slurm here: sbatch is not on the path"):
        sweep("single-math", ["base"], [0], tmp_path, "smoke", {"stage_problems": 8}, on="slurm")
