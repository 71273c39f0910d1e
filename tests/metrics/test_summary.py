"""metrics.json from rows written by hand."""

import pytest

from fst_bench.metrics import difference, interaction, summarise

STAGES = [{"stage": 1, "tasks": ["a"]}, {"stage": 2, "tasks": ["b"]}]


def row(stage: int, task: str, mode: str, accuracy: float, kl: float = 0.0, boundary: bool = True) -> dict:
    return {
        "stage": stage,
        "task": task,
        "prompt_mode": mode,
        "accuracy": accuracy,
        "kl": kl,
        "kl_per_answer": 10 * kl,
        "boundary": boundary,
    }


SYSTEM = {(0, "a"): 0.1, (0, "b"): 0.2, (1, "a"): 0.7, (1, "b"): 0.1, (2, "a"): 0.3, (2, "b"): 0.9}
ROWS = [row(s, t, "system", v, kl=s / 100) for (s, t), v in SYSTEM.items()]
ROWS += [row(s, t, "seed", v / 2) for (s, t), v in SYSTEM.items()]
ROWS += [row(1, "a", "oracle", 0.7), row(2, "a", "oracle", 0.6), row(2, "b", "oracle", 0.9)]
ROWS += [row(1, "a", "system", 0.0, boundary=False)]  # a small evaluation is not a cell of the matrix


def test_the_matrix_and_each_stages_own_task() -> None:
    m = summarise(ROWS, STAGES, {"problems": 5})
    assert m["matrix"]["system"] == {"0": {"a": 0.1, "b": 0.2}, "1": {"a": 0.7, "b": 0.1}, "2": {"a": 0.3, "b": 0.9}}
    assert m["matrix"]["seed"]["2"] == {"a": 0.15, "b": 0.45}
    assert m["transfer"]["system"]["bwt"] == pytest.approx(-0.4)
    assert m["transfer"]["seed"]["fwt"] == pytest.approx(-0.05)
    assert m["stages"][0]["base"] == {"system": 0.1, "seed": 0.05}
    assert m["stages"][0]["end"] == {"system": 0.7, "seed": 0.35, "oracle": 0.7}
    # (0.7 + 0.0) / 2: the small evaluation counts here
    assert [stage["online"] for stage in m["stages"]] == pytest.approx([0.35, 0.9])
    assert m["stages"][0]["final"] == {"system": 0.3, "seed": 0.15, "oracle": 0.6}
    assert (m["stages"][1]["kl"]["system"], m["stages"][1]["kl_per_answer"]["system"]) == (0.02, 0.2)
    assert m["final_average"] == pytest.approx({"system": 0.6, "seed": 0.3, "oracle": 0.75})
    assert m["ledger"] == {"problems": 5}


def test_a_missing_cell_is_an_error_that_names_it() -> None:
    rows = [r for r in ROWS if (r["stage"], r["task"], r["prompt_mode"]) != (2, "b", "seed")]
    with pytest.raises(ValueError, match=r"no boundary evaluation of b \(seed\) at the end of stage 2"):
        summarise(rows, STAGES, {})


def test_a_stage_of_a_mixture_has_the_means_of_its_tasks_and_a_revisit_its_own_number() -> None:
    stages = [{"stage": 1, "tasks": ["a", "b"]}, {"stage": 2, "tasks": ["a"]}]
    cells = {(0, "a"): 0.0, (0, "b"): 0.2, (1, "a"): 0.4, (1, "b"): 0.8, (2, "a"): 0.9, (2, "b"): 0.5}
    rows = [
        row(s, t, mode, v, kl=s / 10 + (t == "b") / 100) for (s, t), v in cells.items() for mode in ("system", "seed")
    ]
    rows += [row(1, "a", "system", 0.0, boundary=False), row(1, "b", "system", 0.4, boundary=False)]
    m = summarise(rows, stages, {})
    first, second = m["stages"]
    assert first["tasks"] == ["a", "b"]
    assert [first[at]["system"] for at in ("base", "end", "final")] == pytest.approx([0.1, 0.6, 0.7])
    assert first["online"] == pytest.approx((0.4 + 0.8 + 0.0 + 0.4) / 4)
    assert first["kl"]["system"] == pytest.approx(0.105)
    assert (second["stage"], second["tasks"], second["end"]["system"], second["online"]) == (2, ["a"], 0.9, 0.9)
    assert m["matrix"]["system"]["1"] == {"a": 0.4, "b": 0.8} and m["final_average"]["system"] == pytest.approx(0.7)
    assert m["transfer"]["system"]["bwt"] == pytest.approx(((0.9 - 0.4) + (0.5 - 0.8)) / 2)
    assert m["transfer"]["system"]["fwt"] is None


# --- test_probed


def test_the_interaction_by_hand() -> None:
    cells = {("base", "seed"): 0.1, ("trained", "seed"): 0.3, ("base", "evolved"): 0.4, ("trained", "evolved"): 0.9}
    assert interaction(cells) == pytest.approx(0.3)  # .9 - .1 - (.2 + .3)


def test_the_paired_difference_by_hand() -> None:
    # deltas 0, -1, 0, -1: mean -.5, variance 1/3, standard error sqrt(1/12)
    assert difference([1, 1, 0, 1], [1, 0, 0, 0]) == pytest.approx((-0.5, 0.288675), abs=1e-6)
    with pytest.raises(ValueError, match="2 and 3 documents"):
        difference([1, 0], [1, 0, 1])
