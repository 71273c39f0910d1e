"""Forgetting outside the stream, through lm-eval: any of its tasks by name, before and after, paired by document.

The group `fst_general`, shipped in `general/`, is what the embedded model can do and no stream trains.
"""

import hashlib
import logging
import os
import tempfile
from collections.abc import Sequence
from functools import cache, partial
from importlib import resources
from pathlib import Path
from typing import Any

from fst_bench.analysis.probes.opened import Opened, Work
from fst_bench.policy.models import EMBEDDED

GENERAL = Path(str(resources.files("fst_bench.embedded.general")))
READERS = {".jsonl": "json", ".json": "json", ".parquet": "parquet"}
"""Suffix of a data file -> what `datasets` calls its reader."""
HUB = ("mmlu", "arc_challenge", "hellaswag", "truthfulqa_mc2", "ifeval")
"""For models that know the world: knowledge, common sense, truthfulness and instructions, which no stream trains."""


def forgetting(
    run: Opened, tasks: Sequence[str] | None = None, n: int | None = None, data: Path | None = None
) -> list[Work]:
    """Return the work: the base and the weights at the stream's end, on each lm-eval task; `n` limits its documents.

    Without `tasks` it is the group `fst_general` for an embedded model, and `HUB` for any other. A group is taken apart
    into its tasks. With `data` their data sets are read there instead of from the hub, DATA/TASK/SPLIT.jsonl (or .json
    or .parquet) in the columns that lm-eval's task reads, and without `tasks` they are all that lie there. Raises
    ValueError for a name that lm-eval does not know, a data set that it can't load, or without lm-eval.
    """
    if data is not None:
        there = sorted(place.name for place in data.iterdir() if place.is_dir()) if data.is_dir() else []
        found = {name: local(name, data / name) for name in tasks or there}
        if not found:
            raise ValueError(f"{data} holds no folder with the data of an lm-eval task")
    else:
        usual = ("fst_general",) if run.config.model.startswith(EMBEDDED) else HUB
        found = {name: name for name in leaves(tasks or usual)}
    return [
        ({"task": name, "weights": weights, "n": n} | digest_of(spec), partial(measure, run, name, spec, weights, n))
        for name, spec in found.items()
        for weights in ("base", "trained")
    ]


def local(name: str, folder: Path) -> Any:
    """Return lm-eval's task over the data files of a folder."""
    known(task_manager(False), name)
    files = {file.stem: file for file in sorted(folder.glob("*")) if file.suffix in READERS}
    readers = {READERS[file.suffix] for file in files.values()}
    if len(readers) != 1:
        kinds = "holds files of several kinds" if readers else f"holds no SPLIT{', SPLIT'.join(READERS)}"
        raise ValueError(f"{folder} {kinds}: it requires the data of {name}, such as test.jsonl")
    data_files = {split: str(file) for split, file in files.items()}
    own = {"dataset_path": readers.pop(), "dataset_name": None, "dataset_kwargs": {"data_files": data_files}}
    return {"group": "local", "task": [{"task": name} | own]}  # in a group, where lm-eval lays settings over a task's


@cache
def task_manager(shipped: bool) -> Any:
    """Return lm-eval's index of the shipped group alone, or of all its tasks too, which takes many seconds."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        from lm_eval.tasks import TaskManager
    except ImportError:
        raise ValueError("forgetting needs lm-eval: pip install 'fst-bench[eval]'") from None
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    return TaskManager(include_path=str(GENERAL), include_defaults=not shipped)


def task_manager_for(names: Sequence[str]) -> Any:
    """Return the smallest index that has some tasks."""
    shipped = task_manager(True)
    return shipped if set(names) <= set(shipped.all_tasks) else task_manager(False)


def digest_of(spec: Any) -> dict[str, str]:
    """Return what tells rows over one folder of data from those over another: nothing for the hub's."""
    if isinstance(spec, str):
        return {}
    files = spec["task"][0]["dataset_kwargs"]["data_files"]
    parts = [f"{split} {hashlib.sha256(Path(file).read_bytes()).hexdigest()}" for split, file in files.items()]
    return {"data": hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]}


def known(manager: Any, name: str) -> None:
    """Raise ValueError where lm-eval has no task or group of a name."""
    if name not in manager.all_tasks:
        near = [known for known in manager.all_tasks if name in known][:10]
        raise ValueError(f"lm-eval has no task {name!r}" + (f": is it one of {', '.join(near)}?" if near else ""))


def leaves(names: Sequence[str]) -> list[str]:
    """Return task names in order, groups taken apart."""
    manager = task_manager_for(names)
    found: list[str] = []
    for name in names:
        known(manager, name)
        try:
            found += manager.load([name])["tasks"]
        except OSError as error:
            reason = str(error).partition("\n")[0]
            raise ValueError(
                f"lm-eval could not load the data of {name} (--data reads it from files): {reason}"
            ) from None
    return list(dict.fromkeys(found))


def measure(run: Opened, task: str, spec: Any, weights: str, n: int | None) -> dict[str, Any]:
    import lm_eval
    from lm_eval.models.huggingface import HFLM

    run.load(max(run.ends.values()))
    with tempfile.TemporaryDirectory() as folder:
        run.model(weights).export(Path(folder))
        place = {"device": run.config.policy.device, "dtype": run.config.policy.dtype}
        model = HFLM(pretrained=folder, backend="causal", batch_size=32, **place)
        done = lm_eval.simple_evaluate(
            model,
            tasks=[spec],
            task_manager=task_manager_for([task]),
            apply_chat_template=run.config.policy.template == "chat",
            bootstrap_iters=0,
            limit=n,
            verbosity="ERROR",
        )
    assert done is not None
    samples = sorted(done["samples"][task], key=lambda sample: sample["doc_id"])
    metric = samples[0]["metrics"][0]
    return {
        "metric": metric,
        "documents": len(samples),
        "scores": [round(float(sample[metric]), 6) for sample in samples],
    }
