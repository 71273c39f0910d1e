"""fst-bench: a continual-learning benchmark and evaluation harness for post-training language models.

fst_bench.run(stream=..., method=..., out=..., seed=...) is the main job; fst_bench.tasks.load_task gives a task.
"""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fst_bench.harness.loop import Callback
    from fst_bench.harness.run import Run

__all__ = ["resume", "run"]

# idle threads of OpenMP wait for work by spinning, which stops a run on a machine that has other work as well. It reads
# this when torch is imported; what the user has set stays
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# torch, transformers and matplotlib take seconds to import: `fst_bench.tasks` alone must not pay for them


def run(
    stream: str,
    method: str,
    out: str | Path = "runs",
    seed: int = 0,
    preset: str = "tiny",
    callback: "Callback | None" = None,
    once: bool = False,
    **settings: Any,
) -> "Run":
    """Run a method on a stream, each a name or a file, and write the run's report.

    `settings` are sections or values, as in slow={"ratio_clip_max": 4.0}, batch=8. Raises ValueError in one line for a
    wrong setting; with `once`, where these settings have a run already, which otherwise gets a number.
    """
    from fst_bench.harness import loop

    done = loop.run(stream, method, out, seed, preset, callback, once, **settings)
    report(done, callback)
    return done


def resume(path: str | Path, callback: "Callback | None" = None) -> "Run":
    """Continue a killed run from its last checkpoint, and write its report; a finished run is returned as it is."""
    from fst_bench.harness import loop
    from fst_bench.harness.store import Store

    finished = Store(Path(path)).finished
    done = loop.resume(path, callback)
    if not finished:
        report(done, callback)
    return done


def report(run: "Run", callback: "Callback | None") -> None:
    """Write the report of a finished run. Whatever hinders that is a note: the run is finished all the same."""
    try:
        from fst_bench.analysis.report import write_report

        write_report(run.path)
    except Exception as error:
        if callback:
            why = " ".join(str(error).split()) or type(error).__name__
            callback.on_note(f"report.html can't be written: {why}. fst-bench report {run.path} tries again")
