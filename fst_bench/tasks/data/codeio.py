"""codeio from CodeIO (hkust-nlp/CodeIO-PyEdu-Reasoning-Raw): what does this function return, or what was it given?

Columns of the jsonl, which is read line by line (ios.output has a type of its own in every row, so it is not a table):
refcode, funcname, io_requirements, ios (a list of {input, output}). Each pair is a problem of its own; the hash of
refcode decides the split, so that no function lies in two of them. The prompt's wording is ours and uses these columns
only. Protocol, by the difficulty parameter `direction`:

- output: the last JSON object has the key "output"; compared as in the procedural task (floats to 1e-3 relative, keys
  and lengths exact).
- input: the last JSON object has the key "input", a mapping of arguments. It is data, never code: JSON alone. refcode
  is run on it in the sandbox (5 s), and the result has to equal the pair's output by the same rule, whether or not the
  input is the pair's own.

Our own definitions, where the data set's card is silent:

- A row without io_requirements, or without a top-level `def funcname(`, is unusable. So is a pair whose input is not a
  mapping, or whose sides could not be read again in an answer: NaN, nesting deeper than 32, an outer brace before the
  last 500 or the last 32,768 characters.
- Rows with empty ios are in the data by its card; each counts as one that is skipped.
- With direction input, functions that import more than the standard library are left out: the sandbox has no more.
- Whether refcode gives a pair's output is not checked when rows are read; `fst-bench validate data` checks some.
"""

import json
import re
import sys
from collections.abc import Mapping, Sequence
from functools import cache, lru_cache
from typing import Any, Literal

from fst_bench.core.types import Problem, Score, Status
from fst_bench.tasks.base import CORRECT, clip
from fst_bench.tasks.codeio import MAX_SHOWN, Codeio, compact, last_object_with, same, shallow
from fst_bench.tasks.data.base import FromRows, Item, RowDifficulty, cell, item, text_of
from fst_bench.tasks.data.read import Unusable
from fst_bench.tasks.sandbox import Sandbox

PROTOCOLS = {
    "output": Codeio.protocol,
    "input": (
        "Give the arguments as a JSON object with the key input, which holds an object from argument names to values."
    ),
}
HINTS = {
    "output": "It helps to step through the code with the values at hand.",
    "input": "It helps to work backwards from the output and then to step through the code with the arguments found.",
}


class CodeioRowsDifficulty(RowDifficulty):
    direction: Literal["output", "input"] = "output"


class CodeioRows(FromRows, Codeio):
    Difficulty = CodeioRowsDifficulty  # type: ignore[assignment]  # other parameters than the procedural ones
    columns = ("refcode", "funcname", "io_requirements", "ios")
    stem = "codeio"
    endings = ("jsonl",)
    hub = "hkust-nlp/CodeIO-PyEdu-Reasoning-Raw"
    hub_file = "0_368500_filtered_v2_ds25.sced.jsonl"
    levels = [{}, {"direction": "input"}]

    def __init__(self, difficulty: Any, rows: Any):
        self.direction = difficulty.direction
        self.protocol, self.hint = PROTOCOLS[self.direction], HINTS[self.direction]
        if self.direction == "input":
            sandbox()  # a machine without one fails now, and not in the run
        super().__init__(difficulty, rows)

    @classmethod
    def usable(cls, row: Mapping[str, Any]) -> Sequence[Item | Unusable]:
        function = {column: text_of(row, column) for column in ("refcode", "funcname", "io_requirements")}
        name, pairs = function["funcname"], cell(row, "ios")
        if not name.isidentifier() or not re.search(rf"^def\s+{name}\s*\(", function["refcode"], re.MULTILINE):
            raise Unusable("no such function in refcode")
        if not isinstance(pairs, list) or not pairs:
            raise Unusable("ios holds no pairs")
        return [usable_pair(function, pair) for pair in pairs]

    def wanted(self, content: Mapping[str, Any]) -> bool:
        return self.direction == "output" or self_contained(content["refcode"])

    def ask(self, content: Mapping[str, Any]) -> tuple[str, str]:
        name = content["funcname"]
        if self.direction == "output":
            question = f"{name} is called with the arguments {legible(content['input'])}. What does it return?"
        else:
            question = f"{name} returned {legible(content['output'])}. Which arguments was it called with?"
        return f"{content['refcode']}\n\n{content['io_requirements']}\n\n{question}", compact(content[self.direction])

    def write(self, answer: str) -> str:
        return f'{{"{self.direction}": {answer}}}'

    def check(self, problem: Problem, text: str) -> Score:
        if self.direction == "output":
            return super().check(problem, text)
        found = last_object_with(text, "input")
        if found is None:
            return Score(
                0.0,
                self.teach("The answer was expected as a JSON object with the key input, and none was found.", text),
                "unparseable",
            )
        given, content = found["input"], problem.data
        shown = clip(compact(given))
        if not isinstance(given, dict):
            diagnosis = f"The input given is {shown}, but an object from argument names to values was expected."
            return Score(0.0, self.teach(diagnosis, text), "unparseable", shown)
        status, diagnosis = self.run(given, content)
        return (
            Score(1.0, CORRECT, "ok", shown)
            if status == "ok"
            else Score(0.0, self.teach(diagnosis, text), status, shown)
        )

    def run(self, given: dict[str, Any], content: Mapping[str, Any]) -> tuple[Status, str]:
        """Return whether the function gives the pair's output for these arguments, and the diagnosis if not."""
        outcome = sandbox().call(content["refcode"], content["funcname"], given)
        wanted = clip(compact(content["output"]), MAX_SHOWN)
        with_these = f"With the arguments {clip(compact(given))} the function"
        match outcome.status:
            case "ok" if same(outcome.value, content["output"]):
                return "ok", ""
            case "ok":
                returned = "a value nested too deep to show"
                if shallow(outcome.value):
                    returned = clip(compact(outcome.value), MAX_SHOWN)
                return "wrong", f"{with_these} returns {returned}, but it should return {wanted}."
            case "error":
                failed = f"{with_these} fails ({clip(outcome.detail, MAX_SHOWN)})"
                return "wrong", f"{failed}, but it should return {wanted}."
            case "timeout":
                return "timeout", f"{with_these} does not end in time; it should return {wanted}."
            case _:
                ended = f"{with_these} ended without a value ({outcome.status}: {clip(outcome.detail)})"
                return "crash", f"{ended}; it should return {wanted}."

    def wrong_texts(self, problem: Problem) -> list[str]:
        right = self.write(problem.answer)
        other = "input" if self.direction == "output" else "output"
        return [
            problem.answer if self.direction == "output" else "{}",
            f'{{"{other}": {problem.answer}}}',
            self.write(compact([problem.data[self.direction]])),
            self.write('"no such value 271828"'),
            self.write("NaN"),
            f"{right} {{}}",
            right[:-1],
        ]


@lru_cache(maxsize=1)  # the pairs of one function come one after the other
def self_contained(code: str) -> bool:
    """Return whether code imports the standard library alone, which is all that the sandbox has."""
    return all(
        name in sys.stdlib_module_names for name in re.findall(r"^[ \t]*(?:import|from)[ \t]+(\w+)", code, re.MULTILINE)
    )


def legible(value: Any) -> str:
    """Return JSON as a prompt shows it: other scripts as they are."""
    return json.dumps(value, ensure_ascii=False)


def usable_pair(function: Mapping[str, str], pair: Any) -> Item | Unusable:
    """Return the item of one pair of a function, or the reason why it is unusable."""
    if not isinstance(pair, dict) or "input" not in pair or "output" not in pair:
        return Unusable("a pair without input or output")
    if not isinstance(pair["input"], dict):
        return Unusable("an input that is not a mapping of arguments")
    try:
        made = item(
            CodeioRows.name, function["refcode"], {**function, "input": pair["input"], "output": pair["output"]}
        )
    except Unusable as reason:
        return reason
    for side in ("input", "output"):
        if last_object_with(f'{{"{side}": {compact(pair[side])}}}', side) is None:
            return Unusable(f"an {side} too large to be read in an answer")
    return made


@cache
def sandbox() -> Sandbox:
    """Return the one sandbox of all calls. Raise ValueError where none works on this machine."""
    try:
        return Sandbox()
    except RuntimeError as error:
        raise ValueError(f"codeio with direction input: {error}") from None
