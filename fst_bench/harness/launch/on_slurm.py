"""A sweep by Slurm: each run a job, requeued where it is preempted, resumed from its last checkpoint then.

Jobs are submitted by submitit. Partition, account and time limit are those of sbatch's own environment variables
(SBATCH_PARTITION, SBATCH_ACCOUNT; SBATCH_TIMELIMIT in minutes, a day by default). Run directories lie where every node
sees them. Jobs outlive the process that began the sweep, and the same command joins those that are queued or running.
"""

import json
import os
import shutil
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fst_bench.harness.launch.job import LEFT, Job, Needs, State, Tell, bring_to_end

FOLDER = ".slurm"
"""Where submitit keeps its files, below the folder of all runs."""
LOOK = 1.0
"""Seconds between looks at the jobs."""
GRACE = 60
"""Seconds between Slurm's signal and the end of a job."""
REQUEUES = 1_000
"""Times that a job may meet its time limit, and is queued again."""
MISSING = "a sweep by Slurm requires the package submitit: pip install 'fst-bench[slurm]'"


@dataclass
class Work:
    """A run as a job: submitit calls it, and asks for a checkpoint before a preemption."""

    job: Job
    threads: int
    news: Path
    """File of its states, a JSON line each."""

    def __call__(self) -> str | None:
        return bring_to_end(self.job, os.environ | {"OMP_NUM_THREADS": str(self.threads)}, self.tell, 2 * GRACE)

    def checkpoint(self) -> Any:
        """Return what to submit in this job's place: the run resumes from its own last checkpoint."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)

    def tell(self, path: Path, state: State, why: str | None) -> None:
        with self.news.open("a") as f:
            f.write(json.dumps([state, why]) + "\n")


def on_slurm(jobs: Sequence[Job], needs: Needs, tell: Tell) -> dict[Path, str | None]:
    """See `Launch`."""
    try:
        import submitit
    except ImportError:
        raise ValueError(MISSING) from None
    if shutil.which("sbatch") is None:
        raise ValueError("no Slurm here: sbatch is not on the path")
    folder = jobs[0].path.parents[2] / FOLDER
    executor = submitit.SlurmExecutor(folder=folder / "%j", max_num_timeout=REQUEUES)
    executor.update_parameters(
        job_name="fst-bench",
        time=minutes(),
        cpus_per_task=needs.threads,
        gpus_per_node=1 if needs.gpu else None,
        signal_delay_s=GRACE,
        array_parallelism=needs.at_a_time or len(jobs),
    )
    works = [Work(job, needs.threads, news_of(folder, job)) for job in jobs]
    queued = in_queue()
    missing = [work for work in works if number_of(work.news) not in queued]
    for work in missing:
        work.news.parent.mkdir(parents=True, exist_ok=True)
        work.news.write_text("")
    if missing:
        with executor.batch():
            submitted = [executor.submit(work) for work in missing]
        for work, job in zip(missing, submitted, strict=True):
            work.news.with_suffix(".id").write_text(job.job_id)
    try:
        return follow(works, tell)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(LEFT) from None


def minutes() -> int:
    """Return the time limit of a job: what SBATCH_TIMELIMIT says, or a day."""
    text = os.environ.get("SBATCH_TIMELIMIT", "1440")
    if not text.isdecimal():
        raise ValueError(f"SBATCH_TIMELIMIT requires a number of minutes, got {text!r}")
    return int(text)


def news_of(folder: Path, job: Job) -> Path:
    """Return the file of a run's states."""
    return folder / "news" / ("-".join(job.path.parts[-3:]) + ".jsonl")


def number_of(news: Path) -> str | None:
    """Return the Slurm job of a run, if it was submitted."""
    path = news.with_suffix(".id")
    return path.read_text() if path.exists() else None


def in_queue() -> set[str]:
    """Return the jobs that are queued or running, as ARRAY_TASK or as a number."""
    listed = subprocess.run(["squeue", "-h", "-r", "-o", "%i"], capture_output=True, text=True, check=True)
    return set(listed.stdout.split())


def follow(works: Sequence[Work], tell: Tell) -> dict[Path, str | None]:
    """Return when every run has ended, or its job has left the queue without having said so."""
    ended: dict[Path, str | None] = {}
    seen = dict.fromkeys((work.job.path for work in works), 0)
    gone: set[Path] = set()
    while len(ended) < len(works):
        queued = in_queue()
        for work in works:
            path = work.job.path
            if path in ended:
                continue
            news = [json.loads(line) for line in work.news.read_text().splitlines()]
            for state, why in news[seen[path] :]:
                tell(path, state, why)
                if state in ("there", "done", "FAILED"):
                    ended[path] = why
            seen[path] = len(news)
            # seen twice: the last state may be written after the queue was read
            if path not in ended and number_of(work.news) not in queued:
                if path in gone:
                    ended[path] = (
                        f"Slurm job {number_of(work.news)} ended before the run: see {work.news.parent.parent}"
                    )
                    tell(path, "FAILED", ended[path])
                gone.add(path)
        time.sleep(LOOK)
    return {work.job.path: ended[work.job.path] for work in works}
