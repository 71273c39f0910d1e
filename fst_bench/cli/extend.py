"""new, validate: a method, a stream or a task of your own, and the proof that it is sound."""

from argparse import Namespace
from pathlib import Path

from fst_bench.cli.parser import Commands, Result, add_command


def add_commands(commands: Commands) -> None:
    summary = "a method, stream or task of your own: a file that works, to be changed, and its test"
    new = add_command(commands, "new", do_new, summary)
    new.add_argument("kind", choices=("method", "stream", "task"))
    new.add_argument("name", help="its name: a-z, 0-9, - and _")
    new.add_argument("--out", type=Path, default=Path(), help="the folder (default: this one)")

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
