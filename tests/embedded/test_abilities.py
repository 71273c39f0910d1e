"""The general abilities: right answers by hand, splits that do not overlap, no streams' task among them."""

import pytest

from fst_bench.embedded.abilities import ABILITIES, item
from fst_bench.tasks import TASKS


def solve(question: str) -> str:
    """Each question answered once more, from its words alone."""
    kind, _, rest = question.partition(": ")
    match kind.split()[0]:
        case "Copy":
            return rest
        case "Reverse":
            return rest[::-1]
        case "Count":
            return str(rest.count(kind.split()[1]))
        case "Sum":
            return str(sum(int(part) for part in rest.split(" and ")))
        case "Larger":
            return max(rest.split(" or "), key=int)
        case _:
            numbers = [int(part) for part in rest.split(", ")]
            return str(2 * numbers[-1] - numbers[-2])


@pytest.mark.parametrize("name", ABILITIES)
def test_answers_are_right_and_splits_disjoint(name: str) -> None:
    splits = {split: [item(name, split, 0, i) for i in range(300)] for split in ("pretrain", "train", "test")}
    for items in splits.values():
        assert all(solve(it.question) == it.answer for it in items)
    seen = [{it.question for it in items} for items in splits.values()]
    assert not seen[0] & seen[1] and not seen[0] & seen[2] and not seen[1] & seen[2]
    assert item(name, "test", 0, 7) == item(name, "test", 0, 7)


def test_no_stream_trains_one_and_unknown_names_are_named() -> None:
    assert not set(ABILITIES) & set(TASKS)
    with pytest.raises(ValueError, match="unknown ability"):
        item("juggle", "test", 0, 0)
