"""Ways to tamper with a submission, and the reason for which each one fails its check."""

import io
import json
import pickle
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fst_bench.harness.config import resolve
from fst_bench.harness.evaluate import TEST_SEED
from fst_bench.leaderboard.bundle import MANIFEST, SubmittedRun
from fst_bench.tasks import load_task

Files = dict[str, bytes]
Change = Callable[[Files], Any]
Records = list[dict[str, Any]]
S0 = "runs/s0"


def unzipped(path: Path) -> Files:
    with zipfile.ZipFile(io.BytesIO(path.read_bytes())) as packed:
        return {name: packed.read(name) for name in packed.namelist()}


def written(run: SubmittedRun) -> Files:
    """Return the rows and metrics of a run as the files of its submission."""
    records = {name: "".join(json.dumps(row) + "\n" for row in run.source.rows(name)) for name in ("evals", "answers")}
    files = {f"{run.where}/{name}.jsonl": text.encode() for name, text in records.items()}
    return files | {f"{run.where}/metrics.json": json.dumps(run.metrics).encode()}


# --- changes


def edit(name: str, change: Callable[[Any], Any]) -> Change:
    """Change a JSON file in place, or return the new value."""

    def tamper(files: Files) -> None:
        value = json.loads(files[name])
        changed = change(value)
        files[name] = json.dumps(value if changed is None else changed).encode()

    return tamper


def of_run(name: str, change: Callable[[Any], Any]) -> Change:
    """Change a JSON file of the run of seed 0."""
    return edit(f"{S0}/{name}.json", change)


def manifest(**values: Any) -> Change:
    return edit(MANIFEST, lambda about: about.update(values))


def rows(name: str, change: Callable[[Records], Any]) -> Change:
    """Change the rows of a record file of the run of seed 0."""

    def tamper(files: Files) -> None:
        value = [json.loads(line) for line in files[f"{S0}/{name}.jsonl"].splitlines()]
        change(value)
        files[f"{S0}/{name}.jsonl"] = "".join(json.dumps(row) + "\n" for row in value).encode()

    return tamper


def row(name: str, at: int, **values: Any) -> Change:
    """Change one row."""
    return rows(name, lambda records: records[at].update(values))


def first_with(name: str, key: str, found: Any, **values: Any) -> Change:
    """Change the first row that has a value."""
    return rows(name, lambda records: next(record for record in records if record[key] == found).update(values))


def put(name: str, data: bytes) -> Change:
    """Add a file, or replace it."""
    return lambda files: files.update({name: data})


def text_of(name: str, change: Callable[[bytes], bytes]) -> Change:
    """Change the bytes of a file of the run of seed 0."""
    return lambda files: files.update({f"{S0}/{name}": change(files[f"{S0}/{name}"])})


def both(*changes: Change) -> Change:
    return lambda files: [change(files) for change in changes]


def every_run(change: Callable[[dict[str, Any]], Any], **disclosed: Any) -> Change:
    """Change every config.json in the same way, and what the manifest discloses of it."""
    return both(*(edit(f"runs/s{seed}/config.json", change) for seed in (0, 1)), manifest(**disclosed))


def top_and_below(key: str, value: Any) -> Change:
    """Change a key in every run's config.json, at the top and in its settings, and in the manifest."""

    def change(saved: dict[str, Any]) -> None:
        saved[key] = saved["config"][key] = value

    return every_run(change, **{key: value})


def setting(dotted: str, value: Any, disclosed: bool = True) -> Change:
    """Change a setting in every run."""

    def change(saved: dict[str, Any]) -> None:
        *above, last = dotted.split(".")
        section = saved["config"]
        for part in above:
            section = section[part]
        section[last] = value

    discloses = edit(MANIFEST, lambda about: about["settings"].update({dotted: value}))
    return both(every_run(change), *([discloses] if disclosed else []))


def seed_is(seed: int) -> Callable[[dict[str, Any]], None]:
    def change(saved: dict[str, Any]) -> None:
        saved["seed"] = saved["config"]["seed"] = seed

    return change


def version_is(version: int) -> Callable[[dict[str, Any]], None]:
    def change(saved: dict[str, Any]) -> None:
        saved["stream_version"] = saved["spec"]["version"] = version

    return change


def stream_is(name: str) -> Callable[[dict[str, Any]], None]:
    def change(saved: dict[str, Any]) -> None:
        saved["stream"] = saved["spec"]["name"] = saved["config"]["stream"] = name

    return change


def as_seed(seed: int, copied: bool) -> Change:
    """Make the run of seed 1 one of another seed: a copy of it, or itself."""

    def tamper(files: Files) -> None:
        for name in [name for name in files if name.startswith("runs/s1/")]:
            files[name.replace("s1", f"s{seed}")] = files[name] if copied else files.pop(name)
        edit(f"runs/s{seed}/config.json", seed_is(seed))(files)
        manifest(seeds=[0, 1, seed] if copied else [0, seed])(files)

    return tamper


def put_right(records: Records) -> None:
    """Put a right answer in the first row."""
    task = load_task("math", **resolve("single-math", "fst", "smoke")[0].difficulty["math"])
    problem = task.problems("test", TEST_SEED, 1)[0]
    records[0].update(problem=problem.id, text=task.write(problem.answer))


def first_kl(value: bytes) -> Change:
    """Write something else than a number as the first KL."""
    return text_of("evals.jsonl", lambda text: re.sub(rb'"kl": [^,]+', b'"kl": ' + value, text, count=1))


# --- each with the reason that the check gives

RUN: dict[str, tuple[Change, str]] = {
    "an answer edited": (
        first_with("answers", "status", "wrong", text=""),
        r"answers.jsonl row \d+: math-.* was scored 0.0 \(wrong\), the verifier gives 0.0 \(unparseable\)",
    ),
    "a right answer put in": (
        rows("answers", put_right),
        r"answers.jsonl row 1: math-.* was scored 0.0 .*, the verifier gives 1.0",
    ),
    "a reward edited": (
        first_with("answers", "reward", 0.0, reward=1.0),
        r"answers.jsonl row \d+: math-\w+ at step 0 was scored 1.0",
    ),
    "a status edited": (row("answers", 0, status="ok"), r"answers.jsonl row 1: .* was scored 0.0 \(ok\)"),
    "a status of one's own": (row("answers", 0, status="fine"), "answers.jsonl row 1: status: Input should be 'ok'"),
    "an unknown column of an answer": (row("answers", 0, bonus=1), "answers.jsonl row 1: unknown key 'bonus'"),
    "an answer that is not a text": (row("answers", 0, text=7), "answers.jsonl row 1: text: Input should be"),
    "turns that are not": (
        row("answers", 0, turns=[{"assistant": "x"}]),
        "answers.jsonl row 1: turns.0.tool: Field req",
    ),
    "a turn without a tool": (
        row("answers", 0, turns=[{"assistant": "x", "tool": "y"}]),
        "answers.jsonl row 1: a turn of math-.* has a reply that its tool does not give",
    ),
    "an accuracy edited": (
        row("evals", -1, accuracy=1.0),
        r"evals.jsonl row \d+: accuracy 1.0, its answers earn",
    ),
    "a metric edited": (
        of_run("metrics", lambda m: m["final_average"].update(system=0.99)),
        "metrics.json: final_average.system is 0.99, the rows give",
    ),
    "a stage's metric edited": (
        of_run("metrics", lambda m: m["stages"][0].update(online=0.9)),
        "metrics.json: stages.0.online is 0.9, the rows give",
    ),
    "a stage's task edited": (
        of_run("metrics", lambda m: m["stages"][0].update(tasks=["hover"])),
        r"metrics.json: stages.0.tasks is \['hover'\], the rows give \['math'\]",
    ),
    "a metric added": (of_run("metrics", lambda m: m.update(better=1)), "metrics.json: better is 1"),
    "the last row dropped": (rows("evals", lambda r: r.pop()), r"evals.jsonl row \d+ is missing"),
    "a row dropped": (
        rows("evals", lambda r: r.pop(1)),
        "evals.jsonl row 2: step is 2, expected 0: step 0, math, seed",
    ),
    "a row twice": (rows("evals", lambda r: r.append(r[-1])), r"evals.jsonl row \d+ is one too many"),
    "a row of a later step": (row("evals", 0, step=2), "evals.jsonl row 1: step is 2, expected 0"),
    "fewer problems": (row("evals", 0, n_problems=4), "evals.jsonl row 1: n_problems is 4, expected 8"),
    "an unknown column": (row("evals", 0, bonus=1), "evals.jsonl row 1: unknown key 'bonus'"),
    "a column missing": (rows("evals", lambda r: r[0].pop("kl")), "evals.jsonl row 1: kl: Field required"),
    "not a number": (first_kl(b"NaN"), "evals.jsonl row 1 is not JSON: NaN"),
    "infinity": (first_kl(b"1e999"), "evals.jsonl row 1: kl: Input should be a finite number"),
    "a text for a number": (first_kl(b'"0.0"'), "evals.jsonl row 1: kl: Input should be a valid number"),
    "truth for a number": (first_kl(b"false"), "evals.jsonl row 1: kl: Input should be a valid number"),
    "truth for a count": (
        row("evals", 0, stage=False),
        r"evals.jsonl row 1: stage: Input should be a valid integer \(got False\)",
    ),
    "a number for truth": (row("evals", 0, boundary=1), "evals.jsonl row 1: boundary: Input should be a valid boolean"),
    "more than everything": (row("evals", 0, accuracy=1.5), "evals.jsonl row 1: accuracy: Input should be less than"),
    "lines in a column": (row("evals", 0, accuracy="a\n\x1b[31mb"), "evals.jsonl row 1: accuracy: .*got a \ufffd.31mb"),
    "drift before learning": (row("evals", 0, kl=0.2), "evals.jsonl row 1: a KL of 0.2 before learning"),
    "negative drift": (row("evals", -1, kl=-0.2), "a KL of -0.2"),
    "another seed prompt": (
        row("evals", 1, context="Box it."),
        "evals.jsonl row 2: its context is not the seed prompt",
    ),
    "longer answers than it may give": (row("evals", 0, tokens_per_answer=97.0), "97.0 tokens an answer"),
    "rollouts unspent": (row("evals", -1, rollouts=0), r"evals.jsonl row \d+: 0 rollouts, the row before has"),
    "an answer dropped": (
        rows("answers", lambda r: r.pop(2)),
        "answers.jsonl row 3: expected an answer of step 0 to math-",
    ),
    "the last answer dropped": (rows("answers", lambda r: r.pop()), r"answers.jsonl row \d+: expected an answer"),
    "an answer twice": (rows("answers", lambda r: r.append(r[-1])), r"answers.jsonl row \d+ is one too many"),
    "an easier problem": (
        rows("answers", lambda r: r[0].update(problem=r[1]["problem"])),
        "answers.jsonl row 1: expected an answer of step 0 to math-",
    ),
    "no answers": (
        put(f"{S0}/answers.jsonl", b""),
        "answers.jsonl row 1: expected an answer of step 0 to math under system",
    ),
    "stages moved": (
        of_run("config", lambda c: c["stages"][0].update(end=99)),
        "config.json: stage 1 is .*99.*, the stream has",
    ),
    "prompts that are not": (
        row("prompts", 0, population="<script>"),
        "prompts.jsonl row 1: population: Input should be a list",
    ),
    "a population of nobody": (row("prompts", 0, population=[]), "prompts.jsonl row 1: population: .* at least 1"),
    "a population of no stage": (row("prompts", 0, stage=None), "prompts.jsonl row 1 has no stage"),
    "a prompt like a book": (
        rows("prompts", lambda r: r[0]["population"][0].update(prompt="x" * 20_001)),
        "prompts.jsonl row 1: a prompt has more than 20,000 characters",
    ),
    "prompts without end": (
        rows("prompts", lambda r: r.extend(r[:1] * 99)),
        r"prompts.jsonl: \d+ populations, the run has 3 steps",
    ),
    "a host in the environment": (
        of_run("env", lambda e: e.update(host="gpu-node-17")),
        "env.json: host is not a part of an environment",
    ),
}
LEDGER: dict[str, tuple[Change, str]] = {
    "a cheaper ledger": (
        of_run("ledger", lambda c: c["rollouts"].update(train=1)),
        "ledger.json: .* rollouts, the last row of evals.jsonl has",
    ),
    "negative spending": (of_run("ledger", lambda c: c["rollouts"].update(train=-5)), "ledger.json: rollouts is"),
    "spending beyond numbers": (of_run("ledger", lambda c: c["seconds"].update(x=10**400)), "ledger.json: seconds is"),
    "a ledger of one's own": (
        of_run("ledger", lambda c: c.update(bonus=1)),
        "ledger.json: bonus is not a part of a ledger",
    ),
    "a ledger without a count": (
        of_run("ledger", lambda c: c.pop("optimizer_steps") and None),
        "ledger.json: optimizer_steps is missing",
    ),
    "a ledger full of words": (
        of_run("ledger", lambda c: c["seconds"].update({"x" * 10_000: 1.0})),
        "ledger.json: seconds is",
    ),
    "words for a count": (
        of_run("ledger", lambda c: c.update(problems="<b>many</b>")),
        "ledger.json: problems is <b>many</b>",
    ),
    "beyond the budget": (
        of_run("ledger", lambda c: c["rollouts"].update(train=10**6)),
        "rollouts, the budget is",
    ),
    "too many reflections": (
        of_run("ledger", lambda c: c.update(reflections=10**6)),
        "1,000,000 reflections, the budget is",
    ),
}
RULES: dict[str, tuple[Change, str]] = {
    "problems of a data set": (
        every_run(lambda saved: saved["config"].update(data="hub", difficulty={})),
        "its problems are from hub, and have to be procedural",
    ),
    "a seed repeated": (manifest(seeds=[0, 0, 1]), "seed 0 is there twice"),
    "a run handed in twice": (as_seed(2, copied=True), "runs/s2 .* the answers of runs/s1"),
    "a seed that is another one": (of_run("config", seed_is(7)), "is of seed 7"),
    "a seed of one's own": (as_seed(9, copied=False), "seed 9: the closed division has seeds 0-4"),
    "a future stream version": (
        every_run(version_is(99), stream="single-math@99"),
        "stream single-math@99: this fst-bench has version 2",
    ),
    "another stream of that name": (
        every_run(lambda c: c["spec"].update(jitter=16)),
        "stream single-math@2 is not as it is shipped",
    ),
    "a private stream": (every_run(stream_is("mine"), stream="mine@2"), "stream mine is not shipped"),
    "a stream that is a file": (every_run(stream_is("a.yaml"), stream="a.yaml@2"), "stream a.yaml is not shipped"),
    "a preset that is a file": (top_and_below("preset", "a.yaml"), "preset a.yaml is not shipped"),
    "easier problems": (
        setting("difficulty.math.operations", 1),
        "difficulty.math.operations is 1, preset smoke has 8",
    ),
    "a task that is a file": (
        every_run(lambda c: c["config"]["difficulty"].update({"/tmp/task.py": {}})),
        "difficulty: '/tmp/task.py' is not the name of a task",
    ),
    "another evaluation": (
        setting("evaluation.temperature", 0.1),
        "evaluation.temperature is 0.1, preset smoke has 1.0",
    ),
    "another model": (
        both(setting("model", "Qwen/Qwen3-8B"), top_and_below("model", "Qwen/Qwen3-8B")),
        "model is Qwen/Qwen3-8B, preset smoke has embedded:tiny",
    ),
    "a head start": (setting("init", "step-000010"), "init is step-000010, preset smoke has None"),
    "longer answers": (setting("policy.max_tokens", 400), "policy.max_tokens is 400, preset smoke has 96"),
    "a better reflector": (
        setting("fast.reflector", "openai/gpt-5.2"),
        "fast.reflector is openai/gpt-5.2, preset smoke has extractive",
    ),
    "an undisclosed setting": (
        setting("slow.ratio_clip_max", 9.0, disclosed=False),
        "settings: slow.ratio_clip_max is disclosed as None, runs/s0/config.json has 9.0",
    ),
    "a setting of one seed": (
        edit("runs/s1/config.json", lambda c: c["config"]["slow"].update(ratio_clip_max=9.0)),
        "slow.ratio_clip_max",
    ),
    "a setting that does not exist": (setting("slow.ratio_clip", 9.0, disclosed=False), "unknown key 'ratio_clip'"),
    "a setting of fst-bench 0.1": (
        setting("slow.cap", 9.0, disclosed=False),
        "runs/s0: slow.cap is now slow.ratio_clip_max",
    ),
    "a prompt mode of fst-bench 0.1": (
        setting("evaluation.boundary_modes", ["system", "seed", "recalled"], disclosed=False),
        "runs/s0: evaluation.boundary_modes: recalled is now oracle",
    ),
    "a changed tree": (
        of_run("env", lambda e: e.update(code="0123abc+")),
        r"the code was 0123abc\+: the closed division requires a commit",
    ),
    "no git": (of_run("env", lambda e: e.update(code="no git")), "the code was no git"),
    "a path in the environment": (
        of_run("env", lambda e: e.update(python="/home/alice/bin/python")),
        "env.json line 1 holds what looks like an absolute path, /home/alice",
    ),
    "a key in the note": (
        manifest(note="sk-abcdefghijklmnop1234"),
        "submission.json line 1 holds what looks like a key",
    ),
    "a method that is a page": (
        top_and_below("method", "<script>"),
        "config.json: method: '<script>' is not a name",
    ),
    "settings like a book": (
        both(
            every_run(lambda c: c["config"]["settings"].update(x="y" * 20_001)),
            edit(MANIFEST, lambda about: about["settings"].update({"settings.x": "y" * 20_001})),
        ),
        "settings: more than 20,000 characters",
    ),
    "a method that is not the runs'": (manifest(method="rl"), "method is 'rl', runs/s0/config.json has 'fst'"),
    "another model at the top": (
        of_run("config", lambda c: c.update(model="embedded:huge")),
        "model is 'embedded:huge' at the top",
    ),
    "code that no run was made with": (
        put("code/methods/mine.py", b"import os"),
        "code/methods/mine.py: no run was made with it",
    ),
    "code that is not there": (
        every_run(
            lambda c: c["config"].update(code={"methods/fst": {"sha256": "0" * 64, "package": None}}),
            code={"methods/fst": {"sha256": "0" * 64}},
        ),
        "code/methods/fst.py is missing",
    ),
}
FILES: dict[str, tuple[Change, str]] = {
    "a torn line": (text_of("evals.jsonl", lambda text: text[:-9]), "evals.jsonl ends in a torn line"),
    "a key twice": (
        text_of("ledger.json", lambda text: text.replace(b"{", b'{"problems": 1,', 1)),
        "ledger.json is not JSON: a key is there twice",
    ),
    "nesting without end": (put(f"{S0}/metrics.json", b"[" * 100_000), "metrics.json is not JSON"),
    "bytes that are not text": (put(f"{S0}/env.json", b"\xff\xfe"), "env.json is not JSON"),
    "a list for a mapping": (put(f"{S0}/metrics.json", b"[]"), "metrics.json holds no mapping"),
    "settings that are not": (
        of_run("config", lambda c: c.update(config=[])),
        "runs/s0 is not a run: config.json has no config",
    ),
    "a stream that is not": (of_run("config", lambda c: c.update(spec=[])), "config.json: spec holds no mapping"),
    "stages that are not": (
        of_run("config", lambda c: c.update(stages=[5])),
        "config.json: stages: .5. is not a mapping",
    ),
    "data that are not": (of_run("config", lambda c: c.update(data=5)), "not as a run records it: AttributeError"),
    "settings left out": (of_run("config", lambda c: c["config"].pop("init")), "not as a run records it: KeyError"),
    "modes that are not": (setting("evaluation.small_modes", 5), "small_modes: Input should be|TypeError"),
    "a pickle": (
        put("runs/s0/metrics.pkl", pickle.dumps({"accuracy": 1.0})),
        "'runs/s0/metrics.pkl' is not a file of a submission",
    ),
    "a pickle under a good name": (
        put(f"{S0}/metrics.json", pickle.dumps({"accuracy": 1.0})),
        "metrics.json is not JSON",
    ),
    "weights": (put("runs/s0/weights.safetensors", b"0"), "weights.safetensors' is not a file of a submission"),
    "a path out of the folder": (put("runs/../../evil.json", b"{}"), "'runs/../../evil.json' leads out of the folder"),
    "an absolute path": (put("/etc/cron.d/evil", b"{}"), "'/etc/cron.d/evil' leads out of the folder"),
    "a Windows path": (put("runs\\..\\evil.json", b"{}"), "leads out of the folder"),
    "a drive": (put("C:/evil.json", b"{}"), "leads out of the folder"),
    "no manifest": (lambda files: files.pop(MANIFEST), "it has no submission.json"),
    "a file missing": (lambda files: files.pop(f"{S0}/env.json"), "runs/s0/env.json is missing"),
    "files of no seed": (put("runs/s3/env.json", b"{}"), "runs/s3/env.json belongs to no seed"),
    "too many files": (
        lambda files: files.update({f"runs/s{i}/env.json": b"{}" for i in range(300)}),
        "files, more than 200",
    ),
    "a division that is not there": (manifest(division="both"), "division"),
    "a future format": (manifest(format=2), "format"),
    "a long name": (manifest(name="x" * 10_000), "name: String should have at most 100 characters"),
    "a name that turns the page around": (manifest(name="abc\u202edef"), "name: requires printable text"),
    "an unknown key": (manifest(rank=1), "unknown key 'rank'"),
}
TAMPERED = RUN | LEDGER | RULES | FILES
assert len(TAMPERED) == len(RUN) + len(LEDGER) + len(RULES) + len(FILES)
