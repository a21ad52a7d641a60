"""The shipped models hold what their cards promise: if these fail, every figure made on them is in doubt."""

from hashlib import sha256

import pytest

from weightsteer.embedded import shipped_digests, weights_folder
from weightsteer.errors import WeightsteerError
from weightsteer.pocket import score as scoring
from weightsteer.pocket.card import model_card
from weightsteer.pocket.sizes import SIZES

LARGE = ("pocket", "pocket-l")


@pytest.fixture(scope="module")
def cards():
    """Scorecards on a tenth of the usual number of trials."""
    patch = pytest.MonkeyPatch()
    patch.setattr(scoring, "PER_CELL", 16)
    yield {name: scoring.score(name, shown=False) for name in LARGE}
    patch.undo()


def mean(card, section, *sides):
    lines = [entry for line, entry in card[section].items() if line.split(":")[0] in sides]
    return sum(entry["share"] * entry["n"] for entry in lines) / sum(entry["n"] for entry in lines)


@pytest.mark.parametrize("name", LARGE)
def test_the_bars_hold(cards, name):
    """Facts 98%, obedience 95% on each axis and 85% under held-out prompts, conditional 90%, Yes/No mass 0.98."""
    card = cards[name]
    assert card["knowledge"]["facts under an honest prompt"]["share"] >= 0.98
    for sides in scoring.SIDES.values():
        assert mean(card, "persona obedience", *sides) >= 0.95
        assert mean(card, "held-out persona prompts", *sides) >= 0.85
    assert card["conditional personas"]["told for both tags"]["share"] >= 0.90
    assert card["format"]["mean p(Yes) + p(No) on Yes/No questions"]["share"] >= 0.98


@pytest.mark.parametrize("name", LARGE)
def test_the_base_is_a_mixture(cards, name):
    """A saturated base model leaves nothing to steer; 15% of dilemma rows must lie on either side."""
    assert 0.15 <= cards[name]["base mixture (no system prompt)"]["dilemmas on the honest side"]["share"] <= 0.85


def test_shipped_files_are_the_ones_that_were_scored():
    """Frozen weights keep results comparable over time."""
    digests = shipped_digests()
    assert {path.split("/")[0] for path in digests} == set(SIZES)
    total = 0
    for name in SIZES:
        folder = weights_folder(name)
        for path in folder.iterdir():
            total += path.stat().st_size
            if path.name != "README.md":
                assert digests[f"{name}/{path.name}"] == sha256(path.read_bytes()).hexdigest()
    assert total <= 20e6


def test_a_damaged_file_is_refused(tmp_path, monkeypatch):
    """Results on damaged weights would be taken for results on the shipped ones."""
    from weightsteer import embedded

    (tmp_path / "pocket").mkdir()
    (tmp_path / "pocket" / "model.safetensors").write_bytes(b"damaged")
    (tmp_path / "SHA256SUMS").write_text("0" * 64 + "  pocket/model.safetensors\n")
    monkeypatch.setattr(embedded, "_WEIGHTS", tmp_path)
    with pytest.raises(WeightsteerError, match="damaged"):
        weights_folder("pocket")


def test_the_card_prints_every_measured_line(cards):
    """A card that omits a line hides a weakness."""
    card = cards["pocket"]
    text = model_card("pocket", card)
    for section, lines in card.items():
        for line in lines:
            assert f"| {line} |" in text, section
