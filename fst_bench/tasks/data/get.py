"""Real data without a hub: `fst-bench data get codeio` makes a folder for `--data` out of an installed package.

reasoning-gym carries the code of CodeI/O functions with a generator of inputs for each, and no inputs or outputs. Both
are untrusted code, so both run in the sandbox, and never here. A function is asked for what it gives to PAIRS generated
inputs; generators and functions are asked in two worlds (see `codeio.in_two_worlds`), each in processes of its own, and
what contradicts itself is dropped. So is what the sandbox has no modules for, what raises, what JSON does not hold, and
what is too long. Everything that is dropped is counted under its reason.

The same package gives the same bytes: seeds are fixed, the order is the package's, and what bounds a function is the
number of lines that it executes. Seconds and memory are bounded too, far above what so few lines take.
"""

import gzip
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import platform
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fst_bench.tasks.data.base import text_of
from fst_bench.tasks.data.codeio import (
    Call,
    CodeioRows,
    Worlds,
    contradictory,
    in_two_worlds,
    missing_modules,
    parsed,
    self_contained,
    worlds,
)
from fst_bench.tasks.data.read import Unusable
from fst_bench.tasks.sandbox import Limits, sandbox_kind

PACKAGE, MODULE, FILE = "reasoning-gym", "reasoning_gym", "data/codeio.jsonl.gz"
FUNCTION = "main_solution"
"""The name of every function of the package."""
PAIRS = 3
"""Generated inputs of a function, from the seeds 0, 1, 2."""
TIMES = 8
"""Answers to an input in one process: twice in each world would let pass what draws one of two values."""
LINES = 20_000
"""Lines that an answer may take."""
LONGEST = 1_024
"""Characters of an input or an output, as JSON."""
LIMITS = Limits(seconds=30, cpu_seconds=2, memory_mb=512)
TOGETHER = 128
"""Rows between two reports of progress."""
WORKERS = 8
"""Sandboxed processes at a time, where there are as many CPUs: each may take the memory of LIMITS."""
RESULT, RECORD = "codeio.jsonl", "source.json"

Report = Callable[[int, int], None]
"""Called with the number of rows done, and of all."""


class Function(NamedTuple):
    """A row of the package that the sandbox has the modules for."""

    refcode: str
    requirements: str
    generator: str


class Conversion(NamedTuple):
    """Rows as `--data` reads them, and what was dropped and why: whole functions, and pairs of those that stay."""

    rows: list[dict[str, Any]]
    functions: Counter[str]
    pairs: Counter[str]


def get_codeio(out: Path, report: Report) -> dict[str, Any]:
    """Write codeio.jsonl and the record source.json into a folder. Return the record.

    Raise ValueError where the package is missing, or no sandbox works on this machine.
    """
    packed = installed().joinpath(FILE).read_bytes()
    rows = [json.loads(line) for line in gzip.decompress(packed).splitlines()]
    made = convert(rows, min(os.cpu_count() or 1, WORKERS), report)
    written = "".join(json.dumps(row) + "\n" for row in made.rows).encode()
    about = importlib.metadata.metadata(PACKAGE)
    record = {
        "package": PACKAGE,
        "version": about["Version"],
        "licence": about["License-Expression"] or about["License"],
        "file": f"{MODULE}/{FILE}",
        "file_sha256": hashlib.sha256(packed).hexdigest(),
        "python": platform.python_version(),
        "sandbox": sandbox_kind(),
        "rows": len(rows),
        "functions": len(made.rows),
        "problems": sum(len(row["ios"]) for row in made.rows),
        "dropped_functions": dict(made.functions.most_common()),
        "dropped_pairs": dict(made.pairs.most_common()),
        "sha256": hashlib.sha256(written).hexdigest(),
    }
    out.mkdir(parents=True, exist_ok=True)
    for name, content in ((RESULT, written), (RECORD, json.dumps(record, indent=2).encode() + b"\n")):
        (out / f"{name}.tmp").write_bytes(content)
        os.replace(out / f"{name}.tmp", out / name)
    return record


def installed() -> Path:
    """Return the folder of the package, which is not imported. Raise ValueError in one line where it is missing."""
    found = importlib.util.find_spec(MODULE)
    if found is None or not found.submodule_search_locations:
        raise ValueError(f"codeio requires the package {PACKAGE}: pip install 'fst-bench[gym]'")
    return Path(found.submodule_search_locations[0])


def convert(rows: Sequence[Mapping[str, Any]], workers: int, report: Report) -> Conversion:
    """Return what a sandbox makes of the package's rows, so many `workers` at a time: the number changes nothing."""
    made = Conversion([], Counter(), Counter())
    asking, seen = worlds(LIMITS, workers), set[str]()
    for start in range(0, len(rows), TOGETHER):
        functions = []
        for row in rows[start : start + TOGETHER]:
            try:
                functions.append(runnable(row, seen))
            except Unusable as reason:
                made.functions[str(reason)] += 1
        for function, pairs in zip(functions, pairs_of(functions, asking), strict=True):
            try:
                row, why = row_of(function, pairs)
                made.rows.append(row)
                made.pairs.update(why)
            except Unusable as reason:
                made.functions[str(reason)] += 1
        report(min(start + TOGETHER, len(rows)), len(rows))
    return made


def runnable(row: Mapping[str, Any], seen: set[str]) -> Function:
    """Return the function of a row. Raise Unusable where the sandbox could not run it, or it was `seen` before."""
    columns = ("code_sample", "input_output_spec", "input_generator")
    function = Function(*(text_of(row, column) for column in columns))
    if missing := missing_modules(parsed(generating(function))):
        raise Unusable(f"requires {', '.join(name or 'a module that is not named' for name in missing)}")
    if not self_contained(function.refcode):
        raise Unusable("uses a name that it does not define")
    if function.refcode in seen:
        raise Unusable("a repetition")
    seen.add(function.refcode)
    return function


def generating(function: Function) -> str:
    """Return the code that generates a function's inputs: the package lets the generator see the function's names."""
    last = "def generated(seed):\n    return generate_inputs(Random(seed))"
    return f"{function.refcode}\n\nfrom random import Random\n\n{function.generator}\n\n{last}"


def pairs_of(functions: Sequence[Function], asking: Worlds) -> list[list[dict[str, Any] | Unusable]]:
    """Return each function's pairs of input and output, or the reasons against it."""
    seeds = [{"seed": seed} for seed in range(PAIRS)]
    inputs = list(asked("a generator", [(generating(f), "generated", seeds) for f in functions], asking))
    calls = [
        (function.refcode, FUNCTION, [given for given in ones if isinstance(given, dict)])
        for function, ones in zip(functions, inputs, strict=True)
    ]
    found = []
    for ones, returned in zip(inputs, asked("a function", calls, asking), strict=True):
        outputs = iter(returned)
        found.append([paired(given, outputs) for given in ones])
    return found


def paired(given: Any, outputs: Iterator[Any]) -> dict[str, Any] | Unusable:
    """Return an input with the next of the outputs, or the reason why one of them is missing."""
    if isinstance(given, Unusable):
        return given
    if not isinstance(given, dict):
        return Unusable("a generator whose input is not a mapping of arguments")
    output = next(outputs)
    return output if isinstance(output, Unusable) else {"input": given, "output": output}


def asked(what: str, calls: Sequence[Call], asking: Worlds) -> Iterator[list[Any]]:
    """Yield for each function the value of each input, or Unusable with the reason."""
    found = in_two_worlds(calls, asking, together=1, times=TIMES, lines=LINES)
    for (_, _, inputs), both in zip(calls, found, strict=True):
        if contradictory(*both):
            yield [Unusable(f"{what} that contradicts itself")] * len(inputs)
            continue
        answers = [several[0] for several, _ in zip(*both, strict=False)]
        beyond = Unusable(f"{what} without an answer within the limits")
        yield [value_of(what, text) for text in answers] + [beyond] * (len(inputs) - len(answers))


def value_of(what: str, text: str | None) -> Any:
    """Return an answer's value, or Unusable with the reason why it has none that can be asked for."""
    if text is None:
        return Unusable(f"{what} that raises, or gives what JSON does not hold")
    if len(text) > LONGEST:
        return Unusable(f"{what} that gives more than {LONGEST:,} characters")
    return json.loads(text)


def row_of(function: Function, pairs: Sequence[dict[str, Any] | Unusable]) -> tuple[dict[str, Any], list[str]]:
    """Return the row of a function with the pairs that the task can use, and why it cannot use the others.

    Raise Unusable where it can use none.
    """
    row = {"refcode": function.refcode, "funcname": FUNCTION, "io_requirements": function.requirements}
    why = [str(pair) for pair in pairs if isinstance(pair, Unusable)]
    found = [pair for pair in pairs if not isinstance(pair, Unusable)]
    used: dict[str, dict[str, Any]] = {}
    for pair, made in zip(found, CodeioRows.usable(row | {"ios": found}) if found else [], strict=True):
        if isinstance(made, Unusable):
            why.append(str(made))
        elif made.id in used:
            why.append("a repetition")
        else:
            used[made.id] = pair
    if not used:
        raise Unusable(why[0])
    return row | {"ios": list(used.values())}, why
