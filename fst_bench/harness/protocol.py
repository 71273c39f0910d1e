"""The frozen protocol: what published numbers stand on, in protocol.json, so that it can't change unnoticed.

    fst-bench validate protocol                   # does this code still run the frozen protocol?
    python -m fst_bench.harness.protocol --version 2      # freeze anew; refused where something changed and its version did not

Locked are the embedded models' files, every shipped stream with its version, each task's problems at the presets'
difficulties and those of the streams' variants (generators and verifiers are code: their output is what is hashed), and every setting that a preset resolves to.
A setting that is added later is no change, as long as the locked ones keep their values.
"""

import argparse
import hashlib
import json
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

from fst_bench.core.errors import unknown
from fst_bench.harness.config import load_preset, resolve
from fst_bench.harness.store import sha256, write_atomic
from fst_bench.policy.models import EMBEDDED, model_folder
from fst_bench.tasks import load_task
from fst_bench.tasks.stream import load_spec, stream_files

LOCK = Path(str(resources.files("fst_bench.harness").joinpath("protocol.json")))
PRESETS = ["tiny", "tiny-early"]
"""The presets that numbers are published for."""
PROBLEMS, JUDGED = 100, 10
RUN = ("stream", "method", "preset", "seed")
"""What a run chooses itself."""


def current() -> dict[str, Any]:
    """The protocol as this code would run it now."""
    presets = {name: load_preset(name) for name in PRESETS}
    return {
        "models": {name: files_of(name) for name in sorted({preset["model"] for preset in presets.values()})},
        "streams": {
            name: {
                "version": load_spec(name).version,
                "sha256": digest(load_spec(name).model_dump(exclude={"description"})),
            }
            for name in stream_files()
        },
        "problems": {name: problems_under(preset["difficulty"]) for name, preset in presets.items()},
        "settings": {name: settings_of(name) for name in PRESETS},
    }


def files_of(model: str) -> dict[str, str]:
    """Weights, tokenizer and template of an embedded model; its card may be reworded."""
    folder = Path(model_folder(model))
    assert model.startswith(EMBEDDED)
    return {
        name: sha256(folder / name)
        for name in ("model.safetensors", "config.json", "tokenizer.json", "chat_template.jinja")
    }


def problems_under(difficulty: dict[str, dict[str, Any]]) -> dict[str, str]:
    """Hashes of each task's problems at a preset's difficulty, and of the variants of tasks that shipped streams have."""
    variants = {key: variant for name in stream_files() for key, variant in load_spec(name).variants.items()}
    found = {task: problems_of(task, knobs) for task, knobs in difficulty.items()}
    return found | {key: problems_of(v.task, difficulty.get(v.task, {}) | v.difficulty) for key, v in variants.items()}


def problems_of(name: str, knobs: dict[str, Any]) -> str:
    """One hash over the first problems of both splits, with and without the format stated, and what verifier and tool say to wrong answers."""
    made: list[Any] = []
    for given in (False, True):
        task = load_task(name, **(knobs | {"format_given": given}))
        for split in ("train", "test"):
            problems = task.problems(split, 0, PROBLEMS)
            made += [(p.id, p.prompt, p.answer) for p in problems]
            made += [
                (task.verify(p, text).reward, task.verify(p, text).feedback)
                for p in problems[:JUDGED]
                for text in task.wrong_texts(p)
            ]
            made += [
                reply
                for p in problems[:JUDGED]
                for text in task.wrong_texts(p)
                if (reply := task.respond(p, [text])) is not None
            ]
    return digest(made)


def settings_of(preset: str) -> dict[str, Any]:
    """Every setting by its dotted name, and what the preset sets for one method only."""
    config, _ = resolve("continual-4", "base", preset)
    own = {"methods": load_preset(preset).get("methods", {})}
    return dict(flat({key: value for key, value in config.model_dump(mode="json").items() if key not in RUN} | own))


def flat(values: dict[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from flat(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value


def digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def changes(locked: dict[str, Any], now: dict[str, Any]) -> Iterator[str]:
    """What was locked and is no longer so, in words. What is new is no change."""
    before, after = dict(flat(locked)), dict(flat(now))
    for key, value in before.items():
        if key != "version" and after.get(key) != value:
            yield f"{key} was {value}, is {after[key]}" if key in after else f"{key} is gone"


def check(name: str | None = None) -> Iterator[tuple[str, str | None]]:
    """(part, None or what changed) for one part or all. ValueError for a part that isn't locked."""
    locked, now = json.loads(LOCK.read_text()), current()
    if name and name not in now:
        raise ValueError(unknown("part of the protocol", name, now))
    for part in [name] if name else now:
        found = list(changes(locked[part], now[part]))
        yield f"protocol {locked['version']}: {part}", "; ".join(found) or None


def freeze(version: int) -> None:
    """Write the lock. ValueError where what changed keeps an old version."""
    now = current()
    if LOCK.exists():
        locked = json.loads(LOCK.read_text())
        for name, stream in locked["streams"].items():
            new = now["streams"].get(name)
            if new and new["sha256"] != stream["sha256"] and new["version"] <= stream["version"]:
                raise ValueError(f"stream {name} changed: give it version {stream['version'] + 1}")
        found = [change for part in now for change in changes(locked[part], now[part])]
        if found and version <= locked["version"]:
            raise ValueError(f"the protocol changed ({found[0]}): freeze it as version {locked['version'] + 1}")
    write_atomic(LOCK, json.dumps({"version": version} | now, indent=1) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--version", type=int, required=True)
    try:
        freeze(parser.parse_args().version)
    except ValueError as error:
        parser.error(str(error))
