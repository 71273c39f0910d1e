"""The displays, drawn for real on a recording console."""

import io
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

import fst_bench
from fst_bench.cli.display import Display, Pace, SweepDisplay, clock, last_step
from fst_bench.core.types import SampleRequest
from fst_bench.harness.config import resolve
from fst_bench.harness.evaluate import answers, evaluation_schedule
from fst_bench.harness.loop import Bench
from fst_bench.harness.rows import EvaluationRow, PopulationRow, Prompt, PromptMode, StepRow
from fst_bench.harness.sweep import Planned
from fst_bench.method.ledger import Ledger
from fst_bench.tasks.stream import Stream

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


def evaluation(mode: PromptMode, step: int = 0) -> EvaluationRow:
    return EvaluationRow(
        step=step,
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


@settings(max_examples=20)
@given(st.floats(0.01, 50), st.floats(0.001, 5), st.booleans())
def test_at_constant_speeds_the_time_left_is_exact(step_seconds: float, answer_seconds: float, evolves: bool) -> None:
    config, spec = resolve("continual-4", "fst", "smoke", 0, {})
    stream = Stream(spec, 0, config.difficulty, config.stage_problems, config.data)
    schedule = evaluation_schedule(stream, config.batch, config.evaluation)
    work, steps = answers(schedule, config.evaluation, evolves), -(-stream.total // config.batch)
    rest = steps * step_seconds + sum(work.values()) * answer_seconds
    display, ledger = Display(Console(file=io.StringIO()), live=False), Ledger()
    display.on_begin(config, stream, Path("runs/x"), 0)
    display.evolves = evolves
    assert display.left() == "?"
    for step in range(steps + 1):
        if step:
            rest -= step_seconds
            display.on_step(StepRow(step=step, stage=1, problems=step, reward=0.5, seconds=step_seconds), ledger)
            assert display.pace == pytest.approx(Pace(step_seconds, answer_seconds))
            assert display.left() in (clock(rest + 1e-6), clock(max(rest - 1e-6, 0.0)))
        if step in schedule:
            rest -= work[step] * answer_seconds
            ledger.seconds["evaluate"] += work[step] * answer_seconds
            display.on_evaluation([evaluation("system", step)])
    assert display.left() == "0:00"


def test_the_first_evaluation_is_counted_as_it_goes(tmp_path: Path) -> None:
    out = io.StringIO()
    display = Display(Console(file=out), live=False)
    run = fst_bench.run("single-math", "rl", tmp_path, preset="smoke", callback=display, stage_problems=8)
    lines = out.getvalue().splitlines()
    assert lines[2] == "evaluating 0 of 8 answers" and lines[3].startswith("eval at 0 problems")
    config, spec = resolve("single-math", "rl", "smoke", 0, {"stage_problems": 8})
    stream = Stream(spec, 0, config.difficulty, config.stage_problems, config.data)
    expected = answers(evaluation_schedule(stream, config.batch, config.evaluation), config.evaluation, evolves=False)
    sampled = [row["step"] for row in run.source.rows("answers")]
    assert {step: sampled.count(step) for step in sampled} == expected


def test_progress_is_counted_in_batches_and_printed_now_and_then(bench: Callable[..., Bench]) -> None:
    b = bench("single-math", policy={"max_num_seqs": 3})
    counted: list[tuple[int, int]] = []
    requests = [SampleRequest(({"role": "user", "content": str(i)},), seed=i) for i in range(8)]
    plain = b.policy.sample(requests)
    assert b.policy.sample(requests, progress=lambda whole, total: counted.append((whole, total))) == plain
    assert {total for _, total in counted} == {8} and counted == sorted(counted) and len(counted) > 8
    out = io.StringIO()
    display = Display(Console(file=out), live=False)
    for whole, total in counted:
        display.on_progress(whole, total)
    assert out.getvalue().count("evaluating") == 1


def test_a_display_that_fails_ends_no_run(bench: Callable[..., Bench], capsys: pytest.CaptureFixture[str]) -> None:
    b, out = bench(), io.StringIO()
    display = Display(Console(file=out), live=False)
    display.on_begin(b.config, b.stream, Path("runs/x"), 0)
    out.close()
    display.on_evaluation([evaluation("system")])
    display.on_note("nobody reads this")
    display.on_end()
    assert capsys.readouterr().err == (
        "fst-bench: the display failed, the run continues: I/O operation on closed file\n"
    )


def test_any_reward_can_be_drawn(bench: Callable[..., Bench]) -> None:
    b, display = bench(), Display(Console(file=io.StringIO(), force_terminal=True), live=True)
    display.on_begin(b.config, b.stream, Path("runs/x"), 0)
    for step, reward in enumerate((-1.0, 2.5, float("nan"), float("inf")), 1):
        display.on_step(StepRow(step=step, stage=1, problems=step, reward=reward, seconds=0.1), Ledger())
    display.on_end()
    assert display.done == 4 and not vars(display).get("failed")


def test_the_time_that_a_sweep_has_left(tmp_path: Path) -> None:
    work = {0: 10, 20: 10, 40: 10}
    runs = {tmp_path / name: Planned(name, 0, 40, [], (work, work)) for name in ("a", "b")}
    path, other = runs
    display = SweepDisplay(Console(file=io.StringIO(), width=80), live=False)
    display.on_begin(runs)
    display.on_state(path, "run")
    assert display.left() == ""
    path.mkdir()
    rows = [StepRow(step=i, stage=1, problems=i, reward=None, seconds=2.0) for i in range(1, 6)]
    (path / "events.jsonl").write_text("".join(json.dumps(row.model_dump(mode="json")) + "\n" for row in rows))
    began = display.started[path][0]
    os.utime(path / "events.jsonl", (began + 40, began + 40))  # 30 seconds for 10 answers, and 5 steps of 2
    display.observe(path, runs[path])
    assert display.paces["a"] == pytest.approx(Pace(2.0, 3.0), abs=0.01)
    assert display.left() in (", 5:00 left", ", 4:59 left")  # 35 steps and 20 answers, then 40 steps and 30 answers
    display.on_state(other, "done")
    assert display.left() in (", 2:10 left", ", 2:09 left")


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
