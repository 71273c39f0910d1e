"""math-verify in a child process that can be killed.

math-verify guards itself with signal.alarm, which fails off the main thread and cannot stop a stuck C
extension. Here it runs in its own process, one request at a time. Structural limits refuse what is known to
explode, and only its LaTeX reader is used (the other one hands text to sympy's parse_expr, which is eval), so
the deadline is a last resort and not part of the scoring.

The child runs this file as a script, with no import from the package: it starts from any working directory.
"""

import atexit
import json
import math
import os
import re
import select
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from .base import Status

START_S = 120.0
DEADLINE_S = 20.0
MEMORY = 4 << 30

COMMANDS = frozenset(
    "frac dfrac tfrac cfrac sqrt cdot times div pm mp left right text textbf mathrm mathbf mbox quad qquad pi infty circ degree "
    "log ln sin cos tan cot sec csc arcsin arccos arctan le leq ge geq lt gt ne neq in cup cap emptyset "
    "alpha beta gamma delta epsilon theta lambda mu rho sigma tau phi omega".split()
)
"""The LaTeX commands that reach math-verify: none of them makes a short text expensive."""
POWER = re.compile(r"\^\s*(?:\{\s*)?(?:([-+]?\d{1,3})(?!\d)|[A-Za-z](?![A-Za-z])|\\circ)(?(1)|)")
REFUSED = re.compile(
    r"[^\x00-\x7f]"  # other scripts have digits, too
    r"|!|\*\*"  # factorials and Python's powers
    r"|\d{20}"
    r"|\d\s*[eE]\s*[-+]?\d"  # 9E99999999 is one number, and no memory holds its digits
    r"|\d\s+\d"  # two numbers: math-verify would read "3 4" as 3 + 4
    r"|sqrt\s*\[(?!\d\])"  # a root's index may be a power in disguise
)
