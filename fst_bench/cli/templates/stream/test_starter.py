"""starter can be run with every preset. Seconds: python -m pytest test_starter.py"""

from pathlib import Path

from fst_bench.cli.validate import streams
from fst_bench.tasks.stream import load_spec

FILE = str(Path(__file__).with_name("starter.yaml"))


def test_every_preset_can_run_it() -> None:
    assert [(name, complaint) for name, complaint in streams(FILE) if complaint] == []


def test_its_stages_are_those_that_were_meant() -> None:
    assert [stage.task for stage in load_spec(FILE).stages] == ["math", "hover"]
