"""The lock is the code's own protocol, and a change can't pass as the old version."""

import copy
import json
from pathlib import Path

import pytest

from fst_bench.harness import protocol
from fst_bench.harness.collection import Collection
from fst_bench.harness.config import resolve
from fst_bench.harness.loop import run_parts
from fst_bench.harness.protocol import changes, check, current, freeze

RESULTS = Path(__file__).parents[2] / "results"


def test_the_code_runs_the_frozen_protocol() -> None:
    """When this fails, a published number would come out differently: undo the change, or freeze a new version."""
    assert [complaint for _, complaint in check() if complaint] == []


def test_published_runs_keep_their_ids() -> None:
    """By them a sweep knows which runs exist already."""
    published = Collection(RESULTS / "continual-4@2").runs()
    of_the_methods = [run for run in published if run.saved["preset"] == "tiny" and not run.saved["config"]["init"]]
    assert len(of_the_methods) >= 20
    for run in of_the_methods:
        parts = run_parts(*resolve("continual-4", run.method, "tiny", run.seed, {"threads": 1}))
        assert parts[1:] == run.path.parts[-2:]


def test_every_kind_of_change_is_seen() -> None:
    now = current()
    cases = [
        ("models", "embedded:tiny", "model.safetensors"),
        ("streams", "continual-4", "sha256"),
        ("problems", "tiny", "math"),
        ("settings", "tiny", "slow.ratio_clip_max"),
        ("settings", "tiny", "difficulty.hover.chains"),
        ("settings", "tiny-early", "policy.learning_rate"),
    ]
    for part, name, key in cases:
        changed = copy.deepcopy(now)
        changed[part][name][key] = "other"
        assert list(changes(now[part], changed[part])) == [f"{name}.{key} was {now[part][name][key]}, is other"]
    more = copy.deepcopy(now)
    more["settings"]["tiny"]["slow.new"] = 1
    assert not list(changes(now["settings"], more["settings"]))


def test_a_change_needs_a_new_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock = tmp_path / "protocol.json"
    monkeypatch.setattr(protocol, "LOCK", lock)
    freeze(1)
    freeze(1)  # nothing changed
    locked = json.loads(lock.read_text())
    locked["settings"]["tiny"]["slow.ratio_clip_max"] = 99
    lock.write_text(json.dumps(locked))
    with pytest.raises(ValueError, match=r"slow.ratio_clip_max was 99.*freeze it as version 2"):
        freeze(1)
    freeze(2)
    locked = json.loads(lock.read_text())
    locked["streams"]["paper-3"]["sha256"] = "older"
    lock.write_text(json.dumps(locked))
    with pytest.raises(ValueError, match="stream paper-3 changed: give it version"):
        freeze(3)
