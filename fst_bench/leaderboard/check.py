"""Is a submission consistent? Every stored answer is scored again, every metric computed again from the rows.

It proves consistency, not honesty: invented runs with fitting answers are found by running a seed again
(`adjudications.verify`). What can't be recomputed without the weights, KL and what was spent, only has to fit the other
rows. This file looks at the submission as a whole, `check_run` at one run, and `answers` scores a run's answers.
"""

import json
from collections.abc import Iterator
from typing import Any

from fst_bench.analysis.runs import alike
from fst_bench.core.registry import NAME
from fst_bench.leaderboard import rules
from fst_bench.leaderboard.bundle import MANIFEST, Bundle, private
from fst_bench.leaderboard.check_run import LONGEST, MOST, PARTS, Check, first, ledger, parts_of
from fst_bench.method.registry import METHODS
from fst_bench.tasks.data import PROCEDURAL


def check(bundle: Bundle) -> Iterator[Check]:
    """Yield (part, None or what is wrong in it), in order; what rests on a broken part is not looked at."""
    for part, wrong in ((MANIFEST, manifest), ("private", nothing_private), ("rules", keeps_the_rules)):
        complaint = first(wrong(bundle))
        yield part, complaint
        if complaint:
            return
    for run in bundle.runs:
        yield from ((f"{run.where} {part}", complaint) for part, complaint in parts_of(run, PARTS))


def sound(bundle: Bundle) -> Bundle:
    """Return the bundle itself. Raises ValueError with the first thing that its check finds."""
    for part, complaint in check(bundle):
        if complaint:
            raise ValueError(f"{part}: {complaint}")
    return bundle


def manifest(bundle: Bundle) -> Iterator[str]:
    """Yield where the manifest differs from the runs' settings, and runs that do not belong together."""
    yield from names(bundle)
    yield from settings(bundle)
    yield from code(bundle)
    alike(bundle.runs)
    sampled: dict[tuple[str, ...], str] = {}
    for run in bundle.runs:  # before learning nothing but the seed tells two runs of one model apart
        texts = tuple(answer.text for answer in run.answers if answer.step == 0)
        if run.config.evaluation.temperature and (other := sampled.setdefault(texts, run.where)) != run.where:
            yield f"{run.where} has at step 0 the answers of {other}: the same run, handed in twice"


def names(bundle: Bundle) -> Iterator[str]:
    """Yield where the manifest, the top of a config.json and the settings in it name different things."""
    for seed, run in zip(sorted(bundle.submission.seeds), bundle.runs, strict=True):
        saved, config, spec, where = run.saved, run.config, run.spec, f"{run.where}/config.json"
        if config.data != PROCEDURAL:
            yield (
                f"{where}: its problems are from {config.data}, and have to be procedural, "
                "so that everybody can score its answers again"
            )
        claims = {"stream": f"{spec.name}@{spec.version}"}
        claims |= {"model": config.model, "preset": config.preset, "method": config.method}
        for key, value in claims.items():
            if (claimed := getattr(bundle.submission, key)) != value:
                yield f"{key} is {claimed!r}, {where} has {value!r}"
        top: dict[str, Any] = {"stream": spec.name, "stream_version": spec.version}
        top |= {key: getattr(config, key) for key in ("method", "preset", "seed", "model", "seed_prompt")}
        for key, below in top.items():
            if saved.get(key) != below:
                yield f"{where}: {key} is {saved.get(key)!r} at the top and {below!r} below"
        if config.seed != seed:
            yield f"{where} is of seed {config.seed}"
        if config.code != bundle.submission.code:
            yield f"code differs from that of {where}"


def settings(bundle: Bundle) -> Iterator[str]:
    """Yield settings that are not at the preset's value and not disclosed, or disclosed otherwise."""
    disclosed = bundle.submission.settings
    for run in bundle.runs:
        rules.expected(run.spec, run.config.preset)  # raises first: below, a stream's name is looked up
        found = rules.settings_of(run.config, run.spec)
        for key in disclosed | found:
            if disclosed.get(key) != found.get(key):
                has = found.get(key, "the preset's value")
                yield f"settings: {key} is disclosed as {disclosed.get(key)}, {run.where}/config.json has {has}"
    if len(json.dumps(disclosed)) > LONGEST:
        yield f"settings: more than {LONGEST:,} characters"


def code(bundle: Bundle) -> Iterator[str]:
    """Yield where the method's code is neither shipped nor in the submission, or not what its runs were made with."""
    about, own = bundle.submission, bundle.code()
    if about.method not in METHODS and f"methods/{about.method}" not in about.code:
        yield f"method {about.method[:MOST]!r} is neither shipped nor in its code"
    for key, source in about.code.items():
        kind, _, name = key.partition("/")
        if kind != "methods" or name != about.method or not NAME.fullmatch(name):
            yield f"code: {key} is not a method of this submission"
        if source.package is None and (name not in own or about.files[f"code/methods/{name}.py"] != source.sha256):
            yield f"code/methods/{name}.py is missing, or not the one its runs were made with"
    for name in own:
        if f"methods/{name}" not in about.code:
            yield f"code/methods/{name}.py: no run was made with it"


def nothing_private(bundle: Bundle) -> Iterator[str]:
    """Yield where a file holds what looks like a key or an absolute path."""
    for name, data in bundle.files.items():
        yield from private(name, data.decode("utf-8", "replace"))


def keeps_the_rules(bundle: Bundle) -> Iterator[str]:
    """Yield the division's rules that a run breaks."""
    for run in bundle.runs:
        yield from (f"{run.where}/{complaint}" for complaint in ledger(run))
        for complaint in rules.broken(bundle.submission.division, run.config, run.spec, run.env, run.ledger):
            yield f"{run.where}: {complaint}"
