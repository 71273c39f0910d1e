from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fst_bench.harness.config import (
    RENAMED,
    Config,
    Written,
    kind_of,
    merge,
    parse_setting,
    refuse_renamed,
    resolve,
)
from fst_bench.method import Method
from fst_bench.policy.models import model_folder


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


class Own(Method.Settings):
    note: str = ""
    tags: list[str] = []
    limit: int | str = 3
    folder: Path | None = None


class Annotating(Method):
    name = "annotating"
    Settings = Own


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("slow.ratio_clip_max=4", 4),
        ("slow.tis_cap=1e-05", 1e-05),  # YAML 1.1 would call it a text
        ("slow.tis_cap=null", None),
        ("stage_problems=", None),
        ("evaluation.small_modes=[system, seed]", ["system", "seed"]),
        ('policy.stop=["\\ud83d\\ude00", "\\n"]', ["\U0001f600", "\n"]),
        ("policy={max_tokens: 8}", {"max_tokens": 8}),
        ("policy.distributed.cache_gb=fit", "fit"),
        ("nothing.of.that.name=3", 3),
        # text as it is
        ("seed_prompt=Write #### before the answer.", "Write #### before the answer."),
        ("seed_prompt=! important", "! important"),
        ("seed_prompt=a: b # c\n- d", "a: b # c\n- d"),
        ("seed_prompt=", ""),
        ("seed_prompt=null", "null"),
        ('seed_prompt="quoted"', '"quoted"'),
        ("seed_prompt= a=b ", " a=b "),
        ("model=007", "007"),
        ("init=null", None),
        ("init=2024-01-01", "2024-01-01"),
        ("slow.overlong=mask", "mask"),
        ("fast.reflection.base_url=http://x/#a", "http://x/#a"),
        ("difficulty.math.answer_format=hash", "hash"),
        ("difficulty.math.operations=3", 3),
        ("difficulty.polaris.operations=3", 3),
        ("settings.note=yes", "yes"),
        ("settings.tags=[yes, no]", [True, False]),
        ("settings.limit=4", 4),
        ("settings.folder=0x10", "0x10"),
    ],
)
def test_a_value_after_set_is_read_by_its_settings_type(text: str, expected: object) -> None:
    if text.startswith("nothing"):
        with pytest.raises(ValueError, match="unknown key 'nothing'"):
            parse_setting(text)
        return
    key, value = parse_setting(text)
    found = value.read(kind_of(key, Annotating))
    assert found == expected and type(found) is type(expected)


@given(st.text() | st.sampled_from(["!!timestamp x", "!!int ''", "9" * 5_000, "2024-13-45", "{[]: 1}", "="]))
@example("[" * 2_000)
def test_anything_after_set_is_a_value(text: str) -> None:
    """YAML that no loader takes, numbers past every limit and deep nesting stay texts, for the schema to refuse."""
    Written(text).read(int)
    assert Written(text).read(str) == text


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


NAMES = ["../../evil", "a/b", "..", ".hidden", "", " x", "x y", "a" * 65, "é", "a\n", "a:b", "-a"]


@pytest.mark.parametrize("name", NAMES)
def test_what_leads_elsewhere_is_no_name_of_a_run(name: str) -> None:
    """config.json may come from a stranger's submission, and a run's folder is named after these."""
    values = resolve("single-math", "rl", "smoke")[0].model_dump()
    for field in ("stream", "method", "preset"):
        with pytest.raises(ValueError, match=rf"(?s){field}.* is not a name: it has to be of letters, digits"):
            Config.model_validate(values | {field: name})


def test_a_preset_may_not_extend_itself_or_hold_anything(tmp_path: Path) -> None:
    mine = tmp_path / "my own.yaml"
    mine.write_text("extends: smoke\n")
    with pytest.raises(ValueError, match="preset: 'my own' is not a name"):
        resolve("single-math", "rl", str(mine))
    mine = tmp_path / "mine.yaml"
    other = tmp_path / "other.yaml"
    for text, complaint in [
        (f"extends: {mine}", "extends itself"),
        (f"extends: {other}", "extends itself"),
        ("extends: [tiny, smoke]", "extends names one preset"),
        ("extends: {tiny: 1}", "extends names one preset"),
        ("extends: tiny\ndifficulty: [1]\ndata: hub", "difficulty"),
        ("extends: tiny\ndata: [hub]", "data"),
        ("extends: tiny\nmethods: {1: 2}", "unknown method '1'"),
        ("extends: 2024-13-01", "is not YAML"),
        ("extends: !!timestamp x", "is not YAML"),
        ("[" * 3_000, "is not YAML"),
    ]:
        mine.write_text(text)
        other.write_text(f"extends: {mine}")
        with pytest.raises(ValueError, match=complaint) as error:
            resolve("single-math", "rl", str(mine))
        assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match="no embedded model"):
        model_folder("embedded:../embedded/tiny")


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
