"""Bad input: one clear line, no traceback, exit code 2, nothing lost."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import fst_bench
from fst_bench.cli import main
from fst_bench.cli.display import terminal
from fst_bench.cli.parser import names
from fst_bench.harness.config import Config
from fst_bench.harness.loop import Callback
from fst_bench.harness.rows import StepRow
from fst_bench.harness.store import Store
from fst_bench.method.ledger import Ledger
from fst_bench.tasks.stream import Stream, stream_files

RUN = ["run", "--stream", "single-math", "--method", "rl", "--preset", "smoke", "--set", "stage_problems=4"]


def complaint(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    try:
        code = main(arguments)
    except SystemExit as stop:
        code = stop.code
    out, err = capsys.readouterr()
    assert code == 2 and err.count("\n") == 1 and err.startswith("fst-bench: ")
    assert re.fullmatch(r"(loading .*\n)?", out)
    return err


def test_bad_arguments(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "typo.yaml").write_text("name: x\nversion: 1\ndescription: d\nstages: [{taks: math, problems: 9}]\n")
    (tmp_path / "half.yaml").write_text("name: x\nversion: 1\ndescription: d\nstages: [{task: math}]\n")
    (tmp_path / "shipped.yaml").write_text(
        "name: continual-4\nversion: 1\ndescription: d\nstages: [{task: math, problems: 9}]\n"
    )
    (tmp_path / "file").write_text("")
    cases = [
        (["run", "--stream", str(tmp_path / "typo.yaml"), "--method", "fst"], "did you mean task"),
        (["run", "--stream", str(tmp_path / "none.yaml"), "--method", "fst"], "No such file"),
        (["run", "--stream", "continual-4", "--method", "fts"], "did you mean fst? There are base, fst, fst-archive"),
        ([*RUN, "--set", "difficulty.math.operations=0"], "operations"),
        ([*RUN, "--set", "batch"], "key=value"),
        (
            ["run", "--stream", "continual-4", "--method", "rl", "--preset", "smoke", "--set", "stage_problems=1"],
            "ends of two stages",
        ),
        ([*RUN, "--set", "seed=x"], "seed"),
        ([*RUN, "--out", str(tmp_path / "file")], "cannot write"),
        ([*RUN, "--model", str(tmp_path)], "the folder has no config.json"),
        (["resume", str(tmp_path)], "is not a run"),
        (["report", str(tmp_path)], "is not a run"),
        (["validate", "run", str(tmp_path)], "is not a run"),
        (["show", "method", "rll"], "did you mean rl"),
        (["show", "stream", "single-maths"], "did you mean single-math"),
        (["run", "--stream", str(tmp_path / "half.yaml"), "--method", "fst"], "stages.0.problems: Field required\n"),
        (
            ["run", "--stream", str(tmp_path / "shipped.yaml"), "--method", "fst"],
            "a stream named continual-4 is shipped",
        ),
        (["list", "things"], "streams"),
        (["rum"], "run"),
    ]
    for arguments, expected in cases:
        assert expected in complaint(arguments, capsys), arguments
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "half.yaml", "shipped.yaml", "typo.yaml"]


def test_a_file_that_lies_there_may_be_meant(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("my_method.py", "my-stream.yaml"):
        (tmp_path / name).write_text("")
    monkeypatch.chdir(tmp_path)
    assert "did you mean ./my_method.py?" in complaint(
        ["run", "--stream", "single-math", "--method", "my-method"], capsys
    )
    assert "did you mean ./my-stream.yaml?" in complaint(["run", "--stream", "my-stream", "--method", "rl"], capsys)


def test_show_prints_the_file_of_a_stream_and_the_difficulty_parameters_of_a_task(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["show", "stream", "continual-4-drift"]) == 0
    out = capsys.readouterr().out
    assert stream_files()["continual-4-drift"].read_text().rstrip() in out and "█" in out
    assert main(["show", "task", "math"]) == 0
    assert "  --set difficulty.math.format_given=false    bool\n" in capsys.readouterr().out


def test_a_truncated_checkpoint_loses_nothing(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main([*RUN, "--set", "checkpoint.every=1", "--out", str(tmp_path), "--json"]) == 0
    run = Path(json.loads(capsys.readouterr().out.splitlines()[-1])["run"])
    (run / "manifest.json").unlink()  # as if it had been killed at the very end
    weights = sorted(run.glob("checkpoints/*/weights.safetensors"))[-1]
    whole = weights.read_bytes()
    weights.write_bytes(whole[:1000])
    events = (run / "events.jsonl").read_bytes()
    assert "is damaged" in complaint(["resume", str(run)], capsys)
    assert (run / "events.jsonl").read_bytes() == events
    weights.write_bytes(whole)
    assert main(["resume", str(run)]) == 0


def test_dry_run_costs_nothing_and_prints_what_the_run_would_cost(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    command = ["run", "--stream", "continual-4", "--method", "fst", "--out", str(tmp_path / "runs")]
    assert main([*command, "--dry-run", "--json"]) == 0
    planned = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert planned["cost"]["training_rollouts"] == 8 * planned["cost"]["problems"]
    assert planned["config"]["fast"]["cycle"] == 5
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("kind", ["streams", "methods", "tasks", "presets", "runs"])
def test_list(kind: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["list", kind, "--out", str(tmp_path), "--json"]) == 0
    entries = json.loads(capsys.readouterr().out.splitlines()[-1])[kind]
    assert (kind == "runs") != bool(entries)


@pytest.mark.parametrize(
    ("kind", "name"), [("stream", "paper-3"), ("method", "fst"), ("task", "star-graph"), ("preset", "tiny")]
)
def test_show(kind: str, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", kind, name]) == 0
    assert len(capsys.readouterr().out) > 100


@pytest.mark.parametrize(
    "command",
    [
        "list methods",
        "show method fst",
        "show task math",
        "show stream continual-4",
        "new task my-letters",
        "validate streams continual-4",
    ],
)
def test_torch_is_not_imported_where_no_model_is_loaded(command: str, tmp_path: Path) -> None:
    """It takes seconds to import, and transformers longer."""
    script = f"import sys; from fst_bench.cli import main; main({command.split()!r}); "
    script += "print(sorted({'torch', 'transformers'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.endswith("[]\n")


def test_validate(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["validate", "streams"]) == 0
    assert all(main(["validate", "tasks", task]) == 0 for task in ("star-graph", "hover-search"))
    assert "BAD" not in capsys.readouterr().out


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fst_bench.run("single-math", "rl", tmp_path_factory.mktemp("runs"), preset="smoke", stage_problems=4).path


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("slow.cap=4", "slow.cap is now slow.ratio_clip_max"),
        ("slow.group=4", "slow.group is now slow.group_size"),
        ("slow.anchor=sampler", "slow.anchor is now slow.old_logprobs"),
        ("slow={cap: 4}", "slow.cap is now slow.ratio_clip_max"),
        ("fast.anchor=8", "fast.anchor is now fast.valset_size"),
        ("fast.budget=8", "fast.budget is now fast.max_metric_calls"),
        ("policy.clip=1", "policy.clip is now policy.max_grad_norm"),
        ("policy.distributed.positions=512", "policy.distributed.positions is now policy.distributed.max_model_len"),
        ("evaluation.small_modes=[system, recalled]", "evaluation.small_modes: recalled is now oracle"),
    ],
)
def test_an_old_name_of_a_setting_is_one_line_with_the_new_one(
    old: str, new: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert complaint([*RUN, "--set", old, "--out", str(tmp_path)], capsys) == f"fst-bench: settings: {new}\n"
    sweep = ["sweep", "--stream", "single-math", "--methods", "rl,base", "--preset", "smoke", "--out", str(tmp_path)]
    if "={" not in old:
        assert complaint([*sweep, "--set", f"methods.rl.{old}"], capsys) == f"fst-bench: settings: {new}\n"
    assert not list(tmp_path.iterdir())


def test_an_old_name_in_a_file_is_one_line_with_the_new_one(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    preset, stream = tmp_path / "old.yaml", tmp_path / "own.yaml"
    about = "name: own\nversion: 1\ndescription: d\nstages: [{task: math, problems: 64}]\n"
    run = ["run", "--method", "rl", "--out", str(tmp_path / "runs")]
    for text in ("slow: {group: 4}", "methods: {rl: {slow: {group: 4}}}"):
        preset.write_text(f"extends: smoke\n{text}\n")
        error = complaint([*run, "--stream", "single-math", "--preset", str(preset)], capsys)
        assert "slow.group is now slow.group_size" in error
        stream.write_text(f"{about}settings: {{{text}}}\n")
        error = complaint([*run, "--stream", str(stream), "--preset", "smoke"], capsys)
        assert "slow.group is now slow.group_size" in error
    assert not (tmp_path / "runs").exists()


def test_a_run_with_old_names_is_refused_in_one_line(
    finished: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    saved = json.loads((run / "config.json").read_text())
    slow = saved["config"]["slow"]
    slow["group"] = slow.pop("group_size")
    (run / "config.json").write_text(json.dumps(saved))
    Store(run).seal()
    before = contents(run)
    for command in (["validate", "run"], ["probe", "drift"], ["compare"], ["report"], ["resume"]):
        error = complaint([*command, str(run)], capsys)
        assert error == f"fst-bench: {run}: slow.group is now slow.group_size\n", command
    assert contents(run) == before
    (run / "manifest.json").unlink()  # as if it had been killed
    before = contents(run)
    error = complaint(["resume", str(run)], capsys)
    assert error == f"fst-bench: {run}: slow.group is now slow.group_size\n"
    assert contents(run) == before


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def change(edit: Callable[[Any], Any]) -> Callable[[str], str]:
    return lambda text: json.dumps(edit(json.loads(text)))


def without_last_row(text: str) -> str:
    return text[: text.rindex("{")]


def wrong_accuracy(text: str) -> str:
    return text.replace('"accuracy": 0.0', '"accuracy": 0.5', 1)


wrong_average = change(lambda metrics: metrics | {"final_average": {"system": 0.9}})


@pytest.mark.parametrize(
    ("file", "edit", "shown"),
    [
        ("evals.jsonl", without_last_row, r"BAD rows: evals.jsonl row \d+ is missing"),
        ("evals.jsonl", wrong_accuracy, "BAD answers: evals.jsonl row 1: accuracy 0.5"),
        ("answers.jsonl", without_last_row, r"BAD answers: answers.jsonl row \d+: expected an answer of step 1"),
        ("metrics.json", wrong_average, "BAD metrics: metrics.json: final_average.system is 0.9, the rows give"),
        ("ledger.json", change(lambda spent: spent | {"problems": 3}), "ledger.json: 3 problems, the stream has 4"),
        ("ledger.json", change(lambda spent: spent | {"rollouts": 9}), "BAD ledger: ledger.json: rollouts is 9"),
        ("config.json", change(lambda saved: saved | {"stages": []}), "BAD stages: config.json: stage 1 is None"),
    ],
)
def test_edits_that_a_new_manifest_does_not_hide(
    file: str,
    edit: Callable[[str], str],
    shown: str,
    finished: Path,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    run = shutil.copytree(finished, tmp_path / "run")
    text = (run / file).read_text()
    (run / file).write_text(edit(text))
    assert (run / file).read_text() != text
    Store(run).seal()
    assert main(["validate", "run", str(run)]) == 1
    out = capsys.readouterr().out
    assert "ok  manifest" in out and re.search(shown, out), out


def test_a_finished_run_is_valid_until_someone_edits_it(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main([*RUN, "--out", str(tmp_path), "--json"]) == 0
    *lines, last = capsys.readouterr().out.splitlines()
    run = Path(json.loads(last)["run"])
    assert re.fullmatch(
        r"stage 1 math +base 0\.\d\d  end 0\.\d\d  end of stream 0\.\d\d  seed prompt 0\.\d\d  KL 0\.\d{3}", lines[-2]
    )
    assert lines[-1] == f"report: {run}/report.html" and (run / "report.html").exists()
    assert main(["validate", "run", str(run)]) == 0
    manifest = (run / "manifest.json").read_bytes()
    (run / "report.html").unlink()
    assert main(["report", str(run), "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == {"run": str(run), "report": f"{run}/report.html"}
    assert (run / "report.html").exists() and (run / "manifest.json").read_bytes() == manifest
    answers = run / "answers.jsonl"
    rows = [json.loads(line) for line in answers.read_text().splitlines()]
    rows[0]["reward"] = 1.0 - rows[0]["reward"]
    answers.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main(["report", str(run)]) == 2 and "changed since the run: answers.jsonl" in capsys.readouterr().err
    assert main(["validate", "run", str(run)]) == 1
    assert main(["show", "run", str(run)]) == 0
    out = capsys.readouterr().out
    assert "was scored" in out and "changed since the run: answers.jsonl" in out


def program(*arguments: str, **how: Any) -> "subprocess.Popen[bytes]":
    return subprocess.Popen([sys.executable, "-m", "fst_bench", *arguments], **how)


def test_a_reader_that_leaves_and_a_narrow_encoding_end_no_run(tmp_path: Path) -> None:
    """As in `fst-bench run ... | head -2`, of a prompt that Latin-1 cannot print."""
    shell = os.environ | {"PYTHONIOENCODING": "latin-1", "OMP_NUM_THREADS": "1"}
    prompt = ["--set", "seed_prompt=Solve → answer ∎ 解"]
    command = [*RUN, *prompt, "--method", "fst", "--out", str(tmp_path)]
    run = program(*command, env=shell, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert run.stdout and run.stderr and run.stdout.readline() == b"loading fst on single-math\n"
    run.stdout.close()
    assert run.stderr.read() == b"" and run.wait() == 0
    (path,) = tmp_path.glob("*/fst/*")
    assert Store(path).finished and (path / "report.html").exists()


def test_a_full_disk_below_stdout_ends_no_run_and_is_told(tmp_path: Path) -> None:
    with open("/dev/full", "wb") as full:
        run = program(*RUN, "--out", str(tmp_path), stdout=full, stderr=subprocess.PIPE)
    _, err = run.communicate()
    assert err == b"fst-bench: what was printed is not whole: No space left on device\n" and run.returncode == 1
    (path,) = tmp_path.glob("*/rl/*")
    assert Store(path).finished


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-", "2>/dev/full", "| true", "2>&1 | true"])
def test_closed_outputs_are_not_missed(closed: str) -> None:
    command = f"set -o pipefail; {sys.executable} -m fst_bench list tasks --json {closed}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and not done.stderr


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252:strict", "utf-8"])
def test_what_an_encoding_lacks_is_escaped(encoding: str, tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(
        "name: s\nversion: 1\ndescription: Zwei → 解 é.\nstages: [{task: math, problems: 9}]\n", encoding="utf-8"
    )
    shell = os.environ | {"PYTHONIOENCODING": encoding}
    show = program("show", "stream", str(tmp_path / "s.yaml"), env=shell, stdout=subprocess.PIPE)
    out, _ = show.communicate()
    name = encoding.partition(":")[0]
    assert show.returncode == 0 and "Zwei → 解 é.".encode(name, "backslashreplace") in out


def test_a_pipe_that_does_not_block_gets_everything() -> None:
    """As node and ssh leave them: a write that would block is an error then."""
    read, write = os.pipe()
    os.set_blocking(write, False)
    while True:  # fill it
        try:
            os.write(write, b"x" * 1024)
        except BlockingIOError:
            break
    show = program("list", "tasks", stdout=write)
    os.close(write)
    time.sleep(1)
    assert show.poll() is None
    with open(read, "rb") as pipe:
        text = pipe.read().lstrip(b"x").decode()
    assert show.wait() == 0 and text.startswith("math ") and text.endswith("\n")


class InTheWay(Callback):
    """A callback that makes a folder where the report would go."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def on_begin(self, config: Config, stream: Stream, path: Path, step: int) -> None:
        (path / "report.html").mkdir()

    def on_note(self, text: str) -> None:
        self.notes.append(text)


def test_a_report_that_cannot_be_written_fails_no_run(tmp_path: Path) -> None:
    callback = InTheWay()
    run = fst_bench.run("single-math", "base", tmp_path, preset="smoke", callback=callback, stage_problems=4)
    assert run.finished and run.metrics
    (note,) = callback.notes
    assert note.startswith("report.html can't be written: ") and f"fst-bench report {run.path}" in note


class Broken(Callback):
    """A callback with a fault of its own."""

    def on_step(self, row: StepRow, ledger: Ledger) -> None:
        raise ZeroDivisionError("mine")


def test_what_a_callback_of_ones_own_raises_is_raised(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError, match="mine"):
        fst_bench.run("single-math", "base", tmp_path, preset="smoke", callback=Broken(), stage_problems=4)
    (path,) = tmp_path.glob("*/base/*")
    assert fst_bench.resume(path).finished


@pytest.mark.parametrize("policy", ["PASSIVE", "ACTIVE"])
def test_idle_threads_wait_without_work_unless_the_user_says_otherwise(policy: str) -> None:
    shell = {key: value for key, value in os.environ.items() if key != "OMP_WAIT_POLICY"}
    own = {"OMP_WAIT_POLICY": policy} if policy == "ACTIVE" else {}
    code = "import sys, fst_bench, os; assert 'torch' not in sys.modules; print(os.environ['OMP_WAIT_POLICY'])"
    done = subprocess.run([sys.executable, "-c", code], env=shell | own, capture_output=True, text=True, check=True)
    assert done.stdout == f"{policy}\n"


def test_names_with_commas_have_no_spaces_around_them(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert names(" fst_general , ifeval") == ["fst_general", "ifeval"]
    assert "unknown tracker 'b'" in complaint([*RUN, "--out", str(tmp_path), "--track", "tensorboard, b"], capsys)
    for flags in (["--track", "a,,b"], ["--track", ""]):
        assert "requires names with commas between them" in complaint([*RUN, *flags], capsys)


def test_a_setting_named_like_a_flag_is_no_setting(capsys: pytest.CaptureFixture[str]) -> None:
    for key in ("out", "callback", "once", " "):
        assert "fst-bench: " in complaint([*RUN, "--set", f"{key}=x"], capsys)


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (OSError(), "OSError"),
        (ValueError(), "ValueError"),
        (OSError(28, "No space left on device"), "No space left on device"),
        (OSError(2, "No such file or directory", "x"), "x: No such file or directory"),
    ],
)
def test_an_error_without_words_has_a_name(
    error: Exception, line: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise error

    monkeypatch.setattr("fst_bench.harness.config.resolve", fail)
    assert complaint([*RUN, "--dry-run"], capsys) == f"fst-bench: {line}\n"


@pytest.mark.parametrize(("columns", "width"), [("0", 80), ("00", 80), ("", 80), ("120", 120)])
def test_a_terminal_of_no_width_shows_everything(
    columns: str, width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    assert main(["list", "presets"]) == 0
    capsys.readouterr()
    console, _ = terminal(plain=True)
    console.print("a line")
    assert console.width == width and capsys.readouterr().out == "a line\n"
