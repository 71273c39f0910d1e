"""The contract of a method: what it gets, what it must not see, and the rules that the harness enforces."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict

from fst_bench.core.errors import ContractError
from fst_bench.core.types import ProblemHandle
from fst_bench.method.lab import Lab
from fst_bench.method.settings import MethodConfig


class Method(ABC):
    """A way to learn from a stream. Subclass it in one file: this is the whole contract, and the harness enforces it.

    Its life has two phases. While it learns, the harness calls `step` with one batch after another, in the stream's
    order, on one object that holds the lab. Whenever the stream's tasks are evaluated, copies of the method answer:
    each is built as `type(method)(no lab, config)`, is given the method's state, and returns the context under which it
    would answer a problem. Nothing learned there comes back. A resumed run and a probe of a finished one build the
    method in the same way.

    WHAT IT GETS. `self.config`: the seed prompt, the settings of the slow and the fast loop, and
    `self.config.settings`, its own, of its class `Settings` (typed; `--set settings.key=value` reaches them).
    `self.lab`: sample and verify, update, reflect, look ahead. In `step`, a batch of problem handles: each an index in
    the stream and a prompt text.

    WHAT IT MUST NOT SEE. Which task a problem is of, where a stage ends, an answer, a held-out problem. Nothing it is
    handed leads there, unless the stream makes it visible (`announced`: `ProblemHandle.boundary`; `task_visible`:
    `ProblemHandle.task`, and `context_for_task` in evaluation). All it learns of a problem's answer is the score of its
    own rollouts.

    THE RULES. Breaking one stops the run with one line that names it; nothing recorded until then is lost.

    - step: `step(batch)` returns the metrics of the step for the log, a dict of JSON values under text keys. "reward",
      a number, is shown as the training reward. The keys kind, step, stage, problems and seconds are the harness's own.
    - context: `context_for(prompt)` returns the context, a str: the system prompt it would answer that text under now,
      empty for none. It runs on a copy without a lab, and changes nothing in the method: no counter, no cache but a
      `functools.cached_property`.
    - state: `state()` returns all that the method remembers besides the policy's weights, as a dict of JSON values
      under text keys (what it returns is copied), and `load(state)` restores it in a new object, so that a killed run
      continues bit for bit. At every checkpoint the method is compared with a copy that was loaded from its state,
      attribute by attribute: containers element by element, objects of its own by their attributes, tensors and random
      generators by their content. Left out are the lab, the config, functions, and the values of a `cached_property`.
      So whatever `step` keeps in an attribute has to be in the state, or to be a local variable instead. `__init__`
      does not use the lab.
    - lab: the model, the verifiers and the coming problems are reached through the lab's own calls only. Rollouts are
      requested for problems of this batch, of earlier ones, and of those it has peeked at, in the problem's own words.
      (A handle is kept in the state as `dataclasses.astuple(handle)`, and is `ProblemHandle(*values)` again.)
      `lab.record` is for prompts it wants shown; the harness records all that is measured.
    - ledger: every call of the lab is charged to the ledger when it is made: problems when they are first seen (peeked
      ones too), rollouts by the purpose they are requested for, tokens, optimizer steps, reflections. Evaluation is not
      charged. A method may read `lab.ledger` and never writes to it. Any use of the policy without the lab counts as
      cheating, intended or not.
    - random: every random choice is taken from `self.lab.random(purpose)`, which gives the same numbers again after a
      resume; `context_for` makes none. `fst-bench validate methods FILE` runs a method twice and once with a resume,
      and compares.
    """

    name: ClassVar[str]
    trains: ClassVar[bool] = False
    """Whether it updates the weights, for the estimate of its cost."""
    evolves: ClassVar[bool] = False
    """Whether it evolves prompts, for the estimate of its cost."""

    class Settings(BaseModel):
        """A method's own typed settings, each with a default, reached with `--set settings.key=value`.

        The docstring under a field describes it wherever settings are listed.
        """

        model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    def __init__(self, lab: Lab, config: MethodConfig):
        self.lab, self.config = lab, config

    @classmethod
    def most_rollouts(cls, config: MethodConfig, batch: int) -> tuple[int, int]:
        """Return the most rollouts it can sample: (slow loop, for each problem; fast loop, in each round).

        A dry run estimates the cost from them. Override it in a method that samples more.
        """
        # gepa may begin one more iteration with its budget almost spent
        iteration = config.fast.proposals * (2 * config.fast.reflection_minibatch_size + config.fast.valset_size)
        return config.slow.group_size * cls.trains, (config.fast.max_metric_calls + iteration) * cls.evolves

    @abstractmethod
    def step(self, batch: list[ProblemHandle]) -> dict[str, Any]:
        """Learn from one batch. Return the metrics of the step."""

    def context_for(self, prompt: str) -> str:
        """Return the system prompt under which it would answer a problem's text now; empty for none."""
        return self.config.seed_prompt

    def context_for_task(self, prompt: str, task: str | None) -> str:
        """Return the context for a problem with a task id, which is `context_for` unless overridden.

        The id is that of the problem's handles in training, None where ids are hidden.
        """
        return self.context_for(prompt)

    def state(self) -> dict[str, Any]:
        """Return all that it remembers besides the policy's weights, as JSON values."""
        return {}

    def load(self, state: dict[str, Any]) -> None:
        """Restore what `state` returned."""
        if state:
            raise ContractError("state", "returns a state and has no load(state) to restore it")
