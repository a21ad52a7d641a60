"""The user's own rows: what loads, and what the errors name."""

import json
from pathlib import Path

import pytest
from tiny import tiny

from weightsteer.data.evals import Item, load
from weightsteer.errors import WeightsteerError

MODEL = tiny("qwen3")[0]


def items_of(path: Path, text: str) -> list[Item]:
    path.write_text(text, encoding="utf-8")
    return load(str(path)).items(MODEL)


def test_jsonl_and_csv_give_the_same_rows(tmp_path: Path) -> None:
    """A user's rows would mean something else in the other format."""
    rows = [
        {"item": "a", "cluster": "c", "label": 1, "prompt": 'Say "yes", or\nno?', "choices": ["A", "B"]},
        {"item": "b", "cluster": "c", "label": -1, "prompt": "Is it so?", "choices": ["Yes", "No"]},
    ]
    jsonl = "\n".join(json.dumps(row) for row in rows)
    csv = 'item,cluster,label,prompt,choices\na,c,1,"Say ""yes"", or\nno?",A|B\nb,c,-1,Is it so?,"[""Yes"", ""No""]"\n'
    expected = items_of(tmp_path / "rows.jsonl", jsonl)
    assert expected == items_of(tmp_path / "rows.csv", csv)
    assert expected == items_of(tmp_path / "rows.csv", "\ufeff" + csv)
    assert [item.label for item in expected] == [1, -1]
    assert expected[0].messages == ({"role": "user", "content": 'Say "yes", or\nno?'},)
    assert load(str(tmp_path / "rows.csv")).name == "rows"


def test_defaults_and_messages(tmp_path: Path) -> None:
    """Optional fields would be needed, or messages lost."""
    chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Is it?"}]
    rows = [{"label": "+1", "prompt": "Well?", "note": "ignored"}, {"label": "-1", "messages": chat}]
    first, second = items_of(tmp_path / "rows.jsonl", "\n\n".join(json.dumps(row) for row in rows))
    assert (first.item, first.cluster, first.choices, first.text) == ("line-1", "line-1", ("Yes", "No"), "Well?")
    assert (second.item, second.messages, second.text) == ("line-3", tuple(chat), "Is it?")


GOOD = '{"label": 1, "prompt": "Is it?"}\n'


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"label": 1, "prompt": }', "line 2, column 24: not valid JSON"),
        ('["label", 1]', "line 2: expected a JSON object"),
        ('{"prompt": "Is it?"}', "line 2, field 'label': must be 1 or -1, not None"),
        ('{"label": 0, "prompt": "Is it?"}', "line 2, field 'label': must be 1 or -1, not 0"),
        ('{"label": true, "prompt": "Is it?"}', "line 2, field 'label'"),
        ('{"label": 1}', "line 2, field 'prompt': missing"),
        ('{"label": 1, "prompt": "  "}', "line 2, field 'prompt': '  ' is not a text"),
        ('{"label": 1, "prompt": ["Is it?"]}', "line 2, field 'prompt'"),
        ('{"label": 1, "prompt": "Is it?", "messages": []}', "line 2, field 'messages': given together with"),
        ('{"label": 1, "messages": []}', "line 2, field 'messages': must be a list"),
        ('{"label": 1, "messages": "hello"}', "line 2, field 'messages': not valid JSON"),
        ('{"label": 1, "messages": [{"role": "me", "content": ""}]}', r"field 'messages\[0\].role'"),
        ('{"label": 1, "messages": [{"role": "user"}]}', r"field 'messages\[0\].content'"),
        ('{"label": 1, "prompt": "Is it?", "choices": ["Yes"]}', "field 'choices': must be two words"),
        ('{"label": 1, "prompt": "Is it?", "choices": "Yes"}', "field 'choices': not valid JSON"),
        ('{"label": 1, "prompt": "Is it?", "answer_prefx": "A"}', "did you mean 'answer_prefix'"),
        ('{"label": 1, "prompt": "Is it?", "cluster": ["a"]}', "line 2, field 'cluster'"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str, message: str) -> None:
    """A user would search thousands of lines for the bad one."""
    with pytest.raises(WeightsteerError, match=message) as caught:
        items_of(tmp_path / "rows.jsonl", GOOD + line)
    assert "rows.jsonl" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("label,prompt\n1,Is it, or not?\n", "line 2: 3 fields, but the header names 2"),
        ('label,prompt\n1,"two\nlines"\n7,Is it?\n', "line 4, field 'label': must be 1 or -1, not '7'"),
        ('label,prompt\n1,"never closed\n', "line 2: not valid CSV"),
        ("label,prompt\n", "holds no rows"),
        ("", "holds no rows"),
    ],
)
def test_a_bad_csv_is_named(tmp_path: Path, text: str, message: str) -> None:
    """The line of a CSV file is not its row when cells hold line breaks."""
    with pytest.raises(WeightsteerError, match=message):
        items_of(tmp_path / "rows.csv", text)


def test_a_file_that_cannot_be_read_is_an_error_in_words(tmp_path: Path) -> None:
    """Missing, binary or unknown files would be tracebacks."""
    with pytest.raises(WeightsteerError, match="there is no file"):
        load(str(tmp_path / "none.jsonl")).items(MODEL)
    (tmp_path / "latin.csv").write_bytes("label,prompt\n1,sch\u00f6n?\n".encode("latin-1"))
    with pytest.raises(WeightsteerError, match="not UTF-8"):
        load(str(tmp_path / "latin.csv")).items(MODEL)
    with pytest.raises(WeightsteerError, match=r"ends in \.jsonl or \.csv"):
        load("sycophancy", data=tmp_path / "rows.parquet").items(MODEL)
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(WeightsteerError, match="is no file"):
        load(str(tmp_path / "folder.csv")).items(MODEL)
