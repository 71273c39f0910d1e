"""The page of the paper in miniature: the claims, and the figures with their data."""

from pathlib import Path

from fst_bench.analysis import figures, probe_figures
from fst_bench.analysis.page import save
from fst_bench.analysis.paper.claims import Claim, Verdict, claims
from fst_bench.analysis.paper.experiments import ALL, DISTILLED, PROBES, TASKS, runs_of
from fst_bench.analysis.report import environment
from fst_bench.analysis.writers import markdown_table
from fst_bench.harness.store import write_atomic

VERDICTS: tuple[Verdict, ...] = ("reproduced", "contradicted", "inconclusive", "not testable")


def write_page(out: Path, page: Path) -> Path:
    """Write paper.html, paper.md and the figures with their data, from the runs below `out`; return paper.html.

    Raises ValueError that names what is missing.
    """
    single = {task: runs_of(out, f"single-{task}") for task in ALL}
    continual = runs_of(out, "paper-3")
    distilled = runs_of(out, f"single-{DISTILLED}", ["fst-distill"])
    made = claims(single, continual, distilled)
    found = [
        figures.efficiency(single, "rl"),
        figures.fits(single),
        figures.drift(single),
        figures.continual(continual),
        probe_figures.channels({task: single[task] for task in TASKS}),
        probe_figures.plasticity({task: single[task] for task in PROBES["plasticity"][0]}),
        figures.learning({"star-graph": single["star-graph"]}),
        probe_figures.forgetting({"paper-3": continual}),
    ]
    page.mkdir(parents=True, exist_ok=True)
    shown = save([drawn for drawn in found if drawn is not None], page / "figures")
    runs = [run for group in (*single.values(), distilled, continual) for run in group]
    facts = {
        "model": runs[0].saved["model"],
        "preset": runs[0].saved["preset"],
        "runs": len(runs),
        "seeds": sorted({run.seed for run in runs}),
        "hours": sum(sum(run.ledger["seconds"].values()) for run in runs) / 3600,
    }
    counts = {verdict: sum(claim.verdict == verdict for claim in made) for verdict in VERDICTS}
    write_atomic(page / "paper.md", markdown(made))
    path = page / "paper.html"
    template = environment(__package__).get_template("paper.html.jinja")
    write_atomic(path, template.render(claims=made, counts=counts, facts=facts, figures=shown))
    return path


def markdown(made: list[Claim]) -> str:
    """Return the claims as a Markdown table."""
    rows = [
        [
            claim.topic,
            claim.text,
            claim.paper,
            claim.ours,
            f"{claim.verdict}: {claim.note}" if claim.note else claim.verdict,
            "–" if claim.power is None else f"{claim.power:.2f}",
        ]
        for claim in made
    ]
    return markdown_table(["", "claim", "paper", "ours", "verdict", "power"], rows) + "\n"
