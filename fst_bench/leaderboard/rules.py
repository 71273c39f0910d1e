"""What a submission may change, and what it may spend.

Both divisions answer the same questions: a shipped stream, its problems, batches, seed prompt and evaluations as the
preset has them. The closed division also fixes what a comparison of methods has to hold still: the base model, its
start, how a problem is put to it, how long an answer may be and what ends it, the reflector, the seeds, and a budget,
which is what `fst` with the preset's settings may spend at most. How a method learns is free in both.
"""

import re
from collections.abc import Iterator
from functools import cache
from typing import Any

from fst_bench.harness.config import Config, preset_files, resolve
from fst_bench.harness.planning.cost import estimate
from fst_bench.harness.protocol import flat
from fst_bench.method.registry import METHODS
from fst_bench.tasks.stream import StreamSpec, load_spec, stream_files

SEEDS = [0, 1, 2, 3, 4]
"""Seeds that an entry needs to be ranked, in both divisions; the closed one has no others."""
ASKED = ("batch", "stage_problems", "seed_prompt", "difficulty", "evaluation", "data")
"""Settings that both divisions hold still."""
ANSWERED = ("max_tokens", "thinking", "template", "wording", "stop")
"""Settings of the policy that say how a problem is put to the model and how its answer ends."""
CLOSED = ("model", "init", *(f"policy.{name}" for name in ANSWERED), "fast.reflector", "fast.reflection")
"""Settings that the closed division holds still as well."""
COMMIT = re.compile(r"[0-9a-f]{7,40}")


def expected(spec: StreamSpec, preset: str) -> Config:
    """Return what the preset sets on a shipped stream.

    Raises ValueError where either is not shipped, or where the stream has another version than this code's.
    """
    if spec.name not in stream_files():
        raise ValueError(f"stream {spec.name} is not shipped: the board has shipped streams only")
    shipped = load_spec(spec.name)
    if spec.version != shipped.version:
        raise ValueError(f"stream {spec.name}@{spec.version}: this fst-bench has version {shipped.version}")
    if spec.model_dump(exclude={"description"}) != shipped.model_dump(exclude={"description"}):
        raise ValueError(f"stream {spec.name}@{spec.version} is not as it is shipped")
    if preset not in preset_files():
        raise ValueError(f"preset {preset} is not shipped")
    return resolve(spec.name, "base", preset)[0]


def settings_of(config: Config, spec: StreamSpec) -> dict[str, Any]:
    """Return the settings that are not at the preset's value, as JSON values by their dotted names.

    For a method that ships it is the preset's value for that method.
    """
    method = config.method if config.method in METHODS else "base"
    usual = dict(flat(resolve(spec.name, method, config.preset)[0].model_dump(mode="json")))
    chosen = {"stream", "method", "preset", "seed", "code"}
    return {
        key: value
        for key, value in flat(config.model_dump(mode="json"))
        if key.partition(".")[0] not in chosen and usual.get(key) != value
    }


def command(config: Config, spec: StreamSpec) -> str:
    """Return what runs all seeds again; a method that does not ship is named by its file in the submission."""
    method = config.method if f"methods/{config.method}" not in config.code else f"{config.method}.py"
    changed = "".join(f" --set {key}={value}" for key, value in settings_of(config, spec).items() if value is not None)
    return f"fst-bench sweep --stream {spec.name} --methods {method} --preset {config.preset} --seeds 0-4{changed}"


@cache
def budget(stream: str, preset: str, seed: int) -> tuple[int, int]:
    """Return (rollouts, reflections) of the closed division: what fst may spend on the stream with the preset."""
    cost = estimate(*resolve(stream, "fst", preset, seed))
    return cost["training_rollouts"] + cost["evolution_rollouts"], cost["reflections"]


def broken(
    division: str, config: Config, spec: StreamSpec, env: dict[str, Any], ledger: dict[str, Any]
) -> Iterator[str]:
    """Yield every rule of the division that a run breaks, in words."""
    preset, own = expected(spec, config.preset).model_dump(mode="json"), config.model_dump(mode="json")
    for values in (preset, own):  # of tasks that the stream does not hold, nothing is asked
        values["difficulty"] = {task: level for task, level in values["difficulty"].items() if task in spec.tasks}
    for name in (*ASKED, *(CLOSED if division == "closed" else ())):
        theirs, ours = nested(preset, name), nested(own, name)
        if theirs != ours:
            usual = dict(flat({name: theirs}))
            key = next((key for key, value in flat({name: ours}) if usual.get(key) != value), name)
            yield f"{key} is {nested(own, key)}, preset {config.preset} has {nested(preset, key)}"
    if division == "open":
        return
    if config.seed not in SEEDS:
        yield f"seed {config.seed}: the closed division has seeds 0-4"
    if not COMMIT.fullmatch(str(env.get("code", ""))):
        yield f"the code was {env.get('code')}: the closed division requires a commit without changes"
    rollouts, reflections = budget(spec.name, config.preset, config.seed)
    if (spent := sum(ledger["rollouts"].values())) > rollouts:
        yield f"{spent:,} rollouts, the budget is {rollouts:,}"
    if ledger["reflections"] > reflections:
        yield f"{ledger['reflections']:,} reflections, the budget is {reflections:,}"


def nested(values: Any, dotted: str) -> Any:
    """Return the value of a dotted name; None where it does not exist."""
    for part in dotted.split("."):
        values = values.get(part) if isinstance(values, dict) else None
    return values
