"""A submission that was tampered with fails, each for its own reason; an honest one passes, wherever it is looked at."""

import getpass
import json
import os
import pickle
import re
import shutil
import socket
import stat
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import fst_bench
from fst_bench.cli import main
from fst_bench.harness.config import resolve
from fst_bench.harness.evaluate import TEST_SEED
from fst_bench.leaderboard.bundle import MANIFEST, read_bundle
from fst_bench.leaderboard.check import check, rescored, scored, sound
from fst_bench.leaderboard.submit import submit as make
from fst_bench.tasks import load_task

Files = dict[str, bytes]
Change = Callable[[Files], Any]


def complaint(path: Path) -> str:
    """All that the check finds, in one text; empty for a consistent submission."""
    try:
        return "; ".join(f"{part}: {wrong}" for part, wrong in check(read_bundle(path)) if wrong)
    except ValueError as error:
        return f"file: {error}"


def edit(name: str, change: Callable[[Any], Any]) -> Change:
    """Change a JSON file in place, or return the new value."""

    def tamper(files: Files) -> None:
        value = json.loads(files[name])
        changed = change(value)
        files[name] = json.dumps(value if changed is None else changed).encode()

    return tamper


def rows(name: str, change: Callable[[list[dict[str, Any]]], Any]) -> Change:
    def tamper(files: Files) -> None:
        value = [json.loads(line) for line in files[name].splitlines()]
        change(value)
        files[name] = "".join(json.dumps(row) + "\n" for row in value).encode()

    return tamper


def both(*changes: Change) -> Change:
    return lambda files: [change(files) for change in changes]


def every_run(change: Callable[[dict[str, Any]], Any], disclosed: dict[str, Any] | None = None) -> Change:
    """The same change to every config.json, and what the manifest says of it."""
    return both(
        *(edit(f"runs/s{seed}/config.json", change) for seed in (0, 1)),
        edit(MANIFEST, lambda said: said.update(disclosed or {})),
    )


def setting(dotted: str, value: Any) -> Change:
    """A setting changed in every run, and disclosed."""

    def change(saved: dict[str, Any]) -> None:
        *above, last = dotted.split(".")
        section = saved["config"]
        for part in above:
            section = section[part]
        section[last] = value

    return both(every_run(change), edit(MANIFEST, lambda said: said["settings"].update({dotted: value})))


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


def rename(old: str, new: str) -> Change:
    return lambda files: files.update({new: files.pop(old)})


def as_seed_two(files: Files) -> None:
    """The run of seed 1 handed in once more, as seed 2."""
    for name in [name for name in files if name.startswith("runs/s1/")]:
        files[name.replace("s1", "s2")] = files[name]
    edit("runs/s2/config.json", seed_is(2))(files)
    edit(MANIFEST, lambda said: said.update(seeds=[0, 1, 2]))(files)


def first_wrong(records: list[dict[str, Any]]) -> dict[str, Any]:
    return next(record for record in records if record["reward"] == 0.0)


def put_right(records: list[dict[str, Any]]) -> None:
    task = load_task("math", **resolve("single-math", "fst", "smoke")[0].difficulty["math"])
    problem = task.problems("test", TEST_SEED, 1)[0]
    records[0].update(problem=problem.id, text=task.write(problem.answer))


S0 = "runs/s0"
TAMPERED: dict[str, tuple[Change, str]] = {
    "an answer edited": (
        rows(f"{S0}/answers.jsonl", lambda r: next(record for record in r if record["status"] == "wrong").update(text="")),
        r"answers.jsonl row \d+: math-.* was scored 0.0 \(wrong\), the verifier says 0.0 \(unparseable\)",
    ),
    "a right answer put in": (rows(f"{S0}/answers.jsonl", put_right), r"answers.jsonl row 1: math-.* was scored 0.0 .*, the verifier says 1.0"),
    "a reward edited": (rows(f"{S0}/answers.jsonl", lambda r: first_wrong(r).update(reward=1.0)), r"answers.jsonl row \d+: math-\w+ at step 0 was scored 1.0"),
    "a status edited": (rows(f"{S0}/answers.jsonl", lambda r: r[0].update(status="correct")), "answers.jsonl row 1: .* was scored 0.0 .correct."),
    "an accuracy edited": (rows(f"{S0}/evals.jsonl", lambda r: r[-1].update(accuracy=1.0)), r"evals.jsonl row \d+: accuracy 1.0, its answers earn"),
    "a metric edited": (edit(f"{S0}/metrics.json", lambda m: m["final_average"].update(system=0.99)), "metrics.json: final_average.system is 0.99, the rows say"),
    "a stage's metric edited": (edit(f"{S0}/metrics.json", lambda m: m["stages"][0].update(within=0.9)), "metrics.json: stages.0.within is 0.9, the rows say"),
    "a metric added": (edit(f"{S0}/metrics.json", lambda m: m.update(better=1)), "metrics.json: better is 1"),
    "a seed repeated": (edit(MANIFEST, lambda said: said.update(seeds=[0, 0, 1])), "seed 0 is there twice"),
    "problems of a data set": (
        every_run(lambda saved: saved["config"].update(data="hub", difficulty={})),
        "its problems are from hub, and have to be procedural",
    ),
    "a run handed in twice": (as_seed_two, "runs/s2 .* the answers of runs/s1"),
    "a seed that is another one": (edit(f"{S0}/config.json", seed_is(7)), "is of seed 7"),
    "a seed of one's own": (both(
        *(rename(f"runs/s1/{file}", f"runs/s9/{file}") for file in ("config.json", "env.json", "metrics.json", "ledger.json", "evals.jsonl", "answers.jsonl", "prompts.jsonl")),
        edit("runs/s9/config.json", seed_is(9)), edit(MANIFEST, lambda said: said.update(seeds=[0, 9])),
    ), "seed 9: the closed division has seeds 0-4"),
    "the last row dropped": (rows(f"{S0}/evals.jsonl", lambda r: r.pop()), r"evals.jsonl row \d+ is missing"),
    "a row dropped": (rows(f"{S0}/evals.jsonl", lambda r: r.pop(1)), "evals.jsonl row 2: step is 2, owed is 0: step 0, math, seed"),
    "a row twice": (rows(f"{S0}/evals.jsonl", lambda r: r.append(r[-1])), r"evals.jsonl row \d+ is one too many"),
    "a row of a later step": (rows(f"{S0}/evals.jsonl", lambda r: r[0].update(step=2)), "evals.jsonl row 1: step is 2, owed is 0"),
    "fewer problems": (rows(f"{S0}/evals.jsonl", lambda r: r[0].update(n_problems=4)), "evals.jsonl row 1: n_problems is 4, owed is 8"),
    "an unknown column": (rows(f"{S0}/evals.jsonl", lambda r: r[0].update(bonus=1)), "evals.jsonl row 1: bonus is missing or unknown"),
    "not a number": (lambda files: files.update({f"{S0}/evals.jsonl": re.sub(rb'"kl": [^,]+', b'"kl": NaN', files[f"{S0}/evals.jsonl"], count=1)}), "evals.jsonl row 1 is not JSON: NaN"),
    "infinity": (lambda files: files.update({f"{S0}/evals.jsonl": re.sub(rb'"kl": [^,]+', b'"kl": 1e999', files[f"{S0}/evals.jsonl"], count=1)}), "evals.jsonl row 1: kl is inf"),
    "truth for a number": (rows(f"{S0}/evals.jsonl", lambda r: r[0].update(stage=False)), "evals.jsonl row 1: stage is False"),
    "drift before learning": (rows(f"{S0}/evals.jsonl", lambda r: r[0].update(kl=0.2)), "evals.jsonl row 1: a KL of 0.2 before learning"),
    "negative drift": (rows(f"{S0}/evals.jsonl", lambda r: r[-1].update(kl=-0.2)), "a KL of -0.2"),
    "another seed prompt": (rows(f"{S0}/evals.jsonl", lambda r: r[1].update(context="Box it.")), "evals.jsonl row 2: its context is not the seed prompt"),
    "rollouts unspent": (rows(f"{S0}/evals.jsonl", lambda r: r[-1].update(rollouts=0)), r"evals.jsonl row \d+: 0 rollouts, the row before has"),
    "a cheaper ledger": (edit(f"{S0}/ledger.json", lambda c: c["rollouts"].update(train=1)), "ledger.json: .* rollouts, the last row of evals.jsonl has"),
    "negative spending": (edit(f"{S0}/ledger.json", lambda c: c["rollouts"].update(train=-5)), "ledger.json: rollouts is"),
    "a ledger of one's own": (edit(f"{S0}/ledger.json", lambda c: c.update(bonus=1)), "ledger.json: bonus is no part of a ledger"),
    "a ledger without a count": (edit(f"{S0}/ledger.json", lambda c: c.pop("optimizer_steps") and None), "ledger.json: optimizer_steps is missing"),
    "a ledger full of words": (edit(f"{S0}/ledger.json", lambda c: c["seconds"].update({"x" * 10_000: 1.0})), "ledger.json: seconds is"),
    "words for a count": (edit(f"{S0}/ledger.json", lambda c: c.update(problems="<b>many</b>")), "ledger.json: problems is <b>many</b>"),
    "beyond the budget": (edit(f"{S0}/ledger.json", lambda c: c["rollouts"].update(train=10**6)), "rollouts, the budget is"),
    "too many reflections": (edit(f"{S0}/ledger.json", lambda c: c.update(reflections=10**6)), "1,000,000 reflections, the budget is"),
    "an answer dropped": (rows(f"{S0}/answers.jsonl", lambda r: r.pop(2)), "answers.jsonl row 3: owed is an answer of step 0 to math-"),
    "the last answer dropped": (rows(f"{S0}/answers.jsonl", lambda r: r.pop()), r"answers.jsonl row \d+: owed is an answer"),
    "an answer twice": (rows(f"{S0}/answers.jsonl", lambda r: r.append(r[-1])), r"answers.jsonl row \d+ is one too many"),
    "an easier problem": (rows(f"{S0}/answers.jsonl", lambda r: r[0].update(problem=r[1]["problem"])), "answers.jsonl row 1: owed is an answer of step 0 to math-"),
    "no answers": (lambda files: files.update({f"{S0}/answers.jsonl": b""}), "answers.jsonl row 1: owed is an answer of step 0 to math under system"),
    "a future stream version": (
        every_run(version_is(99), {"stream": "single-math@99"}),
        "stream single-math@99: this fst-bench has version 1",
    ),
    "another stream of that name": (every_run(lambda c: c["spec"].update(jitter=16)), "stream single-math@1 is not as it is shipped"),
    "a private stream": (every_run(stream_is("mine"), {"stream": "mine@1"}), "stream mine is not shipped"),
    "stages moved": (edit(f"{S0}/config.json", lambda c: c["stages"][0].update(end=99)), "config.json: stage 1 is .*99.*, the stream has"),
    "easier problems": (setting("difficulty.math.operations", 1), "difficulty.math.operations is 1, preset smoke has 8"),
    "another evaluation": (setting("evaluation.temperature", 0.1), "evaluation.temperature is 0.1, preset smoke has 1.0"),
    "another model": (both(setting("model", "Qwen/Qwen3-8B"), every_run(lambda c: c.update(model="Qwen/Qwen3-8B"), {"model": "Qwen/Qwen3-8B"})), "model is Qwen/Qwen3-8B, preset smoke has embedded:tiny"),
    "a head start": (setting("init", "step-000010"), "init is step-000010, preset smoke has None"),
    "longer answers": (setting("policy.max_tokens", 400), "policy.max_tokens is 400, preset smoke has 96"),
    "a better reflector": (setting("fast.reflector", "openai/gpt-5.2"), "fast.reflector is openai/gpt-5.2, preset smoke has extractive"),
    "an undisclosed setting": (every_run(lambda c: c["config"]["slow"].update(cap=9.0)), "settings: slow.ratio_clip_max is disclosed as None, runs/s0/config.json has 9.0"),
    "a setting of one seed": (edit("runs/s1/config.json", lambda c: c["config"]["slow"].update(cap=9.0)), "slow.ratio_clip_max"),
    "a setting that does not exist": (every_run(lambda c: c["config"]["slow"].update(capp=9.0)), "unknown key 'capp'"),
    "a changed tree": (edit(f"{S0}/env.json", lambda e: e.update(code="0123abc+")), r"the code was 0123abc\+: the closed division wants a commit"),
    "no git": (edit(f"{S0}/env.json", lambda e: e.update(code="no git")), "the code was no git"),
    "a host in the environment": (edit(f"{S0}/env.json", lambda e: e.update(host="gpu-node-17")), "env.json: host is no part of an environment"),
    "a path in the environment": (edit(f"{S0}/env.json", lambda e: e.update(python="/home/alice/bin/python")), "env.json line 1 holds what looks like an absolute path, /home/alice"),
    "a key in the note": (edit(MANIFEST, lambda said: said.update(note="sk-abcdefghijklmnop1234")), "submission.json line 1 holds what looks like a key"),
    "a method that is a page": (both(
        every_run(lambda c: (c.update(method="<script>"), c["config"].update(method="<script>"))[2:] or None, {"method": "<script>"}),
    ), "method '<script>' is neither shipped nor in its code"),
    "settings like a book": (both(every_run(lambda c: c["config"]["settings"].update(x="y" * 20_001)), edit(MANIFEST, lambda said: said["settings"].update({"settings.x": "y" * 20_001}))), "settings: more than 20,000 characters"),
    "a method that is not the runs'": (edit(MANIFEST, lambda said: said.update(method="rl")), "method is 'rl', runs/s0/config.json has 'fst'"),
    "another model at the top": (edit(f"{S0}/config.json", lambda c: c.update(model="embedded:huge")), "model is 'embedded:huge' at the top"),
    "code that no run was made with": (lambda files: files.update({"code/methods/mine.py": b"import os"}), "code/methods/mine.py: no run was made with it"),
    "code that is not there": (every_run(lambda c: c["config"].update(code={"methods/fst": {"sha256": "0" * 64, "package": None}}), {"code": {"methods/fst": {"sha256": "0" * 64}}}), "code/methods/fst.py is missing"),
    "prompts that are none": (rows(f"{S0}/prompts.jsonl", lambda r: r[0].update(population="<script>")), "prompts.jsonl row 1 is no population"),
    "a prompt like a book": (rows(f"{S0}/prompts.jsonl", lambda r: r[0]["population"][0].update(prompt="x" * 20_001)), "prompts.jsonl row 1 is no population"),
    "prompts without end": (rows(f"{S0}/prompts.jsonl", lambda r: r.extend(r[:1] * 99)), r"prompts.jsonl: \d+ populations, the run has 3 steps"),
    "longer answers than it may give": (rows(f"{S0}/evals.jsonl", lambda r: r[0].update(tokens_per_answer=97.0)), "97.0 tokens an answer"),
    "a torn line": (lambda files: files.update({f"{S0}/evals.jsonl": files[f"{S0}/evals.jsonl"][:-9]}), "evals.jsonl ends in a torn line"),
    "a key twice": (lambda files: files.update({f"{S0}/ledger.json": files[f"{S0}/ledger.json"].replace(b"{", b'{"problems": 1,', 1)}), "ledger.json is not JSON: a key is there twice"),
    "nesting without end": (lambda files: files.update({f"{S0}/metrics.json": b"[" * 100_000}), "metrics.json is not JSON"),
    "bytes that are no text": (lambda files: files.update({f"{S0}/env.json": b"\xff\xfe"}), "env.json is not JSON"),
    "a list for a mapping": (lambda files: files.update({f"{S0}/metrics.json": b"[]"}), "metrics.json holds no mapping"),
    "settings that are none": (edit(f"{S0}/config.json", lambda c: c.update(config=[])), "config.json: config holds no mapping"),
    "a pickle": (lambda files: files.update({"runs/s0/metrics.pkl": pickle.dumps({"accuracy": 1.0})}), "'runs/s0/metrics.pkl' is no file of a submission"),
    "a pickle under a good name": (lambda files: files.update({f"{S0}/metrics.json": pickle.dumps({"accuracy": 1.0})}), "metrics.json is not JSON"),
    "weights": (lambda files: files.update({"runs/s0/weights.safetensors": b"0"}), "weights.safetensors' is no file of a submission"),
    "a path out of the folder": (lambda files: files.update({"runs/../../evil.json": b"{}"}), "'runs/../../evil.json' leads out of the folder"),
    "an absolute path": (lambda files: files.update({"/etc/cron.d/evil": b"{}"}), "'/etc/cron.d/evil' leads out of the folder"),
    "a Windows path": (lambda files: files.update({"runs\\..\\evil.json": b"{}"}), "leads out of the folder"),
    "a drive": (lambda files: files.update({"C:/evil.json": b"{}"}), "leads out of the folder"),
    "no manifest": (lambda files: files.pop(MANIFEST), "it has no submission.json"),
    "a file missing": (lambda files: files.pop(f"{S0}/env.json"), "runs/s0/env.json is missing"),
    "files of no seed": (lambda files: files.update({"runs/s3/env.json": b"{}"}), "runs/s3/env.json belongs to no seed"),
    "too many files": (lambda files: files.update({f"runs/s{i}/env.json": b"{}" for i in range(300)}), "files, more than 200"),
    "a division that is not there": (edit(MANIFEST, lambda said: said.update(division="both")), "division"),
    "a future format": (edit(MANIFEST, lambda said: said.update(format=2)), "format"),
    "a long name": (edit(MANIFEST, lambda said: said.update(name="x" * 10_000)), "name: String should have at most 100 characters"),
    "a name that turns the page around": (edit(MANIFEST, lambda said: said.update(name="abc\u202edef")), "name: wants printable text"),
    "an unknown key": (edit(MANIFEST, lambda said: said.update(rank=1)), "unknown key 'rank'"),
}  # fmt: skip


def test_an_honest_submission_is_consistent(honest: Path) -> None:
    bundle = read_bundle(honest)
    found = list(check(bundle))
    assert complaint(honest) == "" and len(found) == 3 + 2 * 6
    assert sound(bundle) is bundle
    for run in bundle.runs:
        assert rescored(run).evals == run.evals and rescored(run).metrics == run.metrics


@pytest.mark.parametrize("what", TAMPERED)
def test_what_was_tampered_with_fails_for_its_own_reason(what: str, tampered: Callable[..., Path]) -> None:
    change, reason = TAMPERED[what]
    found = complaint(tampered(change))
    assert found and re.search(reason, found), found
    assert "\n" not in found


def test_every_file_is_held_by_its_hash(tampered: Callable[..., Path], honest: Path) -> None:
    for name in read_bundle(honest).files.keys() - {MANIFEST}:
        found = complaint(tampered(lambda files, name=name: files.update({name: files[name] + b"\n"}), rehashed=False))
        assert found == f"file: {name} is not the file of submission.json: its sha256 differs"
    assert "not named in submission.json" in complaint(
        tampered(lambda files: files.update({"code/methods/mine.py": b""}), rehashed=False)
    )
    assert "runs/s0/env.json is missing" in complaint(
        tampered(lambda files: files.pop("runs/s0/env.json"), rehashed=False)
    )


def zipped(path: Path, change: Callable[[zipfile.ZipFile], Any]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        change(packed)
    return path


def test_zip_files_that_are_weapons_are_refused_before_they_go_off(tmp_path: Path, honest: Path) -> None:
    path = tmp_path / "bad.zip"
    link = zipfile.ZipInfo("runs/s0/env.json")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    assert complaint(zipped(path, lambda z: z.writestr(link, "/etc/passwd"))) == "file: runs/s0/env.json is a link"

    with pytest.warns(UserWarning, match="Duplicate"):
        zipped(path, lambda z: [z.writestr(MANIFEST, "{}") for _ in range(2)])
    assert complaint(path) == "file: submission.json is there twice"

    zipped(path, lambda z: z.writestr(MANIFEST, b"0" * 410_000_000))
    assert path.stat().st_size < 1_000_000 and re.fullmatch(
        r"file: unpacked it would have 410,000,000 bytes, more than [\d,]+", complaint(path)
    )

    whole = honest.read_bytes()
    for part in (b"", b"PK", whole[: len(whole) // 2], whole[:-30], b"x" * 1000):
        path.write_bytes(part)
        assert complaint(path).startswith("file: bad.zip is no whole zip file")
    path.write_bytes(bytes([*whole[:200], whole[200] ^ 255, *whole[201:]]))
    assert complaint(path).startswith("file: ")
    assert complaint(tmp_path / "gone.zip") == f"file: cannot read {tmp_path / 'gone.zip'}: No such file or directory"


def test_a_zip_bomb_that_lies_about_its_size_is_read_no_further_than_it_says(tmp_path: Path) -> None:
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_BZIP2) as packed:
        packed.writestr(MANIFEST, b"0" * 300_000_000)
    data = path.read_bytes()
    size = (300_000_000).to_bytes(4, "little")
    assert data.count(size) == 2  # in the file's own header and in the directory
    path.write_bytes(data.replace(size, (100).to_bytes(4, "little")))
    assert "Bad CRC-32" in complaint(path) or "is not JSON" in complaint(path)


def test_an_honest_submission_is_the_same_and_passes_in_another_locale_and_time_zone(
    honest: Path, made: Path, tmp_path: Path
) -> None:
    foreign = os.environ | {
        "LC_ALL": "C",
        "LANG": "tr_TR.ISO-8859-9",
        "PYTHONUTF8": "0",
        "PYTHONCOERCECLOCALE": "0",
        "TZ": "Asia/Kathmandu",
        "PYTHONHASHSEED": "7",
    }
    again = tmp_path / "again.zip"
    command = [
        "submit",
        str(made),
        "--name",
        "Fast and slow",
        "--org",
        "fst-bench",
        "--division",
        "closed",
        "--note",
        "As it is shipped.",
        "--out",
        str(again),
    ]
    done = subprocess.run(
        [sys.executable, "-m", "fst_bench", "leaderboard", *command],
        env=foreign,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "seeds 0, 1" in done.stdout and "checked" in done.stdout
    assert again.read_bytes() == honest.read_bytes()


def test_an_open_submission_may_change_what_the_closed_one_holds_still(tampered: Callable[..., Path]) -> None:
    opened = edit(MANIFEST, lambda said: said.update(division="open"))
    assert complaint(tampered(both(opened, setting("policy.max_tokens", 400)))) == ""
    assert complaint(tampered(both(opened, edit(f"{S0}/env.json", lambda e: e.update(code="no git"))))) == ""
    assert "evaluation.temperature is 0.1" in complaint(tampered(both(opened, setting("evaluation.temperature", 0.1))))


def test_what_must_not_leave_the_machine_is_not_written(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out" / "fst.zip"

    def submit(runs: Path, note: str = "") -> str:
        assert (
            main(
                [
                    "leaderboard",
                    "submit",
                    str(runs),
                    "--name",
                    "N",
                    "--org",
                    "O",
                    "--division",
                    "open",
                    "--note",
                    note,
                    "--out",
                    str(out),
                ]
            )
            == 2
        )
        assert not out.exists()
        return capsys.readouterr().err

    monkeypatch.setenv("MY_API_KEY", "correct-horse-battery")
    assert "submission.json line 6 holds the value of the environment variable MY_API_KEY" in submit(
        made, "ask correct-horse-battery"
    )
    monkeypatch.setattr("socket.gethostname", lambda: "gpu-node-17")
    assert "holds this machine's name" in submit(made, "ran on gpu-node-17")
    assert "holds a path of this machine" in submit(made, f"from {next(made.rglob('config.json')).parent}")
    assert "looks like an absolute path, /mnt/models/qwen" in submit(made, "weights in /mnt/models/qwen")
    assert "looks like a key" in submit(made, "hf_abcdefghijklmnopqrst")


def test_a_submission_holds_no_name_or_place_of_the_machine_it_was_made_on(honest: Path, made: Path) -> None:
    for name, data in read_bundle(honest).files.items():
        text = data.decode()
        for planted in (str(made), str(Path.home()), str(Path.cwd()), socket.gethostname(), f"/{getpass.getuser()}/"):
            assert planted not in text, (name, planted)
    assert not any(
        name.endswith((".safetensors", ".pt", ".bin")) or "rollouts" in name for name in read_bundle(honest).files
    )


def test_what_cannot_be_submitted_is_one_line_and_costs_nothing(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "x.zip"
    out.write_bytes(b"what was there")

    def refused(runs: Path) -> str:
        assert (
            main(
                [
                    "leaderboard",
                    "submit",
                    str(runs),
                    "--name",
                    "N",
                    "--org",
                    "O",
                    "--division",
                    "closed",
                    "--out",
                    str(out),
                ]
            )
            == 2
        )
        assert out.read_bytes() == b"what was there" and [path.name for path in tmp_path.glob("x.zip*")] == ["x.zip"]
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        return error

    assert "no finished run in" in refused(tmp_path / "nothing")
    copy = tmp_path / "copy"
    shutil.copytree(made, copy)
    some = next(copy.rglob("evals.jsonl"))
    some.write_text(some.read_text().replace("0.0", "0.5", 1))
    assert "was changed since the run: evals.jsonl" in refused(copy)
    short = fst_bench.run("single-math", "base", tmp_path / "short", 0, "smoke", policy={"max_tokens": 32})
    assert "rules: runs/s0: policy.max_tokens is 32, preset smoke has 96: nothing was written" in refused(short.path)
    fst_bench.run("single-math", "gepa", tmp_path / "short", 0, "smoke", policy={"max_tokens": 32})
    assert "a submission is one method's, these runs are of base, gepa" in refused(tmp_path / "short")


def test_the_check_tells_each_part_and_exits_with_1(
    honest: Path, tampered: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    change, _ = TAMPERED["a metric edited"]
    assert main(["leaderboard", "check", str(honest)]) == 0
    assert main(["leaderboard", "check", str(honest), str(tampered(change)), "--json"]) == 1
    printed = capsys.readouterr().out
    assert (
        f"consistent {honest}: 15 parts" in printed
        and "runs/s0 metrics: metrics.json: final_average.system is 0.99" in printed
    )


def test_a_method_of_ones_own_comes_with_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fst_bench.harness.environment.commit", lambda: "0123abc")
    mine = tmp_path / "mine.py"
    mine.write_text(
        (Path(__file__).parents[2] / "methods" / "rl.py").read_text().replace('name = "rl"', 'name = "mine"')
    )
    run = fst_bench.run("single-math", str(mine), tmp_path / "runs", 0, "smoke", settings={})
    bundle = make([run.path], "Mine", "Me", "closed", "", tmp_path / "mine.zip")
    assert bundle.code() == {"mine": mine.read_bytes()} and complaint(tmp_path / "mine.zip") == ""
    assert bundle.submission.code["methods/mine"].package is None


def test_answers_of_a_conversation_are_scored_with_what_the_tool_said() -> None:
    task = load_task("hover-search", chains=1, hops=1, style="bare")
    problem = task.problems("test", TEST_SEED, 1)[0]
    said = next(text for text in task.wrong_texts(problem) if task.respond(problem, [text]) is not None)
    turn = {"said": said, "heard": task.respond(problem, [said])}
    right = {"text": task.write(problem.answer), "turns": [turn]}
    assert scored(1, right, task, problem)[0] == 1.0
    for turns in ([turn | {"heard": "The answer is yes."}], [{"said": said}], ["search"], "search"):
        with pytest.raises(
            ValueError, match=r"answers.jsonl row 1: .*(was told what its tool does not say|its turns are none)"
        ):
            scored(1, right | {"turns": turns}, task, problem)
