"""Two ranks without a launcher, as on two machines: what is wrong with one ends both, and says so."""

import os
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
RUN = [
    "run",
    "--stream",
    "single-math",
    "--method",
    "rl",
    "--preset",
    "smoke",
    "--backend",
    "vllm-deepspeed",
    "--set",
    "stage_problems=200",
]
HANGS = 500
"""Seconds; DeepSpeed's collectives would give up after 600."""


class Pair:
    """Rank 0 and rank 1 of one run; what each says is in its log."""

    def __init__(
        self, folder: Path, program: list[str], arguments: dict[int, list[str]], before: dict[int, Callable[[], None]]
    ):
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = str(free.getsockname()[1])
        self.out, self.logs = folder / "runs", [folder / f"rank-{rank}.log" for rank in (0, 1)]
        place = {
            "WORLD_SIZE": "2",
            "LOCAL_RANK": "0",
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": port,
            "OMP_NUM_THREADS": "1",
        }
        self.ranks = [
            subprocess.Popen(
                [sys.executable, *program, *RUN, "--out", str(self.out), *arguments.get(rank, [])], env=os.environ | place | {"RANK": str(rank)},
                stdout=self.logs[rank].open("w"), stderr=subprocess.STDOUT, preexec_fn=before.get(rank),
            )
            for rank in (0, 1)
        ]  # fmt: skip

    def ended(self) -> list[int]:
        """Both exit codes."""
        return [rank.wait(HANGS) for rank in self.ranks]

    def said(self, rank: int) -> str:
        return self.logs[rank].read_text()


@contextmanager
def two_ranks(
    folder: Path,
    program: list[str] = PROGRAM,
    arguments: dict[int, list[str]] | None = None,
    before: dict[int, Callable[[], None]] | None = None,
) -> Iterator[Pair]:
    """The pair; `arguments` are more of them for a rank, `before` is called in its process before the program."""
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
            assert [rank.poll() for rank in pair.ranks] == [None, None], pair.said(0)
            time.sleep(0.1)
        pair.ranks[1].send_signal(signal.SIGKILL)
        assert pair.ended() == [1, -signal.SIGKILL]
    assert "remote worker" in pair.said(0)  # gloo's words, in several sentences


def small_disk() -> None:
    """No file may be larger than this: the weights fit, a rank's share of the optimizer does not."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5_500_000, 5_500_000))


def test_rank_0_fails_in_the_middle_of_a_command(tmp_path: Path) -> None:
    """The other rank is in the same command and can't be told: it must not be waited for, and must not wait."""
    with two_ranks(tmp_path, before={0: small_disk}) as pair:
        assert pair.ended() == [1, 1]
    assert "save_checkpoint" in pair.said(0) and "remote worker" in pair.said(1)


@pytest.mark.parametrize(
    ("other", "told"),
    [
        (["--set", "policy.learning_rate=1e-6"], "the policy's settings"),
        (["--model", "embedded:tiny-early"], "the model"),
    ],
)
def test_ranks_that_were_not_started_alike(tmp_path: Path, other: list[str], told: str) -> None:
    with two_ranks(tmp_path, arguments={1: other}) as pair:
        assert pair.ended() == [2, 2], pair.said(0)
    for rank in (0, 1):
        assert f"fst-bench: the ranks were not started alike: they differ in {told}\n" in pair.said(rank)
    assert not pair.out.exists()


def test_machines_that_share_no_disk(tmp_path: Path) -> None:
    """The first checkpoint says it; rank 1 was idle for longer than its collectives wait, and is sent home in peace."""
    with two_ranks(tmp_path, [str(Path(__file__).with_name("apart.py"))]) as pair:
        assert pair.ended() == [3, 0], pair.said(0) + pair.said(1)
    (line,) = (line for line in pair.said(0).splitlines() if line.startswith("fst-bench:"))
    assert "holds the shares of 1 ranks of 2" in line and not list(pair.out.rglob("COMPLETE.json"))
    assert list(tmp_path.glob("another-disk/deepspeed/*rank_1*"))
