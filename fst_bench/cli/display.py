"""The display of a run or a sweep in progress: a live panel in a terminal, plain lines elsewhere."""

import math
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from fst_bench.harness.config import Config
from fst_bench.harness.evaluate import answers, evaluation_schedule
from fst_bench.harness.loop import Callback
from fst_bench.harness.rows import EvaluationRow, PopulationRow, StepRow, label
from fst_bench.harness.sweep import Planned, State, SweepCallback
from fst_bench.method.ledger import Ledger
from fst_bench.tasks.stream import Stream

BLOCKS = " ▁▂▃▄▅▆▇█"
PAUSE = 10.0
"""Seconds between two plain lines of progress."""


class Pace(NamedTuple):
    """The seconds of a training step, and of an answer in an evaluation."""

    step: float
    answer: float

    def seconds(self, steps: int, answers: int) -> float:
        """Return what is left of a run with so many steps and answers before it."""
        return steps * self.step + answers * self.answer


def clock(seconds: float) -> str:
    """Return minutes:seconds."""
    return f"{int(seconds // 60)}:{int(seconds % 60):02d}"


T = TypeVar("T")


def unfailing(display: type[T]) -> type[T]:
    """Make a display that fails fall silent, with one line on stderr: the run continues."""

    def guarded(name: str, event: Callable[..., None]) -> Callable[..., None]:
        @wraps(event)
        def call(self: Any, *arguments: Any) -> None:
            if vars(self).get("failed") and name != "on_end":
                return
            try:
                event(self, *arguments)
            except Exception as error:  # of any kind: it is not worth a run
                self.failed = True
                why = " ".join(str(error).split()) or type(error).__name__
                print(f"fst-bench: the display failed, the run continues: {why}", file=sys.stderr)

        return call

    for name, event in list(vars(display).items()):
        if name.startswith("on_"):
            setattr(display, name, guarded(name, event))
    return display


def terminal(plain: bool) -> tuple[Console, bool]:
    """Return stdout, and whether to draw in place on it: where it is a terminal, and not `plain` for a program."""
    console = Console()
    return console, console.is_terminal and not plain


@unfailing
class Display(Callback):
    """A callback of the run loop. `live` is a panel that is redrawn in place; otherwise each event is one line."""

    def __init__(self, console: Console, live: bool):
        self.console, self.use_live = console, live
        self.live: Live | None = None
        self.rewards: deque[float] = deque(maxlen=40)
        self.accuracy: dict[str, dict[str, EvaluationRow]] = {}
        self.prompt = ""
        self.score: float | None = None
        self.row: StepRow | None = None
        self.speed = 0.0
        self.pace: Pace | None = None
        self.progress = ""
        self.said = -math.inf
        """When the last line of progress was printed."""

    def on_begin(self, config: Config, stream: Stream, path: Path, step: int) -> None:
        self.config, self.stream, self.path, self.first = config, stream, path, step
        self.steps = math.ceil(stream.total / config.batch)
        self.schedule = evaluation_schedule(stream, config.batch, config.evaluation)
        self.evaluated = step if (path / "evals.jsonl").exists() else -1
        self.evolves = (path / "prompts.jsonl").exists()
        self.prompt, self.busy = config.seed_prompt, 0.0
        plan = " -> ".join(f"{label(s.tasks)} ({s.end - s.start})" for s in stream.stages)
        self.line(f"{config.method} on {config.stream}, preset {config.preset}, seed {config.seed}: {plan}")
        for name, source in stream.sources().items():
            skipped = sum(source["skipped"].values())
            self.line(f"{name} from {source['source']}: {source['kept']} problems, {skipped} skipped")
        self.line(f"run: {path}" + (f" (resumed after step {step})" if step else ""))
        if self.use_live:
            self.live = Live(self.panel(), console=self.console, refresh_per_second=4)
            self.live.start()

    def on_step(self, row: StepRow, ledger: Ledger) -> None:
        self.row = row
        busy = ledger.seconds["sample"]
        self.speed = ledger.sampled_tokens / busy if busy else 0.0
        self.busy += row.seconds
        sampled = sum(n for step, n in self.answers().items() if step <= self.evaluated)
        spent = ledger.seconds.get("evaluate", 0.0)
        self.pace = Pace(self.busy / (row.step - self.first), spent / sampled if sampled else 0.0)
        self.said = time.perf_counter()
        if row.reward is not None:
            self.rewards.append(row.reward)
        if self.live:
            self.live.update(self.panel())
        else:
            reward = "" if row.reward is None else f"  reward {row.reward:.2f}"
            task = label(self.stream.stages[row.stage - 1].tasks)
            pace = f"{self.speed:.0f} tok/s  {self.left()} left"
            self.line(f"step {row.step}/{self.steps}  stage {row.stage} {task}{reward}  {pace}")

    def on_progress(self, answers: int, total: int) -> None:
        self.progress = f"evaluating {answers} of {total} answers"
        now = time.perf_counter()
        if now - self.said < (0.25 if self.live else PAUSE):
            return
        self.said = now
        if self.live:
            self.live.update(self.panel())
        else:
            self.line(self.progress)

    def on_evaluation(self, rows: Sequence[EvaluationRow]) -> None:
        self.evaluated, self.progress = rows[0].step, ""
        for row in rows:
            self.accuracy.setdefault(row.task, {})[row.prompt_mode] = row
        if self.live:
            self.live.update(self.panel())
        else:
            shown = "  ".join(f"{r.task} {r.accuracy:.2f}" for r in rows if r.prompt_mode == "system")
            self.line(f"eval at {rows[0].problems} problems (n={rows[0].n_problems}): {shown}")

    def on_population(self, row: PopulationRow) -> None:
        best = row.population[0]
        self.evolves = True
        self.prompt, self.score = best.prompt, best.score
        if not self.live:
            failed = f", {row.reflection_failures} reflections failed" if row.reflection_failures else ""
            score = "unscored" if best.score is None else f"{best.score:.2f} on the valset"
            self.line(f"prompt ({score}{failed}): {best.prompt}")

    def on_note(self, text: str) -> None:
        self.console.print(text, style="bold red", highlight=False, soft_wrap=True, markup=False)

    def on_end(self) -> None:
        if self.live:
            self.live.stop()
            self.live = None

    def line(self, text: str) -> None:
        self.console.print(text, highlight=False, soft_wrap=True, markup=False)

    @property
    def done(self) -> int:
        """Steps done, those of earlier sessions included."""
        return self.row.step if self.row else self.first

    def left(self) -> str:
        """Return the time left, by the steps of this session and all evaluations so far."""
        if self.pace is None:
            return "?"
        rest = sum(n for step, n in self.answers().items() if step > self.evaluated)
        return clock(self.pace.seconds(self.steps - self.done, rest))

    def answers(self) -> dict[int, int]:
        """Return step -> the answers that its evaluation samples."""
        return answers(self.schedule, self.config.evaluation, self.evolves)

    def panel(self) -> Panel:
        step = self.done
        number = self.row.stage if self.row else 1
        head = Table.grid(expand=True)
        head.add_column(ratio=1)
        head.add_column(justify="right")
        tasks = self.stream.stages[number - 1].tasks
        head.add_row(
            Text(f"stage {number}/{len(self.stream.stages)}  {label(tasks)}   step {step}/{self.steps}"),
            Text(f"{self.speed:.0f} tok/s   {self.left()} left"),
        )
        table = Table(box=None, padding=(0, 2, 0, 0))
        for name in ("task", "own prompt", "seed prompt", "KL"):
            table.add_column(
                name, justify="left" if name == "task" else "right", style="bold" if name == "task" else ""
            )
        for name, modes in self.accuracy.items():
            style = "green" if name in tasks else ""
            own, seed = modes.get("system"), modes.get("seed")
            cells = [
                bar(own.accuracy) if own else "",
                f"{seed.accuracy:.2f}" if seed else "",
                f"{own.kl:.3f}" if own and own.kl is not None else "",
            ]
            table.add_row(name, *cells, style=style)
        last = f" {self.rewards[-1]:.2f}" if self.rewards else " none"
        heights = [min(max(r, 0.0), 1.0) if math.isfinite(r) else 0.0 for r in self.rewards]
        reward = Text("reward " + "".join(BLOCKS[round(r * 8)] for r in heights) + last)
        score = "" if self.score is None else f" ({self.score:.2f} on the valset)"
        prompt = Text(f"best prompt{score}: {self.prompt}", style="cyan")
        bars = ProgressBar(total=self.steps, completed=step), Text(self.progress, style="dim")
        body = Group(head, *bars, table, Text(""), reward, prompt)
        return Panel(body, title=f"{self.config.method} on {self.config.stream}", border_style="dim")


def bar(value: float, width: int = 12) -> str:
    """Return a bar and the value: '██████······ 0.50'."""
    full = round(value * width)
    return "█" * full + "·" * (width - full) + f" {value:.2f}"


@unfailing
class SweepDisplay(SweepCallback):
    """A callback of a sweep. `live` is a panel of methods x seeds; otherwise each change is one line.

    The panel shows each run's progress, read from what it has recorded, and the time left.
    """

    def __init__(self, console: Console, live: bool):
        self.console = console
        self.runs: Mapping[Path, Planned] = {}
        self.states: dict[Path, State] = {}
        self.started: dict[Path, tuple[float, int]] = {}
        """Of each run that this sweep started, when it did and the steps that were there."""
        self.paces: dict[str, Pace] = {}
        """Of each method, as its runs have shown it."""
        self.live = Live(console=console, get_renderable=self.panel, refresh_per_second=1) if live else None

    def on_begin(self, runs: Mapping[Path, Planned]) -> None:
        self.runs = runs
        if self.live:
            self.live.start()

    def on_state(self, path: Path, state: State, why: str | None = None) -> None:
        self.states[path] = state
        if state in ("run", "resume"):
            row = last_step(path)
            self.started[path] = time.time(), row.step if row else 0
        if self.live is None or why:
            reason = f": {why}" if why else ""
            self.console.print(f"{state:<6} {path}{reason}", highlight=False, soft_wrap=True, markup=False)

    def on_end(self) -> None:
        if self.live:
            self.live.stop()

    def panel(self) -> Panel:
        methods = list(dict.fromkeys(run.method for run in self.runs.values()))
        seeds = list(dict.fromkeys(run.seed for run in self.runs.values()))
        table = Table(box=None, padding=(0, 2, 0, 0))
        table.add_column("")
        for seed in seeds:
            table.add_column(f"seed {seed}", justify="right")
        cells: dict[tuple[str, int], Text] = {}
        in_progress: list[Text] = []
        for path, run in self.runs.items():
            state = self.states.get(path)
            if state in ("run", "resume", "in use"):
                row = last_step(path)
                step = row.step if row else 0
                reward = "" if row is None or row.reward is None else f"  reward {row.reward:.2f}"
                cells[run.method, run.seed] = Text(f"{step / run.steps:.0%}", style="bold")
                self.observe(path, run)
                elsewhere = "  in another process" if state == "in use" else ""
                in_progress.append(Text(f"{run.method} seed {run.seed}: step {step}/{run.steps}{reward}{elsewhere}"))
            else:
                style = {"FAILED": "bold red", "done": "green", "there": "green"}.get(state or "", "dim")
                cells[run.method, run.seed] = Text(state or "waits", style=style)
        for method in methods:
            table.add_row(method, *(cells.get((method, seed), Text("")) for seed in seeds))
        ended = sum(state in ("there", "done", "FAILED") for state in self.states.values())
        title = f"{ended} of {len(self.runs)} runs{self.left()}"
        return Panel(Group(table, Text(""), *in_progress), title=title, border_style="dim")

    def observe(self, path: Path, run: Planned) -> None:
        """Take the pace of a run: what it did not spend on steps, it spent on evaluations."""
        began, first = self.started[path]
        rows = last_steps(path)
        if not rows or (steps := rows[-1].step - first) < 1:
            return
        spent = (path / "events.jsonl").stat().st_mtime - began
        step = min(sum(row.seconds for row in rows) / len(rows), spent / steps)
        sampled = sum(n for at, n in answers_of(path, run).items() if first <= at < rows[-1].step)
        self.paces[run.method] = Pace(step, (spent - step * steps) / sampled if sampled else 0.0)

    def left(self) -> str:
        """Return the time until the last run ends, by the paces of the methods; an unknown one is their mean."""
        if not self.paces:
            return ""
        steps, sampled = zip(*self.paces.values(), strict=True)
        mean = Pace(sum(steps) / len(steps), sum(sampled) / len(sampled))
        rest = []
        for path, run in self.runs.items():
            if self.states.get(path) not in ("there", "done", "FAILED"):
                row = last_step(path)
                done = row.step if row else 0
                sampling = sum(n for at, n in answers_of(path, run).items() if at >= done)
                rest.append(self.paces.get(run.method, mean).seconds(run.steps - done, sampling))
        at_a_time = max(1, sum(state in ("run", "resume") for state in self.states.values()))
        return f", {clock(max([sum(rest) / at_a_time, *rest]))} left"


def answers_of(path: Path, run: Planned) -> Mapping[int, int]:
    """Return step -> the answers that its evaluation samples, for a run that may have evolved prompts."""
    return run.answers[(path / "prompts.jsonl").exists()]


def last_step(path: Path) -> StepRow | None:
    """Return the last whole step that a run in progress has recorded, if there is one."""
    return next(reversed(last_steps(path)), None)


def last_steps(path: Path) -> list[StepRow]:
    """Return the last whole steps that a run in progress has recorded."""
    try:
        with (path / "events.jsonl").open("rb") as f:
            f.seek(max(0, f.seek(0, 2) - 4096))
            lines = f.read().split(b"\n")[:-1]
    except OSError:
        return []
    return [StepRow.model_validate_json(line) for line in lines if line.startswith(b'{"kind": "step"')]
