"""The displays, drawn for real on a recording console."""

import io
import json
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from fst_bench.cli.display import Display, SweepDisplay, last_step
from fst_bench.harness.loop import Bench
from fst_bench.harness.rows import EvaluationRow, PopulationRow, Prompt, PromptMode, StepRow
from fst_bench.harness.sweep import Planned
from fst_bench.method.ledger import Ledger

PROMPT = "Put it in [bold]\\boxed{}[/] \u202e <b>now</b>."


def watch(b: Bench, live: bool) -> str:
    out = io.StringIO()
    display = Display(Console(file=out, width=100, force_terminal=live), live=live)
    display.on_begin(b.config, b.stream, Path("runs/x"), 0)
    ledger = Ledger(sampled_tokens=500)
    ledger.seconds["sample"] = 0.5
    display.on_evaluation([evaluation("system"), evaluation("seed")])
    display.on_population(
        PopulationRow(step=0, problems=4, population=(Prompt(prompt=PROMPT, score=0.5),), reflection_failures=2)
    )
    display.on_step(StepRow(step=1, stage=1, problems=4, reward=0.5, seconds=0.1), ledger)
    display.on_step(StepRow(step=2, stage=1, problems=8, reward=None, seconds=0.1), ledger)
    display.on_note("EVERY reflection failed")
    display.on_end()
    return out.getvalue()


def evaluation(mode: PromptMode) -> EvaluationRow:
    return EvaluationRow(
        step=0,
        stage=0,
        boundary=True,
        task="math",
        prompt_mode=mode,
        problems=0,
        rollouts=0,
        tokens=0,
        accuracy=0.25,
        kl=0.0125,
        kl_per_answer=0.1,
        tokens_per_answer=8.0,
        n_problems=8,
        n_samples=1,
        context=None,
    )


def test_plain_lines(bench: Callable[..., Bench]) -> None:
    lines = watch(bench(), live=False).splitlines()
    assert lines[0] == "base on single-math, preset smoke, seed 0: math (12)"
    assert "eval at 0 problems (n=8): math 0.25" in lines
    assert any("0.50 on the valset, 2 reflections failed" in line and "[bold]\\boxed{}[/]" in line for line in lines)
    assert any(
        line.startswith("step 1/3  stage 1 math  reward 0.50  1000 tok/s") and line.endswith(" left") for line in lines
    )
    assert any(line.startswith("step 2/3  stage 1 math  1000 tok/s") for line in lines)


def test_the_live_panel_shows_the_same(bench: Callable[..., Bench]) -> None:
    text = watch(bench(), live=True)
    for part in (
        "stage 1/1",
        "step 2/3",
        "1000 tok/s",
        "math",
        "0.25",
        "0.013",
        "reward",
        "\\boxed{}",
        "EVERY reflection failed",
    ):
        assert part in text, part


def sweep_of(tmp_path: Path) -> dict[Path, Planned]:
    runs = {tmp_path / f"{m}{s}": Planned(m, s, 40, []) for s in (3, 4) for m in ("rl", "fst")}
    path = tmp_path / "rl3"
    path.mkdir()
    steps = [StepRow(step=i, stage=1, problems=i, reward=i / 10, seconds=0.1) for i in (1, 2)]
    lines = [json.dumps(row.model_dump(mode="json")) for row in steps]
    (path / "events.jsonl").write_text("\n".join([*lines, '{"kind": "evolve"}', '{"kind": "step", "st']))
    return runs


def test_a_sweep_in_plain_lines(tmp_path: Path) -> None:
    out = io.StringIO()
    display = SweepDisplay(Console(file=out, width=40), live=False)
    runs = sweep_of(tmp_path)
    display.on_begin(runs)
    first, second, *_ = runs
    display.on_state(first, "run")
    display.on_state(second, "there")
    display.on_state(first, "FAILED", "no [room] left")
    display.on_end()
    assert out.getvalue().splitlines() == [f"run    {first}", f"there  {second}", f"FAILED {first}: no [room] left"]


def test_a_sweep_live(tmp_path: Path) -> None:
    runs = sweep_of(tmp_path)
    row = last_step(tmp_path / "rl3")
    assert row is not None and (row.step, row.reward) == (2, 0.2) and last_step(tmp_path / "fst4") is None
    display = SweepDisplay(Console(file=io.StringIO(), width=80, force_terminal=True), live=True)
    display.on_begin(runs)
    for path, state in zip(runs, ("resume", "done", "FAILED"), strict=False):
        display.on_state(path, state)
    display.on_end()
    out = io.StringIO()
    Console(file=out, width=80).print(display.panel())
    shown = [line.strip("│ ").split() for line in out.getvalue().splitlines()]
    assert "2 of 4 runs" in out.getvalue()
    assert ["seed", "3", "seed", "4"] in shown and ["rl", "5%", "FAILED"] in shown and ["fst", "done", "waits"] in shown
    assert "rl seed 3: step 2/40 reward 0.20".split() in shown
