"""The GPU suite. On a GPU each check proves something; on a CPU the same code runs: no mistake waits for a GPU."""

import json
from pathlib import Path

import pytest
import torch
from checks import CHECKS
from run import ORDER, run


def test_every_check_is_in_the_order() -> None:
    assert sorted(ORDER) == sorted(CHECKS)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU")
@pytest.mark.parametrize("name", ORDER)
def test_on_a_gpu(name: str) -> None:
    result = run(name, "cuda")
    print(name, json.dumps(result.figures))
    assert result.passed, result.error


ELSEWHERE = {"agreement-zero2", "agreement-zero3", "run-torch", "sync-float32"}
"""Checks whose code tests/distributed or another check runs on a CPU."""


@pytest.mark.parametrize("name", [name for name in ORDER if name not in ELSEWHERE])
def test_its_code_on_a_cpu(name: str) -> None:
    result = run(name, "cpu")
    print(name, json.dumps(result.figures))
    assert result.passed, result.error


def test_the_docs_list_every_check() -> None:
    page = (Path(__file__).parents[2] / "docs" / "gpu.md").read_text()
    assert [name for name in ORDER if f"`{name}`" not in page] == []
