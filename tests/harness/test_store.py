import errno
import fcntl
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from fst_bench.core.errors import Taken, Unwritable
from fst_bench.harness import store as store_module
from fst_bench.harness.store import Store
from fst_bench.policy.torch.backend import TorchPolicy


def save(store: Store, step: int, keep: int = 2) -> None:
    store.checkpoint(step, {"n": step}, lambda folder: (folder / "weights").write_bytes(bytes(100)) and None, keep)


def test_a_torn_last_line_is_left_out(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.append("events", [{"a": 1}, {"a": "\u00e9\ud800"}])
    with store.file("events").open("ab") as f:
        f.write(b'{"a": 3, "b')
    assert next(row["a"] for row in store.rows("events")) == 1 and len(store.rows("events")) == 2


def test_rewind_cuts_records_back_to_the_checkpoint(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.append("events", [{"step": 1}])
    save(store, 1)
    store.append("events", [{"step": 2}])
    store.append("evals", [{"step": 2}])
    _folder, state = store.latest() or (None, {})
    assert state["step"] == state["n"] == 1
    store.rewind(state["records"])
    assert store.rows("events") == [{"step": 1}] and store.rows("evals") == []
    store.file("events").write_text("")
    with pytest.raises(ValueError, match="shorter"):
        store.rewind(state["records"])


def test_checkpoints_are_kept_and_dropped(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for step in (2, 4, 6, 10):
        save(store, step)
    assert [p.name for p in store.checkpoints()] == ["step-000006", "step-000010"]
    for step in (11, 12, 13):
        store.checkpoint(step, {}, lambda folder: None, 1, stay=[6, 12])
    assert [p.name for p in store.checkpoints()] == ["step-000006", "step-000012", "step-000013"]
    assert store.at(12).name == "step-000012"
    with pytest.raises(ValueError, match="no checkpoint of step 11: there are 6, 12, 13"):
        store.at(11)


def test_an_unfinished_checkpoint_does_not_count(tmp_path: Path) -> None:
    store = Store(tmp_path)
    save(store, 2)

    def killed(folder: Path) -> None:
        (folder / "weights").write_bytes(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.checkpoint(4, {}, killed, 2)
    assert store.latest() and store.latest()[1]["step"] == 2
    save(store, 4)
    assert store.latest()[1]["step"] == 4


@pytest.mark.parametrize("damage", ["truncate", "remove", "marker"])
def test_a_damaged_checkpoint_is_one_clear_line(tmp_path: Path, damage: str) -> None:
    store = Store(tmp_path)
    save(store, 2)
    save(store, 4)
    folder = store.checkpoints()[-1]
    if damage == "truncate":
        (folder / "weights").write_bytes(bytes(50))
    elif damage == "remove":
        (folder / "weights").unlink()
    else:
        (folder / "COMPLETE.json").write_text("{")
    before = sorted(p for p in tmp_path.rglob("*"))
    with pytest.raises(ValueError, match="step-000004 is damaged"):
        store.latest()
    assert sorted(p for p in tmp_path.rglob("*")) == before


def test_two_runs_of_one_command_lie_side_by_side(tmp_path: Path) -> None:
    parts = ("s@1", "fst", "tiny-s0")
    assert [Store.create(tmp_path, parts).path.name for _ in range(3)] == ["tiny-s0", "tiny-s0-2", "tiny-s0-3"]


def test_an_unwritable_place_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="cannot write"):
        Store.create(tmp_path / "file", ("s", "m", "r"))


def test_the_manifest_notices_a_change(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.append("evals", [{"accuracy": 0.5}])
    store.write("metrics", {"a": 1})
    store.seal()
    assert store.broken() == []
    store.file("evals").write_text(json.dumps({"accuracy": 0.9}) + "\n")
    assert store.broken() == ["evals.jsonl"]


def test_the_manifest_leaves_out_its_own_folders_only(tmp_path: Path) -> None:
    """A run may lie below a folder of such a name."""
    store = Store.create(tmp_path / "wandb" / "checkpoints", ("s@1", "m", "r"))
    kept = ("metrics.json", "probes/drift.jsonl")
    for name in (*kept, "checkpoints/step-000001/state.json", "tensorboard/events", "wandb/latest/log"):
        (store.path / name).parent.mkdir(parents=True, exist_ok=True)
        (store.path / name).write_text("{}")
    store.seal()
    assert tuple(store.read("manifest")) == kept


def test_what_is_missing_is_one_line(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with pytest.raises(ValueError, match=r"is not a run: config\.json: No such file"):
        store.read("config")
    with pytest.raises(ValueError, match=r"is not a finished run: metrics\.json: No such file"):
        store.read("metrics")
    store.write("config", [])
    with pytest.raises(ValueError, match=r"config\.json does not hold a mapping"):
        store.read("config")
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config\.json: not JSON"):
        store.read("config")


def test_a_directory_has_one_owner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "PATIENCE", 0.1)
    store, other = Store(tmp_path / "run"), Store(tmp_path / "run")
    assert other.holder() is None  # there is no directory yet
    with store.held():
        owner = f"process {os.getpid()} on {socket.gethostname()}"
        assert other.holder() == owner
        with pytest.raises(Taken, match=f"run is in use by {owner}: wait until that has ended$"), other.held():
            pass
        refused: list[Exception] = []

        def resume_in_a_thread() -> None:
            try:
                with Store(tmp_path / "run").held():
                    pass
            except Taken as error:
                refused.append(error)

        thread = threading.Thread(target=resume_in_a_thread)
        thread.start()
        thread.join()
        assert len(refused) == 1
    assert other.holder() is None and (store.path / "lock").read_text() == ""
    with other.held():
        store.seal()
        assert store.read("manifest") == {}


def test_a_look_at_the_owner_refuses_nobody(tmp_path: Path) -> None:
    store = Store(tmp_path)
    (tmp_path / "lock").write_text("")
    with (tmp_path / "lock").open("rb") as looking:
        fcntl.flock(looking, fcntl.LOCK_SH)
        timer = threading.Timer(0.2, fcntl.flock, (looking, fcntl.LOCK_UN))
        timer.start()
        with store.held():
            assert store.holder()
        timer.join()


def test_a_lock_dies_with_its_process(tmp_path: Path) -> None:
    program = "import sys; from pathlib import Path; from fst_bench.harness.store import Store\n"
    program += "with Store(Path(sys.argv[1])).held(): print('held', flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", program, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout and process.stdout.readline() == "held\n"
        assert Store(tmp_path).holder() == f"process {process.pid} on {socket.gethostname()}"
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert Store(tmp_path).holder() is None
    with Store(tmp_path).held():
        pass


def test_a_full_disk_is_one_line_and_leaves_nothing_half(tmp_path: Path) -> None:
    """`/dev/full` takes no byte, as a disk without room."""
    store = Store(tmp_path)
    save(store, 1)
    before = sorted(tmp_path.rglob("*"))

    def overflow(folder: Path) -> None:
        (folder / "weights").symlink_to("/dev/full")
        (folder / "weights").write_bytes(bytes(100))

    line = r"cannot write \S+step-000002: No space left on device: at least 0\.\d kB needed, \S+ [kMG]B free$"
    with pytest.raises(Unwritable, match=line):
        store.checkpoint(2, {}, overflow, 2)
    assert sorted(tmp_path.rglob("*")) == before and store.latest()
    store.file("events").symlink_to("/dev/full")
    line = r"cannot write \S+events\.jsonl: No space left on device: at least 1\.0 kB needed"
    with pytest.raises(Unwritable, match=line):
        store.append("events", [{"text": "x" * 1000}])


def test_a_write_that_was_cut_off_is_in_no_manifest(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.write("metrics", {})
    (tmp_path / "manifest.json.tmp").write_text("{")
    (tmp_path / "report.tmp").write_text("<html>")
    store.seal()
    assert list(store.read("manifest")) == ["metrics.json"] and store.broken() == []


def test_a_policy_that_cannot_be_saved_says_why(tmp_path: Path, policy: TorchPolicy) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(OSError) as raised:
            policy.save(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert raised.value.errno == errno.EFBIG and raised.value.strerror == "File too large"
