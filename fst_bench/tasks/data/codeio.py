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

- A row without io_requirements, whose refcode is not Python, or without a top-level `def funcname(`, is unusable. So is
  a pair whose input is not a mapping, or whose sides could not be read again in an answer: NaN, nesting deeper than 32,
  an outer brace before the last 500 or the last 32,768 characters.
- Rows with empty ios are in the data by its card; each counts as one that is skipped.
- With direction input, functions that import more than the standard library, or use a name that nothing defines, are
  left out: the sandbox has no more.
- A function that contradicts itself (chance, time, the order of sets, what an earlier call left behind) has no gold
  answer: its pairs are unusable. It is found by asking twice in each of two processes, which differ in the hash seed,
  the seed of `random` and the date. Not found is one that the sandbox has no modules for, that needs more than a second
  for the answers, or that happened to say the same four times.
- Whether refcode gives a pair's output is not checked when rows are read; `fst-bench validate data` checks some.
"""

import ast
import builtins
import json
import symtable
import warnings
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any, Literal

from fst_bench.core.types import Problem, Score, Status
from fst_bench.tasks.base import CORRECT, clip
from fst_bench.tasks.codeio import MAX_SHOWN, Codeio, compact, last_object_with, same, shallow
from fst_bench.tasks.data.base import FromRows, Item, RowDifficulty, cell, item, text_of
from fst_bench.tasks.data.read import Unusable
from fst_bench.tasks.sandbox import MODULES, REPEAT, Limits, Sandbox

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


AHEAD = 2_000 * 86_400.0 + 18_431
"""Seconds to another year, day of the week, hour and minute."""


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
        if all(not isinstance(part, ast.FunctionDef) or part.name != name for part in parsed(function["refcode"]).body):
            raise Unusable("no such function in refcode")
        if not isinstance(pairs, list) or not pairs:
            raise Unusable("ios holds no pairs")
        return [usable_pair(function, pair) for pair in pairs]

    @classmethod
    def question(cls, content: Mapping[str, Any]) -> list[Any]:
        return [content[part] for part in ("refcode", "funcname", "input")]

    @classmethod
    def agree(cls, one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
        return same(one["output"], other["output"])

    @classmethod
    def refused(cls, items: Sequence[Item]) -> dict[str, str]:
        return super().refused(items) | dict.fromkeys(volatile(items), "a function that contradicts itself")

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


def parsed(code: str) -> ast.Module:
    """Return the tree of a function's code. Raise Unusable where it is not Python."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of old escapes, in code that is not ours
            return ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise Unusable("refcode that is not Python") from None


@cache
def self_contained(code: str) -> bool:
    """Return whether code imports the sandbox's modules alone, and uses no name that it does not define."""
    try:
        tree = parsed(code)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            scopes = list(scopes_of(symtable.symtable(code, "refcode", "exec")))
    except (Unusable, SyntaxError, RecursionError):
        return False
    if missing_modules(tree):
        return False
    if any(isinstance(node, ast.ImportFrom) and node.names[0].name == "*" for node in ast.walk(tree)):
        return True  # it may define any name
    symbols = [(scope.get_type() == "module", symbol) for scope in scopes for symbol in scope.get_symbols()]
    outer = [symbol for top, symbol in symbols if top or symbol.is_global()]
    defined = {s.get_name() for s in outer if s.is_assigned() or s.is_imported() or s.is_namespace()}
    return BUILT_IN | defined >= {s.get_name() for s in outer if s.is_referenced()}


def missing_modules(tree: ast.Module) -> list[str]:
    """Return the modules that code imports and the sandbox does not have."""
    return sorted({name for node in ast.walk(tree) for name in imports(node)} - MODULES)


BUILT_IN = {name for name, value in vars(builtins).items() if type(value).__module__ != "_sitebuiltins"} | {"__name__"}
"""Names that a module of the sandbox begins with. (`exit` and `quit` are for the interactive interpreter.)"""


def scopes_of(scope: symtable.SymbolTable) -> Iterator[symtable.SymbolTable]:
    """Yield a scope and all within it."""
    yield scope
    for inner in scope.get_children():
        yield from scopes_of(inner)


def imports(node: ast.AST) -> list[str]:
    """Return the modules that a node imports, without what comes after a dot; "" for one that cannot be told."""
    match node:
        case ast.Import():
            names = [alias.name for alias in node.names]
        case ast.ImportFrom():
            names = ["" if node.level else node.module or ""]
        case ast.Call(func=ast.Name(id="__import__" | "import_module") | ast.Attribute(attr="import_module")):
            known = node.args and isinstance(node.args[0], ast.Constant)
            names = [str(ast.literal_eval(node.args[0])) if known else ""]
        case _:
            names = []
    return [name.partition(".")[0] for name in names]


Call = tuple[str, str, list[dict[str, Any]]]
"""Code, the function's name, inputs."""
Answers = list[list[str | None]]
"""Of one function: several answers to each input, each JSON, or None where it raised."""


def volatile(items: Sequence[Item]) -> set[str]:
    """Return the ids of items whose function gives an input another answer when it is asked again.

    Raise ValueError where no sandbox works on this machine.
    """
    pairs: dict[tuple[str, str], list[Item]] = {}
    for one in items:
        if self_contained(one.content["refcode"]):
            pairs.setdefault((one.content["refcode"], one.content["funcname"]), []).append(one)
    calls = [(code, name, [one.content["input"] for one in ones]) for (code, name), ones in pairs.items()]
    found = in_two_worlds(calls, worlds()) if calls else []
    return {one.id for ones, both in zip(pairs.values(), found, strict=True) if contradictory(*both) for one in ones}


Worlds = list[tuple[Sandbox, dict[str, Any]]]
"""Two sandboxes, with what else is another there: the seed of `random`, and the seconds that the clock is ahead."""


def worlds(limits: Limits | None = None, workers: int = 2) -> Worlds:
    """Return two worlds to ask in. Raise ValueError where no sandbox works on this machine."""
    try:
        return [
            (Sandbox(limits, workers, hash_seed=seed), {"seed": seed, "ahead": ahead})
            for seed, ahead in ((0, 0.0), (1, AHEAD))
        ]
    except RuntimeError as error:
        raise ValueError(f"codeio from data: {error}") from None


def in_two_worlds(
    calls: Sequence[Call], worlds: Worlds, together: int = 16, times: int = 2, lines: int | None = None
) -> list[tuple[Answers, Answers]]:
    """Return each function's answers in both worlds. Raise ValueError where a sandbox stops working.

    So many functions are asked `together` in one process, each so many `times` about an input. `lines` bounds those
    that an answer may take; without it there is a bound of seconds.
    """
    asking = {"times": times, "lines": lines}
    try:
        one, other = (answers(calls, box, begun | asking, together) for box, begun in worlds)
    except RuntimeError as error:
        raise ValueError(f"codeio from data: {error}") from None
    return list(zip(one, other, strict=True))


def answers(calls: Sequence[Call], box: Sandbox, asking: Mapping[str, Any], together: int) -> list[Answers]:
    """Return each function's answers, so many functions asked `together` in one process; where that fails, fewer."""
    batches = [calls[i : i + together] for i in range(0, len(calls), together)]
    program = REPEAT.read_text()
    outcomes = box.map([(program, "answers", {"functions": batch, **asking}) for batch in batches])
    found: list[Answers] = []
    for batch, outcome in zip(batches, outcomes, strict=True):
        if outcome.status == "ok":
            found += outcome.value
        elif together > 1:
            found += answers(batch, box, asking, together // 4)
        else:
            found.append([])
    return found


def contradictory(one: Answers, other: Answers) -> bool:
    """Return whether a function gave some input different answers, in one world or between two."""
    return any(differ(*several, *again) for several, again in zip(one, other, strict=False))


def differ(first: str | None, *others: str | None) -> bool:
    """Return whether some answer is another value than the first; `same` decides that."""
    if first is None or None in others or {first} == {*others}:
        return {first} != {*others}
    try:
        values = [json.loads(text) for text in (first, *others) if text is not None]
        return not all(shallow(value) and same(values[0], value) for value in values)
    except RecursionError:
        return True


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
