"""The examples in docs/ are run: an example that does not work teaches the wrong interface."""

import re
from pathlib import Path

from weightsteer.behaviors import Behavior
from weightsteer.evals.base import label_balance, registry

DOCS = Path(__file__).parent.parent / "docs"


def block(page: str, language: str) -> str:
    """The first code block of a page."""
    found = re.search(rf"```{language}\n(.*?)```", (DOCS / page).read_text(encoding="utf-8"), flags=re.DOTALL)
    assert found is not None
    return found[1]


def test_the_example_evaluation_works():
    """Whoever copies it gets balanced, clustered rows under the name it registers."""
    code = block("add-an-evaluation.md", "python")
    assert len(code.splitlines()) <= 40
    try:
        exec(code, {"__name__": "weekdays"})
        rows = registry()["weekdays"]().rows(None)
    finally:
        registry().pop("weekdays", None)
    assert label_balance(rows) == {1: 7, -1: 7}
    assert len({row.cluster for row in rows}) == 7


def test_the_example_behaviour_loads(tmp_path):
    """A YAML that its own loader refuses would be a poor first experience."""
    file = tmp_path / "punctuality.yaml"
    file.write_text(block("add-a-behaviour.md", "yaml"), encoding="utf-8")
    behavior = Behavior.load(file)
    assert behavior.name == "punctuality"
    assert behavior.evaluations == {"dilemmas": 1}
