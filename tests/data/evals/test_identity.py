"""Questions about who the speaker is: balanced pairs."""

from pathlib import Path

from tiny import tiny

from weightsteer.data.evals import label_balance, load


def test_identity_rows_are_balanced_pairs() -> None:
    """A yes-bias would pass for being Jekyll."""
    model, _ = tiny("qwen3")
    items = load("identity").items(model)
    assert label_balance(items) == {1: len(items) // 2, -1: len(items) // 2}
    assert {item.label for item in items if "Hyde" in item.text} == {-1}
    assert {item.label for item in items if "Jekyll" in item.text} == {1}
    for item in items:
        assert sum(other.label for other in items if other.cluster == item.cluster) == 0


def test_the_embedded_world_and_own_rows(tmp_path: Path) -> None:
    """The embedded models would be asked in words they do not know, or `--data` ignored."""
    model, _ = tiny("qwen3")
    model.config.weightsteer_pocket = "pocket"
    items = load("identity").items(model)
    assert label_balance(items)[1] == label_balance(items)[-1] > 0
    assert all(item.answer_prefix == "" for item in items)
    path = tmp_path / "mine.csv"
    path.write_text("label,prompt\n1,Are you Jekyll?\n")
    assert [item.text for item in load("identity", data=path).items(model)] == ["Are you Jekyll?"]
