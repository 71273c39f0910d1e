"""The rows of a run's records, typed once: what the loop writes is what every reader reads.

events.jsonl     StepRow         one a training step
rollouts.jsonl   RolloutRow      one an answer that learning saw
evals.jsonl      EvaluationRow   one an (evaluation, task, prompt mode): the raw material of every metric
answers.jsonl    AnswerRow       one an answer behind them
prompts.jsonl    PopulationRow   one a round of prompt evolution
"""

from typing import Annotated, Any, Literal

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

PromptMode = Literal["system", "seed", "oracle"]
"""Under which context a task is evaluated: the method's own prompt, the seed prompt, or the prompt that the method had at the end of that
task's stage (an oracle: it takes knowing which task a problem is of)."""
Text = InstanceOf[str]
"""Text that a model or a user wrote: unlike pydantic's own str it may hold half a character (a lone surrogate)."""
Count = Annotated[int, Field(ge=0, strict=True)]


class Row(BaseModel):
    """One line of a record file."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class StepRow(Row):
    """A training step. What the method's `step` returned are further columns."""

    model_config = ConfigDict(extra="allow", frozen=True)

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


class Conversation(Row):
    """A row with an answer. Its last column, `turns`, exists only where a tool was called."""

    @model_serializer(mode="wrap")
    def without_empty_turns(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        values: dict[str, Any] = dump(self)
        if not values["turns"]:
            del values["turns"]
        return values


class RolloutRow(Conversation):
    """An answer that learning saw."""

    step: Count
    """From 0."""
    purpose: str
    """train, valset, feedback, or a method's own."""
    problem: Count
    """Index in the stream."""
    context: Text
    text: Text
    reward: FiniteFloat
    status: Status
    tokens: Count
    """Sampled ones."""
    version: Count
    """Optimizer steps that the policy had taken."""
    turns: tuple[ToolTurn, ...] = ()


class EvaluationRow(Row):
    """Held-out accuracy and drift of one task under one prompt mode."""

    step: Count
    stage: Count
    """Number of the stage at whose end, or within which, the evaluation happens; 0 before learning."""
    boundary: Annotated[bool, Field(strict=True)]
    """Whether a stage ends here (or learning has not begun): these evaluations are larger."""
    task: str
    prompt_mode: PromptMode
    problems: Count
    """Problems of the stream answered in training."""
    fetched: Count | None = None
    """The same with those that the method has looked ahead at."""
    rollouts: Count
    """Rollouts that learning has sampled."""
    tokens: Count
    """Tokens of those."""
    accuracy: Annotated[FiniteFloat, Field(ge=0, le=1)]
    """Mean reward."""
    kl: FiniteFloat
    """KL(policy || reference policy) in nats per sampled token, exact over the vocabulary, on the policy's own answers."""
    kl_per_answer: FiniteFloat
    """The same summed over an answer's tokens, averaged over answers."""
    tokens_per_answer: Annotated[FiniteFloat, Field(ge=0)]
    n_problems: Count
    n_samples: Count
    """Answers per problem (mean@n)."""
    context: Text | None
    """The context, where it was the same for every problem."""


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

    model_config = ConfigDict(extra="allow", frozen=True)

    prompt: Text
    score: float | None


class PopulationRow(Row):
    """What a round of prompt evolution ended with, the best prompt first."""

    model_config = ConfigDict(extra="allow", frozen=True)

    step: Count
    """From 0."""
    problems: Count
    """Problems of the stream fetched until then."""
    population: Annotated[tuple[Prompt, ...], Field(min_length=1)]
    rescored: tuple[Prompt, ...] = ()
    """The last population under the policy of this round."""
    candidates: Count = 0
    """Prompts that gepa accepted, its seed candidate included."""
    rollouts: Count = 0
    reflections: Count = 0
    reflection_failures: Count = 0
    stage: Count | None = None


class StageRow(Row):
    """A stage of a run: the problems start <= i < end of its stream."""

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


def label(tasks: tuple[str, ...] | list[str]) -> str:
    """Return how a stage's tasks are shown: 'math', or 'math+codeio' of a mixture."""
    return "+".join(tasks)
