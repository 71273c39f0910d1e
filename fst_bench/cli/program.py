"""The program: all commands in one parser, and what a mistake looks like.

Exit codes: 0 done; 1 a check or a run failed; 2 the user's mistake; 3 a method, a task or the harness went wrong; 4 the
run is another process's; 130 interrupted. Every error is one line on stderr.

What happens to stdout and stderr ends no command: a reader that leaves (`| head`) is not missed, a character that the
encoding lacks is escaped, and where a full disk loses text, a line on stderr and exit code 1 say so at the end.
"""

import io
import json
import os
import select
import signal
import sys
from typing import Any, TextIO

from fst_bench.cli import analyse, board, extend, machine, models, runs, show
from fst_bench.cli.parser import Parser, complain

os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")


def parser() -> Parser:
    """Return the parser of all commands."""
    made = Parser(prog="fst-bench", description="A continual-learning benchmark for post-training language models.")
    commands = made.add_subparsers(dest="command", required=True, parser_class=Parser, metavar="COMMAND")
    for group in (runs, analyse, show, extend, board, machine, models):
        group.add_commands(commands)
    return made


class Output(io.FileIO):
    """The file descriptor of stdout or stderr. It never fails: what it does not take is lost."""

    lost: OSError | None = None

    def write(self, data: Any) -> int:
        try:
            while (written := super().write(data)) is None:  # it does not block, as ssh and node leave a terminal
                select.select([], [self], [])
            return written
        except OSError as error:
            self.lost = error
            return memoryview(data).nbytes


def opened(stream: TextIO | None, descriptor: int) -> tuple[TextIO, Output]:
    """Return a text stream in place of stdout or stderr, and the output below it. `stream` is None where it is closed.

    A closed descriptor leads to nowhere from now on, or the next file that is opened would get its number.
    """
    if stream is None:
        os.dup2(nowhere := os.open(os.devnull, os.O_WRONLY), descriptor)
        if nowhere != descriptor:
            os.close(nowhere)
    output = Output(descriptor, "w", closefd=False)
    encoding = stream.encoding if stream else "utf-8"
    at_once = isinstance(stream, io.TextIOWrapper) and (stream.line_buffering or stream.write_through)
    text = io.TextIOWrapper(io.BufferedWriter(output), encoding, errors="backslashreplace", line_buffering=at_once)
    return text, output


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit code."""
    output = None
    if sys.stdout is sys.__stdout__:  # else a caller has put something of its own there
        sys.stdout, output = opened(sys.__stdout__, 1)
    if sys.stderr is sys.__stderr__:
        sys.stderr, _ = opened(sys.__stderr__, 2)
    code = perform(argv)
    sys.stdout.flush()
    if output and output.lost and not isinstance(output.lost, BrokenPipeError):
        return complain(f"what was printed is not whole: {output.lost.strerror}", code or 1)
    return code


def perform(argv: list[str] | None) -> int:
    """Run one command, say in one line what ended it, and return its exit code."""
    for name in ("COLUMNS", "LINES"):
        if not os.environ.get(name, "80").strip("0"):  # rich would draw nothing on a terminal of no size
            del os.environ[name]
    args = parser().parse_args(argv)

    from fst_bench.core.errors import RunError, Taken  # pydantic takes half a second: not for --help
    from fst_bench.core.registry import PLACES, place_of

    try:
        result = args.do(args)
    except RunError as error:
        return complain(f"stopped: {error}", 3)
    except Taken as error:
        return complain(str(error), 4)
    except Exception as error:
        if place := place_of(error, PLACES):  # a method or a task that is not shipped went wrong: name the place
            return complain(f"stopped: {place}: {type(error).__name__}: {error}", 3)
        if isinstance(error, ValueError):
            return complain(str(error) or type(error).__name__, 2)
        if isinstance(error, OSError):
            said = (error.filename, error.strerror or str(error) or type(error).__name__)
            return complain(": ".join(str(part) for part in said if part is not None), 2)
        raise
    except KeyboardInterrupt as left:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second one would be a traceback while Python ends
        words = str(left) or "stopped; fst-bench resume RUN continues from the last checkpoint"
        print(f"fst-bench: {words}", file=sys.stderr)
        return 130
    if args.json:
        print(json.dumps(result))
    return 0 if result.get("ok", True) else 1
