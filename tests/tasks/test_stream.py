import hashlib
import itertools
import json
import math
from collections import Counter
from copy import deepcopy
from datetime import date
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from fst_bench.cli import main
from fst_bench.cli.validate import streams as validate
from fst_bench.harness.config import preset_files, resolve
from fst_bench.tasks.stream import GRANULE, Stream, StreamSpec, load_spec, of_package, schedule, shares, stream_files

DIFFICULTY = resolve("continual-4", "base", "tiny")[0].difficulty
OF_OURS = sorted(name for name in stream_files() if not of_package(name))


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(OF_OURS), st.integers(0, 10**6), st.integers(0, 60), st.integers(1, 40))
def test_a_batch_is_a_pure_function_of_stream_seed_and_step(name: str, seed: int, step: int, size: int) -> None:
    spec = load_spec(name)
    one, two = Stream(spec, seed, DIFFICULTY), Stream(spec, seed, DIFFICULTY)
    for index in two.batch(step + 1, size):
        two.problem(index)  # having drawn others before changes nothing
    assert [one.problem(i) for i in one.batch(step, size)] == [two.problem(i) for i in two.batch(step, size)]


@given(st.integers(0, 10**6), st.integers(1, 64))
def test_batches_cover_the_stream_once(seed: int, size: int) -> None:
    stream = Stream(load_spec("continual-4"), seed, DIFFICULTY)
    indices = [i for step in range(math.ceil(stream.total / size)) for i in stream.batch(step, size)]
    assert indices == list(range(stream.total))
    assert not stream.batch(len(indices), size)


@given(st.integers(0, 10**6))
def test_stages_follow_each_other_and_are_jittered(seed: int) -> None:
    spec = load_spec("continual-4")
    stages = Stream(spec, seed, DIFFICULTY).stages
    assert [s.tasks for s in stages] == [["math"], ["codeio"], ["hover"], ["star-graph"]]
    assert stages[0].start == 0 and all(a.end == b.start for a, b in itertools.pairwise(stages))
    assert all(abs(s.end - s.start - 400) <= spec.jitter and (s.end - s.start) % GRANULE == 0 for s in stages)


def test_another_batch_size_sees_the_same_data() -> None:
    stream = Stream(load_spec("continual-4"), 0, DIFFICULTY)
    assert [i for s in range(4) for i in stream.batch(s, 16)] == [i for s in range(2) for i in stream.batch(s, 32)]


def test_seeds_differ_and_switches_fall_inside_cycles() -> None:
    lengths = {tuple(s.end for s in Stream(load_spec("continual-4"), seed, DIFFICULTY).stages) for seed in range(20)}
    assert len(lengths) > 15
    assert any(end % (5 * 16) for ends in lengths for end in ends)


SHIPPED = """continual-4 continual-4-reversed continual-4-blend continual-4-cycle continual-4-drift
continual-4-formats-given continual-4-mixed continual-4-told continual-5 paper-3 protocol-drift
single-math single-codeio single-hover single-hover-search single-star-graph single-physics""".split()


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_streams_read(name: str) -> None:
    assert load_spec(name).name == name and name in stream_files()
    for preset in preset_files():
        config, spec = resolve(name, "base", preset)
        if config.data == "procedural":
            assert Stream(spec, 0, config.difficulty, config.stage_problems).held_out()


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("name: x\nversion: 1\ndescription: d\nstagse: []\n", "did you mean stages"),
        ("name: x\nversion: 1\ndescription: d\nstages: [{task: maths, problems: 9}]\n", "did you mean math"),
        ("name: x\nversion: 1\ndescription: d\nstages: []\n", "stages"),
        ("name: x\nversion: 1\ndescription: d\nstages: [{task: math, problems: 0}]\n", "problems"),
        ("name: [", "not YAML"),
        ("- a\n", "mapping"),
    ],
)
def test_a_broken_stream_file_is_one_line(tmp_path: Path, text: str, complaint: str) -> None:
    (tmp_path / "s.yaml").write_text(text)
    with pytest.raises(ValueError, match=complaint) as error:
        load_spec(str(tmp_path / "s.yaml"))
    assert "\n" not in str(error.value)


ODD: list[Any] = [[], {}, [1], {"a": 1}, {1: 2}, None, True, -1, 0, 1.5, 10**30, float("nan"), float("inf"), "", "x"]
ODD += ["math", "../x", {"math": [1]}, {"fst": 3}, {"operations": [1]}, {"task": ["math"]}, date(2024, 1, 1), b"\0"]


def places(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of every value inside a value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [at, *(place for key, inner in items for place in places(inner, (*at, key)))]


@settings(max_examples=150)
@given(st.sampled_from(sorted(stream_files())), st.randoms(use_true_random=False))
def test_a_value_of_any_kind_in_a_stream_file_is_one_line(name: str, dice: Random) -> None:
    values = yaml.safe_load(stream_files()[name].read_text()) | {"name": "own"}
    for key in dice.sample(["settings", "variants", "cycles", "announced"], 1):
        values.setdefault(key, deepcopy(dice.choice(ODD)))
    *path, last = dice.choice(places(values)[1:])
    inside = values
    for key in path:
        inside = inside[key]
    inside[last] = deepcopy(dice.choice(ODD))
    with TemporaryDirectory() as folder:
        file = Path(folder) / "own.yaml"
        file.write_text(yaml.safe_dump(values))
        try:
            config, spec = resolve(str(file), "rl", "smoke")
            Stream(spec, 0, config.difficulty, config.stage_problems)
        except ValueError as error:
            assert "\n" not in str(error)


@pytest.mark.parametrize("name", ["../../evil", "a/b", "..", "", "x y", ".x", "é", "a" * 65, "[own]", "3"])
def test_a_streams_name_is_part_of_a_path(tmp_path: Path, name: str) -> None:
    path = tmp_path / "s.yaml"
    text = "version: 1\ndescription: d\nstages: [{task: math, problems: 9}]\n"
    path.write_text(f"name: '{name}'\n{text}")
    if name == "3":
        assert load_spec(str(path)).name == name
    else:
        with pytest.raises(
            ValueError, match=r"name: .* is not a name: it has to be of letters, digits, -, _ and \., 64"
        ):
            load_spec(str(path))


def test_a_difficulty_may_hold_a_list(tmp_path: Path) -> None:
    """A task of one's own has parameters of any type: the check of its stream does not hash them."""
    (tmp_path / "chosen.py").write_text(CHOSEN)
    stage = "{task: chosen.py, problems: 400, difficulty: {numbers: [1, 2], names: {a: 1}}}"
    (tmp_path / "s.yaml").write_text(f"name: s\nversion: 1\ndescription: d\nstages: [{stage}]\n")
    assert [complaint for _, complaint in validate(str(tmp_path / "s.yaml"))][-1] is None
    (tmp_path / "s.yaml").write_text((tmp_path / "s.yaml").read_text().replace("[1, 2]", "{a: 1}"))
    assert "numbers" in str([complaint for _, complaint in validate(str(tmp_path / "s.yaml"))][-1])


CHOSEN = """
from fst_bench.core.types import Score
from fst_bench.tasks.base import Difficulty, Draft, Task


class ChosenDifficulty(Difficulty):
    numbers: list[int] = [1]
    names: dict[str, int] = {}


class Chosen(Task):
    name = "chosen"
    Difficulty = ChosenDifficulty
    protocol = "Write the number alone."
    hint = "It helps to look."
    levels = [{}, {}]

    def draw(self, rng):
        number = rng.choice(self.difficulty.numbers) * rng.randint(1, 10**9)
        return Draft(str(number), f"Which number is {number}?", str(number), {})

    def check(self, problem, text):
        right = text.strip() == problem.answer
        return Score(float(right), "The answer is correct." if right else "It is wrong.", "ok" if right else "wrong")

    def write(self, answer):
        return answer

    def wrong_texts(self, problem):
        return ["x"]
"""


def test_a_stages_difficulty_is_checked(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(
        "name: x\nversion: 1\ndescription: d\nstages: [{task: math, problems: 16, difficulty: {operations: 0}}]\n"
    )
    with pytest.raises(ValueError, match="operations"):
        Stream(load_spec(str(tmp_path / "s.yaml")), 0, {})


# --- published streams


@pytest.mark.parametrize(
    ("name", "digest"),
    [
        ("continual-4", "3493d03201e8202b"),
        ("paper-3", "f4836a82c04e8e2e"),
        ("single-codeio", "5d0325e6047aa30d"),
        ("single-hover", "47d94f38ead8654d"),
        ("single-math", "e3dd5e368ec27d83"),
        ("single-physics", "71110ab675ba51d6"),
        ("single-star-graph", "f587210b23be8e45"),
    ],
)
def test_published_streams_give_the_problems_they_gave(name: str, digest: str) -> None:
    """Stages, problems, feedback and held-out problems, as they were before streams could do more than switch.

    Streams of one task had 960 problems then: their longer versions begin with the same.
    """
    seen = hashlib.sha256()
    for seed in (0, 1, 7):
        stream = Stream(load_spec(name), seed, DIFFICULTY, 960 if name.startswith("single") else None)
        seen.update(str([(s.number, "+".join(s.tasks), s.start, s.end) for s in stream.stages]).encode())
        for i in range(0, stream.total, 7):
            p = stream.problem(i)
            seen.update(f"{p.id} {p.prompt} {p.answer}{stream.verifier_of(i).verify(p, 'nothing').feedback}".encode())
        for key, task in stream.held_out().items():
            seen.update(f"{key} {[(p.id, p.prompt) for p in task.problems('test', 0, 20)]}".encode())
    assert seen.hexdigest()[:16] == digest


@pytest.mark.parametrize("name", SHIPPED)
def test_a_spec_is_recorded_whole_and_without_what_it_does_not_use(name: str) -> None:
    spec = load_spec(name)
    assert StreamSpec.model_validate(json.loads(json.dumps(spec.model_dump(mode="json")))) == spec
    if name in ("continual-4", "paper-3") or name.startswith("single"):
        assert set(spec.model_dump()) == {"name", "version", "description", "stages", "jitter", "settings"}
        assert set(spec.model_dump()["stages"][0]) == {"task", "problems", "difficulty"}


# --- what a stream can do


def stream_of(
    seed: int = 0, stage_problems: int | None = None, difficulty: dict[str, Any] | None = None, **spec: Any
) -> Stream:
    made = StreamSpec.model_validate({"name": "s", "version": 1, "description": "d"} | spec)
    return Stream(made, seed, DIFFICULTY | (difficulty or {}), stage_problems)


STAGES = st.one_of(
    st.fixed_dictionaries(
        {
            "task": st.sampled_from(["math", "codeio", "math:json"]),
            "problems": st.integers(48, 120),
            "blend": st.integers(0, 16),
        }
    ),
    st.fixed_dictionaries(
        {"mixture": st.just({"math": 0.5, "hover": 0.3, "math:json": 0.2}), "problems": st.integers(48, 120)}
    ),
)
JSON = {"math:json": {"task": "math", "difficulty": {"answer_format": "json"}}}
USED = {"task": "math:json", "problems": 48}


@settings(max_examples=40)
@given(
    st.lists(STAGES, min_size=1, max_size=3),
    st.integers(1, 2),
    st.integers(0, 10**6),
    st.randoms(use_true_random=False),
)
def test_any_stream_gives_the_same_problems_in_any_order(stages: list[dict], cycles: int, seed: int, dice: Any) -> None:
    spec = {"stages": [*stages, USED], "jitter": 32, "cycles": cycles, "variants": JSON}
    one, two = stream_of(seed, **spec), stream_of(seed, **spec)
    order = list(range(one.total))
    dice.shuffle(order)
    assert {i: two.source(i) for i in order} == {i: one.source(i) for i in range(one.total)}
    assert [s.number for s in one.stages] == list(range(1, len(spec["stages"]) * cycles + 1))
    for stage, own in zip(one.stages, spec["stages"] * cycles, strict=True):
        assert abs(stage.end - stage.start - own["problems"]) <= 32, "jittered, every visit on its own"
    for i in range(one.total):
        likely = shares(one.spec, one.stages, i)
        assert math.isclose(sum(likely.values()), 1) and likely[one.source(i)[0].number, one.source(i)[1]] > 0
    for i in order[:3]:
        assert one.problem(i) == two.problem(i) and one.problem(i).id.startswith(one.spec.task_of(one.source(i)[1]))


def test_a_blend_has_the_shares_of_its_schedule() -> None:
    spec = {"stages": [{"task": "math", "problems": 300, "blend": 99}, {"task": "codeio", "problems": 100}]}
    stream = stream_of(**spec)
    assert [
        shares(stream.spec, stream.stages, i).get((2, "codeio"), 0.0) for i in (200, 201, 250, 299)
    ] == pytest.approx([0, 0.01, 0.5, 0.99])
    drawn = [stream_of(seed, **spec) for seed in range(400)]
    for i in range(200, 301, 20):
        wanted = sum(p for (_, key), p in shares(stream.spec, stream.stages, i).items() if key == "codeio")
        found = sum(s.source(i)[1] == "codeio" for s in drawn) / len(drawn)
        assert abs(found - wanted) < 4 * math.sqrt(0.25 / len(drawn))
    assert all(stream.source(i) == (stream.stages[0], "math") for i in range(201))
    assert all(stream.source(i) == (stream.stages[1], "codeio") for i in range(300, 400))


def test_a_mixture_has_its_weights_and_its_tasks_their_held_out_sets() -> None:
    stream = stream_of(
        stages=[{"mixture": {"math": 0.6, "codeio": 0.3, "math:json": 0.1}, "problems": 4000}], variants=JSON
    )
    counts = Counter(stream.source(i)[1] for i in range(4000))
    for key, share in {"math": 0.6, "codeio": 0.3, "math:json": 0.1}.items():
        assert abs(counts[key] / 4000 - share) < 4 * math.sqrt(share * (1 - share) / 4000)
    held_out = stream.held_out()
    assert list(held_out) == ["math", "codeio", "math:json"] and stream.stages[0].tasks == [
        "math",
        "codeio",
        "math:json",
    ]
    math_, json_ = (held_out[key].problem("test", 0, 0) for key in ("math", "math:json"))
    assert math_ == json_ and held_out["math:json"].write("7") == '{"output": 7}', (
        "the same problems, another answer format"
    )


def test_a_cycle_comes_back_with_stages_of_their_own() -> None:
    stream = stream_of(
        stages=[{"task": "math", "problems": 64, "blend": 8}, {"task": "hover", "problems": 64, "blend": 8}],
        cycles=2,
        jitter=16,
    )
    assert [s.tasks for s in stream.stages] == [["math"], ["hover"], ["math"], ["hover"]]
    assert [s.blend for s in stream.stages] == [8, 8, 8, 0], "the last one has nowhere to go"
    assert {stream.source(i)[0].number for i in range(stream.stages[1].end - 8, stream.stages[1].end)} == {2, 3}
    assert list(stream.held_out()) == ["math", "hover"]


def test_a_difficulty_drifts_and_is_held_out_at_its_end() -> None:
    stages = [
        {"task": "math", "problems": 65, "drift": {"operations": [1, None], "max_operand": [3, 9]}},
        {"task": "hover", "problems": 65, "drift": {"hops": [4, 1]}},
    ]
    stream = stream_of(stages=stages)
    operations = [stream.verifier_of(i).difficulty.operations for i in range(65)]
    assert operations == sorted(operations) and set(operations) == set(range(1, 9)), "null is the preset's: 8"
    assert (operations[0], operations[32], operations[64]) == (1, round(4.5), 8)
    assert [stream.verifier_of(i).difficulty.hops for i in (65, 86, 107, 129)] == [4, 3, 2, 1]
    assert stream.problem(0).prompt.count(" ") - stream.problem(64).prompt.count(" ") == 1 - 8
    assert stream.held_out()["math"].difficulty == stream.verifier_of(64).difficulty
    short = stream_of(stages=stages, stage_problems=8)
    assert [short.verifier_of(i).difficulty.operations for i in range(8)] == list(range(1, 9)), (
        "the whole drift in a shorter stage"
    )


def test_blends_shrink_with_their_stages() -> None:
    assert [s.blend for s in schedule(load_spec("continual-4-blend"), 0, 40)] == [16, 16, 16, 0]


def test_formats_given_is_continual_4_with_the_protocol_in_every_problem() -> None:
    tasks = [(s["task"], s["problems"]) for s in load_spec("continual-4").model_dump()["stages"]]
    spec = load_spec("continual-4-formats-given")
    assert [(s.task, s.problems) for s in spec.stages] == tasks and spec.jitter == load_spec("continual-4").jitter
    by_stage = spec.model_copy(
        update={
            "format_given": False,
            "stages": [s.model_copy(update={"difficulty": {"format_given": True}}) for s in spec.stages],
        }
    )
    given, repeated = Stream(spec, 3, DIFFICULTY), Stream(by_stage, 3, DIFFICULTY)
    for i in range(0, given.total, 25):
        assert given.problem(i) == repeated.problem(i)
        assert given.problem(i).prompt.endswith(given.verifier_of(i).protocol)


def test_a_method_sees_what_the_file_makes_visible() -> None:
    stages = [{"task": "math", "problems": 16}, {"mixture": {"hover": 0.5, "math": 0.5}, "problems": 16}]
    shown = stream_of(stages=stages, announced=True, task_visible=True)
    assert [i for i in range(32) if shown.visible(i)["boundary"]] == [0, 16]
    assert all(shown.visible(i)["task"] == {"math": "task 1", "hover": "task 2"}[shown.source(i)[1]] for i in range(32))
    hidden = stream_of(stages=stages)
    assert all(hidden.visible(i) == {"boundary": None, "task": None} for i in range(32))


# --- mistakes, each in one line, through `validate streams`

HEAD = "name: x\nversion: 1\ndescription: d\n"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("stages: [{task: math, problems: 0}]", "problems: Input should be greater than or equal to 1"),
        ("stages: [{task: math, problems: 32}]\njitter: 32", "no more than the jitter of 32: it could be empty"),
        ("stages: []", "stages"),
        (
            "stages: [{mixture: {math: 0.5, hover: 0.4}, problems: 64}]",
            "the weights of the mixture math, hover add up to 0.9, not to 1",
        ),
        ("stages: [{mixture: {math: 1.5, hover: -0.5}, problems: 64}]", "greater than 0"),
        ("stages: [{mixture: {maths: 1}, problems: 64}]", "did you mean math"),
        ("stages: [{problems: 64}]", "either a task or a mixture"),
        ("stages: [{task: math, mixture: {hover: 1}, problems: 64}]", "either a task or a mixture"),
        ("stages: [{mixture: {math: 1}, problems: 64, drift: {operations: [1, 2]}}]", "under variants"),
        (
            "stages: [{task: math, problems: 64, difficulty: {operations: 70}}]",
            "operations: Input should be less than or equal to 64",
        ),
        (
            "stages: [{task: math, problems: 64, drift: {operations: 3}}]",
            "stages.0.drift.operations: Input should be a list (got 3)",
        ),
        ("stages: [{task: gone.py, problems: 64}]", "stages: cannot read"),
        (
            "stages: [{task: math, problems: 64, drift: {operations: [1, 70]}}]",
            "operations: Input should be less than or equal to 64",
        ),
        # both ends fit into 12 nodes, the middle does not
        (
            "stages: [{task: star-graph, problems: 64, difficulty: {pool: 12}, drift: {degree: [2, 6], "
            "path_length: [6, 2]}}]",
            "nodes, pool has 12",
        ),
        ("stages: [{task: math, problems: 64, drift: {operation: [1, 2]}}]", "did you mean operations"),
        ("stages: [{task: math, problems: 64, drift: {operation: [1, null]}}]", "operation of math is not a number"),
        (
            "stages: [{task: math, problems: 64, drift: {answer_format: [null, 2]}}]",
            "answer_format of math is not a number",
        ),
        ("stages: [{task: math, problems: 64, difficulty: {operations: 2}, drift: {operations: [1, 2]}}]", "not both"),
        ("stages: [{task: math, problems: 64, blend: 8}]", "no stage after it to blend into"),
        (
            "stages: [{task: math, problems: 64, blend: 60}, {task: hover, problems: 64}]\njitter: 16",
            "too few for a blend over 60",
        ),
        (
            "stages: [{task: math, problems: 64}, {task: math, problems: 64, difficulty: {operations: 2}}]",
            "make it a variant",
        ),
        ("stages: [{task: math, problems: 64}]\nvariants: {math: {task: math}}", "has the name of a task"),
        ("stages: [{task: math, problems: 64}]\nvariants: {mine: {task: math}}", "no stage has the variant mine"),
        ("stages: [{task: mine, problems: 64}]\nvariants: {mine: {task: meth}}", "did you mean math"),
        ("stages: [{task: a+b, problems: 64}]\nvariants: {a+b: {task: math}}", "String should match pattern"),
        ("stages: [{task: math, problems: 64}]\ncycles: 0", "cycles"),
    ],
)
def test_validate_finds_a_stream_that_cannot_be(
    tmp_path: Path, text: str, complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "x.yaml").write_text(HEAD + text)
    assert main(["validate", "streams", str(tmp_path / "x.yaml")]) == 1
    bad = [line for line in capsys.readouterr().out.splitlines() if line.startswith("BAD")]
    assert bad and all(complaint in line for line in bad), bad


@pytest.mark.parametrize(
    ("text", "preset", "complaint"),
    [
        (
            "stages: [{task: math, problems: 64}]\nsettings: {fast: {max_metric_calls: 40}}",
            "tiny",
            "max_metric_calls 40 is too small",
        ),
        (
            "stages: [{task: math, problems: 64}]\nsettings: {methods: {gepa: {fast: {max_metric_calls: 40}}}}",
            "tiny",
            "max_metric_calls 40 is too small",
        ),
        (
            "stages: [{task: math, problems: 16}]",
            "tiny",
            "a cycle looks 16 problems ahead, too few for a valset of 16 and a minibatch of 4",
        ),
        (
            "stages: [{task: math, problems: 64}]\nsettings: {batch: 2, fast: {valset_size: 8}}",
            "tiny",
            "looks 10 problems ahead",
        ),
        (
            "stages: [{task: math, problems: 4}, {task: hover, problems: 4}, {task: physics, problems: 64}]",
            "tiny",
            "holds the ends of two stages",
        ),
        (
            "stages: [{task: star-graph, problems: 64, difficulty: {degree: 2, path_length: 2, pool: 3}}]",
            "tiny",
            "too few problems",
        ),
        ("stages: [{task: physics, problems: 64, difficulty: {steps: 1, max_value: 3}}]", "smoke", None),
    ],
)
def test_validate_finds_a_stream_that_a_preset_cannot_run(
    tmp_path: Path, text: str, preset: str, complaint: str | None
) -> None:
    (tmp_path / "x.yaml").write_text(HEAD + text)
    found = dict(validate(str(tmp_path / "x.yaml")))[f"{tmp_path / 'x.yaml'} with preset {preset}"]
    assert (complaint in found and "\n" not in found) if complaint and found else found == complaint


# --- show


def test_show_draws_the_mixture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stages = "[{task: math, problems: 36, blend: 18}, {mixture: {hover: 0.75, math: 0.25}, problems: 36}]"
    (tmp_path / "x.yaml").write_text(f"{HEAD}stages: {stages}\nannounced: true")
    assert main(["show", "stream", str(tmp_path / "x.yaml"), "--out", str(tmp_path / "out"), "--json"]) == 0
    *lines, last = capsys.readouterr().out.splitlines()
    rows = {line.split(" ")[0]: line.split("|")[1] for line in lines if "|" in line}
    assert (
        rows["math"].startswith("█" * 18)
        and rows["math"].endswith("▂" * 36)
        and rows["hover"].startswith(" " * 18)
        and rows["hover"].endswith("▆" * 36)
    )
    assert rows["stage"].replace(" ", "") == "12" and rows["stage"].index("2") == 36
    assert any(
        "boundaries announced, task ids hidden" in line for line in lines
    ) and "the last 18 blend into stage 2" in "\n".join(lines)
    facts = json.loads(last)
    assert facts["announced"] is True and StreamSpec.model_validate({k: v for k, v in facts.items() if k != "picture"})
    assert Path(facts["picture"]).read_bytes().startswith(b"\x89PNG") and facts["picture"] == str(
        tmp_path / "out" / "x.png"
    )


def test_only_a_stream_has_a_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "task", "math", "--out", str(tmp_path)]) == 2
    assert "picture of a stream" in capsys.readouterr().err
