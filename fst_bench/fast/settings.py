"""Typed settings of the fast loop."""

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class FastSettings(BaseModel):
    """How the fast loop evolves prompts. The paper's cycle is 6 steps, its populations 4 or 8."""

    model_config = ConfigDict(extra="forbid")

    cycle: Annotated[int, Field(ge=1)] = 6
    """RL steps, and batches of lookahead, between two rounds of evolution (T)."""
    population: Annotated[int, Field(ge=1)] = 4
    """Prompts kept (K)."""
    budget: Annotated[int, Field(ge=1)] = 160
    """Metric calls (rollouts) of one round, the re-scoring of survivors included."""
    anchor: Annotated[int, Field(ge=1)] = 16
    """Problems on which candidates are scored."""
    minibatch: Annotated[int, Field(ge=1)] = 4
    """Problems a reflection reads."""
    proposals: Annotated[int, Field(ge=1)] = 1
    """Candidates gepa proposes at a time, each from its own parent and minibatch. More are faster: one sampling call for all."""
    max_prompt_characters: Annotated[int, Field(ge=1)] = 1_000
    """A proposed prompt longer than this is a failed reflection."""
    reflector: str = "extractive"
    """`extractive` (embedded), `base-policy`, or a LiteLLM model string such as openai/gpt-5.2."""

    @model_validator(mode="after")
    def affordable(self) -> Self:
        need = self.anchor * self.population + 2 * self.minibatch * self.proposals
        if self.budget < need:
            raise ValueError(
                f"budget {self.budget} is too small: {self.population} survivors on {self.anchor} anchors and {self.proposals} proposals need {need}"
            )
        return self
