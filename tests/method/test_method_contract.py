"""Each rule of a method's contract, broken by a method that does nothing else, in a real run of its file."""

import random
import re
from collections import deque
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fst_bench.cli import main
from fst_bench.harness.store import Store
from fst_bench.method.contract import difference
from fst_bench.method.method import Method

SHORT = ["stage_problems=8", "evaluation.boundary=1", "evaluation.small=1", "policy.max_tokens=8"]
HONEST = '''
import random

from fst_bench.method import Method, ProblemHandle, RolloutRequest


class Subject(Method):
    """Counts the problems it has seen."""

    name = "subject"

    def __init__(self, lab, config):
        super().__init__(lab, config)
        self.seen = 0

    def step(self, batch):
        self.lab.sample([RolloutRequest(batch[0], "")], "train")
        self.seen += len(batch)
        return {"seen": self.seen}

    def context_for(self, prompt):
        return str(self.seen)

    def state(self):
        return {"seen": self.seen}

    def load(self, state):
        self.seen = state["seen"]
'''


def run(text: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """(exit code, complaint) of a run of a method file."""
    file = folder / "subject.py"
    file.write_text(text)
    command = f"run --stream single-math --preset smoke --method {file} --out {folder / 'runs'}".split()
    code = main([*command, *(part for setting in SHORT for part in ("--set", setting))])
    return code, capsys.readouterr().err


def test_the_honest_one_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(HONEST, tmp_path, capsys) == (0, "")


METRICS = 'return {"seen": self.seen}\n\n    def context_for'
STATE = 'return {"seen": self.seen}\n\n    def load'
STEP = "self.seen += len(batch)"
SAMPLED = 'self.lab.sample([RolloutRequest(batch[0], "")], "train")'
CASES: dict[str, tuple[str, str, str, str]] = {
    "no metrics": ("step", METRICS, METRICS.replace('{"seen": self.seen}', "self.seen"), "returned 4 from step"),
    "metrics of objects": ("step", METRICS, METRICS.replace("self.seen}", "{1, 2}}"), "a set at ['seen']"),
    "the harness's metrics": ("step", METRICS, METRICS.replace('"seen"', '"stage"'), "the metric 'stage'"),
    "a reward in words": ("step", METRICS, METRICS.replace('"seen": self.seen', '"reward": "high"'),
                          "'high' as the reward"),
    "no context": ("context", "return str(self.seen)", "return None", "returned None from context_for"),
    "a context that samples": ("context", "return str(self.seen)", 'self.lab.sample([], "x")',
                               "asked for lab.sample where it has none"),
    "a context that counts": ("context", "return str(self.seen)", "self.seen += 1; return 'x'",
                              "self.seen was 0, and is"),
    "a hidden count": ("context", "return str(self.seen)", "self.asked = 1; return 'x'",
                       "self.asked was missing, and is 1"),
    "a state of numbers": ("state", STATE, STATE.replace('"seen": self.seen', "0: self.seen"), "the key 0"),
    "a state that is none": ("state", STATE, STATE.replace('{"seen": self.seen}', "self.seen"),
                             "returned 0 from state"),
    "a forgotten attribute": ("state", STEP, f"{STEP}; self.best = batch", "self.best is [ProblemHandle("),
    "a state of something else": ("state", STATE, STATE.replace("self.seen", "self.seen // 3"),
                                  "self.seen is 8, and 2 in a copy"),
    "no load": ("state", "    def load(self, state):\n        self.seen = state[\"seen\"]\n", "", "no load(state)"),
    "a lab in __init__": ("context", "self.seen = 0", "self.seen = 0; lab.peek(1)",
                          "asked for lab.peek where it has none"),
    "sampling behind": ("ledger", STEP, f"{STEP}; self.lab._policy.sample([])", "used the policy without the lab"),
    "sampling behind, then in front": ("ledger", SAMPLED, f"self.lab._policy.sample([]); {SAMPLED}",
                                       "used the policy without the lab"),
    "learning behind": ("ledger", STEP, f"{STEP}; self.lab._policy.policy.version += 1",
                        "used the policy without the lab"),
    "a cheaper ledger": ("ledger", STEP, f"{STEP}; self.lab.ledger.rollouts.clear()", "wrote to the ledger: rollouts"),
    "cheaper tokens": ("ledger", STEP, f"{STEP}; self.lab.ledger.sampled_tokens -= 1",
                       "wrote to the ledger: sampled_tokens"),
    "cheaper reflection": ("ledger", STEP, f"{STEP}; self.lab.ledger.reflected(0, 0, -1.0)",
                           "wrote to the ledger: reflection_usd"),
    "a problem to come": ("lab", "batch[0]", "ProblemHandle(7, batch[0].prompt)", "problem 7, which it was not shown"),
    "a problem reworded": ("lab", "batch[0]", "ProblemHandle(0, 'Say 7')", "problem 0 with its text changed"),
    "rows that are measured": ("lab", STEP, f"{STEP}; self.lab.record('evals', {{}})", "the run's record 'evals'"),
    "prompts of no shape": ("lab", STEP, f"{STEP}; self.lab.record('prompts', {{}})", 'without "population"'),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_a_broken_rule_is_named(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rule, honest, broken, expected = CASES[name]
    assert HONEST.count(honest) == 1
    code, complaint = run(HONEST.replace(honest, broken), tmp_path, capsys)
    assert code == 3 and complaint.count("\n") == 1, complaint
    assert (
        complaint.startswith("fst-bench: stopped: the method ")
        and expected in complaint
        and f"(rule '{rule}' of its contract" in complaint
    )


def test_the_rules_are_those_of_the_docstring() -> None:
    written = set(re.findall(r"^ *- (\w+): ", Method.__doc__ or "", re.MULTILINE))
    assert {rule for rule, *_ in CASES.values()} <= written
    assert written - {rule for rule, *_ in CASES.values()} == {"random"}  # `validate methods` looks after that one


def test_random_numbers_of_its_own_are_found_by_validate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "subject.py"
    file.write_text(HONEST.replace('RolloutRequest(batch[0], "")', "RolloutRequest(batch[0], str(random.random()))"))
    assert main(["validate", "methods", str(file)]) == 1
    # metrics.json too, unless other answers happen to have as many tokens
    assert re.search(
        "run again: .*rollouts.jsonl came out otherwise: .*not taken from lab.random", capsys.readouterr().out
    )
    fair = HONEST.replace(
        'RolloutRequest(batch[0], "")', "RolloutRequest(batch[0], str(self.lab.random('x').random()))"
    )
    file.write_text(fair)
    assert main(["validate", "methods", str(file)]) == 1
    (bad,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("BAD")]
    assert bad.endswith("what a dry run says: it sampled 4 rollouts, at most 0 by its most_rollouts")
    file.write_text(f"{fair}\n    @classmethod\n    def most_rollouts(cls, config, batch):\n        return 1, 0\n")
    assert main(["validate", "methods", str(file)]) == 0


def test_what_was_recorded_before_a_breach_is_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _ = run(HONEST.replace(STEP, f"{STEP}\n        if self.seen > 4: return None"), tmp_path, capsys)
    (config,) = tmp_path.glob("runs/*/*/*/config.json")
    assert code == 3 and [row["step"] for row in Store(config.parent).rows("events")] == [1]


def test_an_error_of_the_method_is_one_line_that_says_where(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = HONEST.replace(STEP, "int('seven')")
    line = text[: text.index("int('seven')")].count("\n") + 1
    code, complaint = run(text, tmp_path, capsys)
    assert code == 3 and complaint.count("\n") == 1
    assert f"subject.py:{line}: ValueError: invalid literal" in complaint


# --- what counts as a difference


class Own:
    def __init__(self, **values: Any):
        vars(self).update(values)

    @cached_property
    def worked_out(self) -> int:
        return 1


class Slots:
    __slots__ = ("a",)

    def __init__(self, a: int):
        self.a = a


@dataclass
class Record:
    past: list[int] = field(default_factory=list)


def drawn(seed: int, times: int) -> random.Random:
    rng = random.Random(seed)
    for _ in range(times):
        rng.random()
    return rng


@pytest.mark.parametrize(
    ("one", "two", "where"),
    [
        (Own(a=1), Own(a=1), None),
        (Own(a=1), Own(a=2), "self.a"),
        (Own(a=1), Own(), "self.a"),
        (Own(), Own(a=1), "self.a"),
        (Own(a=Own(b=[1, {"c": (1, 2)}])), Own(a=Own(b=[1, {"c": (1, 3)}])), "self.a.b[1]['c'][1]"),
        (Own(a={1: "x"}), Own(a={"1": "x"}), "self.a[1]"),
        (Own(a=(1, 2)), Own(a=[1, 2]), "self.a"),
        (Own(a=float("nan")), Own(a=float("nan")), None),
        (Own(a=np.float64(0.5)), Own(a=0.5), None),
        (Own(a={1, 2}), Own(a={1, 3}), "self.a"),
        (Own(a=deque([1, 2])), Own(a=deque([1, 3])), "self.a[1]"),
        (Own(a=Record([1])), Own(a=Record()), "self.a.past"),
        (Own(a=Slots(1)), Own(a=Slots(2)), "self.a.a"),
        (Own(a=drawn(1, 3)), Own(a=drawn(1, 3)), None),
        (Own(a=drawn(1, 3)), Own(a=drawn(1, 4)), "self.a"),
        (Own(a=np.random.default_rng(1)), Own(a=np.random.default_rng(2)), "self.a"),
        (Own(a=torch.Generator().manual_seed(1)), Own(a=torch.Generator().manual_seed(1)), None),
        (Own(a=torch.Generator().manual_seed(1)), Own(a=torch.Generator().manual_seed(2)), "self.a"),
        (Own(a=torch.ones(2)), Own(a=torch.ones(2)), None),
        (Own(a=torch.ones(2)), Own(a=torch.ones(3)), "self.a"),
        (Own(a=np.ones(2)), Own(a=np.zeros(2)), "self.a"),
        (Own(a=torch.nn.Linear(2, 2)), Own(a=torch.nn.Linear(2, 2)), "self.a._parameters['weight']"),
        (Own(a=iter([1])), Own(a=iter([1])), "self.a"),
        (Own(a=lambda: 1), Own(a=lambda: 2), None),
        (Own(a=object()), Own(a=object()), None),
    ],
)  # fmt: skip
def test_what_differs(one: Any, two: Any, where: str | None) -> None:
    found = difference(one, two, "self", set())
    assert (found and found[0]) == where


def test_what_is_worked_out_again_is_no_memory_and_circles_end() -> None:
    one, two = Own(a=1), Own(a=1)
    assert one.worked_out and difference(one, two, "self", set()) is None
    one.me, two.me = one, two
    assert difference(one, two, "self", set()) is None
