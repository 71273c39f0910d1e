"""From submissions and decisions to the board: check every file, make entries of the sound ones, rank them."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from fst_bench.analysis.runs import alike
from fst_bench.leaderboard import rules
from fst_bench.leaderboard.adjudications import DECISIONS, Adjudication, read
from fst_bench.leaderboard.answers import final_scores, rescored
from fst_bench.leaderboard.bundle import Bundle, read_bundle
from fst_bench.leaderboard.check import sound
from fst_bench.leaderboard.site import Removed, build_site
from fst_bench.leaderboard.standings import COLUMNS, Entry, League, standings


def build(board: Path, results: Path) -> tuple[Path, dict[str, str]]:
    """Write the board. Return (its index.html, {file: why it is not on the board}).

    Submissions lie below `results` and `board`/submissions, decisions in `board`/adjudications.jsonl. Every submission
    is checked whole. One that fails is left out and named; one that was removed is listed with the reason. Raises
    ValueError where a decision is about a file that is not here, or where one file is here twice.
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
        own = [d for d in decided if d.entry == bundle.sha256]
        last = next((d for d in reversed(own) if d.action in ("removed", "restored")), None)
        if last and last.action == "removed":
            about = bundle.submission
            removed.append(Removed(about.name, about.organisation, about.stream, last.date, last.reason))
            continue
        try:
            if any(d.action == "rescored" for d in own):
                bundle = replace(bundle, runs=[rescored(run) for run in bundle.runs])
            entries.append(entry_of(sound(bundle), own))
        except ValueError as error:
            failed[str(path)] = str(error)
    if unknown := [d.entry for d in decided if d.entry not in met]:
        raise ValueError(f"{board / DECISIONS} is about {unknown[0]}, which is not a submission here")
    return build_site(standings(entries), removed, board), failed


def entry_of(bundle: Bundle, decided: Iterable[Adjudication]) -> Entry:
    """Return the row of the board that a sound submission is worth."""
    about, first = bundle.submission, bundle.runs[0]
    one_a_seed = [column for column in COLUMNS if column.ranked and column.key != "end"]
    code = ", ".join(f"{source.package or 'a file'} {source.sha256[:12]}" for source in about.code.values())
    return Entry(
        id=f"{first.spec.name}-{about.method}-{bundle.sha256[:8]}".replace("_", "-"),
        league=League(about.stream, about.model, about.preset, about.division),
        name=about.name,
        organisation=about.organisation,
        method=about.method,
        runs=alike(bundle.runs),
        settings=about.settings,
        code=code or "shipped",
        note=about.note,
        command=rules.command(first.config, first.spec),
        bundle=bundle.sha256,
        scores={"end": final_scores(bundle.runs)}
        | {column.key: {column.key: [column.of(run) for run in bundle.runs]} for column in one_a_seed},
        unranked=next(unranked(bundle, decided), None),
        verified=[d.reason for d in decided if d.action == "verified"],
    )


def unranked(bundle: Bundle, decided: Iterable[Adjudication]) -> Iterator[str]:
    """Yield why an entry has no place."""
    yield from (f"disputed: {d.reason}" for d in decided if d.action == "disputed")
    if (seeds := sorted(bundle.submission.seeds)) != rules.SEEDS:
        yield f"incomplete: seeds {', '.join(map(str, seeds))}, a place requires 0 to 4"
