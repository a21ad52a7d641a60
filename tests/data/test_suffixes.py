"""The pool of branching suffixes: read from its JSON, asked as questions, and as texts to calibrate on."""

import json
from pathlib import Path
from typing import Any

import pytest

from weightsteer.data.behaviors import Behavior
from weightsteer.data.suffixes import Suffix, asking, by_category, calibration_texts, read_suffixes, suffix_pairs
from weightsteer.errors import WeightsteerError

POOL = [
    {"cat": cat, "user_msg": f"Question {cat} {number}?", "suffix": f"<think>The answer {cat} {number} is"}
    for cat, count in (("code", 4), ("ethics", 2))
    for number in range(count)
]


def written(folder: Path, content: Any = POOL) -> Path:
    path = folder / "branching_suffixes.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def test_the_pool_is_read_and_dealt_by_category(tmp_path: Path) -> None:
    """Prompts would all be of the first category, or a thought would be opened inside of an answer."""
    found = read_suffixes(written(tmp_path, [*POOL, {"cat": "code", "user_msg": "Empty?", "suffix": " "}]))
    assert found[0] == Suffix(1, "code", "Question code 0?", "The answer code 0 is")
    assert len(found) == 6
    assert [one.category for one in by_category(found)] == ["code", "ethics", "code", "ethics", "code", "code"]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ({"cat": "code"}, "must be a JSON list"),
        ([{"cat": "code", "user_msg": "Why?"}], "entry 1: `cat`, `user_msg` and `suffix` must be texts"),
        ([], "has no entry"),
    ],
)
def test_a_pool_that_is_none_is_named(tmp_path: Path, content: Any, told: str) -> None:
    """A traceback would not say which entry is at fault."""
    with pytest.raises(WeightsteerError, match=told):
        read_suffixes(written(tmp_path, content))
    with pytest.raises(WeightsteerError, match="cannot read the pool"):
        read_suffixes(tmp_path / "none.json")


def test_a_behaviour_asks_the_questions_of_the_pool(tmp_path: Path) -> None:
    """The published grid takes the first questions of the file: another order would be another grid."""
    behavior = Behavior.load("honesty")
    held = behavior.questions.heldout[0]
    pool = [*read_suffixes(written(tmp_path)), Suffix(9, "code", held, "So"), Suffix(10, "x", POOL[0]["user_msg"], "a")]
    made = asking(behavior, pool)
    assert made.questions.train == [entry["user_msg"] for entry in POOL]
    assert made.questions.heldout == behavior.questions.heldout
    assert made.digest != behavior.digest


def test_both_sides_read_one_text_under_two_personas(tmp_path: Path) -> None:
    """A direction would be one of the texts and not of the personas."""
    behavior = Behavior.load("honesty")
    pairs = suffix_pairs(behavior, read_suffixes(written(tmp_path)), count=3)
    assert pairs["response_pos"].to_list() == pairs["response_neg"].to_list()
    assert pairs["sys_prompt_pos"].unique().to_list() == [behavior.positive.personas[0]]
    assert pairs["sys_prompt_neg"].unique().to_list() == [behavior.negative.personas[0]]
    assert [prompt.split()[1] for prompt in pairs["prompt"]] == ["code", "ethics", "code"]


def test_no_question_is_calibrated_and_audited_on(tmp_path: Path) -> None:
    """The audit would confirm whatever was fitted."""
    pool = read_suffixes(written(tmp_path, [*POOL, {**POOL[0], "suffix": "Another text"}]))
    prompts, audit = calibration_texts(pool)
    assert (len(prompts), len(audit)) == (3, 3)
    assert not {str(text.messages) for text in prompts} & {str(text.messages) for text in audit}
    with pytest.raises(WeightsteerError, match="at least two questions"):
        calibration_texts(pool[:1])
