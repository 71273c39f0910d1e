"""The parser that all groups of commands share: its complaints are one line, and each command is added in one way."""

import argparse
import sys
from collections.abc import Callable
from typing import Any, NoReturn, TypeAlias

Result: TypeAlias = dict[str, Any]
"""The result of a command: with --json it is the last line of output. Where it has `ok`, False is exit code 1."""


class Parser(argparse.ArgumentParser):
    """argparse with its complaint in one line."""

    def error(self, message: str) -> NoReturn:
        raise SystemExit(complain(message, 2))


Commands: TypeAlias = "argparse._SubParsersAction[Parser]"


def complain(text: str, code: int) -> int:
    """Print one line on stderr, and return the exit code."""
    print(f"fst-bench: {' '.join(text.split())}", file=sys.stderr)
    return code


def add_command(commands: Commands, name: str, do: Callable[[argparse.Namespace], Result], help: str) -> Parser:
    """Add a command that calls `do` with its arguments. Return its parser, for those arguments."""
    command = commands.add_parser(name, help=help)
    command.add_argument("--json", action="store_true", help="make the last line of output one JSON object")
    command.set_defaults(do=do)
    return command


def names(text: str) -> list[str]:
    """Return 'a, b' as ["a", "b"]. Raises argparse's error where a name is empty."""
    found = [name.strip() for name in text.split(",")]
    if not all(found):
        raise argparse.ArgumentTypeError(f"requires names with commas between them, got {text!r}")
    return found
