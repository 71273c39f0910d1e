"""Where the runs of a sweep are made: on this machine, on a Ray cluster, or by Slurm. One launcher a file.

local                 a pool of processes
ray, ray://ADDRESS    the cluster that this machine is a node of, or the one at an address
slurm                 a job a run
"""

from functools import partial

from fst_bench.core.errors import unknown
from fst_bench.harness.launch.job import Job, Launch, Needs, State
from fst_bench.harness.launch.local import local
from fst_bench.harness.launch.on_ray import on_ray
from fst_bench.harness.launch.on_slurm import on_slurm

__all__ = ["Job", "Launch", "Needs", "State", "launch_of"]
PLACES = ("local", "ray", "ray://ADDRESS", "slurm")


def launch_of(on: str) -> Launch:
    """Return the launcher of a name. Raises ValueError that lists them where it is unknown."""
    match on.split("://"):
        case ["local"]:
            return local
        case ["ray"]:
            return on_ray
        case ["slurm"]:
            return on_slurm
        case ["ray", _]:
            return partial(on_ray, address=on)
        case _:
            raise ValueError(f"--on: {unknown('place', on, PLACES)}")
