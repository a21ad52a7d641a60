"""The three label variants of the dilemmas, on rows made here and on the published file."""

import json
from pathlib import Path
from typing import Any

import public_data
import pytest
from tiny import tiny

from weightsteer.data.evals import Item, label_balance, load, names, registry, sign
from weightsteer.errors import WeightsteerError

MODEL = tiny("qwen3")[0]
DATA = public_data.DATA / "daily_dilemmas"
published = pytest.mark.skipif(not DATA.is_dir(), reason="the published dilemmas are not on this machine")


def dilemma(index: int, to_do: list[str], not_to_do: list[str]) -> list[dict[str, Any]]:
    return [
        {
            "dilemma_idx": index,
            "dilemma_situation": f"Situation {index}.",
            "action_type": kind,
            "action": f"Action {kind}",
            "values_aggregated": str(values),
        }
        for kind, values in (("to_do", to_do), ("not_to_do", not_to_do))
    ]


ROWS = [
    *dilemma(1, ["honesty"], ["loyalty"]),
    *dilemma(2, ["truth"], ["lying"]),
    *dilemma(3, ["honesty"], ["truthfulness"]),
    *dilemma(4, ["honesty", "deceit"], ["care"]),
    *dilemma(5, ["care"], ["deception"]),
]


def items_of(folder: Path, rows: list[dict[str, Any]], name: str) -> list[Item]:
    path = folder / "rows.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return load(name, data=path).items(MODEL)


def labels(items: list[Item]) -> dict[str, int]:
    return {item.item: item.label for item in items}


def test_each_variant_labels_by_its_own_rule(tmp_path: Path) -> None:
    """Rows that have nothing to do with honesty would enter the variants that promise none, or signs would mix."""
    paired = {"1-to_do": 1, "1-not_to_do": -1, "2-to_do": 1, "2-not_to_do": -1, "5-to_do": 1, "5-not_to_do": -1}
    assert labels(items_of(tmp_path, ROWS, "dilemmas")) == paired
    assert labels(items_of(tmp_path, ROWS, "dilemmas-paired")) == paired
    own = {"1-to_do": 1, "2-to_do": 1, "2-not_to_do": -1, "3-to_do": 1, "3-not_to_do": 1, "5-not_to_do": -1}
    assert labels(items_of(tmp_path, ROWS, "dilemmas-honesty-only")) == own
    balanced = labels(items_of(tmp_path, ROWS, "dilemmas-balanced"))
    assert sorted(balanced.values()) == [-1, -1, 1, 1]
    assert balanced.items() <= own.items()
    assert balanced["2-to_do"] == 1, "the partner of a rare row is kept before strangers"
    assert list(balanced) == [name for name in own if name in balanced], "the order of the file is kept"


def test_published_label_columns_serve_only_their_variant(tmp_path: Path) -> None:
    """Labels of one variant would be tabulated under the name of another."""
    given = [
        {"dilemma_idx": 1, "dilemma_situation": "S.", "action": "A", "action_type": kind, "honesty": number}
        for kind, number in (("to_do", 2), ("not_to_do", -2))
    ]
    assert labels(items_of(tmp_path, given, "dilemmas-balanced")) == {"1-to_do": 1, "1-not_to_do": -1}
    given[1]["honesty"] = 0
    assert labels(items_of(tmp_path, given, "dilemmas-balanced")) == {"1-to_do": 1}
    for name in ("dilemmas-paired", "dilemmas-honesty-only"):
        with pytest.raises(WeightsteerError, match="labels of the variant 'balanced'"):
            items_of(tmp_path, given, name)
    given[0]["honesty"] = "much"
    with pytest.raises(WeightsteerError, match="field 'honesty': must be a number"):
        items_of(tmp_path, given, "dilemmas-balanced")


@pytest.mark.parametrize(
    ("name", "column", "numbers"),
    [
        ("dilemmas-self-honesty", "honesty_label", (1.0, -1.0)),
        ("dilemmas-self-honesty", "honesty_label", ("1.0", "-1.0")),
        ("dilemmas-self", "honesty", (1, -1)),
        ("dilemmas-self", "honesty", (1.0, -1.0)),
    ],
)
@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
def test_the_published_sets_load_from_their_files(tmp_path: Path, name, column, numbers, suffix) -> None:
    """Labels that a table holds as floats would be refused, so that the published rows could not be used at all."""
    rows = [
        {"dilemma_idx": 3, "dilemma_situation": "S.", "action": "A", "action_type": kind, column: number, "idx": i}
        for i, (kind, number) in enumerate(zip(("to_do", "not_to_do"), numbers, strict=True))
    ]
    if suffix == ".csv":
        path = tmp_path / "rows.csv"
        path.write_text("\n".join([",".join(rows[0]), *(",".join(map(str, row.values())) for row in rows)]))
        items = load(name, data=path).items(MODEL)
    else:
        items = items_of(tmp_path, rows, name)
    assert labels(items) == {"3-to_do": 1, "3-not_to_do": -1}
    assert {item.cluster for item in items} == {"3"}


def test_one_published_set_is_not_taken_for_the_other(tmp_path: Path) -> None:
    """Numbers on 438 and on 446 rows would stand under one name."""
    row = {"dilemma_idx": 3, "dilemma_situation": "S.", "action": "A", "action_type": "to_do"}
    for name, wrong in (("dilemmas-self", "honesty_label"), ("dilemmas-self-honesty", "honesty")):
        with pytest.raises(WeightsteerError, match="published file with the column"):
            items_of(tmp_path, [{**row, wrong: 1}], name)


def test_what_is_published_is_said_beside_the_evaluation() -> None:
    """A reader of the published tables would compare his 604 rows with 438."""
    sizes = {name: known for name in names() if (known := registry.get(name).published)}
    assert sizes["dilemmas-self-honesty"][:2] == (438, 219)
    assert sizes["dilemmas-self"][:2] == (446, 223)
    assert sizes["sycophancy-false-claims"][:2] == (12, 12)
    assert sizes["dilemmas-honesty-only"][:2] == (394, 277)
    assert str(sizes["dilemmas-self"]).startswith("446 rows, 223:223 (")
    assert str(sizes["airisk-guided"]).startswith("1,869 rows (")


def test_the_acting_party_counts_alone(tmp_path: Path) -> None:
    """The values of the others would label what the one who acts does."""
    rows = [
        {
            "idx": 7,
            "dilemma_situation": "S.",
            "action": "A",
            "action_type": kind,
            "values_names": ["honesty", "trust"] if kind == "to_do" else ["care"],
            "parties_direct": "['You', 'Friend']",
            "values_direct": f"['{mine}', '{theirs}']",
            "parties_indirect": "[]",
            "values_indirect": "[]",
        }
        for kind, mine, theirs in (("to_do", "Trust", "Honesty"), ("not_to_do", "Honesty", "Care"))
    ]
    assert labels(items_of(tmp_path, rows, "dilemmas"))["7-to_do"] == 1
    assert labels(items_of(tmp_path, rows, "dilemmas-self"))["7-to_do"] == -1
    rows[0]["parties_direct"] = "['You']"
    with pytest.raises(WeightsteerError, match="names 1 parties for 2 values"):
        items_of(tmp_path, rows, "dilemmas-self")
    for name in ("dilemmas-self", "dilemmas-self-honesty"):
        with pytest.raises(WeightsteerError, match="does not say whose value"):
            items_of(tmp_path, ROWS, name)


def test_the_guided_form_thinks_before_it_chooses(tmp_path: Path) -> None:
    """It would be swept like the direct form, under another name."""
    direct, guided = (items_of(tmp_path, ROWS, name) for name in ("dilemmas-balanced", "dilemmas-balanced-guided"))
    assert labels(direct) == labels(guided)
    assert {item.thinking_tokens for item in direct} == {0}
    assert all(item.thinking_tokens > 0 and "Think" in item.messages[0]["content"] for item in guided)
    pocket, _ = tiny("qwen3")
    pocket.config.weightsteer_pocket = "pocket"
    with pytest.raises(WeightsteerError, match="never think first"):
        load("dilemmas-guided").items(pocket)
    assert load("dilemmas-balanced").items(pocket) == load("dilemmas").items(pocket)


def test_variants_point_the_way_their_evaluation_points() -> None:
    """A behaviour that is the opposite of honesty would be measured with the wrong sign on every variant."""
    assert sign("dilemmas-balanced", {"dilemmas": -1}) == -1
    assert sign("dilemmas-balanced", {"dilemmas": -1, "dilemmas-balanced": 1}) == 1
    assert sign("sycophancy-false-claims", {"sycophancy": -1}) == -1
    assert sign("facts", {"dilemmas": -1}) == 1
    assert sign("rows.jsonl", {"dilemmas": -1}) == 1


@published
def test_the_published_file_in_each_variant() -> None:
    """The numbers that the documentation states would be wrong."""
    file = DATA / "dilemmas_with_values_aggregated.jsonl"
    paired, own, balanced = (
        load(f"dilemmas-{variant}", data=file).items(MODEL) for variant in ("paired", "honesty-only", "balanced")
    )
    assert label_balance(paired) == {1: 437, -1: 437}
    assert label_balance(own) == {1: 545, -1: 59}
    assert label_balance(balanced) == {1: 59, -1: 59}
    assert labels(balanced).items() <= labels(own).items()
    known = labels(paired)
    assert all(known.get(item.item, item.label) == item.label for item in own), "variants never disagree on a row"
    assert label_balance(load("dilemmas-undisputed", data=file).items(MODEL)) == {1: 431, -1: 431}
    detail = DATA / "dilemmas_with_detail_by_action_test.csv"
    mine = load("dilemmas-self", data=detail).items(MODEL)
    assert label_balance(mine)[1] == label_balance(mine)[-1] > 0
    assert mine == load("dilemmas-self-honesty", data=detail).items(MODEL)
