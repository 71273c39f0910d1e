import itertools
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fst_bench.config import preset_files, resolve
from fst_bench.stream import GRANULE, Stream, load_spec, stream_files

DIFFICULTY = resolve("continual-4", "base", "tiny")[0].difficulty


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 60), st.integers(1, 40))
def test_a_batch_is_a_pure_function_of_stream_seed_and_step(seed: int, step: int, size: int) -> None:
    spec = load_spec("continual-4")
    one, two = Stream(spec, seed, DIFFICULTY), Stream(spec, seed, DIFFICULTY)
    for index in two.batch(step + 1, size):
        two.problem(index)  # having drawn others before changes nothing
    assert [one.problem(i) for i in one.batch(step, size)] == [two.problem(i) for i in two.batch(step, size)]


@given(st.integers(0, 10**6), st.integers(1, 64))
def test_batches_cover_the_stream_once(seed: int, size: int) -> None:
    stream = Stream(load_spec("continual-4"), seed, DIFFICULTY)
    indices = [i for step in range(-(-stream.total // size)) for i in stream.batch(step, size)]
    assert indices == list(range(stream.total))
    assert not stream.batch(len(indices), size)


@given(st.integers(0, 10**6))
def test_stages_follow_each_other_and_are_jittered(seed: int) -> None:
    spec = load_spec("continual-4")
    stages = Stream(spec, seed, DIFFICULTY).stages
    assert [s.task for s in stages] == ["math", "codeio", "hover", "star-graph"]
    assert stages[0].start == 0 and all(a.end == b.start for a, b in itertools.pairwise(stages))
    assert all(abs(s.end - s.start - 400) <= spec.jitter and (s.end - s.start) % GRANULE == 0 for s in stages)


def test_another_batch_size_sees_the_same_data() -> None:
    stream = Stream(load_spec("continual-4"), 0, DIFFICULTY)
    assert [i for s in range(4) for i in stream.batch(s, 16)] == [i for s in range(2) for i in stream.batch(s, 32)]


def test_seeds_differ_and_switches_fall_inside_cycles() -> None:
    lengths = {tuple(s.end for s in Stream(load_spec("continual-4"), seed, DIFFICULTY).stages) for seed in range(20)}
    assert len(lengths) > 15
    assert any(end % (5 * 16) for ends in lengths for end in ends)


@pytest.mark.parametrize("name", ["continual-4", "paper-3", "single-math", "single-codeio", "single-hover", "single-star-graph", "single-physics"])
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


def test_a_stages_difficulty_is_checked(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text("name: x\nversion: 1\ndescription: d\nstages: [{task: math, problems: 16, difficulty: {operations: 0}}]\n")
    with pytest.raises(ValueError, match="operations"):
        Stream(load_spec(str(tmp_path / "s.yaml")), 0, {})
