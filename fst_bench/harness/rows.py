"""The rows of a run's records, typed once: what the loop writes is what every reader reads.

events.jsonl     StepRow         one a training step
rollouts.jsonl   RolloutRow      one an answer that learning saw
evals.jsonl      EvaluationRow   one an (evaluation, task, prompt mode): the raw material of every metric
answers.jsonl    AnswerRow       one an answer behind them
prompts.jsonl    PopulationRow   one a round of prompt evolution
"""

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    InstanceOf,
    SerializerFunctionWrapHandler,
    model_serializer,
)

from fst_bench.core.types import Status

PromptMode = Literal["system", "seed", "oracle", "greedy"]
"""How a task is evaluated: under the method's own prompt, the seed prompt, or the prompt that the method had at the end
of that task's stage (an oracle: it requires knowing which task a problem is of), all three at the temperature of the
settings; or under its own prompt with the likeliest tokens (greedy)."""
Text = InstanceOf[str]
"""Text that a model or a user wrote: unlike pydantic's own str it may hold half a character (a lone surrogate)."""
Count = Annotated[int, Field(ge=0, strict=True)]
"""A number of things, from 0: an int, and neither a bool nor a float."""
Real = Annotated[FiniteFloat, Field(strict=True)]
"""A finite number; neither True nor a text stands for one."""


class Row(BaseModel):
    """One line of a record file. Infinity and NaN, which only a method's own metrics may be, are written as such."""

    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="constants")


class StepRow(Row):
    """A training step. What the method's `step` returned are further columns."""

    model_config = ConfigDict(extra="allow")

    kind: Literal["step"] = "step"
    step: Count
    """From 1."""
    stage: Count
    """Number of the stage that the step's last problem belongs to, from 1."""
    problems: Count
    """Problems of the stream answered in training, this step's included."""
    reward: float | None
    """Mean training reward; None for a method that has none."""
    seconds: float


class ToolTurn(Row):
    """An exchange with a tool before the last turn (see `core.types.Turn`)."""

    assistant: Text
    tool: Text


class Sparse(Row):
    """A row with a column that is written only where it is not empty."""

    sparse: ClassVar[str]
    """The column's name."""

    @model_serializer(mode="wrap")
    def without_empty(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Return the row's columns, the sparse one only where it is not empty."""
        values: dict[str, Any] = dump(self)
        if not values[self.sparse]:
            del values[self.sparse]
        return values


class Conversation(Sparse):
    """A row with an answer. Its last column, `turns`, exists only where a tool was called."""

    sparse = "turns"


class RolloutRow(Conversation):
    """An answer that learning saw."""

    step: Count
    """From 0."""
    purpose: str
    """train, valset, feedback, or a method's own word."""
    problem: Count
    """Index in the stream."""
    context: Text
    text: Text
    reward: FiniteFloat
    status: Status
    tokens: Count
    """Sampled tokens."""
    version: Count
    """Optimizer steps that the policy had taken."""
    turns: tuple[ToolTurn, ...] = ()


class LevelRow(Row):
    """Held-out accuracy at one level of a task whose difficulty is a mixture."""

    level: str
    n: Annotated[Count, Field(ge=1)]
    """Answers."""
    accuracy: Annotated[Real, Field(ge=0, le=1)]


class EvaluationRow(Sparse):
    """Held-out accuracy and drift of one task under one prompt mode.

    Its last column, `levels`, exists only where the task's difficulty is a mixture.
    """

    sparse = "levels"

    step: Count
    stage: Count
    """Number of the stage at whose end, or within which, the evaluation happens; 0 before learning."""
    boundary: Annotated[bool, Field(strict=True)]
    """Whether a stage ends here (or learning has not begun): such evaluations are larger."""
    task: str
    prompt_mode: PromptMode
    problems: Count
    """Problems of the stream answered in training."""
    fetched: Count | None = None
    """Problems of the stream that the method has seen, those that it has looked ahead at included."""
    rollouts: Count
    """Rollouts sampled for learning until then."""
    tokens: Count
    """Tokens sampled in those."""
    accuracy: Annotated[Real, Field(ge=0, le=1)]
    """Mean reward."""
    kl: Real | None
    """KL(policy || reference policy), nats per sampled token, exact over the vocabulary, on the policy's answers.

    None where the settings take it only under the own prompt at the ends of stages.
    """
    kl_per_answer: Real | None
    """The same summed over an answer's tokens, averaged over answers."""
    tokens_per_answer: Annotated[Real, Field(ge=0)]
    n_problems: Count
    n_samples: Count
    """Answers per problem (mean@n)."""
    context: Text | None
    """The context, where it was the same for every problem."""
    levels: tuple[LevelRow, ...] = ()


class AnswerRow(Conversation):
    """An answer behind evaluation rows. Prompt modes with the same contexts share their answers."""

    step: Count
    stage: Count
    task: str
    prompt_modes: tuple[PromptMode, ...]
    problem: str
    """Id of the held-out problem."""
    text: Text
    reward: FiniteFloat
    status: Status
    turns: tuple[ToolTurn, ...] = ()


class Prompt(Row):
    """A prompt of a population, with its mean reward on the round's valset."""

    model_config = ConfigDict(extra="allow")

    prompt: Text
    score: Real | None


class PopulationRow(Row):
    """The population with which a round of prompt evolution ended, the best prompt first."""

    model_config = ConfigDict(extra="allow")

    step: Count
    """From 0."""
    problems: Count
    """Problems of the stream fetched until then."""
    population: Annotated[tuple[Prompt, ...], Field(min_length=1)]
    rescored: tuple[Prompt, ...] = ()
    """The population of the round before, scored under the policy of this round."""
    candidates: Count = 0
    """Prompts that gepa accepted, its seed candidate included."""
    rollouts: Count = 0
    reflections: Count = 0
    reflection_failures: Count = 0
    stage: Count | None = None
    """Number of the stage in which the round happened."""


class StageRow(Row):
    """A stage of a run: the problems i of its stream with start <= i < end."""

    stage: Count
    """From 1."""
    tasks: Annotated[tuple[str, ...], Field(min_length=1)]
    start: Count
    end: Count


ROWS: dict[str, type[Row]] = {
    "events": StepRow,
    "rollouts": RolloutRow,
    "evals": EvaluationRow,
    "answers": AnswerRow,
    "prompts": PopulationRow,
}
"""Record file -> its rows."""


def label(tasks: Sequence[str]) -> str:
    """Return the name under which a stage's tasks are shown: 'math', or 'math+codeio' for a mixture."""
    return "+".join(tasks)
