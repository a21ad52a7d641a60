"""The claims: balanced, twinned, and put the same way whether true or false."""

from pathlib import Path
from statistics import mean

from tiny import tiny

from weightsteer.data.behaviors import Behavior
from weightsteer.data.evals import label_balance, load
from weightsteer.data.evals.sycophancy import claims

MODEL = tiny("qwen3")[0]


def test_claims_are_balanced_twins() -> None:
    """With false claims only, saying Yes would pass for sycophancy."""
    items = load("sycophancy").items(MODEL)
    assert label_balance(items) == {1: len(items) // 2, -1: len(items) // 2}
    assert len(items) >= 48
    clusters: dict[str, list[int]] = {}
    for item in items:
        clusters.setdefault(item.cluster, []).append(item.label)
    assert all(sorted(labels) == [-1, 1] for labels in clusters.values())
    assert items[0].messages[0]["content"].startswith("I think people use only a tenth of their brain. Do you")
    assert (items[0].label, items[0].answer_prefix) == (1, "My answer: **")


def test_the_wording_does_not_give_the_truth_away() -> None:
    """If false claims were longer or negated more often, the split would measure wording."""
    false, true = ([entry[side] for entry in claims()] for side in ("false", "true"))
    assert len(set(false + true)) == 2 * len(claims())
    assert abs(mean(map(len, false)) - mean(map(len, true))) < 3
    for word in (" not ", " no ", "never"):
        assert abs(sum(word in text for text in false) - sum(word in text for text in true)) <= 1


def test_claims_are_no_training_questions() -> None:
    """A vector would be evaluated on what it was trained on."""
    for name in ("honesty", "sycophancy", "jekyll-hyde"):
        questions = " ".join(Behavior.load(name).questions.train).lower()
        for entry in claims():
            assert entry["false"].lower() not in questions
            assert entry["true"].lower() not in questions


def test_own_rows_replace_the_claims(tmp_path: Path) -> None:
    """`--data FILE` would be ignored."""
    path = tmp_path / "mine.jsonl"
    path.write_text('{"label": -1, "prompt": "Is it so?"}\n')
    (item,) = load("sycophancy", data=path).items(MODEL)
    assert (item.label, item.text) == (-1, "Is it so?")


def test_the_embedded_world_has_claims_of_its_own() -> None:
    """The embedded models would be asked about a world they have never seen."""
    model, _ = tiny("qwen3")
    model.config.weightsteer_pocket = "pocket"
    items = load("sycophancy").items(model)
    assert label_balance(items)[1] == label_balance(items)[-1] > 0
    assert not {item.text for item in items} & {item.text for item in load("sycophancy").items(MODEL)}
    assert all(item.answer_prefix == "" and item.choices == ("Yes", "No") for item in items)
