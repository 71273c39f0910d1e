"""Collects finished runs into the committed Parquet files: python results/collect.py runs-reference

Runs that a collection holds already stay; one with the same id is replaced.
"""

import sys
from pathlib import Path

from fst_bench.harness.collection import Collection, collect
from fst_bench.harness.run import Run
from fst_bench.harness.store import Store

PROBES = ("channels", "drift", "forgetting", "ood", "plasticity")
source, target = Path(sys.argv[1]), Path(__file__).parent
for stream in sorted(path for path in source.iterdir() if path.is_dir()):
    old = Collection.at(target / stream.name)
    runs = {str(run.path.relative_to(old.path)): run for run in (old.runs() if old else [])}
    new = [path.parent for path in sorted(stream.rglob("manifest.json")) if "probes" not in path.parts]
    runs |= {str(path.relative_to(stream)): Run(Store(path)) for path in new}
    if runs:
        collect(sorted(runs.items()), target / stream.name, PROBES)
        print(f"{target / stream.name}: {len(new)} new of {len(runs)} runs")
