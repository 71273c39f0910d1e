"""What a person sees, drawn for real on a recording console."""

import io
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from fst_bench.harness.loop import Bench
from fst_bench.cli.display import Display, SweepDisplay, last_step
from fst_bench.method.ledger import Ledger
from fst_bench.harness.sweep import Planned

PROMPT = "Put it in [bold]\\boxed{}[/] \u202e <b>now</b>."


def watch(b: Bench, live: bool) -> str:
    out = io.StringIO()
    display = Display(Console(file=out, width=100, force_terminal=live), live=live)
    display.begin(b.config, b.stream, Path("runs/x"), 0)
    ledger = Ledger(sampled_tokens=500)
    ledger.seconds["sample"] = 0.5
    display.evaluation(
        [
            {"task": "math", "prompt_mode": m, "accuracy": 0.25, "kl": 0.0125, "problems": 0, "n_problems": 8}
            for m in ("system", "seed")
        ]
    )
    display.population({"population": [{"prompt": PROMPT, "score": 0.5}], "reflection_failures": 2})
    display.step({"step": 1, "stage": 1, "problems": 4, "reward": 0.5}, ledger)
    display.step({"step": 2, "stage": 1, "problems": 8, "reward": None}, ledger)
    display.note("EVERY reflection failed")
    display.end()
    return out.getvalue()


def test_plain_lines(bench: Callable[..., Bench]) -> None:
    lines = watch(bench(), live=False).splitlines()
    assert lines[0] == "base on single-math, preset smoke, seed 0: math (12)"
    assert "eval at 0 problems (n=8): math 0.25" in lines
    assert any(
        "0.50 on the anchor set, 2 reflections failed" in line and "[bold]\\boxed{}[/]" in line for line in lines
    )
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
    steps = [f'{{"kind": "step", "step": {i}, "reward": 0.{i}}}\n' for i in (1, 2)]
    (path / "events.jsonl").write_text("".join(steps) + '{"kind": "evolve"}\n{"kind": "step", "st')
    return runs


def test_a_sweep_in_plain_lines(tmp_path: Path) -> None:
    out = io.StringIO()
    display = SweepDisplay(Console(file=out, width=40), live=False)
    runs = sweep_of(tmp_path)
    display.begin(runs)
    first, second, *_ = runs
    display.state(first, "run")
    display.state(second, "there")
    display.state(first, "FAILED", "no [room] left")
    display.end()
    assert out.getvalue().splitlines() == [f"run    {first}", f"there  {second}", f"FAILED {first}: no [room] left"]


def test_a_sweep_live(tmp_path: Path) -> None:
    runs = sweep_of(tmp_path)
    assert (
        last_step(tmp_path / "rl3") == {"kind": "step", "step": 2, "reward": 0.2} and last_step(tmp_path / "fst4") == {}
    )
    display = SweepDisplay(Console(file=io.StringIO(), width=80, force_terminal=True), live=True)
    display.begin(runs)
    for path, state in zip(runs, ("resume", "done", "FAILED"), strict=False):
        display.state(path, state)
    display.end()
    out = io.StringIO()
    Console(file=out, width=80).print(display.panel())
    shown = [line.strip("│ ").split() for line in out.getvalue().splitlines()]
    assert "2 of 4 runs" in out.getvalue()
    assert ["seed", "3", "seed", "4"] in shown and ["rl", "5%", "FAILED"] in shown and ["fst", "done", "waits"] in shown
    assert "rl seed 3: step 2/40 reward 0.20".split() in shown
