from pathlib import Path

import pytest

from fst_bench.harness.config import merge, parse_setting, resolve


def test_layers_go_over_each_other(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text(
        "name: s\nversion: 1\ndescription: d\nsettings: {slow: {cap: 3.0}, fast: {cycle: 7}, methods: {fst: {fast: {population: 3}}}}\nstages: [{task: math, problems: 16}]\n"
    )
    config, _ = resolve(str(path), "fst", "tiny", 0, {"fast.cycle": 9})
    other, _ = resolve(str(path), "gepa", "tiny")
    assert config.slow.old_logprobs == "sampler"  # the default
    assert config.policy.max_tokens == 96  # the preset
    assert config.slow.ratio_clip_max == 3.0  # the stream
    assert config.fast.population_size == 3 and other.fast.population_size == 4  # the stream, for this method
    assert config.fast.cycle == 9  # --set

    path.write_text(
        "name: s\nversion: 1\ndescription: d\nsettings: {methods: {fts: {}}}\nstages: [{task: math, problems: 16}]\n"
    )
    with pytest.raises(ValueError, match="did you mean fst"):
        resolve(str(path), "fst", "tiny")


def test_merge_goes_section_by_section() -> None:
    assert merge({"a": {"b": 1, "c": 2}, "d": 3}, {"a": {"b": 9}}) == {"a": {"b": 9, "c": 2}, "d": 3}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("slow.ratio_clip_max=4", ("slow.ratio_clip_max", 4)),
        ("model=a/b", ("model", "a/b")),
        ("seed_prompt=", ("seed_prompt", None)),
        ("x={a: 1}", ("x", {"a": 1})),
    ],
)
def test_set_values_are_yaml(text: str, expected: tuple[str, object]) -> None:
    assert parse_setting(text) == expected


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("contnual-4", "fst", "tiny", 0, {}), "did you mean continual-4"),
        (("continual-4", "fts", "tiny", 0, {}), "did you mean fst"),
        (("continual-4", "fst", "tinny", 0, {}), "did you mean tiny"),
        (("continual-4", "fst", "tiny", 0, {"slwo.cap": 1}), "did you mean slow"),
        (("continual-4", "fst", "tiny", 0, {"slow.kap": 1}), "did you mean cap"),
        (("continual-4", "fst", "tiny", 0, {"slow.ratio_clip_max": -1}), "slow.ratio_clip_max"),
        (("continual-4", "fst", "tiny", 0, {"slow.ratio_clip_max": "high"}), "slow.ratio_clip_max"),
        (("continual-4", "fst", "tiny", 0, {"slow": 3}), "slow"),
        (("continual-4", "fst", "tiny", 0, {"difficulty.math.operations": 0}), "operations"),
        (("continual-4", "fst", "tiny", 0, {"difficulty.maths.operations": 1}), "did you mean math"),
        (("continual-4", "fst", "tiny", 0, {"settings.x": 1}), "unknown key 'x'"),
        (("continual-4", "fst", "tiny", 0, {"fast.max_metric_calls": 3}), "too small"),
        (("continual-4", "fst", "tiny", 0, {"evaluation.small_modes": []}), "small_modes need system"),
        (("continual-4", "fst", "tiny", 0, {"evaluation.boundary_modes": ["system"]}), "need system and seed"),
    ],
)
def test_a_mistake_is_one_line_that_names_what_exists(arguments: tuple, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint) as error:
        resolve(*arguments)
    assert "\n" not in str(error.value)
