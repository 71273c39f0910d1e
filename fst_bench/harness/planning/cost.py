"""What a run would spend at most, and whether it fits, before it is started."""

from dataclasses import asdict
from typing import Any

from fst_bench.harness.config import Config
from fst_bench.harness.planning import fit
from fst_bench.method.settings import EMBEDDED_REFLECTORS, FastSettings, MethodConfig
from fst_bench.tasks.data import PROCEDURAL
from fst_bench.tasks.stream import Stream, StreamSpec, schedule


def estimate(config: Config, spec: StreamSpec) -> dict[str, Any]:
    """Upper bounds, from the configuration alone: rollouts that learn, rollouts that evaluate, tokens sampled, and what reflection takes."""
    stages = schedule(spec, config.seed, config.stage_problems)
    total = stages[-1].end
    steps = -(-total // config.batch)
    method = config.method_class()
    own = MethodConfig(config.seed_prompt, config.slow, config.fast, method.Settings.model_validate(config.settings))
    for_problem, for_round = method.most_rollouts(own, config.batch)
    train, evolve = total * for_problem, -(-steps // config.fast.cycle) * for_round
    e, tasks = config.evaluation, len({task for stage in stages for task in stage.tasks})
    points = total // e.interval
    small = points * tasks * e.small * len(e.small_modes)
    boundary = tasks * e.boundary * ((len(stages) + 1) * len(e.boundary_modes))
    evaluation = (small + boundary) * e.samples
    return {
        "problems": total,
        "steps": steps,
        "training_rollouts": train,
        "evolution_rollouts": evolve,
        "evaluation_rollouts": evaluation,
        "sampled_tokens": (train + evolve + evaluation) * config.policy.max_tokens,
    } | (reflection(config.fast, total, config.batch) if method.evolves else {})


def needs(config: Config, spec: StreamSpec, hardware: fit.Hardware, cost: dict[str, Any]) -> dict[str, Any]:
    """GB of memory on each GPU by what fills it, GB of checkpoints on disk, and hours, for what `estimate` counted.

    `refused` says why the hardware is too small, or is None; `fitting` lists what would do.
    """
    shape = fit.shape_of(config.model)
    memory, refused = fit.memory(config, shape, hardware), fit.fits(config, shape, hardware)
    learned, evaluated = cost["training_rollouts"], cost["evaluation_rollouts"]
    times = fit.seconds(
        config,
        shape,
        hardware,
        prompt_tokens(config, spec),
        learned + cost["evolution_rollouts"] + evaluated,
        learned,
        evaluated,
    )
    parts = {name: value for name, value in asdict(memory).items() if name != "standing"}  # which is counted in others
    stay = len(spec.stages) * spec.cycles if config.checkpoint.stages else 0
    return {
        "model": config.model, "parameters": shape.parameters, "hardware": str(hardware),
        "memory_gb": {name: round(value / fit.GIB, 2) for name, value in parts.items()},
        "peak_gb": round(memory.peak / fit.GIB, 2),
        "usable_gb": round(fit.room(hardware) / fit.GIB, 2),
        "checkpoints_gb": round((config.checkpoint.keep + stay) * fit.checkpoint_bytes(config, shape) / fit.GIB, 2),
        "hours": {name: round(value / 3600, 3) for name, value in times.items()},
        "refused": refused, "fitting": fit.alternatives(config, shape, hardware) if refused else [],
    }  # fmt: skip


def prompt_tokens(config: Config, spec: StreamSpec) -> int:
    """Of the streams' problems with a context, about: three characters a token. Rows of a data set are not read for it."""
    if config.data != PROCEDURAL:
        return fit.PROMPT
    stream = Stream(spec, config.seed, config.difficulty, config.stage_problems)
    mean = sum(len(stream.problem(stage.start).prompt) for stage in stream.stages) / len(stream.stages)
    return int((mean + len(config.seed_prompt)) / 3) + 1


def reflection(fast: FastSettings, total: int, batch: int) -> dict[str, Any]:
    """Reflections at most, and of a remote reflector its replies' tokens and price if every request were retried and every reply as long as
    it may be. Prompts are not in the price: they are as long as problems and answers are. A ceiling holds for all."""
    cycle = fast.cycle * batch
    found: dict[str, Any] = {
        "reflections": sum(calls(fast, min(cycle, total - first)) for first in range(0, total, cycle))
    }
    if fast.reflector not in EMBEDDED_REFLECTORS:
        from fst_bench.fast.remote import price_of  # not before it is needed: LiteLLM is large

        asked, price = fast.reflection, price_of(fast.reflector, fast.reflection)
        found["reflection_reply_tokens"] = found["reflections"] * (1 + asked.retries) * asked.max_tokens
        if price:
            found["reflection_reply_usd"] = round(price.of(0, found["reflection_reply_tokens"]), 2)
        found |= {
            f"reflection_{name}": value
            for name in ("ceiling_usd", "ceiling_tokens")
            if (value := getattr(asked, name)) is not None
        }
    return found


def calls(fast: FastSettings, lookahead: int) -> int:
    """Reflections of one round at most. An iteration of gepa samples each proposal's parent on a minibatch of its own, as far as there are
    that many; reflections that fail are asked for once more."""
    anchor = min(fast.valset_size, lookahead)
    rest = lookahead - anchor if lookahead - anchor >= fast.reflection_minibatch_size else lookahead
    sampled = fast.reflection_minibatch_size * min(fast.proposals, -(-rest // fast.reflection_minibatch_size))
    return 2 * fast.proposals * -(-(fast.max_metric_calls - anchor) // sampled)
