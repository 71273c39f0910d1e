"""A sweep by a real Slurm of one node on this machine, from Debian's packages; a job is requeued in mid-run."""

import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fst_bench.harness.store import Store
from fst_bench.harness.sweep import State, SweepCallback, sweep

pytest.importorskip("submitit")
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
    slurm: Path, tmp_path: Path
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
    # a finished sweep submits nothing that has to run
    observer.states.clear()
    assert (
        sweep("single-math", ["rl"], [0], tmp_path / "slurm-runs", "smoke", settings, None, observer, (), "slurm")
        == there
    )
    assert observer.states == ["there"]


def test_without_slurm_it_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ValueError, match="no Slurm here: sbatch is not on the path"):
        sweep("single-math", ["base"], [0], tmp_path, "smoke", {"stage_problems": 8}, on="slurm")
