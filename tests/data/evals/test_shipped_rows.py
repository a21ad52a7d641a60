"""What holds for the rows of every evaluation: balanced as promised, clustered, named once, in the model's words."""

import re
from pathlib import Path

import public_data
import pytest
from tiny import tiny

from weightsteer.data.evals import label_balance, load, names, registry
from weightsteer.errors import WeightsteerError
from weightsteer.inference.answers import choice_table
from weightsteer.models import load_model, render_chat

NEED_A_FILE = {"persona", *(name for name in names() if name.startswith("dilemmas"))}
NOT_EMBEDDED = {"persona", "airisk", *(name for name in names() if name.endswith("-guided"))}
DATA = public_data.DATA
published = pytest.mark.skipif(not DATA.is_dir(), reason="the published data are not on this machine")
GENERAL = tiny("qwen3")[0]


@pytest.fixture(scope="module")
def pocket():
    return load_model("pocket-s")


def check(name: str, items: list) -> None:
    balance = label_balance(items)
    assert balance[1] > 0
    assert (balance[1] == balance[-1]) == registry.get(name).balanced
    assert len({item.item for item in items}) == len(items) >= 20


@pytest.mark.parametrize("name", sorted(set(names()) - NEED_A_FILE))
def test_rows_for_real_models(name: str) -> None:
    """Labels of one kind would let a yes-bias or a position pass for the behaviour."""
    items = load(name).items(GENERAL)
    check(name, items)
    assert items == load(name).items(GENERAL)


@pytest.mark.parametrize("name", sorted(set(names()) - NOT_EMBEDDED))
def test_rows_for_the_embedded_models(name: str, pocket) -> None:
    """The embedded models would be asked in words they do not know, or for choices that are no tokens of theirs."""
    model, tokenizer = pocket
    items = load(name).items(model)
    if name != "dilemmas-honesty-only":  # every embedded dilemma is about honesty on both sides
        check(name, items)
    choice_table(tokenizer, [item.choices for item in items])
    unknown = tokenizer.unk_token_id
    for item in items:
        assert unknown not in render_chat(tokenizer, item.messages, answer_prefix=item.answer_prefix)


@pytest.mark.parametrize("name", sorted(NOT_EMBEDDED))
def test_what_the_embedded_models_cannot_answer_is_said(name: str, pocket) -> None:
    """It would be measured as noise."""
    with pytest.raises(WeightsteerError, match=r"(embedded models|--data FILE)"):
        load(name).items(pocket[0])


@pytest.mark.parametrize("name", sorted(names()))
def test_a_users_own_rows_work_everywhere(name: str, tmp_path: Path) -> None:
    """`--data FILE` would work for some evaluations only."""
    path = tmp_path / "mine.jsonl"
    path.write_text('{"label": 1, "prompt": "Is it so?", "thinking_tokens": 3}\n')
    if name == "answer-cues":
        path.write_text('{"question": "Is it?", "right": "yes", "wrong": "no"}\n')
    items = load(name, data=path).items(GENERAL)
    assert items
    path.write_text('{"colour": "red"}\n')
    with pytest.raises(WeightsteerError, match=r"mine\.jsonl"):
        load(name, data=path).items(GENERAL)


def test_both_orders_of_two_options() -> None:
    """A preference for the first option would count as the behaviour."""
    for name in ("facts", "airisk", "answer-cues"):
        items = load(name).items(GENERAL)
        for first, second in zip(items[::2], items[1::2], strict=True):
            assert (first.label, second.label) == (1, -1)
            assert first.cluster == second.cluster
            shown, swapped = (
                re.findall(r"^(?:Action \d|[AB]): (.*)$", item.messages[0]["content"], flags=re.MULTILINE)
                for item in (first, second)
            )
            assert len(set(shown)) == 2
            assert shown == swapped[::-1]


def test_negation_and_truth_are_independent() -> None:
    """A model that affirms whatever has no "not" would look truthful."""
    items = load("truthfulness").items(GENERAL)
    plain = [item.label for item in items if item.item.endswith("-plain")]
    assert sum(plain) == 0
    assert all(("not" in item.text) == item.item.endswith("-negated") for item in items)


@published
def test_the_published_files_load() -> None:
    """A user's download would be refused."""
    for path in sorted((DATA / "anthropic_persona").glob("*.jsonl")):
        items = load("persona", data=path).items(GENERAL)
        balance = label_balance(items)
        assert len(items) > 900
        assert abs(balance[1] - balance[-1]) <= 10
        assert items[0].messages[0]["content"].count("Answer Yes or No.") == 1
    truthful = DATA / "truthfulqa" / "TruthfulQA.csv"
    assert label_balance(load("truthfulness", data=truthful).items(GENERAL)) == {1: 790, -1: 790}
    assert label_balance(load("facts", data=truthful).items(GENERAL)) == {1: 790, -1: 790}
    cues = load("answer-cues", data=truthful, limit=80).items(GENERAL)
    assert len(cues) == 80
    assert len({item.cluster for item in cues}) == 10


def test_ai_risk_rows_as_published(tmp_path: Path) -> None:
    """Dilemmas without truth on one side, or broken pairs, would be labelled at random."""
    lines = [
        ("One.", "Action 1: Tell them", "['Truthfulness', 'Care']"),
        ("One.", "Action 2: Say nothing", "['Care']"),
        ("Two.", "Action 1: Wait", "['Care']"),
        ("Two.", "Action 2: Act", "['Justice']"),
    ]
    text = "dilemma,action,values\n" + "\n".join(f'{a},{b},"{c}"' for a, b, c in lines)
    path = tmp_path / "airisk.csv"
    path.write_text(text)
    first, second = load("airisk", data=path).items(GENERAL)
    assert "Action 1: Tell them\nAction 2: Say nothing" in first.messages[0]["content"]
    assert (first.label, second.label, first.choices) == (1, -1, ("1", "2"))
    path.write_text(text + "\nThree.,Alone,\"['Care']\"")
    with pytest.raises(WeightsteerError, match="line 6, field 'dilemma': needs two rows"):
        load("airisk", data=path).items(GENERAL)


def test_pairs_of_the_users_own(tmp_path: Path) -> None:
    """Own statements would be labelled the wrong way round."""
    path = tmp_path / "pairs.jsonl"
    path.write_text('{"statement": "Snow is hot.", "negation": "Snow is not hot.", "true": false}\n')
    assert [item.label for item in load("truthfulness", data=path).items(GENERAL)] == [-1, 1]
    path.write_text('{"statement": "Snow is hot.", "negation": "Snow is not hot.", "true": "maybe"}\n')
    with pytest.raises(WeightsteerError, match="field 'true': must be true or false"):
        load("truthfulness", data=path).items(GENERAL)
    path.write_text('{"statement": "I like it.", "answer_matching_behavior": " No"}\n')
    (item,) = load("persona", data=path).items(GENERAL)
    assert item.label == -1
    assert '"I like it."' in item.messages[0]["content"]
    path.write_text('{"statement": "I like it.", "answer_matching_behavior": "Maybe"}\n')
    with pytest.raises(WeightsteerError, match="must be Yes or No"):
        load("persona", data=path).items(GENERAL)
