"""The process that evaluates a run's snapshots: python -m fst_bench.harness.evaluator_process RUN

`Evaluator` starts it, and writes the steps to evaluate to its standard input, a line each. It ends where that does.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

from fst_bench.core.errors import RunError
from fst_bench.harness.evaluator import JOB, ROWS
from fst_bench.harness.loop import Bench, dumped, recorded
from fst_bench.harness.store import PENDING, Store, written
from fst_bench.method.ledger import Ledger


def serve(path: Path) -> None:
    """Evaluate the snapshots of a run whose steps come in."""
    bench = Bench(*recorded(Store(path)))
    for line in sys.stdin:
        folder = path / PENDING / f"step-{int(line):06d}"
        if (folder / ROWS).exists():
            continue
        start = time.perf_counter()
        job = json.loads((folder / JOB).read_text())
        bench.policy.start_from(folder)
        ledger = Ledger.from_dict(job["ledger"])
        rows, answers = bench.evaluated(bench.schedule[int(line)], job["method"], job["oracle"], ledger)
        found = {"evals": dumped(rows), "answers": dumped(answers), "seconds": time.perf_counter() - start}
        temporary = folder / f"{ROWS}.{os.getpid()}"  # of a killed loop's evaluator, another one may still be at it
        with written(folder):
            temporary.write_text(json.dumps(found))
            os.replace(temporary, folder / ROWS)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the loop's, which ends this process
    try:
        serve(Path(sys.argv[1]))
    except (RunError, ValueError) as error:
        sys.exit(str(error))
