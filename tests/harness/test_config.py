from pathlib import Path

import pytest

from fst_bench.harness.config import RENAMED, Config, merge, parse_setting, refuse_renamed, resolve


def test_layers_go_over_each_other(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    head, stages = "name: s\nversion: 1\ndescription: d\n", "stages: [{task: math, problems: 16}]\n"
    own = "methods: {fst: {fast: {population_size: 3}}}"
    path.write_text(f"{head}settings: {{slow: {{ratio_clip_max: 3.0}}, fast: {{cycle: 7}}, {own}}}\n{stages}")
    config, _ = resolve(str(path), "fst", "tiny", 0, {"fast.cycle": 9})
    other, _ = resolve(str(path), "gepa", "tiny")
    assert config.slow.old_logprobs == "sampler"  # the default
    assert config.policy.max_tokens == 96  # the preset
    assert config.slow.ratio_clip_max == 3.0  # the stream
    assert config.fast.population_size == 3 and other.fast.population_size == 4  # the stream, for this method
    assert config.fast.cycle == 9  # --set

    path.write_text(f"{head}settings: {{methods: {{fts: {{}}}}}}\n{stages}")
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
        (("continual-4", "fst", "tiny", 0, {"slwo.group_size": 2}), "did you mean slow"),
        (("continual-4", "fst", "tiny", 0, {"slow.grp_size": 2}), "did you mean group_size"),
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


@pytest.mark.parametrize("old", RENAMED)
def test_an_old_name_is_an_error_that_has_the_new_one(old: str) -> None:
    section = old.rpartition(".")[0]
    with pytest.raises(ValueError, match=f"{old} is now {section}.{RENAMED[old]}$"):
        resolve("continual-4", "fst", "tiny", 0, {old: 1})
    fields = Config.model_fields[old.split(".")[0]].default.model_dump()
    for part in section.split(".")[1:]:
        fields = fields[part]
    assert RENAMED[old] in fields and old.rpartition(".")[2] not in fields


def test_old_prompt_modes_and_settings_that_are_none_at_all() -> None:
    with pytest.raises(ValueError, match="boundary_modes: recalled is now oracle"):
        resolve("continual-4", "fst", "tiny", 0, {"evaluation.boundary_modes": ["system", "seed", "recalled"]})
    for odd in ({}, {"slow": 3}, {"evaluation": []}, {"evaluation": {"small_modes": 3}}):
        refuse_renamed(odd, "here")
    with pytest.raises(ValueError, match=r"^runs/x: slow\.cap is now slow\.ratio_clip_max$"):
        refuse_renamed({"slow": {"cap": 4.0}}, "runs/x")
