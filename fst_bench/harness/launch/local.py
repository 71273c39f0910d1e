"""A sweep on this machine: a pool of processes. Runs on the CPU share its cores; a run on a GPU has it to itself."""

import os
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from fst_bench.harness.launch.job import Job, Needs, Tell, bring_to_end
from fst_bench.policy.settings import NO_GPU


def local(jobs: Sequence[Job], needs: Needs, tell: Tell) -> dict[Path, str | None]:
    """See `Launch`. Raises ValueError where no GPU is visible, or fewer than are to be used at a time."""
    free = deque(environments(needs))  # a run takes one for itself and gives it back

    def one(job: Job) -> str | None:
        environment = free.popleft()  # never empty: the pool has as many threads as there are environments
        try:
            return bring_to_end(job, environment, tell)
        finally:
            free.append(environment)

    with ThreadPoolExecutor(len(free)) as pool:
        return dict(zip((job.path for job in jobs), pool.map(one, jobs), strict=True))


def environments(needs: Needs) -> list[dict[str, str]]:
    """Return the environment of each run that may be in progress at a time."""
    shared = os.environ | {"OMP_NUM_THREADS": str(needs.threads)}
    if not needs.gpu:
        return [shared] * (needs.at_a_time or max(1, (os.cpu_count() or 1) // needs.threads))
    gpus = gpus_here()
    if not gpus:
        raise ValueError(NO_GPU)
    if needs.at_a_time and needs.at_a_time > len(gpus):
        raise ValueError(f"--jobs can be at most {len(gpus)} here, one for each GPU, got {needs.at_a_time}")
    return [shared | {"CUDA_VISIBLE_DEVICES": gpu} for gpu in gpus[: needs.at_a_time]]


def gpus_here() -> list[str]:
    """Return each GPU as CUDA_VISIBLE_DEVICES names it: its entries where it is set, else the numbers torch counts."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        import torch  # here, so that a sweep on CPUs does without torch

        return [str(number) for number in range(torch.cuda.device_count())]
    entries = (entry.strip() for entry in visible.split(","))
    return list(dict.fromkeys(entry for entry in entries if entry not in ("", "-1")))  # -1 is a way to write none
