"""starter keeps a method's contract, and its settings work. Seconds: python -m pytest test_starter.py"""

from pathlib import Path

import fst_bench
from fst_bench.cli.validate import methods

FILE = str(Path(__file__).with_name("starter.py"))


def test_it_keeps_the_contract() -> None:
    assert [(name, complaint) for name, complaint in methods(FILE) if complaint] == []


def test_without_exploring_it_begins_with_the_seed_prompt(tmp_path: Path) -> None:
    run = fst_bench.run("single-math", FILE, tmp_path, preset="smoke", settings={"explore": 0.0})
    assert run.ledger["rollouts"] == {"train": 3 * 4 * 4}  # steps, problems a step, rollouts a problem
    assert run.steps["prompt"][0] == 0
