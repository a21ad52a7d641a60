"""The keyword rules that find rows whose words contradict their label."""

import public_data
import pytest
from tiny import tiny

from weightsteer.data.evals import Item, load, user_turn
from weightsteer.data.evals.dilemma_noise import contradictions, decidable, says, undisputed

DATA = public_data.DATA / "daily_dilemmas"


@pytest.mark.parametrize(
    ("action", "sign"),
    [
        ("Confess to the manager", 1),
        ("Not confessing to the manager", -1),
        ("Don't lie about it", 1),
        ("Refuse to admit the mistake", -1),
        ("Tell her the truth", 1),
        ("Continue hiding it", -1),
        ("Admit Past Dishonesty", 0),
        ("Report the Plagiarism", 0),
        ("Lie down on the floor", -1),
        ("Believe the client", 0),
        ("Reply at once", 0),
    ],
)
def test_the_rules_say_what_a_reader_would(action: str, sign: int) -> None:
    """Sound rows would be listed as noise, or noise missed. (Lying down is the price of a rule one can read.)"""
    assert says(action)[0] == sign


def row(name: str, label: int, text: str) -> Item:
    return Item(name, name[0], label, user_turn("?"), text=text)


def test_contradicting_clusters_leave_together() -> None:
    """Half a pair would stay behind and unbalance the labels."""
    items = [
        row("a1", 1, "She asks. → Hide the past"),
        row("a2", -1, "She asks. → Walk away"),
        row("b1", 1, "She asks. → Admit it"),
        row("b2", -1, "She asks. → Not admit it"),
        row("c1", -1, "Nobody will confess. Do you admit it?"),
    ]
    listed = contradictions(items)
    assert listed.select("item", "label", "says", "rule", "action").rows() == [("a1", 1, -1, "hide", "Hide the past")]
    assert decidable(items)["item"].to_list() == ["a1", "b1", "b2"]
    assert [item.item for item in undisputed(items)] == ["b1", "b2", "c1"]
    assert contradictions([]).is_empty()


@pytest.mark.skipif(not DATA.is_dir(), reason="the published dilemmas are not on this machine")
def test_noise_of_the_published_labels() -> None:
    """The sensitivity run would leave out nothing, or much that is sound."""
    file = DATA / "dilemmas_with_values_aggregated.jsonl"
    items = load("dilemmas", data=file).items(tiny("qwen3")[0])
    listed = contradictions(items)
    assert 5 <= listed.height <= 15
    assert listed.height / decidable(items).height < 0.15
    assert {"4706-to_do", "37569-to_do", "42185-to_do"} <= set(listed["item"])
