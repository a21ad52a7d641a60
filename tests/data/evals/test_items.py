"""Items, limits and the registry."""

import pytest
from tiny import tiny

from weightsteer.data.evals import Evaluation, Item, label_balance, load, names, register, registry, user_turn
from weightsteer.data.evals.base import check_items, limited
from weightsteer.errors import WeightsteerError


def pairs(n: int) -> list[Item]:
    return [
        Item(f"{i}-{side}", f"cluster-{i}", label, user_turn(f"Question {i}?"))
        for i in range(n)
        for side, label in (("a", 1), ("b", -1))
    ]


def test_an_item_checks_itself() -> None:
    """A label of 0 or 2 would scale effects, silently."""
    item = Item("a", "b", 1, user_turn("Is it?"))
    assert (item.choices, item.answer_prefix, item.text) == (("Yes", "No"), "", "Is it?")
    for label in (0, 2, -2):
        with pytest.raises(WeightsteerError, match="label must be 1"):
            Item("a", "b", label, user_turn("Is it?"))
    with pytest.raises(WeightsteerError, match="no messages"):
        Item("a", "b", 1, ())


def test_a_limit_keeps_whole_clusters_and_grows_monotonically() -> None:
    """Half a cluster breaks the balance of labels; the head of a file is not a fair sample."""
    items = pairs(30)
    chosen = limited(items, 21)
    assert len(chosen) == 20
    assert label_balance(chosen) == {1: 10, -1: 10}
    assert chosen != items[:20]
    assert [item for item in items if item in chosen] == chosen
    assert all(item in chosen for item in limited(items, 8))
    assert limited(items, 1) == [item for item in items if item.cluster == limited(items, 1)[0].cluster]
    assert limited(items, 60) == limited(items, None) == items


def test_rows_without_identity_are_refused() -> None:
    """Effects are paired by the identifier: twice the same one pairs wrong rows."""
    with pytest.raises(WeightsteerError, match="'0-a' occurs 2 times in the evaluation 'mine'"):
        check_items(pairs(2) + pairs(1), "mine")
    with pytest.raises(WeightsteerError, match="'mine' has no rows"):
        check_items([], "mine")


def test_load_knows_what_is_shipped_and_suggests() -> None:
    """A misspelt evaluation would be a traceback."""
    assert {"dilemmas", "sycophancy"} <= set(names())
    assert load("dilemmas").name == "dilemmas"
    with pytest.raises(WeightsteerError, match="unknown evaluation 'dilemas'; did you mean 'dilemmas'"):
        load("dilemas")
    with pytest.raises(WeightsteerError, match="sign"):
        load("dilemmas", sign=0)
    with pytest.raises(WeightsteerError, match="limit"):
        load("dilemmas", limit=0)


def test_one_decorated_class_is_a_new_evaluation() -> None:
    """Adding an evaluation would need edits elsewhere."""

    @register("weather")
    class Weather(Evaluation):
        def rows(self, model: object) -> list[Item]:
            return pairs(3)

    try:
        assert "weather" in names()
        evaluation = load("weather", sign=-1, limit=4)
        items = evaluation.items(tiny("qwen3")[0])
        assert len(items) == 4
        assert [item.label for item in items] == [-1, 1, -1, 1]
    finally:
        registry.remove("weather")
