"""A sweep on a Ray cluster: each run a task with its cores and its GPU, tried again where its node is lost.

The tasks belong to an actor that outlives the process which began the sweep. So that process may end, and the same
command joins the sweep again. Run directories lie where every node sees them, and every node has fst-bench installed.
"""

import asyncio
import hashlib
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fst_bench.harness.launch.job import LEFT, Job, Needs, State, Tell, bring_to_end

NAMESPACE = "fst-bench"
TRIES = 20
"""Times that a run is tried again after its node or its worker was lost."""
LOOK = 0.5
"""Seconds between looks at the sweep."""
MISSING = "a sweep on Ray requires the package ray: pip install 'fst-bench[ray]'"

News = tuple[Path, State, str | None]


def on_ray(jobs: Sequence[Job], needs: Needs, tell: Tell, address: str | None = None) -> dict[Path, str | None]:
    """See `Launch`. `address` is that of the cluster; None: the one that this machine is a node of."""
    try:
        import ray
    except ImportError:
        raise ValueError(MISSING) from None
    try:
        ray.init(address or "auto", namespace=NAMESPACE, log_to_driver=False, configure_logging=False)
    except ConnectionError:
        raise ValueError(f"no Ray cluster at {address or 'this machine'}: ray start --head begins one") from None
    try:
        return follow(ray, jobs, needs, tell)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(LEFT) from None
    finally:
        ray.shutdown()


def follow(ray: Any, jobs: Sequence[Job], needs: Needs, tell: Tell) -> dict[Path, str | None]:
    """Begin a sweep, or join it where it is in progress, and return when all of its runs have ended."""
    name = hashlib.sha256("\n".join(sorted(str(job.path) for job in jobs)).encode()).hexdigest()[:16]
    options = {"name": name, "lifetime": "detached", "get_if_exists": True, "max_restarts": -1, "max_task_retries": -1}
    sweep = ray.remote(Sweep).options(num_cpus=0, **options).remote(list(jobs), needs)
    born, seen = None, 0
    ended: dict[Path, str | None] = {}
    while len(ended) < len(jobs):
        since, news = ray.get(sweep.news.remote(born, seen))
        if since != born:
            born, seen = since, 0
        seen += len(news)
        for path, state, why in news:
            tell(path, state, why)
            if state in ("there", "done", "FAILED"):
                ended[path] = why
        time.sleep(LOOK)
    ray.kill(sweep)
    return {job.path: ended[job.path] for job in jobs}


class Sweep:
    """The actor that owns a sweep's tasks. Restarted on another node after its own was lost, it begins them again."""

    def __init__(self, jobs: list[Job], needs: Needs):
        import ray

        self.born, self.log = time.time(), list[News]()
        me = ray.get_runtime_context().current_actor
        task = ray.remote(run).options(num_cpus=needs.threads, num_gpus=int(needs.gpu), max_retries=TRIES)
        self.room = asyncio.Semaphore(needs.at_a_time or len(jobs))
        self.tasks = [asyncio.ensure_future(self.one(task, job, needs.threads, me)) for job in jobs]

    async def one(self, task: Any, job: Job, threads: int, me: Any) -> None:
        async with self.room:
            try:
                await task.remote(job, threads, me)
            except Exception as error:  # of any kind: the other runs continue
                why = (str(error).strip().splitlines() or [type(error).__name__])[-1]
                self.log.append((job.path, "FAILED", f"Ray: {why}"))

    async def tell(self, path: Path, state: State, why: str | None) -> None:
        self.log.append((path, state, why))

    async def news(self, born: float | None, seen: int) -> tuple[float, list[News]]:
        """Return when this actor was born, and the news after the first `seen` of that actor's."""
        return self.born, self.log[seen if born == self.born else 0 :]


def run(job: Job, threads: int, sweep: Any) -> None:
    """Bring a run to its end, as a task on some node."""
    import ray

    def tell(path: Path, state: State, why: str | None) -> None:
        ray.get(sweep.tell.remote(path, state, why))

    bring_to_end(job, os.environ | {"OMP_NUM_THREADS": str(threads)}, tell)
