"""How a trajectory comes about: the policy writes, the task's tool replies, until one of them ends the conversation.

The tool of a plain task never replies: for such tasks this is one call of `LanguageModel.sample`.
"""

from collections.abc import Callable, Sequence

from fst_bench.core.seeds import seed_for
from fst_bench.core.types import Sample, SampleRequest, Trajectory, Turn
from fst_bench.policy.interface import LanguageModel, Progress

Tool = Callable[[Sequence[str]], str | None]
"""`Task.respond` of one problem: the policy's turns so far -> the reply, None where the conversation ends."""


def generate(
    model: LanguageModel,
    requests: Sequence[SampleRequest],
    tools: Sequence[Tool],
    *,
    temperature: float = 1.0,
    progress: Progress | None = None,
) -> list[list[Trajectory]]:
    """Return `request.n` trajectories for each request, in order; `tools[i]` replies to those of request i.

    All conversations take a turn together. The random numbers of a later turn belong to the request as well: they
    depend neither on the other requests nor on which conversations continue. `progress` counts the samples of the turn.
    """
    begun = model.sample(requests, temperature=temperature, progress=progress)
    found = [[Trajectory(sample) for sample in group] for group in begun]
    latest = {(i, k): request for i, request in enumerate(requests) for k in range(request.n)}
    while True:
        further: dict[tuple[int, int], SampleRequest] = {}
        for (i, k), request in latest.items():
            last = found[i][k]
            if last.sample.finished and (reply := tools[i]([*last.earlier, last.sample.text])) is not None:
                messages = (*request.messages, *Turn(last.sample.text, reply).messages)
                seed = seed_for(requests[i].seed, "turn", len(last.turns) + 1, k)
                further[i, k] = SampleRequest(messages, seed, after=last.sample)
        if not further:
            return found
        groups = model.sample(list(further.values()), temperature=temperature, progress=progress)
        for ((i, k), request), (sample,) in zip(further.items(), groups, strict=True):
            found[i][k] = extended(found[i][k], sample, reply=request.messages[-1]["content"])
        latest = further


def extended(trajectory: Trajectory, sample: Sample, reply: str) -> Trajectory:
    """Return the trajectory with one more turn, or as it was but unfinished where the reply left no room for one."""
    if sample.sampled == trajectory.sample.sampled:
        return Trajectory(sample, trajectory.turns)
    return Trajectory(sample, (*trajectory.turns, Turn(trajectory.sample.text, reply)))
