"""leaderboard: submissions that can be checked, and the pages made of them."""

from argparse import Namespace
from pathlib import Path

from fst_bench.cli.parser import Commands, Parser, Result, add_command


def add_commands(commands: Commands) -> None:
    board = commands.add_parser("leaderboard", help="submissions that can be checked, and the pages made of them")
    actions = board.add_subparsers(dest="action", required=True, parser_class=Parser, metavar="ACTION")

    submit = add_command(actions, "submit", do_submit, "finished runs of one method, one a seed, as one file")
    submit.add_argument("runs", type=Path, nargs="+", help="run directories, or folders that hold them")
    submit.add_argument("--name", required=True, help="what the board shows")
    submit.add_argument("--org", required=True)
    submit.add_argument("--division", required=True, choices=("closed", "open"))
    submit.add_argument("--note", default="", help="what a reader should know, such as how settings were chosen")
    submit.add_argument("--out", type=Path, required=True, help="the file, NAME.zip")

    summary = "score every stored answer again, compute every metric again, check every rule"
    check = add_command(actions, "check", do_check, summary)
    check.add_argument("bundles", type=Path, nargs="+")

    verify = add_command(actions, "verify", do_verify, "run one of its seeds again, and record what came out")
    verify.add_argument("bundle", type=Path)
    verify.add_argument("--seed", type=int, required=True)
    verify.add_argument("--out", type=Path, default=Path("runs"), help="where the run goes")

    summary = "remove, restore or score again a submission, for a reason"
    adjudicate = add_command(actions, "adjudicate", do_adjudicate, summary)
    adjudicate.add_argument("bundle", type=Path)
    decisions = ("removed", "restored", "rescored")
    adjudicate.add_argument("decision", choices=decisions, metavar="|".join(decisions))
    adjudicate.add_argument("--reason", required=True)

    build = add_command(actions, "build", do_build, "the site and the tables, from submissions and decisions")
    further = "a folder with further submissions"
    build.add_argument("--results", type=Path, default=Path("results"), help=further)
    for action in (verify, adjudicate, build):
        action.add_argument("--board", type=Path, default=Path("leaderboard"), help="the board's folder")


def do_submit(args: Namespace) -> Result:
    from fst_bench.leaderboard.submit import submit

    bundle = submit(args.runs, args.name, args.org, args.division, args.note, args.out)
    made = bundle.submission
    seeds = ", ".join(map(str, made.seeds))
    size = args.out.stat().st_size
    print(f"{args.out}: {made.method} on {made.stream}, seeds {seeds}, {size:,} bytes, checked")
    return {"file": str(args.out), "sha256": bundle.sha256}


def do_check(args: Namespace) -> Result:
    from fst_bench.leaderboard.bundle import read_bundle
    from fst_bench.leaderboard.check import check

    problems: list[str] = []
    for path in args.bundles:
        try:
            found = list(check(read_bundle(path)))
        except ValueError as error:
            found = [("file", str(error))]
        wrong = [f"{part}: {complaint}" for part, complaint in found if complaint]
        problems += [f"{path}: {line}" for line in wrong]
        print(f"FAILS {path}" if wrong else f"consistent {path}: {len(found)} parts")
        for line in wrong:
            print(f"  {line}")
    return {"ok": not problems, "problems": problems}


def do_verify(args: Namespace) -> Result:
    from fst_bench.leaderboard import adjudications
    from fst_bench.leaderboard.bundle import read_bundle
    from fst_bench.leaderboard.check import sound

    bundle = sound(read_bundle(args.bundle))
    action, reason, code = adjudications.verify(bundle, args.seed, args.out)
    adjudications.append(args.board / adjudications.DECISIONS, bundle.sha256, action, reason, seed=args.seed, code=code)
    print(f"{action}: {reason}")
    return {"ok": action == "verified", "action": action, "reason": reason}


def do_adjudicate(args: Namespace) -> Result:
    from fst_bench.leaderboard import adjudications
    from fst_bench.leaderboard.bundle import read_bundle

    file, sha256 = args.board / adjudications.DECISIONS, read_bundle(args.bundle).sha256
    made = adjudications.append(file, sha256, args.decision, args.reason)
    print(f"{made.action}: {args.bundle}, {made.reason}")
    return made.model_dump(mode="json")


def do_build(args: Namespace) -> Result:
    from fst_bench.leaderboard.build import build

    page, failed = build(args.board, args.results)
    for path, why in failed.items():
        print(f"FAILS {path}: {why}")
    print(f"page: {page}")
    return {"ok": not failed, "page": str(page), "failed": failed}
