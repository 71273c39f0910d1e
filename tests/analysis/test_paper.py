"""The paper's claims on made-up runs: where FST is better as in the paper, and where the two have changed places."""

import json
import shutil
from pathlib import Path

import pytest
from markupsafe import escape
from written import write_run

from fst_bench.analysis.paper.claims import Claim, claims, judged
from fst_bench.analysis.paper.experiments import probes_of, runs_of
from fst_bench.analysis.paper.page import markdown
from fst_bench.cli import main
from fst_bench.metrics import Estimate

SINGLE = ("codeio", "math", "hover", "physics", "star-graph")


def write_all(out: Path, shapes: dict[str, str], seeds: int = 3, probes: bool = True) -> None:
    for method in ("gepa", "rl", "fst"):
        for seed in range(seeds):
            same = {"shape": shapes.get(method, method), "probes": probes and method != "gepa"}
            for task in SINGLE:
                write_run(out, method, seed, tasks=(task,), length=640, **same)
            write_run(
                out, method, seed, tasks=("hover", "codeio", "physics"), length=160, every=80, name="paper-3", **same
            )


def judge(out: Path) -> list[Claim]:
    single = {task: runs_of(out, f"single-{task}") for task in SINGLE}
    return claims(single, runs_of(out, "paper-3"), runs_of(out, "single-hover", ["fst-distill"]))


def test_what_the_paper_says_is_found_where_it_is_so(tmp_path: Path) -> None:
    write_all(tmp_path, {})
    made = judge(tmp_path)
    verdicts = {(c.topic, c.text.partition(":")[0]): c.verdict for c in made}
    testable = [c for c in made if c.verdict != "not testable"]
    assert {c.verdict for c in testable} == {"reproduced"}, [c for c in testable if c.verdict != "reproduced"]
    assert verdicts["FST-distill", "hover"] == "not testable"  # it has not run
    topics = "Samples,Prompts alone,Average of three,Drift,Channels,Out of domain,Plasticity,Continual,Star-graph"
    assert {c.topic for c in testable} >= set(topics.split(","))
    samples = next(c for c in made if c.topic == "Samples")
    # rl at 640: .05 + .75 * 640^2 / (640^2 + 400^2) = .589
    # fst is there at x: .8 x^2 / (x^2 + 150^2) = .539, x = 216, first evaluated at 240: 640 / 240
    assert samples.ours.startswith("2.7 x (")

    assert main(["paper", "--no-run", "--out", str(tmp_path), "--page", str(tmp_path / "page")]) == 0
    html = (tmp_path / "page" / "paper.html").read_text()
    assert html.count("<svg") == 8 and (tmp_path / "page" / "paper.md").read_text() == markdown(made)
    assert all(escape(c.text) in html and escape(c.ours) in html for c in made)
    assert len(list((tmp_path / "page" / "figures").glob("*.csv"))) == 8


def test_what_the_paper_says_is_not_found_where_it_is_not(tmp_path: Path) -> None:
    write_all(tmp_path, {"rl": "fst", "fst": "rl"})
    made = judge(tmp_path)
    turned = ("Asymptote", "Samples", "Drift", "Plasticity", "Continual", "Star-graph")
    assert not [c for c in made if c.topic in turned and c.verdict == "reproduced"]
    assert next(c for c in made if c.text == "fst above rl").verdict == "not reproduced"
    assert "never gets there" in next(c.ours for c in made if c.topic == "Samples")


def test_what_is_missing_is_not_judged(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no runs of single-math"):
        runs_of(tmp_path, "single-math")
    write_all(tmp_path, {}, seeds=2, probes=False)
    verdicts = {c.topic: c.verdict for c in judge(tmp_path)}
    assert verdicts["Channels"] == verdicts["Out of domain"] == verdicts["Plasticity"] == "not testable"


def test_one_line_decides() -> None:
    def verdict(low: float, high: float, above: float = 0.0) -> str:
        return judged("t", "c", "p", Estimate((low + high) / 2, low, high), "o", above).verdict

    assert verdict(0.01, 0.2) == "reproduced" and verdict(-0.01, 0.2) == verdict(-0.2, -0.1) == "not reproduced"
    assert verdict(1.2, 3, above=1.0) == "reproduced" and verdict(0.9, 3, above=1.0) == "not reproduced"
    assert verdict(float("nan"), float("nan")) == "not testable"
    assert judged("t", "c", "p", Estimate(-0.1, -0.2, -0.05), "o").note == "our interval lies on the other side"


def test_the_probes_that_are_to_run(tmp_path: Path) -> None:
    write_all(tmp_path, {}, seeds=2, probes=False)
    expected = list(probes_of(tmp_path, [0]))
    # channels of fst, ood and plasticity of rl and fst, forgetting of both
    assert len(expected) == 3 * 1 + 3 * 2 + 2 * 2 + 2
    assert {command[0] for command in expected} == {"channels", "ood", "plasticity", "forgetting"}
    assert all(json.loads((Path(c[1]) / "config.json").read_text())["seed"] == 0 for c in expected)
    assert all(c[2:] == (["--task", "hover"] if c[0] == "plasticity" else []) for c in expected)


def test_naive_distillation_is_judged_where_it_has_run(tmp_path: Path) -> None:
    write_all(tmp_path, {})
    for shape, verdict in (("rl", "reproduced"), ("fst", "not reproduced")):
        shutil.rmtree(tmp_path / "single-hover@1" / "fst-distill", ignore_errors=True)
        for seed in range(3):
            write_run(tmp_path, "fst-distill", seed, tasks=("hover",), length=640, shape=shape)
        (claim,) = (c for c in judge(tmp_path) if c.topic == "FST-distill")
        assert claim.verdict == verdict, claim
        assert {run.method for run in runs_of(tmp_path, "single-hover")} == {"gepa", "rl", "fst"}
