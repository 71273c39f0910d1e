"""The program: all commands in one parser, and what a mistake looks like.

Exit codes: 0 done; 1 a check or a run failed; 2 the user's mistake; 3 a method, a task or the harness went wrong;
130 interrupted. Every error is one line on stderr.
"""

import json
import os
import sys

from fst_bench.cli import analyse, board, extend, machine, runs, show
from fst_bench.cli.parser import Parser, complain

os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")


def parser() -> Parser:
    """Return the parser of all commands."""
    made = Parser(prog="fst-bench", description="A continual-learning benchmark for post-training language models.")
    commands = made.add_subparsers(dest="command", required=True, parser_class=Parser, metavar="COMMAND")
    for group in (runs, analyse, show, extend, board, machine):
        group.add_commands(commands)
    return made


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit code."""
    args = parser().parse_args(argv)

    from fst_bench.core.errors import RunError  # pydantic takes half a second: not for --help
    from fst_bench.core.registry import PLACES, place_of

    try:
        result = args.do(args)
    except RunError as error:
        return complain(f"stopped: {error}", 3)
    except Exception as error:
        if place := place_of(error, PLACES):  # a method or a task that is not shipped went wrong: name the place
            return complain(f"stopped: {place}: {type(error).__name__}: {error}", 3)
        if isinstance(error, ValueError):
            return complain(str(error), 2)
        if isinstance(error, OSError):
            return complain(f"{error.filename or ''}: {error.strerror or error}", 2)
        raise
    except KeyboardInterrupt:
        print("fst-bench: stopped; fst-bench resume RUN continues from the last checkpoint", file=sys.stderr)
        return 130
    if args.json:
        print(json.dumps(result))
    return 0 if result.get("ok", True) else 1
