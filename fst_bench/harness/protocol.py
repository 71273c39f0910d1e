"""The frozen protocol: whatever published numbers depend on, in protocol.json, so that it cannot change unnoticed.

    fst-bench validate protocol                       # does this code still run the frozen protocol?
    python -m fst_bench.harness.protocol --version 2  # freeze again; refused where a part changed without its version

Locked are the embedded models' files, every shipped stream of shipped tasks with its version, each task's problems at
the presets' difficulties and those of the streams' variants (generators and verifiers are code: their output is
hashed), and every setting that a preset resolves to. A setting that is added later is not a change, as long as the
locked ones keep their values. The tasks of a package are recorded by each run, in its `code`.
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
from fst_bench.tasks.stream import load_spec, of_package, stream_files

LOCK = Path(str(resources.files("fst_bench.harness").joinpath("protocol.json")))
PRESETS = ["tiny", "tiny-early"]
"""The presets that numbers are published for."""
PROBLEMS = 100
"""Problems of each split that a task's hash covers."""
JUDGED = 10
"""The first of them, whose wrong answers are verified for the hash."""
RUN = ("stream", "method", "preset", "seed")
"""Settings that each run chooses itself."""


def current() -> dict[str, Any]:
    """Return the protocol as this code would run it now."""
    presets = {name: load_preset(name) for name in PRESETS}
    return {
        "models": {name: files_of(name) for name in sorted({preset["model"] for preset in presets.values()})},
        "streams": {
            name: {
                "version": load_spec(name).version,
                "sha256": digest(load_spec(name).model_dump(exclude={"description"})),
            }
            for name in streams()
        },
        "problems": {name: problems_under(preset["difficulty"]) for name, preset in presets.items()},
        "settings": {name: settings_of(name) for name in PRESETS},
    }


def streams() -> list[str]:
    """Return the shipped streams whose tasks ship too."""
    return [name for name in stream_files() if not of_package(name)]


def files_of(model: str) -> dict[str, str]:
    """Return the hashes of an embedded model's weights, tokenizer and template; its card may be reworded."""
    assert model.startswith(EMBEDDED)
    folder = Path(model_folder(model))
    names = ("model.safetensors", "config.json", "tokenizer.json", "chat_template.jinja")
    return {name: sha256(folder / name) for name in names}


def problems_under(difficulty: dict[str, dict[str, Any]]) -> dict[str, str]:
    """Return hashes of each task's problems at a preset's difficulty, and of the variants that shipped streams have."""
    variants = {key: variant for name in streams() for key, variant in load_spec(name).variants.items()}
    found = {task: problems_of(task, parameters) for task, parameters in difficulty.items()}
    return found | {key: problems_of(v.task, difficulty.get(v.task, {}) | v.difficulty) for key, v in variants.items()}


def problems_of(name: str, parameters: dict[str, Any]) -> str:
    """Return one hash over a task's first problems and what verifier and tool reply to wrong answers.

    It covers both splits, with and without the format stated.
    """
    made: list[Any] = []
    for given in (False, True):
        task = load_task(name, **(parameters | {"format_given": given}))
        for split in ("train", "test"):
            problems = task.problems(split, 0, PROBLEMS)
            wrong = [(p, text) for p in problems[:JUDGED] for text in task.wrong_texts(p)]
            scores = [task.verify(p, text) for p, text in wrong]
            replies = [task.at(p).respond(p, [text]) for p, text in wrong]
            made += [(p.id, p.prompt, p.answer) for p in problems]
            made += [(score.reward, score.feedback) for score in scores]
            made += [reply for reply in replies if reply is not None]
    return digest(made)


def settings_of(preset: str) -> dict[str, Any]:
    """Return every setting by its dotted name, and those that the preset sets for one method only."""
    config, _ = resolve("continual-4", "base", preset)
    settings = {key: value for key, value in config.model_dump(mode="json").items() if key not in RUN}
    return dict(flat(settings | {"methods": load_preset(preset).get("methods", {})}))


def flat(values: dict[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Yield each value of nested mappings by its dotted name. An empty mapping is a value."""
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from flat(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value


def digest(value: Any) -> str:
    """Return the sha256 of a JSON value, in hexadecimal."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def changes(locked: dict[str, Any], now: dict[str, Any]) -> Iterator[str]:
    """Describe each locked value that changed or is gone. An addition is not a change."""
    before, after = dict(flat(locked)), dict(flat(now))
    for key, value in before.items():
        if key != "version" and after.get(key) != value:
            yield f"{key} was {value}, is {after[key]}" if key in after else f"{key} is gone"


def check(name: str | None = None) -> Iterator[tuple[str, str | None]]:
    """Yield each part, or the named one, with None or what changed in it. Raises ValueError for an unknown part."""
    locked, now = json.loads(LOCK.read_text()), current()
    if name and name not in now:
        raise ValueError(unknown("part of the protocol", name, now))
    for part in [name] if name else now:
        found = list(changes(locked[part], now[part]))
        yield f"protocol {locked['version']}: {part}", "; ".join(found) or None


def freeze(version: int) -> None:
    """Write the lock. Raises ValueError where a part changed that keeps an old version."""
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
