"""The display of a run or a sweep in progress: a live panel in a terminal, plain lines elsewhere."""

import math
import time
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from fst_bench.harness.config import Config
from fst_bench.harness.loop import Callback
from fst_bench.harness.rows import EvaluationRow, PopulationRow, StepRow, label
from fst_bench.harness.sweep import Planned, State, SweepCallback
from fst_bench.method.ledger import Ledger
from fst_bench.tasks.stream import Stream

BLOCKS = " ▁▂▃▄▅▆▇█"


def terminal(plain: bool) -> tuple[Console, bool]:
    """Return stdout, and whether to draw in place on it: where it is a terminal, and not `plain` for a program."""
    console = Console()
    return console, console.is_terminal and not plain


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

    def on_begin(self, config: Config, stream: Stream, path: Path, step: int) -> None:
        self.config, self.stream, self.path, self.first = config, stream, path, step
        self.steps = math.ceil(stream.total / config.batch)
        self.prompt, self.started, self.tokens = config.seed_prompt, time.perf_counter(), 0
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
        if row.reward is not None:
            self.rewards.append(row.reward)
        if self.live:
            self.live.update(self.panel())
        else:
            reward = "" if row.reward is None else f"  reward {row.reward:.2f}"
            task = label(self.stream.stages[row.stage - 1].tasks)
            pace = f"{self.speed:.0f} tok/s  {self.left()} left"
            self.line(f"step {row.step}/{self.steps}  stage {row.stage} {task}{reward}  {pace}")

    def on_evaluation(self, rows: Sequence[EvaluationRow]) -> None:
        for row in rows:
            self.accuracy.setdefault(row.task, {})[row.prompt_mode] = row
        if self.live:
            self.live.update(self.panel())
        else:
            shown = "  ".join(f"{r.task} {r.accuracy:.2f}" for r in rows if r.prompt_mode == "system")
            self.line(f"eval at {rows[0].problems} problems (n={rows[0].n_problems}): {shown}")

    def on_population(self, row: PopulationRow) -> None:
        best = row.population[0]
        self.prompt, self.score = best.prompt, best.score
        if not self.live:
            failed = f", {row.reflection_failures} reflections failed" if row.reflection_failures else ""
            score = "unscored" if best.score is None else f"{best.score:.2f} on the valset"
            self.line(f"prompt ({score}{failed}): {best.prompt}")

    def on_note(self, text: str) -> None:
        self.console.print(text, style="bold red", highlight=False, markup=False)

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
        """Return the time left as minutes:seconds, by the mean pace of this session."""
        done = self.done - self.first
        if not done:
            return "?"
        seconds = (time.perf_counter() - self.started) / done * (self.steps - self.done)
        return f"{int(seconds // 60)}:{int(seconds % 60):02d}"

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
                f"{own.kl:.3f}" if own else "",
            ]
            table.add_row(name, *cells, style=style)
        last = f" {self.rewards[-1]:.2f}" if self.rewards else " none"
        reward = Text("reward " + "".join(BLOCKS[round(r * 8)] for r in self.rewards) + last)
        score = "" if self.score is None else f" ({self.score:.2f} on the valset)"
        prompt = Text(f"best prompt{score}: {self.prompt}", style="cyan")
        body = Group(head, ProgressBar(total=self.steps, completed=step), Text(""), table, Text(""), reward, prompt)
        return Panel(body, title=f"{self.config.method} on {self.config.stream}", border_style="dim")


def bar(value: float, width: int = 12) -> str:
    """Return a bar and the value: '██████······ 0.50'."""
    full = round(value * width)
    return "█" * full + "·" * (width - full) + f" {value:.2f}"


class SweepDisplay(SweepCallback):
    """A callback of a sweep. `live` is a panel of methods x seeds; otherwise each change is one line.

    The panel shows each run's progress, read from what it has recorded.
    """

    def __init__(self, console: Console, live: bool):
        self.console = console
        self.runs: Mapping[Path, Planned] = {}
        self.states: dict[Path, State] = {}
        self.live = Live(console=console, get_renderable=self.panel, refresh_per_second=1) if live else None

    def on_begin(self, runs: Mapping[Path, Planned]) -> None:
        self.runs = runs
        if self.live:
            self.live.start()

    def on_state(self, path: Path, state: State, why: str | None = None) -> None:
        self.states[path] = state
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
            if state in ("run", "resume"):
                row = last_step(path)
                step = row.step if row else 0
                reward = "" if row is None or row.reward is None else f"  reward {row.reward:.2f}"
                cells[run.method, run.seed] = Text(f"{step / run.steps:.0%}", style="bold")
                in_progress.append(Text(f"{run.method} seed {run.seed}: step {step}/{run.steps}{reward}"))
            else:
                style = {"FAILED": "bold red", "done": "green", "there": "green"}.get(state or "", "dim")
                cells[run.method, run.seed] = Text(state or "waits", style=style)
        for method in methods:
            table.add_row(method, *(cells.get((method, seed), Text("")) for seed in seeds))
        ended = sum(state in ("there", "done", "FAILED") for state in self.states.values())
        title = f"{ended} of {len(self.runs)} runs"
        return Panel(Group(table, Text(""), *in_progress), title=title, border_style="dim")


def last_step(path: Path) -> StepRow | None:
    """Return the last whole step that a run in progress has recorded, if there is one."""
    try:
        with (path / "events.jsonl").open("rb") as f:
            f.seek(max(0, f.seek(0, 2) - 4096))
            lines = f.read().split(b"\n")[:-1]
    except OSError:
        return None
    steps = (line for line in reversed(lines) if line.startswith(b'{"kind": "step"'))
    return next(map(StepRow.model_validate_json, steps), None)
