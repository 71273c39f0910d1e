"""The types from a problem to a rollout that is learned from, in the order in which they arise.

    Problem           one instance of a task: text, gold answer, the generator's data (harness side)
    ProblemHandle     the method's view of it: its index in the stream and its text    (method side)
    RolloutRequest    a method's request to the lab: `n` rollouts of a problem under a context
    SampleRequest     the lab's request to the policy: `n` samples of a conversation
    Prefix            the conversation as tokens: where sampling starts
    Completion        one turn that an engine sampled after a prefix
    Sample            prefix and completion together: tokens, loss mask, log-probabilities
    Trajectory        a sample and the tool turns that it went through
    Score             the verifier's result for a trajectory
    Rollout           problem, context, sample and score, for RL to learn from
    ReflectionExample a rollout as text, for a reflection LM to read
    Candidate         a prompt with its rewards on the validation problems, for GEPA to select from

A worked example, `group_size` 2, byte-sized tokens. The method asks `RolloutRequest(handle, context="Answer briefly.",
n=2)`. The lab asks `SampleRequest(messages, seed, n=2)` with `messages` = system "Answer briefly.", user "2 + 3 = ?".
The backend writes that as `Prefix(tokens=[7, 3, 9], mask=[False] * 3, logprobs=[], max_new_tokens=64)` and its engine
returns two completions, one of them `Completion(tokens=[5, 1], logprobs=[-0.1, -0.2], finished=True)`, 1 being the end
token. Together:

    Sample(tokens=[7, 3, 9, 5, 1], mask=[F, F, F, T, T], logprobs=[-0.1, -0.2], text="5", finished=True)

with len(tokens) == len(mask) == 5 and len(logprobs) == sum(mask) == 2. The verifier's `Score(reward=1.0, ...)` makes it
a `Rollout`; the two rollouts of the problem are a group, over which the advantage is normalised.
"""

from collections.abc import Mapping
from dataclasses import astuple, dataclass
from typing import Any, Literal

Message = dict[str, str]
"""{"role": "system" | "user" | "assistant" | "tool", "content": text}"""
THOUGHTS = {
    "<think>": "</think>",
    "[THINK]": "[/THINK]",
    "<seed:think>": "</seed:think>",
    "<|START_THINKING|>": "<|END_THINKING|>",
}
"""The tags that begin a model's thought and those that end it, by families of models. A thought is not the answer."""
Status = Literal["ok", "wrong", "unparseable", "timeout", "crash"]


# --- problems


@dataclass(frozen=True)
class Problem:
    """One instance of a task.

    `answer` is the gold answer in the task's own syntax, `data` is the generator's own knowledge.
    """

    id: str
    prompt: str
    answer: str
    data: Mapping[str, Any]
    level: str = ""
    """The level that it is of, where its task's difficulty is a mixture."""


@dataclass(frozen=True)
class ProblemHandle:
    """A problem as a method sees it: its index in the stream and its text.

    The rest is None unless the stream's file shows it.
    """

    index: int
    prompt: str
    boundary: bool | None = None
    """Whether a stage begins with this problem; only on a stream that is `announced`. Looking ahead shows it too."""
    task: str | None = None
    """An opaque id ("task 2"), the same wherever that task comes back; only on a stream with `task_visible`."""


# --- sampling


@dataclass(frozen=True)
class SampleRequest:
    """A request for `n` samples of one conversation; they share its prefill.

    The random numbers belong to the request: its samples do not depend on what else is requested in the same call.
    """

    messages: tuple[Message, ...]
    seed: int
    n: int = 1
    after: "Sample | None" = None
    """The sample that stands for all of `messages` but the last one, which is a tool's reply to it.

    The conversation continues from its tokens, and `n` is 1.
    """
    max_tokens: int | None = None
    """Most tokens of a sample; None: `policy.max_tokens`."""
    stops: tuple[str, ...] | None = None
    """Texts that end a sample and are no part of it; None: those of `policy.stop`."""


@dataclass(frozen=True)
class Prefix:
    """A conversation as tokens, where sampling starts. Nothing is sampled where `max_new_tokens` is below 1."""

    tokens: list[int]
    mask: list[bool]
    """(tokens,): True where an earlier turn of the policy sampled the token."""
    logprobs: list[float]
    """(sum(mask),): log-probabilities of those tokens."""
    max_new_tokens: int
    opened: str = ""
    """The opening of a thought that the tokens end with: the answer's text begins with it."""
    stops: tuple[str, ...] = ()
    """Texts that end the answer."""


@dataclass(frozen=True)
class Completion:
    """One turn as an engine sampled it. Where `finished`, the last token is an end token or completes a stop string."""

    tokens: list[int]
    logprobs: list[float]
    """(tokens,): at the temperature of sampling (of greedy ones: at 1), by the weights that sampled."""
    finished: bool


@dataclass(frozen=True)
class Sample:
    """One sampled answer, of one turn or several.

    It holds all tokens, which of them the policy sampled, and its log-probabilities of those.
    """

    tokens: list[int]
    mask: list[bool]
    """(tokens,): True where the policy sampled the token (the loss mask). Prompt and tool tokens are False."""
    logprobs: list[float]
    """(sum(mask),): of the sampled tokens only, at `temperature`, by the weights that sampled."""
    text: str
    """The text of the last turn, beginning with the opening of a thought where the template wrote that."""
    finished: bool
    """False where the answer was cut off: at `max_tokens`, which its turns share, or at the model's last position."""
    temperature: float = 1.0
    """The temperature of its log-probabilities, the learner's as well: that of sampling, 1 where that was greedy."""

    @property
    def sampled(self) -> int:
        """The number of sampled tokens."""
        return len(self.logprobs)


@dataclass(frozen=True)
class Turn:
    """One exchange before the last turn: what the policy wrote, and what the tool replied."""

    assistant: str
    tool: str

    @property
    def messages(self) -> tuple[Message, Message]:
        """The exchange as two messages."""
        return {"role": "assistant", "content": self.assistant}, {"role": "tool", "content": self.tool}


@dataclass(frozen=True)
class Trajectory:
    """A conversation that has ended.

    `sample` holds all of its tokens, its text is the last turn's; `turns` are the exchanges before it.
    """

    sample: Sample
    turns: tuple[Turn, ...] = ()

    @property
    def earlier(self) -> list[str]:
        """The policy's own texts before the last one."""
        return [turn.assistant for turn in self.turns]

    @property
    def messages(self) -> tuple[Message, ...]:
        """The exchanges as messages."""
        return tuple(message for turn in self.turns for message in turn.messages)

    @property
    def record(self) -> dict[str, Any]:
        """The fields of a recorded answer besides `sample.text` that scoring it again needs: none after one turn."""
        return {"turns": [vars(turn) for turn in self.turns]} if self.turns else {}


# --- rollouts


@dataclass(frozen=True)
class Score:
    """A verifier's result for one text.

    `answer` is the answer as it read it, `feedback` is for a reader to learn from.
    """

    reward: float
    feedback: str
    status: Status
    answer: str | None = None


@dataclass(frozen=True)
class RolloutRequest:
    """A request for `n` rollouts of a problem under a context (the system prompt; empty for none)."""

    problem: ProblemHandle
    context: str
    n: int = 1


@dataclass(frozen=True)
class Rollout:
    """One answer to one problem under one context, with the verifier's score and the policy version that sampled it."""

    problem: ProblemHandle
    context: str
    messages: tuple[Message, ...]
    """All messages before `sample.text`: context, problem, and where a tool was called the earlier turns."""
    sample: Sample
    score: Score
    version: int
    """Optimizer steps that the policy had taken."""


# --- reflection


@dataclass(frozen=True)
class ReflectionExample:
    """A rollout as a reflection LM reads it, and as a method's state keeps it."""

    problem: ProblemHandle
    context: str
    text: str
    """The whole conversation after the problem: the policy's turns and a tool's replies."""
    reward: float
    feedback: str

    def to_json(self) -> list[Any]:
        """Return the example as JSON values."""
        return [list(astuple(self.problem)), self.context, self.text, self.reward, self.feedback]

    @classmethod
    def from_json(cls, values: list[Any]) -> "ReflectionExample":
        """Return the example that `to_json` wrote."""
        return cls(ProblemHandle(*values[0]), *values[1:])


@dataclass(frozen=True)
class Candidate:
    """A prompt with its reward on each validation problem, under the policy version that was current in its round."""

    prompt: str
    scores: tuple[float, ...]
    """(valset_size,)"""

    @property
    def mean(self) -> float:
        """The mean reward."""
        return sum(self.scores) / len(self.scores)
