"""A submission that was tampered with fails, each for its own reason; an honest one passes, wherever it is checked."""

import getpass
import os
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
from tampering import TAMPERED, both, manifest, of_run, rows, setting, unzipped

import fst_bench
from fst_bench.cli import main
from fst_bench.harness.evaluate import TEST_SEED
from fst_bench.harness.rows import AnswerRow
from fst_bench.leaderboard.answers import final_scores, rescored, score_of
from fst_bench.leaderboard.bundle import MANIFEST, read_bundle
from fst_bench.leaderboard.check import check, sound
from fst_bench.leaderboard.submit import submit as make
from fst_bench.tasks import load_task


def complaint(path: Path) -> str:
    """Return all that the check finds, in one text; empty for a consistent submission."""
    try:
        return "; ".join(f"{part}: {wrong}" for part, wrong in check(read_bundle(path)) if wrong)
    except ValueError as error:
        return f"file: {error}"


def to_submit(runs: Path, out: Path, name: str, org: str, division: str = "closed", note: str = "") -> list[str]:
    about = ["--name", name, "--org", org, "--division", division, "--note", note]
    return ["submit", str(runs), *about, "--out", str(out)]


def test_an_honest_submission_is_consistent(honest: Path) -> None:
    bundle = read_bundle(honest)
    found = list(check(bundle))
    assert complaint(honest) == "" and len(found) == 3 + 2 * 6
    assert sound(bundle) is bundle
    for run in bundle.runs:
        again = rescored(run)
        assert again.evaluations == run.evaluations and again.answers == run.answers and again.metrics == run.metrics


def test_rows_of_older_runs_lack_a_column(tampered: Callable[..., Path]) -> None:
    assert complaint(tampered(rows("evals", lambda records: [row.pop("fetched") for row in records]))) == ""


def test_runs_are_in_the_order_of_their_seeds_whatever_the_manifests(
    honest: Path, tampered: Callable[..., Path]
) -> None:
    """Entries are compared seed by seed: another order would pair different ones."""
    bundle = read_bundle(tampered(manifest(seeds=[1, 0])))
    assert [run.seed for run in sound(bundle).runs] == [0, 1]
    scores, expected = final_scores(bundle.runs), final_scores(read_bundle(honest).runs)
    assert {task: values.tolist() for task, values in scores.items()} == {
        task: values.tolist() for task, values in expected.items()
    }


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

    def twice(z: zipfile.ZipFile) -> None:
        for _ in range(2):
            z.writestr(MANIFEST, "{}")

    with pytest.warns(UserWarning, match="Duplicate"):
        zipped(path, twice)
    assert complaint(path) == "file: submission.json is there twice"

    zipped(path, lambda z: z.writestr(MANIFEST, b"0" * 410_000_000))
    assert path.stat().st_size < 1_000_000 and re.fullmatch(
        r"file: unpacked it would have 410,000,000 bytes, more than [\d,]+", complaint(path)
    )

    whole = honest.read_bytes()
    for part in (b"", b"PK", whole[: len(whole) // 2], whole[:-30], b"x" * 1000):
        path.write_bytes(part)
        assert complaint(path).startswith("file: bad.zip is not a whole zip file")
    path.write_bytes(bytes([*whole[:200], whole[200] ^ 255, *whole[201:]]))
    assert complaint(path).startswith("file: ")
    assert complaint(tmp_path / "gone.zip") == f"file: cannot read {tmp_path / 'gone.zip'}: No such file or directory"


def test_a_zip_file_of_finder_or_explorer_is_the_submission_in_it(tmp_path: Path, honest: Path) -> None:
    files = unzipped(honest)
    for top in ("", "fst/"):
        junk = [f"{top}.DS_Store", f"{top}runs/.DS_Store", f"__MACOSX/{top}._{MANIFEST}", f"{top}runs/s0/._env.json"]
        path = tmp_path / "finder.zip"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
            for folder in (top, f"{top}runs/", f"{top}runs/s0/", "__MACOSX/"):
                if folder:
                    packed.mkdir(folder)
            for name in junk:
                packed.writestr(name, b"\x00\x05\x16\x07")
            for name, data in files.items():
                packed.writestr(f"{top}{name}", data)
        assert read_bundle(path).files == files
    with zipfile.ZipFile(path, "a") as packed:
        packed.writestr("other/notes.txt", "")
    assert complaint(path).endswith("is not a file of a submission")


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
    command = to_submit(made, again, "Fast and slow", "fst-bench", note="As it is shipped.")
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
    opened = manifest(division="open")
    assert complaint(tampered(both(opened, setting("policy.max_tokens", 400)))) == ""
    assert complaint(tampered(both(opened, of_run("env", lambda e: e.update(code="no git"))))) == ""
    assert "evaluation.temperature is 0.1" in complaint(tampered(both(opened, setting("evaluation.temperature", 0.1))))


def test_what_must_not_leave_the_machine_is_not_written(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out" / "fst.zip"

    def submit(runs: Path, note: str = "") -> str:
        assert main(["leaderboard", *to_submit(runs, out, "N", "O", "open", note)]) == 2
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
        assert main(["leaderboard", *to_submit(runs, out, "N", "O")]) == 2
        assert out.read_bytes() == b"what was there" and [path.name for path in tmp_path.glob("x.zip*")] == ["x.zip"]
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        return error

    assert "no finished run in" in refused(tmp_path / "nothing")
    committed = Path(__file__).parents[2] / "results" / "continual-4@2" / "fst"
    assert "is a row of a table without answers" in refused(committed)
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


def test_answers_of_a_conversation_are_scored_with_the_replies_of_their_tool() -> None:
    task = load_task("hover-search", chains=1, hops=1, style="bare")
    problem = task.problems("test", TEST_SEED, 1)[0]
    asked = next(text for text in task.wrong_texts(problem) if task.respond(problem, [text]) is not None)

    def answer(*turns: dict[str, str | None]) -> AnswerRow:
        text = task.write(problem.answer)
        return AnswerRow.model_validate(
            {"step": 0, "stage": 0, "task": "hover-search", "prompt_modes": ["system"], "problem": problem.id}
            | {"text": text, "reward": 1.0, "status": "ok", "turns": turns}
        )

    turn = {"assistant": asked, "tool": task.respond(problem, [asked])}
    assert score_of(1, answer(turn), task, problem).reward == 1.0
    with pytest.raises(ValueError, match=r"answers.jsonl row 1: a turn of .* has a reply that its tool does not give"):
        score_of(1, answer(turn | {"tool": "The answer is yes."}), task, problem)
