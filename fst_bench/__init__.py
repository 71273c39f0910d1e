"""fst-bench: a continual-learning benchmark and evaluation harness for post-training language models.

fst_bench.run(stream=..., method=..., out=..., seed=...) is the main job; fst_bench.tasks.load_task gives a task.
"""

from typing import Any

__all__ = ["resume", "run"]


def __getattr__(name: str) -> Any:
    # torch and transformers take seconds to import; `fst_bench.tasks` alone must not pay for them
    if name in __all__:
        from fst_bench import bench

        return getattr(bench, name)
    raise AttributeError(f"module 'fst_bench' has no attribute {name!r}")
