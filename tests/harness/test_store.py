import json
from pathlib import Path

import pytest

from fst_bench.harness.store import Store


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
