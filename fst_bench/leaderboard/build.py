"""From submissions and decisions to the board: check every file, make entries of what is sound, rank them, write the site."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from fst_bench.leaderboard import rules
from fst_bench.leaderboard.adjudications import DECISIONS, Adjudication, read
from fst_bench.leaderboard.bundle import Bundle, as_runs, read_bundle
from fst_bench.leaderboard.check import final_scores, rescored, sound
from fst_bench.leaderboard.site import Removed, build_site
from fst_bench.leaderboard.standings import COLUMNS, Entry, League, standings


def build(board: Path, results: Path) -> tuple[Path, dict[str, str]]:
    """(index.html, {file: why it is not on the board}) from the submissions below `results` and `board`/submissions, and `board`/adjudications.jsonl.

    Every submission is checked whole. One that fails is left out and named; one that was removed is listed with the reason. ValueError where a decision is about
    no submission, or a file is there twice.
    """
    decided = read(board / DECISIONS)
    entries: list[Entry] = []
    removed: list[Removed] = []
    failed: dict[str, str] = {}
    met: dict[str, Path] = {}
    for path in sorted([*results.rglob("*.zip"), *(board / "submissions").rglob("*.zip")]):
        try:
            bundle = read_bundle(path)
        except ValueError as error:
            failed[str(path)] = str(error)
            continue
        if bundle.sha256 in met:
            raise ValueError(f"{path} is the same file as {met[bundle.sha256]}")
        met[bundle.sha256] = path
        mine = [d for d in decided if d.entry == bundle.sha256]
        last = next((d for d in reversed(mine) if d.action in ("removed", "restored")), None)
        if last and last.action == "removed":
            said = bundle.submission
            removed.append(Removed(said.name, said.organisation, said.stream, last.date, last.reason))
            continue
        try:
            if any(d.action == "rescored" for d in mine):
                bundle = replace(bundle, runs=[rescored(run) for run in bundle.runs])
            entries.append(entry_of(sound(bundle), mine))
        except ValueError as error:
            failed[str(path)] = str(error)
    if unknown := [d.entry for d in decided if d.entry not in met]:
        raise ValueError(f"{board / DECISIONS} is about {unknown[0]}, which is no submission here")
    return build_site(standings(entries), removed, board), failed


def entry_of(bundle: Bundle, decided: Iterable[Adjudication]) -> Entry:
    """The row of the board that a sound submission is worth."""
    said, first, runs = bundle.submission, bundle.runs[0], as_runs(bundle)
    within = next(column for column in COLUMNS if column.key == "within")
    code = ", ".join(f"{source.package or 'a file'} {source.sha256[:12]}" for source in said.code.values())
    return Entry(
        id=f"{first.spec.name}-{said.method}-{bundle.sha256[:8]}".replace("_", "-"),
        league=League(said.stream, said.model, said.preset, said.division),
        name=said.name, organisation=said.organisation, method=said.method, seeds=said.seeds, runs=runs,
        prompts={run.seed: run.prompts for run in bundle.runs}, environment=first.env, settings=said.settings, code=code or "shipped", note=said.note,
        command=rules.command(first.config, first.spec), bundle=bundle.sha256,
        scores={"end": final_scores(bundle.runs), "within": {"within": [within.of(run) for run in runs]}},
        unranked=next(unranked(bundle, decided), None), verified=[d.reason for d in decided if d.action == "verified"],
    )  # fmt: skip


def unranked(bundle: Bundle, decided: Iterable[Adjudication]) -> Iterator[str]:
    yield from (f"disputed: {d.reason}" for d in decided if d.action == "disputed")
    if (seeds := sorted(bundle.submission.seeds)) != rules.SEEDS:
        yield f"incomplete: seeds {', '.join(map(str, seeds))}, a place wants 0 to 4"
