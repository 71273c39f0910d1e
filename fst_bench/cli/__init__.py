"""The command line, `fst-bench COMMAND`. Each group of commands is one file: their arguments, and what they do.

runs.py      run, sweep, resume
analyse.py   compare, probe, paper, report
show.py      list, show
extend.py    new, data, validate
board.py     leaderboard
machine.py   doctor
models.py    model
"""

from fst_bench.cli.program import main

__all__ = ["main"]
