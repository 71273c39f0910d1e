"""Two ranks without a launcher, as on two machines: a fault of one ends both, with a line that names it."""

import os
import re
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

PROGRAM = ["-m", "fst_bench"]
RUN = "run --stream single-math --method rl --preset smoke --backend vllm-deepspeed --set stage_problems=200".split()
HANGS = 500
"""Seconds; DeepSpeed's collectives would give up after 600."""


class Pair:
    """Rank 0 and rank 1 of one run; the output of each is in its log."""

    def __init__(
        self, folder: Path, program: list[str], arguments: dict[int, list[str]], before: dict[int, Callable[[], None]]
    ):
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = str(free.getsockname()[1])
        self.out, self.logs = folder / "runs", [folder / f"rank-{rank}.log" for rank in (0, 1)]
        place = {"WORLD_SIZE": "2", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        self.ranks = [
            subprocess.Popen(
                [sys.executable, *program, *RUN, "--out", str(self.out), *arguments.get(rank, [])],
                env=os.environ | place | {"OMP_NUM_THREADS": "1", "RANK": str(rank)},
                stdout=self.logs[rank].open("w"),
                stderr=subprocess.STDOUT,
                preexec_fn=before.get(rank),
            )
            for rank in (0, 1)
        ]

    def exit_codes(self) -> list[int]:
        """Wait for both to end."""
        return [rank.wait(HANGS) for rank in self.ranks]

    def output(self, rank: int) -> str:
        return self.logs[rank].read_text()


@contextmanager
def two_ranks(
    folder: Path,
    program: list[str] = PROGRAM,
    arguments: dict[int, list[str]] | None = None,
    before: dict[int, Callable[[], None]] | None = None,
) -> Iterator[Pair]:
    """Start the pair, and kill it in the end.

    `arguments` are a rank's additional ones; `before` is called in a rank's process before the program.
    """
    pair = Pair(folder, program, arguments or {}, before or {})
    try:
        yield pair
    finally:
        for rank in pair.ranks:
            rank.kill()
            rank.wait()


def test_a_rank_that_is_killed_ends_the_other(tmp_path: Path) -> None:
    with two_ranks(tmp_path) as pair:
        while not list(pair.out.rglob("step-000000/COMPLETE.json")):
            assert [rank.poll() for rank in pair.ranks] == [None, None], pair.output(0)
            time.sleep(0.1)
        pair.ranks[1].send_signal(signal.SIGKILL)
        assert pair.exit_codes() == [1, -signal.SIGKILL]
    assert "remote worker" in pair.output(0)  # gloo's words, in several sentences


def small_disk() -> None:
    """Limit the size of a file: the weights fit, a rank's share of the optimizer does not."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5_500_000, 5_500_000))


def test_rank_0_fails_in_the_middle_of_a_command(tmp_path: Path) -> None:
    """The other rank is in the same command and can't get another: it must not be waited for, and must not wait."""
    with two_ranks(tmp_path, before={0: small_disk}) as pair:
        assert pair.exit_codes() == [3, 1]
    (line,) = (line for line in pair.output(0).splitlines() if line.startswith("fst-bench:"))
    assert re.fullmatch(r"fst-bench: stopped: .*cannot write .*/checkpoints/step-\d+: .*", line)
    assert "remote worker" in pair.output(1)


@pytest.mark.parametrize(
    ("other", "difference"),
    [
        (["--set", "policy.learning_rate=1e-6"], "the policy's settings"),
        (["--model", "embedded:tiny-early"], "the model"),
    ],
)
def test_ranks_that_were_not_started_alike(tmp_path: Path, other: list[str], difference: str) -> None:
    with two_ranks(tmp_path, arguments={1: other}) as pair:
        assert pair.exit_codes() == [2, 2], pair.output(0)
    for rank in (0, 1):
        assert f"fst-bench: the ranks were not started alike: they differ in {difference}\n" in pair.output(rank)
    assert not pair.out.exists()


def test_machines_that_share_no_disk(tmp_path: Path) -> None:
    """The first checkpoint finds it; rank 1, idle for longer than its collectives wait, ends without an error."""
    with two_ranks(tmp_path, [str(Path(__file__).with_name("apart.py"))]) as pair:
        assert pair.exit_codes() == [3, 0], pair.output(0) + pair.output(1)
    (line,) = (line for line in pair.output(0).splitlines() if line.startswith("fst-bench:"))
    assert "holds the shares of 1 ranks of 2" in line and not list(pair.out.rglob("COMPLETE.json"))
    assert list(tmp_path.glob("another-disk/deepspeed/*rank_1*"))
