"""What a person sees, drawn for real on a recording console."""

import io
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from fst_bench.bench import Bench
from fst_bench.display import Display
from fst_bench.ledger import Ledger

PROMPT = "Put it in [bold]\\boxed{}[/] \u202e <b>now</b>."


def watch(b: Bench, live: bool) -> str:
    out = io.StringIO()
    display = Display(Console(file=out, width=100, force_terminal=live), live=live)
    display.begin(b.config, b.stream, Path("runs/x"), 0)
    ledger = Ledger(sampled_tokens=500)
    ledger.seconds["sample"] = 0.5
    display.evaluation(
        [{"task": "math", "prompt_mode": m, "accuracy": 0.25, "kl": 0.0125, "problems": 0, "n_problems": 8} for m in ("system", "seed")]
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
    assert any("0.50 on the anchor set, 2 reflections failed" in line and "[bold]\\boxed{}[/]" in line for line in lines)
    assert any(line.startswith("step 1/3  stage 1 math  reward 0.50  1000 tok/s") and line.endswith(" left") for line in lines)
    assert any(line.startswith("step 2/3  stage 1 math  1000 tok/s") for line in lines)


def test_the_live_panel_shows_the_same(bench: Callable[..., Bench]) -> None:
    text = watch(bench(), live=True)
    for part in ("stage 1/1", "step 2/3", "1000 tok/s", "math", "0.25", "0.013", "reward", "\\boxed{}", "EVERY reflection failed"):
        assert part in text, part
