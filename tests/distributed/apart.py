"""`fst_bench`, as on machines that share no disk, with a rank 0 that is slow between two commands.

Rank 1's part of a checkpoint is written to a folder of its own, and a collective on the ranks' common group that it
waits in between commands would fail after two seconds.
"""

import os
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch.distributed as dist
from torch.distributed.distributed_c10d import _set_pg_timeout

from fst_bench.cli import main
from fst_bench.harness.loop import Bench
from fst_bench.policy.distributed.learner import Learner
from fst_bench.policy.distributed.policy import Ranked

save, broadcast, checkpoint = Learner.save, Ranked.broadcast, Bench._checkpoint


def saved_elsewhere(self: Learner, folder: Path) -> None:
    save(self, folder if self.rank == 0 else folder.parents[5] / "another-disk")


def impatient_broadcast(self: Ranked, command: Any = None) -> Any:
    _set_pg_timeout(timedelta(seconds=2), dist.group.WORLD)
    received = broadcast(self, command)
    _set_pg_timeout(timedelta(minutes=10), dist.group.WORLD)
    return received


def slow_checkpoint(self: Bench, *arguments: Any) -> None:
    time.sleep(5)
    checkpoint(self, *arguments)


Learner.save, Bench._checkpoint = saved_elsewhere, slow_checkpoint
if os.environ["RANK"] == "1":
    Ranked.broadcast = impatient_broadcast
sys.exit(main())
