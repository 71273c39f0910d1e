"""What a run would spend at most, before it is started."""

from typing import Any

from fst_bench.config import Config
from fst_bench.fast.settings import EMBEDDED, FastSettings
from fst_bench.stream import Stream, StreamSpec


def estimate(config: Config, spec: StreamSpec) -> dict[str, Any]:
    """Upper bounds, from the configuration alone: rollouts that learn, rollouts that evaluate, tokens sampled, and what reflection takes."""
    stream = Stream(spec, config.seed, config.difficulty, config.stage_problems, config.data)
    steps = -(-stream.total // config.batch)
    method = config.method_class()
    train = stream.total * config.slow.group * method.trains
    rounds = -(-steps // config.fast.cycle) * method.evolves
    evolve = rounds * (config.fast.budget + config.fast.anchor)  # gepa may overshoot by one candidate's anchor scores
    e, tasks = config.evaluation, len({stage.task for stage in stream.stages})
    points = stream.total // e.interval
    small = points * tasks * e.small * len(e.small_modes)
    boundary = tasks * e.boundary * ((len(stream.stages) + 1) * len(e.boundary_modes))
    evaluation = (small + boundary) * e.samples
    return {
        "problems": stream.total,
        "steps": steps,
        "training_rollouts": train,
        "evolution_rollouts": evolve,
        "evaluation_rollouts": evaluation,
        "sampled_tokens": (train + evolve + evaluation) * config.policy.max_tokens,
    } | (reflection(config.fast, stream.total, config.batch) if method.evolves else {})


def reflection(fast: FastSettings, total: int, batch: int) -> dict[str, Any]:
    """Reflections at most, and of a remote reflector its replies' tokens and price if every request were retried and every reply as long as
    it may be. Prompts are not in the price: they are as long as problems and answers are. A ceiling holds for all."""
    cycle = fast.cycle * batch
    found: dict[str, Any] = {"reflections": sum(calls(fast, min(cycle, total - first)) for first in range(0, total, cycle))}
    if fast.reflector not in EMBEDDED:
        from fst_bench.fast.remote import price_of  # not before it is needed: LiteLLM is large

        asked, price = fast.reflection, price_of(fast.reflector, fast.reflection)
        found["reflection_reply_tokens"] = found["reflections"] * (1 + asked.retries) * asked.max_tokens
        if price:
            found["reflection_reply_usd"] = round(price.of(0, found["reflection_reply_tokens"]), 2)
        found |= {f"reflection_{name}": value for name in ("ceiling_usd", "ceiling_tokens") if (value := getattr(asked, name)) is not None}
    return found


def calls(fast: FastSettings, lookahead: int) -> int:
    """Reflections of one round at most. An iteration of gepa samples each proposal's parent on a minibatch of its own, as far as there are
    that many; where one reflection fails it asks for all of them once more."""
    anchor = min(fast.anchor, lookahead)
    rest = lookahead - anchor if lookahead - anchor >= fast.minibatch else lookahead
    sampled = fast.minibatch * min(fast.proposals, -(-rest // fast.minibatch))
    return 2 * fast.proposals * -(-(fast.budget - anchor) // sampled)
