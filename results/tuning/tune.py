"""Runs the trials of trials.yaml and logs each to trials.jsonl; the same command again goes on where it stopped.

python results/tuning/tune.py --out runs-tuning        # then: --table prints the means by trial
"""

import argparse
import json
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from fst_bench.analysis import columns, load
from fst_bench.cli.display import SweepDisplay
from fst_bench.harness.sweep import sweep
from fst_bench.metrics.intervals import t_interval

HERE = Path(__file__).parent
LOG = HERE / "trials.jsonl"
LOCK = threading.Lock()


def logged() -> list[dict[str, Any]]:
    return [json.loads(line) for line in LOG.read_text().splitlines()] if LOG.exists() else []


def one(plan: dict[str, Any], method: str, trial: dict[str, Any], seed: int, out: Path) -> None:
    done = sweep(
        plan["stream"],
        [method],
        [seed],
        out,
        plan["preset"],
        plan["common"] | trial,
        1,
        SweepDisplay(Console(), live=False),
    )
    for path, why in done.items():
        if why is None:
            (run,) = load([path])
            row = {
                "method": method,
                "trial": trial,
                "seed": seed,
                **{name: round(value, 4) for name, value in columns(run).items()},
            }
            with LOCK, LOG.open("a") as f:
                f.write(json.dumps(row) + "\n")


SHOWN = ("so far", "online accuracy", "end-of-stage accuracy", "end, own prompt", "end, seed prompt", "KL")


def table() -> None:
    rows = logged()
    head = ["method", "trial", "seeds", *SHOWN, "rollouts"]
    print("\n".join(f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head))))
    for method, trial in dict.fromkeys((row["method"], json.dumps(row["trial"])) for row in rows):
        group = [row for row in rows if (row["method"], json.dumps(row["trial"])) == (method, trial)]
        estimates = [t_interval([row[name] for row in group]) for name in SHOWN]
        cells = [f"{e.value:.3f} ± {e.half:.3f}" for e in estimates]
        rollouts = f"{sum(row['rollouts'] for row in group) / len(group):,.0f}"
        print(f"| {' | '.join([method, trial.strip('{}') or 'as it is', str(len(group)), *cells, rollouts])} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs-tuning"))
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--methods", default="rl,gepa,fst")
    parser.add_argument("--table", action="store_true")
    args = parser.parse_args()
    if args.table:
        return table()
    plan = yaml.safe_load((HERE / "trials.yaml").read_text())
    assert len({len(trials) for trials in plan["methods"].values()}) == 1, "the same number of trials for each method"
    done = {(row["method"], json.dumps(row["trial"]), row["seed"]) for row in logged()}
    owed = [
        (plan, method, trial, seed, args.out)
        for seed in plan["seeds"]
        for trials in zip(*(plan["methods"][m] for m in args.methods.split(",")), strict=True)
        for method, trial in zip(args.methods.split(","), trials, strict=True)
        if (method, json.dumps(trial), seed) not in done
    ]
    with ThreadPoolExecutor(args.jobs) as pool:
        for future in [pool.submit(one, *job) for job in owed]:
            future.result()
    table()


if __name__ == "__main__":
    main()
