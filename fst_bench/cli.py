"""What a person types. A user's mistake is one line on stderr and exit code 2."""

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any, NoReturn

os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")


class Parser(argparse.ArgumentParser):
    """argparse with its complaint in one line."""

    def error(self, message: str) -> NoReturn:
        print(f"fst-bench: {message}", file=sys.stderr)
        raise SystemExit(2)


def parser() -> Parser:
    p = Parser(prog="fst-bench", description="A continual-learning benchmark for post-training language models.")
    commands = p.add_subparsers(dest="command", required=True, parser_class=Parser, metavar="COMMAND")

    run = commands.add_parser("run", help="run a method on a stream")
    run.add_argument("--stream", required=True, help="name of a shipped stream, or a .yaml file")
    run.add_argument("--method", required=True, help="name of a shipped or installed method, or a .py file")
    run.add_argument("--preset", default="tiny")
    run.add_argument("--backend", help="torch or vllm-deepspeed, instead of the preset's")
    run.add_argument("--seed", type=int, default=0)
    run.add_argument("--model", help="a path or hub id, instead of the preset's model")
    run.add_argument("--data", help="where problems come from: procedural (default), hub, or a folder of files")
    run.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="any setting, e.g. slow.cap=4 (repeatable)")
    run.add_argument("--out", type=Path, default=Path("runs"))
    run.add_argument("--dry-run", action="store_true", help="print the resolved configuration and the estimated cost")
    run.set_defaults(do=do_run)

    sweep = commands.add_parser("sweep", help="methods x seeds on a stream; the same command again goes on where it stopped")
    sweep.add_argument("--stream", required=True)
    sweep.add_argument("--methods", required=True, help="comma-separated, each as of run")
    sweep.add_argument("--seeds", default="0-4")
    sweep.add_argument("--preset", default="tiny")
    sweep.add_argument("--backend", help="torch or vllm-deepspeed, instead of the preset's")
    sweep.add_argument("--data", help="as of run")
    sweep.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="as of run; methods.NAME.KEY=VALUE is for one method only")
    sweep.add_argument("--out", type=Path, default=Path("runs"))
    sweep.add_argument("--jobs", type=int, help="runs at a time (default: what the cores hold; on GPUs one for each, which is also the most)")
    sweep.set_defaults(do=do_sweep)

    resume = commands.add_parser("resume", help="continue a killed run")
    resume.add_argument("run", type=Path)
    resume.set_defaults(do=do_resume)

    for command in (run, sweep, resume):
        command.add_argument("--track", type=lambda text: text.split(","), default=[], metavar="NAMES", help="show it in tensorboard, wandb, mlflow")

    compare = commands.add_parser("compare", help="finished runs of one stream in tables with intervals over seeds, and a page of figures")
    compare.add_argument("runs", type=Path, nargs="+", help="run directories, or folders that hold them")
    compare.add_argument("--reference", help="the method that differences are to (default: rl)")
    compare.add_argument("--format", choices=("terminal", "markdown", "csv", "latex"), default="terminal")
    compare.add_argument("--out", type=Path, help="a folder for compare.html, the tables in every format, and the figures with their data")
    compare.set_defaults(do=do_compare)

    probe = commands.add_parser("probe", help="measure more on a finished run, from its checkpoints")
    probe.add_argument("kind", choices=("drift", "channels", "ood", "plasticity", "forgetting"))
    probe.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="a run directory; its rows go to RUN/probes/KIND.jsonl")
    probe.add_argument("--task", help="plasticity: a task the stream does not hold, by name or file")
    probe.add_argument(
        "--tasks",
        help="forgetting: lm-eval tasks or groups, comma-separated (default: fst_general; for a hub model mmlu, arc_challenge, hellaswag, truthfulqa_mc2, ifeval)",
    )
    probe.add_argument("--n", type=int, help="held-out problems a row; plasticity: problems of the fresh pass; forgetting: documents of a task")
    probe.set_defaults(do=do_probe)

    paper = commands.add_parser("paper", help="the paper in miniature: its experiments, each claim beside our number")
    paper.add_argument("--out", type=Path, default=Path("runs-paper"), help="where the runs are; the same command again goes on")
    paper.add_argument("--page", type=Path, help="where the page goes (default: OUT/paper)")
    paper.add_argument("--seeds", default="0-4")
    paper.add_argument("--preset", default="tiny")
    paper.add_argument("--jobs", type=int, help="runs at a time, as of sweep")
    paper.add_argument("--no-run", action="store_true", help="write the page from what is there")
    paper.set_defaults(do=do_paper)

    report = commands.add_parser("report", help="write report.html of a run anew")
    report.add_argument("run", type=Path)
    report.set_defaults(do=do_report)

    listing = commands.add_parser("list", help="streams, methods, tasks, presets or runs")
    listing.add_argument("kind", choices=("streams", "methods", "tasks", "presets", "runs"))
    listing.add_argument("--out", type=Path, default=Path("runs"), help="where the runs are")
    listing.set_defaults(do=do_list)

    show = commands.add_parser("show", help="one stream, method, task, preset or run in full")
    show.add_argument("kind", choices=("stream", "method", "task", "preset", "run"))
    show.add_argument("name", help="a name, or a file")
    show.add_argument("--out", type=Path, help="of a stream: a folder for its picture, NAME.png")
    show.set_defaults(do=do_show)

    new = commands.add_parser("new", help="a method, stream or task of your own: a file that works, to be changed, and its test")
    new.add_argument("kind", choices=("method", "stream", "task"))
    new.add_argument("name", help="its name: a-z, 0-9, - and _")
    new.add_argument("--out", type=Path, default=Path(), help="the folder (default: this one)")
    new.set_defaults(do=do_new)

    validate = commands.add_parser("validate", help="prove that streams, tasks, methods, a run, the protocol or a data set are sound")
    validate.add_argument("kind", choices=("streams", "tasks", "methods", "run", "protocol", "data"))
    validate.add_argument(
        "name", nargs="?", help="a run directory; one stream, task, method (or its file) or part of the protocol; for data: hub or a folder"
    )
    validate.set_defaults(do=do_validate)

    board = commands.add_parser("leaderboard", help="submissions that can be checked, and the pages made of them")
    actions = board.add_subparsers(dest="action", required=True, parser_class=Parser, metavar="ACTION")
    submit = actions.add_parser("submit", help="finished runs of one method, one a seed, as one file")
    submit.add_argument("runs", type=Path, nargs="+", help="run directories, or folders that hold them")
    submit.add_argument("--name", required=True, help="what the board shows")
    submit.add_argument("--org", required=True)
    submit.add_argument("--division", required=True, choices=("closed", "open"))
    submit.add_argument("--note", default="", help="what a reader should know, such as how settings were chosen")
    submit.add_argument("--out", type=Path, required=True, help="the file, NAME.zip")
    submit.set_defaults(do=do_submit)
    checking = actions.add_parser("check", help="score every stored answer again, compute every metric again, look at every rule")
    checking.add_argument("bundles", type=Path, nargs="+")
    checking.set_defaults(do=do_check)
    verify = actions.add_parser("verify", help="run one of its seeds again, and write down what came out")
    verify.add_argument("bundle", type=Path)
    verify.add_argument("--seed", type=int, required=True)
    verify.add_argument("--out", type=Path, default=Path("runs"), help="where the run goes")
    decide = actions.add_parser("adjudicate", help="remove, restore or score again a submission, for a reason")
    decide.add_argument("bundle", type=Path)
    decide.add_argument("action_taken", choices=("removed", "restored", "rescored"), metavar="removed|restored|rescored")
    decide.add_argument("--reason", required=True)
    building = actions.add_parser("build", help="the site and the tables, from submissions and decisions")
    building.add_argument("--results", type=Path, default=Path("results"), help="a folder with further submissions")
    for action, do in ((verify, do_verify), (decide, do_adjudicate), (building, do_build)):
        action.add_argument("--board", type=Path, default=Path("leaderboard"), help="the board's folder")
        action.set_defaults(do=do)

    doctor = commands.add_parser("doctor", help="what this machine has, and which presets it can run")
    doctor.set_defaults(do=do_doctor)

    board_actions = (submit, checking, verify, decide, building)
    for command in (run, sweep, resume, compare, probe, paper, report, listing, show, new, validate, doctor, *board_actions):
        command.add_argument("--json", action="store_true", help="last line of output is one JSON object")
    return p


def main(argv: list[str] | None = None) -> int:
    from fst_bench.errors import RunError
    from fst_bench.plugins import PLACES, place_of

    args = parser().parse_args(argv)
    try:
        result = args.do(args)
    except RunError as error:
        return complain(f"stopped: {error}", 3)
    except Exception as error:
        if place := place_of(error, PLACES):  # a method or task that does not ship went wrong: say where
            return complain(f"stopped: {place}: {type(error).__name__}: {error}", 3)
        if isinstance(error, ValueError):
            return complain(str(error), 2)
        if isinstance(error, OSError):
            return complain(f"{error.filename or ''}: {error.strerror or error}", 2)
        raise
    except KeyboardInterrupt:
        print("fst-bench: stopped; fst-bench resume RUN goes on from the last checkpoint", file=sys.stderr)
        return 130
    if args.json:
        print(json.dumps(result))
    return 0 if result.get("ok", True) else 1


def complain(text: str, code: int) -> int:
    """One line on stderr; the exit code."""
    print(f"fst-bench: {' '.join(text.split())}", file=sys.stderr)
    return code


def watcher(args: argparse.Namespace) -> Any:
    from rich.console import Console

    from fst_bench.display import Display, SweepDisplay

    console = Console()
    return (Display if args.command in ("run", "resume") else SweepDisplay)(console, live=console.is_terminal and not args.json)


def tracked(args: argparse.Namespace) -> Any:
    """The watcher of a run, with the trackers that were asked for."""
    if not args.track:
        return watcher(args)
    from fst_bench.trackers import Tracked, load

    return Tracked(load(args.track), watcher(args))


def finished(run: Any) -> dict[str, Any]:
    """Tell where the report is, and what came out."""
    for stage in run.metrics["stages"]:
        kl = stage["kl"]["system"]
        print(
            f"stage {stage['stage']} {stage['task']:<11} base {stage['base']['system']:.2f}  end {stage['end']['system']:.2f}  "
            f"end of stream {stage['final']['system']:.2f}  weights only {stage['final']['seed']:.2f}  KL {kl:.3f}"
        )
    print(f"report: {run.path / 'report.html'}")
    return {"run": str(run.path), "report": str(run.path / "report.html"), "final_average": run.metrics["final_average"]}


def named(args: argparse.Namespace, *settings: str) -> dict[str, Any]:
    """Settings that have a flag of their own, where it was given."""
    return {name: value for name in settings if (value := getattr(args, name))}


def do_run(args: argparse.Namespace) -> dict[str, Any]:
    from fst_bench.config import parse_setting

    settings = dict(parse_setting(text) for text in args.set)
    settings |= named(args, "model", "backend", "data")
    if args.dry_run:
        return dry_run(args, settings)
    from fst_bench.bench import run

    return finished(run(args.stream, args.method, args.out, args.seed, args.preset, tracked(args), **settings))


def do_sweep(args: argparse.Namespace) -> dict[str, Any]:
    from fst_bench.config import parse_setting
    from fst_bench.sweep import parse_seeds, sweep

    if args.jobs is not None and args.jobs < 1:
        raise ValueError(f"--jobs wants 1 or more, got {args.jobs}")
    settings = dict(parse_setting(text) for text in args.set) | named(args, "backend", "data")
    methods = [name.strip() for name in args.methods.split(",")]
    done = sweep(args.stream, methods, parse_seeds(args.seeds), args.out, args.preset, settings, args.jobs, watcher(args), args.track)
    failed = {str(path): why for path, why in done.items() if why}
    print(f"{len(done) - len(failed)} of {len(done)} runs are finished" + "".join(f"\nFAILED {path}: {why}" for path, why in failed.items()))
    return {"ok": not failed, "runs": [str(path) for path in done], "failed": failed}


def dry_run(args: argparse.Namespace, settings: dict[str, Any]) -> dict[str, Any]:
    """The resolved configuration, and what the run would spend at most."""
    import yaml

    from fst_bench.config import hardware_of, resolve
    from fst_bench.cost import estimate, needs

    config, spec = resolve(args.stream, args.method, args.preset, args.seed, settings)
    cost = estimate(config, spec)
    need = needs(config, spec, hardware_of(args.preset), cost)
    print(yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False).rstrip())
    print("# at most")
    for key, value in cost.items():
        print(f"# {key.replace('_', ' ')}: {value:,}")
    parts = ", ".join(f"{name} {value:g}" for name, value in need["memory_gb"].items() if value)
    print(f"# {need['model']}, {need['parameters']:,} parameters, on {need['hardware']}: GB of memory {parts or 'below 0.01'}")
    print(f"# at its peak {need['peak_gb']:g} of {need['usable_gb']:g} usable GB; checkpoints on disk {need['checkpoints_gb']:g} GB")
    print(f"# hours, a guess from data sheets: {', '.join(f'{name} {value:.3g}' for name, value in need['hours'].items())}")
    if need["refused"]:
        raise ValueError(
            f"preset {args.preset} does not fit: {need['refused']}. Would fit: {'; or '.join(need['fitting']) or 'nothing that was tried'}"
        )
    return {"config": config.model_dump(mode="json"), "cost": cost, "needs": need}


def do_resume(args: argparse.Namespace) -> dict[str, Any]:
    from fst_bench.bench import resume

    return finished(resume(args.run, tracked(args)))


def do_compare(args: argparse.Namespace) -> dict[str, Any]:
    from rich.console import Console

    from fst_bench.compare import latex, load, markdown, methods_of, spreadsheet, tables, terminal, write_page
    from fst_bench.errors import unknown

    runs = load(args.runs)
    if args.reference not in (None, *(there := methods_of(runs))):
        raise ValueError(f"--reference: {unknown('method of these runs', args.reference, there)}")
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


def do_probe(args: argparse.Namespace) -> dict[str, Any]:
    from fst_bench.probes import probe

    if args.n is not None and args.n < 1:
        raise ValueError(f"--n wants 1 or more, got {args.n}")
    if (args.kind == "plasticity") != (args.task is not None):
        raise ValueError("plasticity wants --task" if args.task is None else f"{args.kind} takes no --task")
    if args.tasks and args.kind != "forgetting":
        raise ValueError(f"{args.kind} takes no --tasks")
    options: dict[str, Any] = {"task": args.task} if args.task else {"tasks": args.tasks.split(",")} if args.tasks else {}
    if args.n:
        options["problems" if args.kind == "plasticity" else "n"] = args.n
    rows = []
    for run in args.runs:
        rows += probe(args.kind, run, lambda line: print(line, flush=True), **options)
        print(f"rows: {run / 'probes' / args.kind}.jsonl")
    return {"rows": rows}


def do_paper(args: argparse.Namespace) -> dict[str, Any]:
    from fst_bench.paper import experiments, write_page
    from fst_bench.sweep import parse_seeds

    failed: list[str] = []
    if not args.no_run:
        failed = experiments(args.out, parse_seeds(args.seeds), args.preset, args.jobs, watcher(args), lambda line: print(line, flush=True))
        for line in failed:
            print(f"FAILED {line}")
    page = write_page(args.out, args.page or args.out / "paper")
    print(f"page: {page}")
    return {"ok": not failed, "failed": failed, "page": str(page)}


def do_report(args: argparse.Namespace) -> dict[str, Any]:
    from fst_bench.report import write_report
    from fst_bench.store import Store, sha256

    store = Store(args.run)
    store.read("config")
    path = write_report(args.run)
    if (args.run / "manifest.json").exists():  # the other files keep the hashes they were sealed with
        store.write("manifest", store.read("manifest") | {path.name: sha256(path)})
    print(f"report: {path}")
    return {"run": str(args.run), "report": str(path)}


def do_list(args: argparse.Namespace) -> dict[str, Any]:
    from fst_bench.catalogue import CATALOGUE, runs

    entries = runs(args.out) if args.kind == "runs" else CATALOGUE[args.kind]()
    width = max(map(len, entries), default=0)
    for name, text in entries.items():
        print(f"{name:<{width}}  {text}")
    return {args.kind: entries}


def do_show(args: argparse.Namespace) -> dict[str, Any]:
    from fst_bench.catalogue import show

    if args.out and args.kind != "stream":
        raise ValueError(f"--out is for the picture of a stream, not for a {args.kind}")
    text, facts = show(args.kind, args.name)
    print(text)
    if args.out:
        from fst_bench.report.streams import write_picture
        from fst_bench.stream import load_spec

        facts |= {"picture": str(write_picture(load_spec(args.name), args.out))}
        print(f"picture: {facts['picture']}")
    return facts


def do_new(args: argparse.Namespace) -> dict[str, Any]:
    from fst_bench.starters import write

    written = [str(path) for path in write(args.kind, args.name, args.out)]
    print("\n".join(written))
    return {"files": written}


def do_validate(args: argparse.Namespace) -> dict[str, Any]:
    from fst_bench.validate import VALIDATE

    problems = []
    for name, complaint in VALIDATE[args.kind](args.name):
        print(f"{'ok ' if complaint is None else 'BAD'} {name}" + (f": {complaint}" if complaint else ""))
        problems += [f"{name}: {complaint}"] if complaint else []
    return {"ok": not problems, "problems": problems}


def do_doctor(args: argparse.Namespace) -> dict[str, Any]:
    from fst_bench import doctor

    machine = doctor.look()
    found, presets = doctor.findings(machine), doctor.presets(machine)
    for name, text in found.items():
        print(f"{name:<12}{text}")
    print("presets")
    for name, why in presets.items():
        print(f"  {name:<16}{'no: ' + '; '.join(why) if why else 'yes'}")
    return {"machine": found, "presets": presets}


def do_submit(args: argparse.Namespace) -> dict[str, Any]:
    from fst_bench.leaderboard.submit import submit

    bundle = submit(args.runs, args.name, args.org, args.division, args.note, args.out)
    said = bundle.submission
    print(f"{args.out}: {said.method} on {said.stream}, seeds {', '.join(map(str, said.seeds))}, {args.out.stat().st_size:,} bytes, checked")
    return {"file": str(args.out), "sha256": bundle.sha256}


def do_check(args: argparse.Namespace) -> dict[str, Any]:
    from fst_bench.leaderboard.bundle import read_bundle
    from fst_bench.leaderboard.check import check

    problems: list[str] = []
    for path in args.bundles:
        try:
            found = list(check(read_bundle(path)))
        except ValueError as error:
            found = [("file", str(error))]
        wrong = [f"{part}: {complaint}" for part, complaint in found if complaint]
        problems += [f"{path}: {line}" for line in wrong]
        print("\n".join([f"FAILS {path}", *(f"  {line}" for line in wrong)]) if wrong else f"consistent {path}: {len(found)} parts")
    return {"ok": not problems, "problems": problems}


def do_verify(args: argparse.Namespace) -> dict[str, Any]:
    from fst_bench.leaderboard import adjudications
    from fst_bench.leaderboard.bundle import read_bundle
    from fst_bench.leaderboard.check import sound

    bundle = sound(read_bundle(args.bundle))
    action, reason, code = adjudications.verify(bundle, args.seed, args.out)
    adjudications.append(args.board / adjudications.DECISIONS, bundle.sha256, action, reason, seed=args.seed, code=code)
    print(f"{action}: {reason}")
    return {"ok": action == "verified", "action": action, "reason": reason}


def do_adjudicate(args: argparse.Namespace) -> dict[str, Any]:
    from fst_bench.leaderboard import adjudications
    from fst_bench.leaderboard.bundle import read_bundle

    made = adjudications.append(args.board / adjudications.DECISIONS, read_bundle(args.bundle).sha256, args.action_taken, args.reason)
    print(f"{made.action}: {args.bundle}, {made.reason}")
    return made.model_dump(mode="json")


def do_build(args: argparse.Namespace) -> dict[str, Any]:
    from fst_bench.leaderboard.build import build

    page, failed = build(args.board, args.results)
    for path, why in failed.items():
        print(f"FAILS {path}: {why}")
    print(f"page: {page}")
    return {"ok": not failed, "page": str(page), "failed": failed}
