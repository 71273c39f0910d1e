"""The most that a run would spend, and the hardware it requires, before it is started."""

import math
from dataclasses import asdict
from typing import Any

from fst_bench.harness.config import Config, Hardware
from fst_bench.harness.planning.fit import alternatives, fits, seconds
from fst_bench.harness.planning.memory import GIB, PROMPT, checkpoint_bytes, memory_of, room, shape_of
from fst_bench.harness.rows import PromptMode
from fst_bench.method.settings import EMBEDDED_REFLECTORS, FastSettings, MethodConfig
from fst_bench.tasks.data import PROCEDURAL
from fst_bench.tasks.stream import Stream, StreamSpec, schedule


def estimate(config: Config, spec: StreamSpec) -> dict[str, Any]:
    """Return upper bounds, from the configuration alone.

    They are the rollouts of learning and of evaluation, the sampled tokens, and what reflection takes.
    """
    stages = schedule(spec, config.seed, config.stage_problems)
    total = stages[-1].end
    steps = math.ceil(total / config.batch)
    method = config.method_class()
    own = MethodConfig(config.seed_prompt, config.slow, config.fast, method.Settings.model_validate(config.settings))
    for_problem, for_round = method.most_rollouts(own, config.batch)
    train = total * for_problem
    evolve = math.ceil(steps / config.fast.cycle) * for_round
    evaluation, tasks = config.evaluation, len({task for stage in stages for task in stage.tasks})
    # modes share their answers where no prompt evolves, see `fst_bench.harness.evaluate.answers`

    def each(modes: list[PromptMode]) -> int:
        """Return the answers to a problem in one evaluation."""
        sampled = [mode for mode in modes if mode != "greedy"]
        return (len(sampled) if method.evolves else 1) * evaluation.samples + len(modes) - len(sampled)

    small = (total // evaluation.interval) * tasks * evaluation.small * each(evaluation.small_modes)
    boundary = (len(stages) + 1) * tasks * evaluation.boundary * each(evaluation.boundary_modes)
    under_own = (len(stages) + 1) * tasks * evaluation.boundary  # problems, where stages end
    return {
        "problems": total,
        "steps": steps,
        "training_rollouts": train,
        "evolution_rollouts": evolve,
        "evaluation_rollouts": small + boundary,
        "scored_rollouts": small + boundary if evaluation.kl == "all" else under_own * evaluation.samples,
        "sampled_tokens": (train + evolve + small + boundary) * config.policy.max_tokens,
    } | (reflection(config.fast, total, config.batch) if method.evolves else {})


def needs(
    config: Config, spec: StreamSpec, hardware: Hardware, here: Hardware | None, cost: dict[str, Any]
) -> dict[str, Any]:
    """Return the memory, disk and hours for what `estimate` counted.

    `hardware` is what the preset is made for, `here` what this machine has of it. Memory is in GB on each GPU, by what
    fills it; disk in GB of checkpoints. `refused` says why the hardware is too small, or is None; `fitting` lists what
    would do; `refused_here` says it of this machine.
    """
    shape = shape_of(config.model)
    memory, refused = memory_of(config, shape, hardware), fits(config, shape, hardware)
    learned, evaluated = cost["training_rollouts"], cost["evaluation_rollouts"]
    rollouts = learned + cost["evolution_rollouts"] + evaluated
    times = seconds(config, shape, hardware, *prompt_tokens(config, spec), rollouts, learned, cost["scored_rollouts"])
    # `standing` is counted in others
    parts = {name: value for name, value in asdict(memory).items() if name != "standing"}
    stay = len(spec.stages) * spec.cycles if config.checkpoint.stages else 0
    return {
        "model": config.model,
        "parameters": shape.parameters,
        "hardware": str(hardware),
        "memory_gb": {name: round(value / GIB, 2) for name, value in parts.items()},
        "peak_gb": round(memory.peak / GIB, 2),
        "usable_gb": round(room(hardware) / GIB, 2),
        "checkpoints_gb": round((config.checkpoint.keep + stay) * checkpoint_bytes(config, shape) / GIB, 2),
        "hours": {name: round(value / 3600, 3) for name, value in times.items()},
        "refused": refused,
        "fitting": alternatives(config, shape, hardware) if refused else [],
        "here": str(here) if here else None,
        "refused_here": fits(config, shape, here) if here else "torch sees no GPU",
    }


def prompt_tokens(config: Config, spec: StreamSpec) -> tuple[int, int]:
    """Return about how many tokens a context and the stream's problems have, at three characters a token.

    Rows of a data set are not read for it.
    """
    if config.data != PROCEDURAL:
        return 0, PROMPT
    stream = Stream(spec, config.seed, config.difficulty, config.stage_problems)
    mean = sum(len(stream.problem(stage.start).prompt) for stage in stream.stages) / len(stream.stages)
    return len(config.seed_prompt) // 3, int(mean / 3) + 1


def reflection(fast: FastSettings, total: int, batch: int) -> dict[str, Any]:
    """Return the reflections at most, and of a remote reflector the tokens and the price of its replies.

    They count every request as retried and every reply as long as it may be. Prompts are not in the price: they are as
    long as problems and answers are. A ceiling holds for all.
    """
    cycle = fast.cycle * batch
    most = sum(calls(fast, min(cycle, total - first)) for first in range(0, total, cycle))
    found: dict[str, Any] = {"reflections": most}
    if fast.reflector not in EMBEDDED_REFLECTORS:
        from fst_bench.fast.remote import price_of  # not before it is needed: LiteLLM is large

        settings, price = fast.reflection, price_of(fast.reflector, fast.reflection)
        tokens = most * (1 + settings.retries) * settings.max_tokens
        found["reflection_reply_tokens"] = tokens
        if price:
            found["reflection_reply_usd"] = round(price.of(0, tokens), 2)
        ceilings = {"usd": settings.ceiling_usd, "tokens": settings.ceiling_tokens}
        found |= {f"reflection_ceiling_{unit}": value for unit, value in ceilings.items() if value is not None}
    return found


def calls(fast: FastSettings, lookahead: int) -> int:
    """Return the reflections of one round at most.

    An iteration of gepa samples each proposal's parent on a minibatch of its own, as far as there are that many;
    reflections that fail are asked for once more.
    """
    valset = min(fast.valset_size, lookahead)
    rest = lookahead - valset if lookahead - valset >= fast.reflection_minibatch_size else lookahead
    minibatches = min(fast.proposals, math.ceil(rest / fast.reflection_minibatch_size))
    iterations = math.ceil((fast.max_metric_calls - valset) / (fast.reflection_minibatch_size * minibatches))
    return 2 * fast.proposals * iterations
