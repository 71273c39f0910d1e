"""list, show: the streams, methods, tasks, presets and runs that exist."""

from argparse import Namespace
from pathlib import Path

from fst_bench.cli.parser import Commands, Result, add_command


def add_commands(commands: Commands) -> None:
    listing = add_command(commands, "list", do_list, "streams, methods, tasks, presets or runs")
    listing.add_argument("kind", choices=("streams", "methods", "tasks", "presets", "runs"))
    listing.add_argument("--out", type=Path, default=Path("runs"), help="where the runs are")

    show = add_command(commands, "show", do_show, "one stream, method, task, preset or run in full")
    show.add_argument("kind", choices=("stream", "method", "task", "preset", "run"))
    show.add_argument("name", help="a name, or a file")
    show.add_argument("--out", type=Path, help="of a stream: a folder for its picture, NAME.png")


def do_list(args: Namespace) -> Result:
    from fst_bench.cli.catalogue import CATALOGUE, runs

    entries = runs(args.out) if args.kind == "runs" else CATALOGUE[args.kind]()
    width = max(map(len, entries), default=0)
    for name, text in entries.items():
        print(f"{name:<{width}}  {text}")
    return {args.kind: entries}


def do_show(args: Namespace) -> Result:
    from fst_bench.cli.catalogue import SHOW

    if args.out and args.kind != "stream":
        raise ValueError(f"--out is for the picture of a stream, not for a {args.kind}")
    text, values = SHOW[args.kind](args.name)
    print(text)
    if args.out:
        from fst_bench.analysis.report.streams import write_picture
        from fst_bench.tasks.stream import load_spec

        values |= {"picture": str(write_picture(load_spec(args.name), args.out))}
        print(f"picture: {values['picture']}")
    return values
