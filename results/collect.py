"""Copies what is committed of finished runs, a few dozen kB each: python results/collect.py runs-reference"""

import shutil
import sys
from pathlib import Path

KEPT = ("config.json", "env.json", "evals.jsonl", "prompts.jsonl", "metrics.json", "ledger.json")

source, target = Path(sys.argv[1]), Path(__file__).parent
for run in sorted(p.parent for p in source.rglob("manifest.json")):
    folder = target / run.relative_to(source)
    folder.mkdir(parents=True, exist_ok=True)
    for name in KEPT:
        if (run / name).exists():
            shutil.copyfile(run / name, folder / name)
    print(folder)
