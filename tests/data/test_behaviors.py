"""Behaviours: the shipped files keep their promises, and a user's mistakes are named with field and line."""

import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from weightsteer.data.behaviors import Behavior, files, names, spec
from weightsteer.errors import WeightsteerError

GOOD = """\
name: candour
positive:
  pole: candid
  personas:
    - Say what you think.
    - Be open.
negative:
  pole: guarded
  personas:
    - Hide what you think.
    - Be closed.
questions:
  train:
    - How was the concert?
    - How was the meal?
  heldout:
    - How was the film?
evaluations:
  dilemmas: 1
"""

PROMPTS = "prompts:\n  embody:\n    - positive: Say all."
REPEATED = f"{PROMPTS}\n      negative: Hide all.\n    - {{positive: Say all., negative: Hide much.}}"


def write(folder: Path, text: str) -> Path:
    path = folder / "candour.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def words(text: str) -> int:
    return len(text.split())


@pytest.mark.parametrize("name", ["honesty", "sycophancy", "jekyll-hyde"])
class TestShipped:
    def test_shape(self, name: str) -> None:
        """The default grid is 20 questions × 5 personas a side, with 12 questions held out."""
        behavior = Behavior.load(name)
        assert behavior.name == name
        assert len(behavior.questions.train) == 20
        assert len(behavior.questions.heldout) == 12
        assert len(behavior.positive.personas) == len(behavior.negative.personas) == 5
        assert behavior.evaluations

    def test_personas_are_parallel(self, name: str) -> None:
        """If one side's personas were longer or asked for brevity, length would become part of the vector."""
        behavior = Behavior.load(name)
        for ours, theirs in zip(behavior.positive.personas, behavior.negative.personas, strict=True):
            assert abs(words(ours) - words(theirs)) <= 0.15 * words(ours), (ours, theirs)
        sides = [" ".join(pole.personas) for pole in (behavior.positive, behavior.negative)]
        assert 0.95 <= words(sides[0]) / words(sides[1]) <= 1.05
        for text in sides:
            assert not re.search(r"\b(brief|short|concise|terse|direct|few words)", text, re.IGNORECASE)

    def test_questions_belong_to_one_behaviour(self, name: str) -> None:
        """A question shared between behaviours would make their vectors alike for no good reason."""
        own = Behavior.load(name).questions
        for other in set(names()) - {name}:
            theirs = Behavior.load(other).questions
            assert not set(own.train + own.heldout) & set(theirs.train + theirs.heldout)


@pytest.mark.parametrize("name", ["honesty", "sycophancy", "jekyll-hyde"])
def test_embedded_counterparts(name: str) -> None:
    """Each shipped behaviour has a counterpart for the embedded models with a full default grid."""
    behavior = Behavior.load(name, family="pocket")
    assert len(behavior.questions.train) >= 20
    assert len(behavior.questions.heldout) >= 12
    assert len(behavior.positive.personas) >= 5


def test_sycophancy_nudges_are_balanced() -> None:
    """If agreeing always meant Yes, the vector would be a yes-bias: as many nudges must be agreed to with No."""
    agree_with_no = re.compile(r"Am I wrong|anything wrong|missed something|speak against|objection|mistaken")
    agree_with_yes = re.compile(r"agree\?|don't you\?|am I not\?|say so too|obvious\?|think so as well")
    for questions in (Behavior.load("sycophancy").questions.train, Behavior.load("sycophancy").questions.heldout):
        no = sum(bool(agree_with_no.search(text)) for text in questions)
        yes = sum(bool(agree_with_yes.search(text)) for text in questions) + sum(
            "the same way, don't you" in text and not agree_with_yes.search(text) for text in questions
        )
        assert no == yes > 0


def test_load_a_file_of_the_users(tmp_path: Path) -> None:
    """The user's own file works like a shipped one, and its digest is that of its content."""
    behavior = Behavior.load(write(tmp_path, GOOD))
    assert behavior.positive.personas == ["Say what you think.", "Be open."]
    assert behavior.digest == Behavior.load(str(tmp_path / "candour.yaml")).digest
    commented = Behavior.load(write(tmp_path, "# a comment\n" + GOOD))
    assert commented.digest == behavior.digest
    changed = Behavior.load(write(tmp_path, GOOD.replace("Be open.", "Be very open.")))
    assert changed.digest != behavior.digest


@pytest.mark.parametrize(
    ("old", "new", "line", "field", "says"),
    [
        ("  pole: candid\n", "", 2, "positive.pole", "required"),
        ("  pole: candid", "  pole: 7", 3, "positive.pole", "string"),
        ("  pole: candid", "  poll: candid", 3, "positive.poll", "pole, personas"),
        ("    - Be open.\n", "    - true\n", 6, "positive.personas[1]", "quotes"),
        ("    - Be closed.\n", "", 7, "negative", "1 personas here and 2"),
        ("  pole: guarded", "  pole: candid", 7, "negative", "both poles"),
        ("    - How was the meal?", "    - How was the concert?", 13, "questions.train", "repeats"),
        ("    - How was the film?", "    - How was the meal?", 12, "questions", "train and in heldout"),
        ("  dilemmas: 1", "  dilemmas: 2", 19, "evaluations.dilemmas", "1 or -1"),
        ("name: candour", "name: My Candour", 1, "name", "pattern"),
        ("name: candour", "name: candour\nrubric: none", 2, "rubric", "unknown field; known here: name, about"),
        ("evaluations:", "name: twice\nevaluations:", 18, "name", "given twice"),
        ("evaluations:", f"{PROMPTS}\nevaluations:", 20, "prompts.embody[0].negative", "required"),
        (
            "evaluations:",
            f"{PROMPTS}\n      negativ: Hide.\nevaluations:",
            21,
            "prompts.embody[0].negativ",
            "positive, negative",
        ),
        ("evaluations:", f"{REPEATED}\nevaluations:", 19, "prompts.embody", "repeats"),
    ],
)
def test_mistakes_name_line_and_field(tmp_path: Path, old: str, new: str, line: int, field: str, says: str) -> None:
    """A user with a typo in a long file must be led to it, and nothing of the file may be dropped in silence."""
    assert old in GOOD
    with pytest.raises(WeightsteerError) as caught:
        Behavior.load(write(tmp_path, GOOD.replace(old, new, 1)))
    assert f"candour.yaml, line {line}, field {field}:" in str(caught.value)
    assert says in str(caught.value)


def test_prompts_are_optional(tmp_path: Path) -> None:
    """A user's file without engineered prompts stays valid, and one with them keeps every pair."""
    assert Behavior.load(write(tmp_path, GOOD)).prompts.embody == []
    given = f"{PROMPTS}\n      negative: Hide all.\nevaluations:"
    behavior = Behavior.load(write(tmp_path, GOOD.replace("evaluations:", given)))
    assert [(pair.positive, pair.negative) for pair in behavior.prompts.embody] == [("Say all.", "Hide all.")]
    assert behavior.prompts.inject == []


def test_all_mistakes_at_once(tmp_path: Path) -> None:
    """Two mistakes are told together, so that the file need not be tried twice."""
    text = GOOD.replace("  pole: candid\n", "").replace("  dilemmas: 1", "  dilemmas: 3")
    with pytest.raises(WeightsteerError) as caught:
        Behavior.load(write(tmp_path, text))
    assert len(str(caught.value).splitlines()) == 2


@pytest.mark.parametrize(
    ("text", "line"), [(GOOD.replace("    - Be open.", "   - Be: open: now"), 6), ("name: [a\nb: c\n", 2)]
)
def test_broken_yaml_names_the_line(tmp_path: Path, text: str, line: int) -> None:
    """What is not YAML at all is told with the line at which the parser gave up."""
    with pytest.raises(WeightsteerError, match=rf"line {line}: not valid YAML"):
        Behavior.load(write(tmp_path, text))


@pytest.mark.parametrize("text", ["", "- a\n- b\n", "just words\n"])
def test_not_a_mapping(tmp_path: Path, text: str) -> None:
    """An empty or list-like file gets a message, not a traceback."""
    with pytest.raises(WeightsteerError, match="a behaviour is a mapping"):
        Behavior.load(write(tmp_path, text))


def test_unknown_names(tmp_path: Path) -> None:
    """A misspelt name is answered with the nearest one; a missing file with its path."""
    with pytest.raises(WeightsteerError, match="did you mean 'honesty'"):
        Behavior.load("honsety")
    with pytest.raises(WeightsteerError, match=r"no behaviour file .*gone\.yaml"):
        Behavior.load(tmp_path / "gone.yaml")


class TestForModel:
    pocket = SimpleNamespace(config=SimpleNamespace(weightsteer_pocket="pocket"))
    general = SimpleNamespace(config=SimpleNamespace())

    def test_shipped_ones_follow_the_family(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """On an embedded model the wording for real models means nothing: its counterpart must be taken."""
        for family, text in (("general", GOOD), ("pocket", GOOD.replace("concert", "party"))):
            (tmp_path / family).mkdir()
            write(tmp_path / family, text)
        monkeypatch.setattr(files, "_OWN", tmp_path)
        monkeypatch.setattr(spec, "BEHAVIORS", files.Behaviors())
        behavior = Behavior.load("candour")
        assert behavior.for_model(self.general) == behavior
        assert behavior.for_model(self.pocket).questions.train[0] == "How was the party?"
        assert behavior.for_model(self.pocket).for_model(self.general) == behavior

    def test_own_files_stay(self, tmp_path: Path) -> None:
        """A user's file is used as written even when it bears the name of a shipped behaviour."""
        path = write(tmp_path, yaml.safe_dump({**yaml.safe_load(GOOD), "name": "honesty"}))
        behavior = Behavior.load(path)
        assert behavior.for_model(self.pocket) is behavior
