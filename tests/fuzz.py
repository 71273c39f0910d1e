"""Fuzz: whatever a user, a submission or a model hands in gives a result or one line, within ten seconds.

    python -m tests.fuzz --examples 10000 [--seed 0]

The examples are shared among stream files, --set, submissions, reflectors' replies and answers. Files and settings go
through the command line; replies and answers, which come from models, through the functions that every run uses. Found
is an exception that leaves the program (the CLI's would be a traceback), output that holds a traceback, and an input
that takes longer than ten seconds. It is not part of the gate. Exit code 1 where anything was found.
"""

import argparse
import contextlib
import io
import json
import math
import signal
import tempfile
import time
import traceback
import zipfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from fst_bench.cli import main as fst_bench
from fst_bench.harness.config import Config
from fst_bench.method.reflection import ReflectionFailure, prompt_in, replies
from fst_bench.policy.template import encodable
from fst_bench.tasks import TASKS, Problem, Task, load_task
from fst_bench.tasks.math_judge import judge
from fst_bench.tasks.stream import stream_files

SECONDS = 10
SUBMISSIONS = sorted((Path(__file__).parents[1] / "results/submissions").glob("*.zip"))

TEXTS = st.text(max_size=40) | st.text(st.characters(), max_size=10).map(lambda t: t + "\ud83d")
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from([-1, 0, 1, 2**63, 1e308, "", "math", "rl", "..", "../../x", "a/b", "~", "1e5", ".nan"])
    | TEXTS
)
VALUES = st.recursive(
    SCALARS, lambda v: st.lists(v, max_size=4) | st.dictionaries(TEXTS | st.integers(), v, max_size=4)
)
FRAGMENTS = st.sampled_from(
    r"""``` ```` ~~~ <think> </think> <thinking> </thinking> <|im_end|> <|channel|>analysis <|channel|>final<|message|>
    Solve. {{ %} { } \boxed{ #### \frac{1}{ \sqrt{ ^{ 9^{9^{9}} 2^{100} ((((( ) , 1e999 e ± ½ True 1_000 1,000 NaN 0x1F
    VERDICT: SUPPORTED NOT EVIDENCE: ; -> [ ] ' " <answer> </answer>""".split()
) | st.sampled_from(["```text\n", "\n", "\r", " ", "\x00", "\ud800"])
WORDS = st.lists(FRAGMENTS | TEXTS | st.integers().map(str), max_size=30).map("".join)


class Hang(BaseException):
    """Raised in an input that takes too long; no `except Exception` keeps it."""


@contextlib.contextmanager
def in_time() -> Iterator[None]:
    def too_long(*_: Any) -> None:
        raise Hang(f"over {SECONDS} s")

    before = signal.signal(signal.SIGALRM, too_long)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def command(*arguments: str) -> None:
    """Run a command in this process: it may succeed or refuse, in words."""
    out, err = io.StringIO(), io.StringIO()
    with in_time(), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = fst_bench(list(arguments))
        except SystemExit as stop:  # argparse
            code = stop.code
    said = err.getvalue()
    assert code in (0, 1, 2, 3), f"exit code {code}"
    assert "Traceback" not in said + out.getvalue(), said
    assert code < 2 or len(said.strip().splitlines()) == 1, f"exit code {code}, and not one line: {said!r}"


def dry_run(*arguments: str) -> None:
    command("run", "--dry-run", "--preset", "smoke", "--method", "rl", *arguments)


def mutated(draw: Any, value: Any) -> Any:
    """Return JSON-like data with one value somewhere in it replaced, removed or doubled."""
    if isinstance(value, dict) and value and draw(st.integers(0, 7)):
        key = draw(st.sampled_from(sorted(value, key=str)))
        kept = {k: v for k, v in value.items() if k != key}
        match draw(st.integers(0, 9)):
            case 0:
                return kept
            case 1:
                return kept | {draw(TEXTS): value[key]}
        return kept | {key: mutated(draw, value[key])}
    if isinstance(value, list) and value and draw(st.integers(0, 7)):
        at = draw(st.integers(0, len(value) - 1))
        match draw(st.integers(0, 9)):
            case 0:
                return value[:at] + value[at + 1 :]
            case 1:
                return [*value, value[at]]
        return [*value[:at], mutated(draw, value[at]), *value[at + 1 :]]
    return draw(VALUES)


@st.composite
def stream_texts(draw: Any) -> bytes:
    """A shipped stream with something wrong in it, YAML of anything, or any bytes."""
    match draw(st.integers(0, 9)):
        case 0:
            return draw(st.binary(max_size=200))
        case 1:
            return draw(WORDS).encode("utf-8", "surrogatepass")
        case 2:
            value = draw(VALUES)
        case _:
            value = yaml.safe_load(stream_files()[draw(st.sampled_from(sorted(stream_files())))].read_bytes())
            value["name"] = "fuzzed"
            for _ in range(draw(st.integers(1, 3))):
                value = mutated(draw, value)
    return yaml.safe_dump(value, allow_unicode=True).encode("utf-8", "surrogatepass")


def read_stream(text: bytes, folder: Path) -> None:
    path = folder / "fuzzed.yaml"
    path.write_bytes(text)
    dry_run("--stream", str(path))


@st.composite
def assignments(draw: Any) -> str:
    """KEY=VALUE with a key that exists, mostly, and any value."""
    keys, model = [], Config.model_fields
    for key, one in model.items():
        keys.append(key)
        if hasattr(one.annotation, "model_fields"):
            keys += [f"{key}.{inner}" for inner in one.annotation.model_fields]
    key = draw(
        st.sampled_from(keys) | TEXTS | st.sampled_from(["methods.rl.batch", "difficulty.math.steps", "a.b.c.d"])
    )
    value = draw(WORDS | VALUES.map(lambda v: json.dumps(v, default=str)) | st.integers(-2, 100).map(str))
    return f"{key}={value}" if draw(st.integers(0, 20)) else key


def read_settings(texts: list[str], folder: Path) -> None:
    sets = [part for text in texts for part in ("--set", text)]
    dry_run("--stream", "single-math", *sets)


@cache
def members(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as packed:
        return {name: packed.read(name) for name in packed.namelist()}


@st.composite
def submissions(draw: Any) -> bytes:
    """A submission with one file changed, renamed, cut or left out, or with bytes of the zip itself flipped.

    Of the smallest that there is: what a check does before it scores answers is looked at most.
    """
    files = dict(members(min(SUBMISSIONS, key=lambda p: p.stat().st_size)))
    name = draw(st.sampled_from(sorted(files)))
    text = files.pop(name)
    match draw(st.integers(0, 6)):
        case 0:
            pass
        case 1:
            files[
                draw(TEXTS.filter(lambda t: t and encodable(t) == t) | st.sampled_from(["../x", "/x", "a\\b", "CON"]))
            ] = text
        case 2:
            files[name] = text[: draw(st.integers(0, len(text)))]
        case 3:
            at = draw(st.integers(0, max(0, len(text) - 1)))
            files[name] = text[:at] + draw(st.binary(min_size=1, max_size=4)) + text[at + 4 :]
        case _:
            lines = text.split(b"\n") if name.endswith(".jsonl") else [text]
            at = draw(st.integers(0, max(0, len(lines) - 2)))
            with contextlib.suppress(ValueError):
                lines[at] = json.dumps(mutated(draw, json.loads(lines[at]))).encode()
            files[name] = b"\n".join(lines)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as out:
        for path, content in files.items():
            out.writestr(path, content)
    zipped = packed.getvalue()
    if draw(st.integers(0, 9)) == 0:
        at = draw(st.integers(0, len(zipped) - 1))
        zipped = zipped[:at] + draw(st.binary(min_size=1, max_size=8)) + zipped[at + 1 :]
    return zipped


def check_submission(text: bytes, folder: Path) -> None:
    path = folder / "fuzzed.zip"
    path.write_bytes(text)
    command("leaderboard", "check", str(path))


def take_reply(text: str, folder: Path) -> None:
    with in_time():
        (reply,) = replies(lambda prompt, seed: text, ["a reflection prompt"], [0])
        if isinstance(reply, ReflectionFailure):
            return
        with contextlib.suppress(ReflectionFailure):
            prompt = prompt_in(reply)
            assert prompt == encodable(prompt), "not encodable"
            prompt.encode()


@cache
def some_problems() -> list[tuple[Task, Problem]]:
    tasks = [load_task(name) for name in TASKS]
    return [(task, problem) for task in tasks for problem in task.problems("test", 0, 5)]


@st.composite
def answers(draw: Any) -> tuple[int, str]:
    """A problem, and anything, or its right answer with something in it changed."""
    number = draw(st.integers(0, len(some_problems()) - 1))
    task, problem = some_problems()[number]
    text = draw(WORDS)
    if draw(st.booleans()):
        right = task.write(problem.answer)
        at = draw(st.integers(0, len(right)))
        text = right[:at] + text + right[at + draw(st.integers(0, 3)) :]
    return number, text


def verify_answer(answer: tuple[int, str], folder: Path) -> None:
    number, text = answer
    task, problem = some_problems()[number]
    with in_time():
        score = task.verify(problem, text)
        task.respond(problem, [text])
        judge(problem.answer, text)
        judge(text, problem.answer)
    assert score.reward in (0.0, 1.0)


KINDS: dict[str, tuple[st.SearchStrategy[Any], Callable[[Any, Path], None]]] = {
    "stream files": (stream_texts(), read_stream),
    "--set": (st.lists(assignments(), min_size=1, max_size=3), read_settings),
    "submissions": (submissions(), check_submission),
    "replies": (WORDS, take_reply),
    "answers": (answers(), verify_answer),
}


def fuzz(kind: str, examples: int, number: int) -> bool:
    """Try one kind of input. Print what was tried, and the smallest input that fails; return whether one did."""
    inputs, hand_in = KINDS[kind]
    seconds: list[float] = []

    with tempfile.TemporaryDirectory() as folder:

        @seed(number)
        @settings(
            max_examples=examples,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.generate, Phase.shrink],
        )
        @given(inputs)
        def one(value: Any) -> None:
            began = time.monotonic()
            hand_in(value, Path(folder))
            seconds.append(time.monotonic() - began)

        try:
            one()
            return False
        except (Exception, Hang):
            traceback.print_exc()
            return True
        finally:
            print(f"{kind}: {len(seconds):,} inputs, {sum(seconds):.0f} s, the slowest {max(seconds, default=0):.2f} s")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--examples", type=int, required=True, help="inputs in all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", default=",".join(KINDS), help=f"of {', '.join(KINDS)} (default: all)")
    args = parser.parse_args()
    kinds = args.kinds.split(",")
    fst_bench(["run", "--dry-run", "--stream", "single-math", "--method", "rl"])  # imports take their time once
    found = [kind for kind in kinds if fuzz(kind, math.ceil(args.examples / len(kinds)), args.seed)]
    print(f"found something in {', '.join(found)}" if found else "nothing found")
    return 1 if found else 0


if __name__ == "__main__":
    raise SystemExit(main())
