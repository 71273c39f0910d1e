"""Copies what is committed of finished runs, about 100 kB each: python results/collect.py runs-reference"""

import shutil
import sys
from pathlib import Path

KEPT = ("config.json", "env.json", "evals.jsonl", "events.jsonl", "prompts.jsonl", "metrics.json", "ledger.json")

source, target = Path(sys.argv[1]), Path(__file__).parent
for run in sorted(p.parent for p in source.rglob("manifest.json") if "probes" not in p.parts):
    folder = target / run.relative_to(source)
    folder.mkdir(parents=True, exist_ok=True)
    for name in KEPT:
        if (run / name).exists():
            shutil.copyfile(run / name, folder / name)
    for rows in (run / "probes").glob("*.jsonl"):
        (folder / "probes").mkdir(exist_ok=True)
        shutil.copyfile(rows, folder / "probes" / rows.name)
    print(folder)
