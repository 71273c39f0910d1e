"""The one place where answers come about: the policy speaks, the task's environment replies, until one of them has no more to say.

Plain tasks reply nothing: for them this is one call of `policy.sample`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from fst_bench.policy import Ask, Policy, Sample
from fst_bench.policy.base import Message
from fst_bench.seeds import seed_for

Respond = Callable[[Sequence[str]], str | None]
"""`Task.respond` of one problem: what the policy said so far -> the reply."""


@dataclass(frozen=True)
class Turn:
    """One exchange: what the policy said, and what it heard."""

    said: str
    heard: str

    @property
    def messages(self) -> tuple[Message, Message]:
        return {"role": "assistant", "content": self.said}, {"role": "tool", "content": self.heard}


@dataclass(frozen=True)
class Answer:
    """A conversation that has ended. `sample` holds all of its tokens, its text is the last turn's; `before` are the exchanges before that one."""

    sample: Sample
    before: tuple[Turn, ...] = ()

    @property
    def said(self) -> list[str]:
        """The policy's turns before the last one."""
        return [turn.said for turn in self.before]

    @property
    def messages(self) -> tuple[Message, ...]:
        """The exchanges as messages."""
        return tuple(message for turn in self.before for message in turn.messages)

    @property
    def record(self) -> dict[str, Any]:
        """What a record of the answer has besides `sample.text`, so that it can be scored again: nothing where there was one turn."""
        return {"turns": [vars(turn) for turn in self.before]} if self.before else {}


def answers(policy: Policy, asks: Sequence[Ask], responds: Sequence[Respond], *, temperature: float = 1.0, base: bool = False) -> list[list[Answer]]:
    """`ask.n` answers to each ask, in order; `responds[i]` replies to those to ask i. All conversations take a turn together.

    The random numbers of a later turn belong to the ask as well: they do not depend on what else is asked, or on who else goes on.
    """
    done = [[Answer(sample) for sample in group] for group in policy.sample(asks, temperature=temperature, base=base)]
    asked = {(i, k): ask for i, ask in enumerate(asks) for k in range(ask.n)}
    while True:
        further: dict[tuple[int, int], Ask] = {}
        for (i, k), ask in asked.items():
            last = done[i][k]
            if last.sample.finished and (heard := responds[i]([*last.said, last.sample.text])) is not None:
                messages = (*ask.messages, *Turn(last.sample.text, heard).messages)
                further[i, k] = Ask(messages, seed_for(asks[i].seed, "turn", len(last.before) + 1, k), after=last.sample)
        if not further:
            return done
        for ((i, k), ask), (sample,) in zip(further.items(), policy.sample(list(further.values()), temperature=temperature, base=base), strict=True):
            last = done[i][k]
            read = sample.sampled > last.sample.sampled  # or the reply left no room for a turn
            done[i][k] = Answer(sample, (*last.before, Turn(last.sample.text, ask.messages[-1]["content"])) if read else last.before)
        asked = further
