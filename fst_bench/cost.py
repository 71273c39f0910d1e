"""What a run would spend at most, before it is started."""

from typing import Any

from fst_bench.config import Config
from fst_bench.stream import Stream, StreamSpec


def estimate(config: Config, spec: StreamSpec) -> dict[str, Any]:
    """Upper bounds, from the configuration alone: rollouts that learn, rollouts that evaluate, tokens sampled."""
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
    }
