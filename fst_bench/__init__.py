"""fst-bench: a continual-learning benchmark and evaluation harness for post-training language models.

fst_bench.run(stream=..., method=..., out=..., seed=...) is the main job; fst_bench.tasks.load_task gives a task.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fst_bench.harness.loop import Callback
    from fst_bench.harness.run import Run

__all__ = ["resume", "run"]

# torch, transformers and matplotlib take seconds to import: `fst_bench.tasks` alone must not pay for them


def run(
    stream: str,
    method: str,
    out: str | Path = "runs",
    seed: int = 0,
    preset: str = "tiny",
    callback: "Callback | None" = None,
    **settings: Any,
) -> "Run":
    """Run a method on a stream, each a name or a file, and write the run's report.

    `settings` are sections or values, as in slow={"ratio_clip_max": 4.0}, batch=8. Raises ValueError in one line for a
    wrong setting.
    """
    from fst_bench.analysis.report import write_report
    from fst_bench.harness import loop

    done = loop.run(stream, method, out, seed, preset, callback, **settings)
    write_report(done.path)
    return done


def resume(path: str | Path, callback: "Callback | None" = None) -> "Run":
    """Continue a killed run from its last checkpoint, and write its report; a finished run is returned as it is."""
    from fst_bench.analysis.report import write_report
    from fst_bench.harness import loop
    from fst_bench.harness.store import Store

    finished = Store(Path(path)).finished
    done = loop.resume(path, callback)
    if not finished:
        write_report(done.path)
    return done
