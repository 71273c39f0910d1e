"""run, sweep, resume: making runs."""

from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fst_bench
from fst_bench.cli.parser import Commands, Parser, Result, add_command, names

if TYPE_CHECKING:
    from fst_bench.harness.loop import Callback
    from fst_bench.harness.run import Run

# torch takes seconds to import: what needs it is imported by the command that does


def add_commands(commands: Commands) -> None:
    reading = "Of a text setting VALUE is the text itself, of any other it is JSON or YAML; null is none"
    run = add_command(commands, "run", do_run, "run a method on a stream")
    run.add_argument("--stream", required=True, help="name of a shipped stream, or a .yaml file")
    run.add_argument("--method", required=True, help="name of a shipped or installed method, or a .py file")
    run.add_argument("--seed", type=int, default=0)
    run.add_argument("--model", help="a path or hub id, instead of the preset's model")
    once = "refuse where these settings have a run already, which otherwise gets a number after its name"
    run.add_argument("--once", action="store_true", help=once)
    run.add_argument("--dry-run", action="store_true", help="print the resolved configuration and the estimated cost")
    add_settings(run, f"any setting, e.g. slow.ratio_clip_max=4 (repeatable). {reading}")

    summary = "methods x seeds on a stream; the same command again continues where it stopped"
    sweep = add_command(commands, "sweep", do_sweep, summary)
    sweep.add_argument("--stream", required=True, help="as of run")
    sweep.add_argument("--methods", required=True, type=names, help="comma-separated, each as of run")
    sweep.add_argument("--seeds", default="0-4", help="numbers and ranges, such as 0-4,7")
    jobs = "runs at a time (default: as many as the cores hold; on GPUs one for each, which is also the most)"
    sweep.add_argument("--jobs", type=int, help=jobs)
    places = "where runs are made: local (default), ray, ray://ADDRESS, slurm"
    sweep.add_argument("--on", default="local", metavar="PLACE", help=places)
    add_settings(sweep, f"any setting (repeatable); methods.NAME.KEY=VALUE is for one method only. {reading}")

    resume = add_command(commands, "resume", do_resume, "continue a killed run")
    resume.add_argument("run", type=Path, help="a run directory")
    for command in (run, sweep, resume):
        shown = "show it in tensorboard, wandb, mlflow (comma-separated)"
        command.add_argument("--track", type=names, default=[], metavar="NAMES", help=shown)


def add_settings(command: Parser, setting: str) -> None:
    """Add the arguments that run and sweep share; `setting` is the help of --set."""
    command.add_argument("--preset", default="tiny", help="a name (fst-bench list presets), or a .yaml file")
    command.add_argument("--backend", help="torch or vllm-deepspeed, instead of the preset's")
    command.add_argument("--data", help="where problems come from: procedural (default), hub, or a folder of files")
    command.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help=setting)
    command.add_argument("--out", type=Path, default=Path("runs"), help="the folder of all runs (default: runs)")


def settings_of(args: Namespace, *flags: str) -> dict[str, Any]:
    """Return what --set says, and the settings that have a flag of their own where it was given."""
    from fst_bench.harness.config import parse_setting

    settings = dict(parse_setting(text) for text in args.set)
    return settings | {flag: value for flag in flags if (value := getattr(args, flag))}


def do_run(args: Namespace) -> Result:
    settings = settings_of(args, "model", "backend", "data")
    if args.dry_run:
        return dry_run(args, settings)
    announce(f"{args.method} on {args.stream}")
    callback = callback_of(args)
    where = args.stream, args.method, args.out, args.seed, args.preset
    return ended(fst_bench.run(*where, callback, args.once, **settings))


def do_resume(args: Namespace) -> Result:
    announce(str(args.run))
    return ended(fst_bench.resume(args.run, callback_of(args)))


def do_sweep(args: Namespace) -> Result:
    from fst_bench.cli.display import SweepDisplay, terminal
    from fst_bench.harness.sweep import parse_seeds, sweep

    if args.jobs is not None and args.jobs < 1:
        raise ValueError(f"--jobs requires 1 or more, got {args.jobs}")
    done = sweep(
        args.stream,
        args.methods,
        parse_seeds(args.seeds),
        args.out,
        args.preset,
        settings_of(args, "backend", "data"),
        args.jobs,
        SweepDisplay(*terminal(args.json)),
        args.track,
        args.on,
    )
    failed = {str(path): why for path, why in done.items() if why}
    print(f"{len(done) - len(failed)} of {len(done)} runs are finished")
    for path, why in failed.items():
        print(f"FAILED {path}: {why}")
    return {"ok": not failed, "runs": [str(path) for path in done], "failed": failed}


def announce(what: str) -> None:
    """Say at once what is about to be loaded, torch and the model with it, which can take a minute."""
    print(f"loading {what}", flush=True)


def callback_of(args: Namespace) -> "Callback":
    """Return the display of a run, with the trackers that were asked for."""
    from fst_bench.cli.display import Display, terminal

    display = Display(*terminal(args.json))
    if not args.track:
        return display
    from fst_bench.harness.trackers import Tracked, load

    return Tracked(load(args.track), display)


def ended(run: "Run") -> Result:
    """Print what came out of a run, and where its report is."""
    from fst_bench.harness.rows import label

    for stage, numbers in zip(run.stages, run.metrics["stages"], strict=True):
        base, end, final = (numbers[moment]["system"] for moment in ("base", "end", "final"))
        print(
            f"stage {stage.stage} {label(stage.tasks):<11} base {base:.2f}  end {end:.2f}  end of stream {final:.2f}  "
            f"seed prompt {numbers['final']['seed']:.2f}  KL {numbers['kl']['system']:.3f}"
        )
    report = run.path / "report.html"
    if report.exists():
        print(f"report: {report}")
    return {"run": str(run.path), "report": str(report), "final_average": run.metrics["final_average"]}


def dry_run(args: Namespace, settings: dict[str, Any]) -> Result:
    """Print the resolved configuration, the most that the run would spend, and where it fits.

    What the preset is made for and what this machine has are two things. `ok` is False where it fits neither.
    """
    import yaml

    from fst_bench.harness.config import hardware_of, resolve
    from fst_bench.harness.planning.cost import estimate, needs
    from fst_bench.harness.planning.doctor import hardware_here

    config, spec = resolve(args.stream, args.method, args.preset, args.seed, settings)
    cost = estimate(config, spec)
    need = needs(config, spec, hardware_of(args.preset), hardware_here(config), cost)
    print(yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False).rstrip())
    print("# at most")
    for key, value in cost.items():
        print(f"# {key.replace('_', ' ')}: {value:,}")
    memory = ", ".join(f"{name} {value:g}" for name, value in need["memory_gb"].items() if value)
    hours = ", ".join(f"{name} {value:.3g}" for name, value in need["hours"].items())
    size = f"{need['model']}, {need['parameters']:,} parameters, on {need['hardware']}"
    print(f"# {size}: GB of memory {memory or 'below 0.01'}")
    print(
        f"# at its peak {need['peak_gb']:g} of {need['usable_gb']:g} usable GB; "
        f"checkpoints on disk {need['checkpoints_gb']:g} GB"
    )
    print(f"# hours, a guess from data sheets: {hours}")
    fitting = "; or ".join(need["fitting"]) or "nothing that was tried"
    print(f"# preset {args.preset} is made for {need['hardware']}, where it", end=" ")
    print(f"does not fit: {need['refused']}. Would fit: {fitting}" if need["refused"] else "fits")
    print(f"# this machine has {need['here'] or 'no GPU'}, where it", end=" ")
    print(f"does not fit: {need['refused_here']}" if need["refused_here"] else "fits")
    ok = not (need["refused"] and need["refused_here"])
    return {"ok": ok, "config": config.model_dump(mode="json"), "cost": cost, "needs": need}
