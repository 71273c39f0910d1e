"""compare, probe, paper, report: tables, measurements and pages of runs."""

import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

from fst_bench.cli.parser import Commands, Result, add_command, names

FORMATS = ("terminal", "markdown", "csv", "latex")
PROBES = ("drift", "channels", "ood", "plasticity", "forgetting", "diagnostics")

# matplotlib and torch take seconds to import: what needs them is imported by the command that does


def add_commands(commands: Commands) -> None:
    summary = "finished runs of one stream in tables with intervals over seeds, and a page of figures"
    compare = add_command(commands, "compare", do_compare, summary)
    compare.add_argument("runs", type=Path, nargs="+", help="run directories, or folders that hold them")
    compare.add_argument("--reference", help="the method that differences are to (default: rl)")
    compare.add_argument("--format", choices=FORMATS, default="terminal")
    folder = "a folder for compare.html, the tables in every format, and the figures with their data"
    compare.add_argument("--out", type=Path, help=folder)

    probe = add_command(commands, "probe", do_probe, "measure more on a finished run, from its checkpoints")
    probe.add_argument("kind", choices=PROBES)
    rows = "a run directory; its rows go to RUN/probes/KIND.jsonl"
    probe.add_argument("runs", type=Path, nargs="+", metavar="RUN", help=rows)
    probe.add_argument("--task", help="plasticity: a task the stream does not hold, by name or file")
    usual = "forgetting: lm-eval tasks or groups, comma-separated (default: fst_general; for a hub model mmlu, "
    usual += "arc_challenge, hellaswag, truthfulqa_mc2, ifeval)"
    probe.add_argument("--tasks", type=names, help=usual)
    place = "forgetting: a folder with the data of lm-eval tasks, TASK/SPLIT.jsonl, in place of the hub's"
    probe.add_argument("--data", type=Path, help=place)
    size = "held-out problems a row; plasticity: problems of the fresh pass; forgetting: documents of a task"
    probe.add_argument("--n", type=int, help=size)

    summary = "the paper in miniature: its experiments, each claim next to our number"
    paper = add_command(commands, "paper", do_paper, summary)
    place = "where the runs are; the same command again continues"
    paper.add_argument("--out", type=Path, default=Path("runs-paper"), help=place)
    paper.add_argument("--page", type=Path, help="where the page goes (default: OUT/paper)")
    paper.add_argument("--seeds", default="0-4")
    paper.add_argument("--preset", default="tiny")
    paper.add_argument("--jobs", type=int, help="runs at a time, as of sweep")
    paper.add_argument("--on", default="local", metavar="PLACE", help="where runs are made, as of sweep")
    paper.add_argument("--no-run", action="store_true", help="write the page from the runs that exist")

    report = add_command(commands, "report", do_report, "write report.html of a run again")
    report.add_argument("run", type=Path)


def do_compare(args: Namespace) -> Result:
    from rich.console import Console

    from fst_bench.analysis import latex, load, markdown, methods_of, spreadsheet, tables, terminal, write_page
    from fst_bench.core.errors import unknown

    runs = load(args.runs)
    if args.reference not in (None, *(methods := methods_of(runs))):
        raise ValueError(f"--reference: {unknown('method of these runs', args.reference, methods)}")
    reference = args.reference or "rl"
    made = tables(runs, reference)
    page = write_page(runs, args.out, reference) if args.out else None
    if args.format == "terminal":
        console = Console() if sys.stdout.isatty() else Console(width=200)
        for table in made:
            console.print(terminal(table))
    elif args.format == "csv":
        print(spreadsheet(made), end="")
    else:
        print("\n\n".join(map({"markdown": markdown, "latex": latex}[args.format], made)))
    if page is None:
        return {"tables": spreadsheet(made)}
    print(f"page: {page}")
    return {"tables": spreadsheet(made), "page": str(page)}


def do_probe(args: Namespace) -> Result:
    from fst_bench.analysis.probes import probe

    if args.n is not None and args.n < 1:
        raise ValueError(f"--n requires 1 or more, got {args.n}")
    if (args.kind == "plasticity") != (args.task is not None):
        raise ValueError("plasticity requires --task" if args.task is None else f"{args.kind} takes no --task")
    for name in ("tasks", "data"):
        if getattr(args, name) and args.kind != "forgetting":
            raise ValueError(f"{args.kind} takes no --{name}")
    options: dict[str, Any] = {}
    if args.task:
        options["task"] = args.task
    if args.tasks:
        options["tasks"] = args.tasks
    if args.data:
        options["data"] = args.data
    if args.n:
        options["problems" if args.kind == "plasticity" else "n"] = args.n
    rows = []
    for run in args.runs:
        rows += probe(args.kind, run, print_now, **options)
        print(f"rows: {run / 'probes' / args.kind}.jsonl")
    return {"rows": rows}


def do_paper(args: Namespace) -> Result:
    from fst_bench.analysis.paper import experiments, write_page
    from fst_bench.cli.display import SweepDisplay, terminal
    from fst_bench.harness.sweep import parse_seeds

    failed: list[str] = []
    if not args.no_run:
        display = SweepDisplay(*terminal(args.json))
        failed = experiments(args.out, parse_seeds(args.seeds), args.preset, args.jobs, display, print_now, args.on)
    for line in failed:
        print(f"FAILED {line}")
    page = write_page(args.out, args.page or args.out / "paper")
    print(f"page: {page}")
    return {"ok": not failed, "failed": failed, "page": str(page)}


def do_report(args: Namespace) -> Result:
    from fst_bench.analysis.report import write_report

    path = write_report(args.run)
    print(f"report: {path}")
    return {"run": str(args.run), "report": str(path)}


def print_now(line: str) -> None:
    """Print a line at once, also where stdout is a pipe."""
    print(line, flush=True)
