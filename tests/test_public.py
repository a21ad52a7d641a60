"""The public names, the examples in docstrings and in the README: what a newcomer types first."""

import doctest
import os
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

from adapters_of import random_adapter

import weightsteer as ws

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "weightsteer"


def test_every_public_name_is_there_and_there_are_few() -> None:
    """A name that cannot be imported, or hides behind a submodule, breaks the first line of a script."""
    assert len(ws.__all__) <= 20
    for name in ws.__all__:
        assert getattr(ws, name) is not None, name
    assert callable(ws.calibrate)
    assert callable(ws.compare)
    assert callable(ws.audit.audit)
    assert "random" in ws.controls.kinds()


def test_examples_in_docstrings_work() -> None:
    """An example that no longer holds teaches the wrong thing."""
    tried = 0
    for path in sorted(PACKAGE.rglob("*.py")):
        if ">>>" in path.read_text(encoding="utf-8"):
            parts = ("weightsteer", *path.relative_to(PACKAGE).with_suffix("").parts)
            module = import_module(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
            found = doctest.testmod(module)
            assert found.failed == 0, path
            tried += found.attempted
    assert tried > 20


def test_the_example_of_the_readme_runs(tmp_path: Path) -> None:
    """Two adapters of one's own to a measured vector: the first thing that a reader tries."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    found = re.search(r"```python\n(.*?)```", text, re.DOTALL)
    assert found
    model, _ = ws.load_model("pocket")
    for seed, name in enumerate(("honest", "dishonest")):
        random_adapter("lora", model, tmp_path / name, seed=seed, std=0.01)
    code = found[1].replace('ws.evals.load("dilemmas")', 'ws.evals.load("dilemmas", limit=20)')
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE.parent)}
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    assert "WeightVector(" in run.stdout
    assert (tmp_path / "honesty.safetensors").is_file()


def test_the_picture_of_the_layers_is_that_of_the_linter() -> None:
    """A map that shows other layers than those that hold leads a newcomer astray."""
    picture = re.search(r"```text\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), re.DOTALL)
    contract = re.search(r"^layers = \[\n(.*?)^\]", (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.M | re.S)
    assert picture
    assert contract
    drawn = [re.split(r"\s{2,}", line)[0] for line in picture[1].splitlines() if line and not line.startswith(" ")]
    assert drawn == re.findall(r'"(.+)"', contract[1])
