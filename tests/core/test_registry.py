"""Methods and tasks that do not ship: from a file, and from a package that is installed in a folder on sys.path."""

import importlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import fst_bench
from fst_bench.analysis import load
from fst_bench.analysis.probes import probe
from fst_bench.cli import main
from fst_bench.cli.templates import write
from fst_bench.harness.config import REGISTRIES, resolve
from fst_bench.harness.store import Store, sha256
from fst_bench.method.registry import METHODS, find_method
from fst_bench.tasks import TASKS, find_task

FAST = {"preset": "smoke", "stage_problems": 8, "evaluation.boundary": 2, "evaluation.small": 2, "policy.max_tokens": 8}
SET = [part for key, value in FAST.items() if key != "preset" for part in ("--set", f"{key}={value}")]
METHOD = '''
from fst_bench.method import Method


class Quiet(Method):
    """Does nothing."""

    name = "quiet"

    def step(self, batch):
        return {"seen": len(batch)}
'''


def method(folder: Path, text: str = METHOD) -> str:
    folder.mkdir(exist_ok=True)
    (folder / "quiet.py").write_text(text)
    return str(folder / "quiet.py")


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("return {", "return {{", "quiet.py:11: SyntaxError: '{' was never closed"),
        ("import Method", "import Methot", "quiet.py:2: ImportError: cannot import name 'Methot'"),
        ('"quiet"', "1 / 0", "quiet.py:8: ZeroDivisionError: division by zero"),
        ('"quiet"', "__import__('sys').exit()", "quiet.py:8: SystemExit"),
        ("(Method)", "", "defines none"),
        ("def step", "def stepp", "defines none"),
        ("class Quiet", "class Loud(Method):\n    step = None\n\nclass Quiet", "it defines Loud, Quiet"),
        ('"quiet"', '"fst"', "a method named fst is shipped"),
        ('"quiet"', '"Quiet one"', "not 'Quiet one'"),
        ('name = "quiet"', "", "Quiet.name has to be a text"),
        (
            'name = "quiet"',
            'name = "quiet"\n    class Settings(__import__("pydantic").BaseModel): pass',
            "has to be a class over Method.Settings",
        ),
        ("from fst", "import helper\nfrom fst", "imports helper, which lies next to it"),
    ],
)
def test_what_is_wrong_with_a_file_is_one_line(
    old: str,
    new: str,
    expected: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file = method(tmp_path, METHOD.replace(old, new))
    (tmp_path / "helper.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)  # as with `python -m fst_bench` in that folder
    command = ["run", "--stream", "single-math", "--method", file, "--preset", "smoke"]
    assert main([*command, "--out", str(tmp_path / "runs")]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and expected in err and str(tmp_path) in err
    assert not (tmp_path / "runs").exists()
    sys.modules.pop("helper", None)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"cannot read .*none\.py: No such file"):
        find_method(str(tmp_path / "none.py"))
    with pytest.raises(ValueError, match="did you mean fst"):
        find_method("fts")


@pytest.fixture
def forget(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Forget what was loaded, as a process that has just begun."""

    def clear() -> None:
        for registry in REGISTRIES.values():
            monkeypatch.setattr(registry, "loaded", {})
        for name in [name for name in sys.modules if name.partition(".")[0] in ("gang", "mob", "helper")]:
            monkeypatch.delitem(sys.modules, name)

    clear()
    return clear


def test_a_run_keeps_its_method_and_continues_without_the_file(
    tmp_path: Path, forget: Callable[[], None], capsys: pytest.CaptureFixture[str]
) -> None:
    whole = fst_bench.run("single-math", method(tmp_path / "mine"), tmp_path, **FAST | {"checkpoint.every": 1})
    run = whole.path
    assert str(tmp_path) not in (run / "config.json").read_text()
    assert (run / "code/methods/quiet.py").read_text() == METHOD
    assert "code/methods/quiet.py" in Store(run).read("manifest")
    numbers = (run / "metrics.json").read_bytes()

    (run / "manifest.json").unlink()  # as if it had been killed after its first step, and the file had gone since
    shutil.rmtree(run / "checkpoints/step-000002")
    shutil.rmtree(tmp_path / "mine")
    command = [sys.executable, "-m", "fst_bench", "resume", str(run)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (run / "metrics.json").read_bytes() == numbers
    forget()
    assert main(["validate", "run", str(run)]) == main(["probe", "drift", str(run), "--n", "1"]) == 0

    (run / "code/methods/quiet.py").write_text(METHOD + "# edited")
    forget()
    capsys.readouterr()
    assert main(["probe", "channels", str(run)]) == 2 and "quiet.py is gone or was changed" in capsys.readouterr().err
    assert main(["validate", "run", str(run)]) == 1
    assert "changed since the run: code/methods/quiet.py" in capsys.readouterr().out


def test_an_edited_method_is_another_run_and_a_moved_one_the_same(tmp_path: Path) -> None:
    one = fst_bench.run("single-math", method(tmp_path / "a"), tmp_path / "runs", **FAST)
    moved = fst_bench.run("single-math", method(tmp_path / "b"), tmp_path / "runs", **FAST)
    other = method(tmp_path / "a", METHOD + "# or otherwise\n")
    edited = fst_bench.run("single-math", other, tmp_path / "runs", seed=1, **FAST)
    assert moved.path.name == f"{one.path.name}-2"  # the same id, so a number was added
    assert one.path.name.split("-")[2] != edited.path.name.split("-")[2]
    shutil.rmtree(moved.path)
    codes = [run.saved["config"]["code"]["methods/quiet"]["sha256"][:6] for run in (one, edited)]
    assert sorted(run.method for run in load([tmp_path / "runs"])) == sorted(f"quiet (code={code})" for code in codes)
    assert "quiet" not in METHODS  # the shipped ones stay what they are


def test_shipped_runs_keep_their_ids() -> None:
    config, _ = resolve("single-math", "rl", "smoke")
    assert not config.code and '"code"' not in config.model_dump_json(exclude_defaults=True)


def test_a_private_stream_is_known_by_what_it_says(tmp_path: Path) -> None:
    text = "name: own\nversion: 1\ndescription: d\nstages: [{task: math, problems: 16}]\n"
    ids = []
    for name, content in (("a", text), ("b", "# a comment\n" + text), ("c", text.replace("16", "17"))):
        (tmp_path / f"{name}.yaml").write_text(content)
        config, _ = resolve(str(tmp_path / f"{name}.yaml"), "base", "smoke")
        assert config.stream == "own"
        ids.append(config.model_dump_json())
    assert ids[0] == ids[1] != ids[2]


def sweep(stream: str, methods: str, out: Path) -> list[str]:
    """Return the command of a sweep over seed 0."""
    command = ["sweep", "--stream", stream, "--methods", methods, "--seeds", "0", "--preset", "smoke"]
    return [*command, "--out", str(out), *SET]


def test_a_sweep_with_a_file_continues_and_notices_an_edit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = method(tmp_path)
    command = sweep("single-math", file, tmp_path / "runs")
    states = []
    for text in (METHOD, METHOD, METHOD + "# edited\n"):
        method(tmp_path, text)
        assert main(command) == 0
        states.append([line.split()[0] for line in capsys.readouterr().out.splitlines() if "/quiet/" in line])
    assert states == [["run", "done"], ["there"], ["run", "done"]]
    assert len(list(tmp_path.glob("runs/*/quiet/*/manifest.json"))) == 2


def test_settings_of_a_method_elsewhere_are_checked(tmp_path: Path, forget: Callable[[], None]) -> None:
    file = method(tmp_path)
    (tmp_path / "own.yaml").write_text(
        "name: own\nversion: 1\ndescription: d\nstages: [{task: math, problems: 64}]\n"
        "settings: {methods: {quiet.py: {slow: {ratio_clip_max: 2.0}}}}\n"
    )
    forget()
    stream = str(tmp_path / "own.yaml")
    assert resolve(stream, "rl", "smoke")[0].slow.ratio_clip_max == 5.0  # whoever comes first, and wherever one is
    assert resolve(stream, file, "smoke")[0].slow.ratio_clip_max == 2.0
    other = method(tmp_path / "other", METHOD + "# otherwise\n")
    code = resolve(stream, other, "smoke")[0].code["methods/quiet"]
    assert code.sha256 == sha256(Path(other))  # that one runs, not the stream's
    assert main(["validate", "streams", stream]) == 0
    assert main(sweep(stream, f"{file},rl", tmp_path / "runs")) == 0
    text = (tmp_path / "own.yaml").read_text()
    for wrong, expected in (
        ("{quiet: {slow: {ratio_clip_max: 2.0}}}", "unknown method 'quiet': .* named by its file"),
        ("fst", "not 'fst'"),
    ):
        (tmp_path / "own.yaml").write_text(text.replace("{quiet.py: {slow: {ratio_clip_max: 2.0}}}", wrong))
        with pytest.raises(ValueError, match=expected):
            resolve(stream, file, "smoke")
    with pytest.raises(ValueError, match="unknown key 'x'"):
        resolve("single-math", file, "smoke", 0, {"settings.x": 1})
    with pytest.raises(ValueError, match="filled in, never set"):
        resolve("single-math", file, "smoke", 0, {"code": {}})


def test_a_stream_with_a_task_next_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forget: Callable[[], None]
) -> None:
    write("task", "letters", tmp_path / "mine")
    stream = tmp_path / "mine" / "own.yaml"
    stream.write_text(
        "name: own\nversion: 1\ndescription: d\n"
        "stages: [{task: letters.py, problems: 8, difficulty: {letters: 3}}, {task: math, problems: 8}]\n"
    )
    monkeypatch.chdir(tmp_path)  # a task lies relative to its stream, not to where one is
    run = fst_bench.run("mine/own.yaml", "rl", "runs", **FAST | {"difficulty.letters.format_given": True})
    assert [stage["tasks"] for stage in run.metrics["stages"]] == [["letters"], ["math"]] and "letters" not in TASKS
    shutil.rmtree(tmp_path / "mine")
    forget()
    assert main(["validate", "run", str(run.path)]) == 0
    forget()
    assert main(["probe", "ood", str(run.path), "--n", "2"]) == 0
    keys = [json.loads(line)["key"] for line in (run.path / "probes/ood.jsonl").read_text().splitlines()]
    assert {"letters", "hover"} <= {key["task"] for key in keys}


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("protocol = ", "rules = ", "Letters lacks protocol"),
        ("levels = ", "levels = [{}] or ", "Letters lacks levels"),
        ("Difficulty = LettersDifficulty", "Difficulty = str", "has to be a class over fst_bench.tasks.Difficulty"),
        ('name = "letters"', 'name = "math"', "a task named math is shipped"),
    ],
)
def test_what_is_wrong_with_a_task_is_one_line(old: str, new: str, expected: str, tmp_path: Path) -> None:
    file, _ = write("task", "letters", tmp_path)
    file.write_text(file.read_text().replace(old, new))
    with pytest.raises(ValueError, match=expected):
        find_task(str(file))


def test_validate_finds_a_task_that_draws_by_chance_and_one_that_stumbles(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, _ = write("task", "letters", tmp_path)
    good = file.read_text()
    file.write_text(good.replace("rng.sample(", "random.sample("))
    assert main(["validate", "tasks", str(file)]) == 1
    assert "another one when it is drawn again" in capsys.readouterr().out
    file.write_text(good.replace("if not found:", "if not found[0]:"))
    assert main(["validate", "tasks", str(file)]) == 1
    bad = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("BAD"))
    assert "its verifier raised TypeError" in bad and "letters.py:" in bad and ", on 'E A W'" in bad
    file.write_text(good.replace('Draft("".join(letters)', "Draft(str(rng.random())"))
    assert main(["validate", "tasks", str(file)]) == 1
    assert "a held-out problem is in training, under another key" in capsys.readouterr().out


def test_plasticity_on_a_task_of_ones_own(tmp_path: Path, forget: Callable[[], None]) -> None:
    file, _ = write("task", "letters", tmp_path)
    run = fst_bench.run("single-math", "rl", tmp_path / "runs", **FAST)
    rows = probe("plasticity", run.path, task=str(file), problems=8)
    assert [row["key"] for row in rows] == [{"task": "letters", "stage": stage, "problems": 8} for stage in (0, 1)]
    passes = [run.path / row["run"] for row in rows]
    assert all((path / "code/tasks/letters.py").read_bytes() == file.read_bytes() for path in passes)
    forget()
    assert [main(["validate", "run", str(path)]) for path in passes] == [0, 0]
    with pytest.raises(ValueError, match="the stream holds math"):
        probe("plasticity", run.path, task="math")


# --- installed packages


def install(folder: Path, package: str, files: dict[str, str], points: str, version: str = "1.0") -> None:
    """A package as pip leaves it: its files, and a dist-info folder with its entry points."""
    shutil.rmtree(folder / package, ignore_errors=True)
    for old in folder.glob(f"{package}-*.dist-info"):
        shutil.rmtree(old)
    for name, text in files.items():
        path = folder / package / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    info = folder / f"{package}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n")
    (info / "entry_points.txt").write_text(points)


def test_an_installed_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forget: Callable[[], None], capsys: pytest.CaptureFixture[str]
) -> None:
    def cli(*command: str) -> str:
        forget()
        importlib.invalidate_caches()
        main(list(command))
        out, err = capsys.readouterr()
        return out + err

    (task, _), site = write("task", "letters", tmp_path / "mine"), tmp_path / "site"
    quiet = METHOD.replace("from fst", "from .helper import SEEN\nfrom fst")
    files = {"__init__.py": "", "helper.py": "SEEN = 'seen'", "quiet.py": quiet, "letters.py": task.read_text()}
    points = "[fst_bench.methods]\nquiet = gang.quiet:Quiet\n[fst_bench.tasks]\nletters = gang.letters:Letters\n"
    install(site, "gang", files, points)
    monkeypatch.syspath_prepend(site)
    monkeypatch.setenv("PYTHONPATH", str(site))  # for the sweep's own processes
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # the files change within one second here
    assert "(gang 1.0)" in cli("list", "methods") and "letters in reverse order" in cli("list", "tasks")
    assert "class Quiet" in cli("show", "method", "quiet") and "BAD" not in cli("validate", "tasks", "letters")
    stream = tmp_path / "own.yaml"
    stream.write_text(
        "name: own\nversion: 1\ndescription: d\nstages: [{task: letters, problems: 8, difficulty: {letters: 3}}]\n"
    )
    assert "1 of 1 runs are finished" in cli(*sweep(str(stream), "quiet", tmp_path / "runs"))
    (run,) = (tmp_path / "runs" / "own@1" / "quiet").iterdir()
    code = Store(run).read("config")["config"]["code"]
    assert code["methods/quiet"]["package"] == code["tasks/letters"]["package"] == "gang 1.0"
    assert not (run / "code").exists()
    assert "kl_per_token" in cli("probe", "drift", str(run), "--n", "2")

    install(site, "gang", files | {"helper.py": "SEEN = 'else'"}, points)  # the same version, other code
    assert "the run was made with the method quiet of gang 1.0" in cli("probe", "channels", str(run))
    install(site, "gang", files, points, "1.1")
    assert "installed is gang 1.1" in cli("probe", "channels", str(run))
    shutil.rmtree(site)
    assert "unknown method 'quiet'" in cli("probe", "channels", str(run))


@pytest.mark.parametrize(
    ("text", "point", "expected"),
    [
        (
            "import nowhere_at_all",
            "gang:Quiet",
            "gang 1.0 does not load: {site}/gang/__init__.py:1: ModuleNotFoundError: No module named 'nowhere_at_all'",
        ),
        ("x = (", "gang:Quiet", "__init__.py:1: SyntaxError"),
        (METHOD, "gang.none:Quiet", "does not load: gang.none:Quiet: ModuleNotFoundError"),
        (METHOD, "gang:Method", "is <class 'fst_bench.method.method.Method'>, not a class over Method"),
        (METHOD.replace('"quiet"', '"loud"'), "gang:Quiet", "has the name 'loud'"),
    ],
)
def test_a_broken_package_is_named_and_hides_no_other(
    text: str,
    point: str,
    expected: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    forget: object,
    capsys: pytest.CaptureFixture[str],
) -> None:
    install(tmp_path, "gang", {"__init__.py": text}, f"[fst_bench.methods]\nquiet = {point}\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert main(["show", "method", "quiet"]) == 2
    assert expected.format(site=tmp_path) in (err := capsys.readouterr().err) and err.count("\n") == 1
    assert main(["list", "methods"]) == 0
    out = capsys.readouterr().out
    assert "Fast-Slow Training" in out and "(gang 1.0)" in out


def test_two_packages_that_offer_one_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forget: object) -> None:
    for package in ("gang", "mob"):
        install(tmp_path, package, {"__init__.py": METHOD}, f"[fst_bench.methods]\nquiet = {package}:Quiet\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match=r"offered by gang 1\.0 and by mob 1\.0"):
        find_method("quiet")
