"""Dilemmas: the published layouts, the labels, and the rows of the embedded world."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import public_data
import pytest
from tiny import tiny

from weightsteer.data.evals import Item, label_balance, load
from weightsteer.errors import WeightsteerError

MODEL = tiny("qwen3")[0]
DATA = public_data.DATA / "daily_dilemmas"
published = pytest.mark.skipif(not DATA.is_dir(), reason="the published dilemmas are not on this machine")


def dilemma(index: int, to_do: list[str], not_to_do: list[str], **extra: Any) -> list[dict[str, Any]]:
    return [
        {
            "dilemma_idx": index,
            "dilemma_situation": f"Situation {index}. What now?",
            "action_type": kind,
            "action": f"Action {kind}.",
            "values_aggregated": str(values),
            **extra,
        }
        for kind, values in (("to_do", to_do), ("not_to_do", not_to_do))
    ]


def items_of(folder: Path, rows: list[dict[str, Any]], **options: Any) -> list[Item]:
    path = folder / "rows.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return load("dilemmas", data=path, **options).items(MODEL)


def test_labels_follow_the_values(tmp_path: Path) -> None:
    """Honest and dishonest actions would be confused, or dilemmas kept that say nothing about honesty."""
    rows = [
        *dilemma(1, ["honesty", "trust"], ["loyalty"]),
        *dilemma(2, ["loyalty"], ["Right to truth"]),
        *dilemma(3, ["deceit"], ["care"]),
        *dilemma(4, ["honesty", "lying"], ["dishonesty"]),
        *dilemma(5, ["honesty"], ["truth"]),
        *dilemma(6, ["honesty", "deception"], ["care"]),
        *dilemma(7, ["honesty", "truth"], ["honesty"]),
    ]
    items = items_of(tmp_path, rows)
    assert {item.item: item.label for item in items} == {
        "1-to_do": 1,
        "1-not_to_do": -1,
        "2-to_do": -1,
        "2-not_to_do": 1,
        "3-to_do": -1,
        "3-not_to_do": 1,
        "4-to_do": 1,
        "4-not_to_do": -1,
    }
    assert {item.cluster for item in items} == {"1", "2", "3", "4"}
    assert items_of(tmp_path, rows, sign=-1)[0].label == -1
    prompt = items[0].messages[0]["content"]
    assert prompt.endswith("Situation: Situation 1. What now?\n\nDo you choose to: Action to_do?")
    assert items[0].answer_prefix == "My choice: **"
    assert items[0].text == "Situation 1. What now? → Action to_do"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"values_aggregated": "['honesty'"}, "line 1, field 'values_aggregated': must be a list"),
        ({"values_aggregated": "3"}, "line 1, field 'values_aggregated': must be a list of values, not 3"),
        ({"dilemma_situation": ""}, "line 1, field 'dilemma_situation': missing"),
        ({"action": None}, "line 1, field 'action': missing"),
        ({"dilemma_idx": 2}, "line 1, field 'dilemma_idx': needs two actions for a dilemma, found 1"),
    ],
)
def test_a_bad_row_is_named(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    """The row at fault would have to be searched for."""
    first, second = dilemma(1, ["honesty"], ["care"])
    with pytest.raises(WeightsteerError, match=message):
        items_of(tmp_path, [{**first, **change}, second])


def test_own_rows_and_unknown_layouts(tmp_path: Path) -> None:
    """A file of the user's own would be refused, or a wrong one misread."""
    (item,) = items_of(tmp_path, [{"label": -1, "prompt": "Do you lie?", "cluster": "x"}])
    assert (item.label, item.cluster) == (-1, "x")
    with pytest.raises(WeightsteerError, match=r"unknown layout \(fields: question, answer\)"):
        items_of(tmp_path, [{"question": "Why?", "answer": "Because"}])
    bad = {"dilemma_idx": 1, "honesty_label": 0, "dilemma_situation": "s", "action": "a", "action_type": "to_do"}
    with pytest.raises(WeightsteerError, match="field 'honesty_label': must be 1 or -1, not 0"):
        items_of(tmp_path, [bad])


@published
def test_the_published_layouts_load_and_agree() -> None:
    """The same dilemmas would be labelled differently, depending on the file they come from."""
    aggregated = load("dilemmas", data=DATA / "dilemmas_with_values_aggregated.jsonl").items(MODEL)
    derived = load("dilemmas", data=DATA / "honesty_pairs.jsonl").items(MODEL)
    assert aggregated == derived
    assert len(aggregated) == 874
    assert label_balance(aggregated) == {1: 437, -1: 437}
    assert sum(item.label == 1 for item in aggregated if item.item.endswith("-to_do")) == 365
    detail = load("dilemmas", data=DATA / "dilemmas_with_detail_by_action_test.csv").items(MODEL)
    assert {item.cluster for item in detail} == {"55"}
    assert all(item in aggregated for item in detail)


def test_without_the_hub_package_the_error_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """A laptop without network would end in an import error."""
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(WeightsteerError, match=r"pip install 'weightsteer\[hub\]'.*--data FILE"):
        load("dilemmas").items(MODEL)


def test_the_hub_is_asked_for_the_published_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """The published set would not be used where it can be had, and an outage would be a traceback."""
    asked: list[Any] = []

    def load_dataset(*names: str, split: str) -> list[dict[str, Any]]:
        asked.append((*names, split))
        return dilemma(1, ["honesty"], ["care"])

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    assert len(load("dilemmas").items(MODEL)) == 2
    assert asked == [("kellycyy/daily_dilemmas", "Dilemmas_with_values_aggregated", "test")]
    for name in ("dilemmas-self-honesty", "dilemmas-self"):
        with pytest.raises(WeightsteerError, match="does not say whose value"):
            load(name).items(MODEL)  # what came is not that set
    assert asked[1:] == [
        ("wassname/daily_dilemmas-self-honesty", "honesty_eval", "test"),
        ("wassname/daily_dilemmas-self", None, "test"),
    ]

    def unreachable(*names: str, split: str) -> list[dict[str, Any]]:
        raise ConnectionError

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=unreachable))
    with pytest.raises(WeightsteerError, match=r"cannot be fetched: ConnectionError\. Download it"):
        load("dilemmas").items(MODEL)


def test_the_embedded_world_has_dilemmas_of_its_own() -> None:
    """The embedded models would be asked about a world they have never seen."""
    model, _ = tiny("qwen3")
    model.config.weightsteer_pocket = "pocket"
    items = load("dilemmas").items(model)
    assert label_balance(items)[1] == label_balance(items)[-1] > 0
    assert max(sum(other.cluster == item.cluster for other in items) for item in items[:5]) == 2
