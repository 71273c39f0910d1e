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

from fst_bench.compare import columns, interval, load
from fst_bench.display import SweepDisplay
from fst_bench.sweep import sweep

HERE = Path(__file__).parent
LOG = HERE / "trials.jsonl"
LOCK = threading.Lock()


def logged() -> list[dict[str, Any]]:
    return [json.loads(line) for line in LOG.read_text().splitlines()] if LOG.exists() else []


def one(plan: dict[str, Any], method: str, trial: dict[str, Any], seed: int, out: Path) -> None:
    done = sweep(plan["stream"], [method], [seed], out, plan["preset"], plan["common"] | trial, 1, SweepDisplay(Console(), live=False))
    for path, why in done.items():
        if why is None:
            (run,) = load([path])
            row = {"method": method, "trial": trial, "seed": seed, **{name: round(value, 4) for name, value in columns(run).items()}}
            with LOCK, LOG.open("a") as f:
                f.write(json.dumps(row) + "\n")


def table() -> None:
    rows = logged()
    print(
        "| method | trial | seeds | within stages | stages' ends | end, own prompt | end, weights only | KL | rollouts |\n| --- | --- | --- | --- | --- | --- | --- | --- | --- |"
    )
    for key in dict.fromkeys((row["method"], json.dumps(row["trial"])) for row in rows):
        group = [row for row in rows if (row["method"], json.dumps(row["trial"])) == key]
        cells = [interval([row[name] for row in group]) for name in ("within stages", "stages' ends", "end, own prompt", "end, weights only", "KL")]
        shown = " | ".join(f"{mean:.3f} ± {half:.3f}" for mean, half in cells)
        print(f"| {key[0]} | {key[1].strip('{}') or 'as it is'} | {len(group)} | {shown} | {sum(r['rollouts'] for r in group) / len(group):,.0f} |")


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
