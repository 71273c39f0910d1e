"""What a person types: `fst-bench COMMAND`. Each group of commands is one file, with its arguments and what it does.

runs.py      run, sweep, resume
analyse.py   compare, probe, paper, report
show.py      list, show
extend.py    new, validate
board.py     leaderboard
machine.py   doctor
"""

from fst_bench.cli.program import main

__all__ = ["main"]
