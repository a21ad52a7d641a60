"""The plan of the house holds: imports point down, without circles, and the linter notices when they do not."""

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "weightsteer"
CONTRACT = "pyproject.toml"
linter = Path(sys.executable).with_name("lint-imports")


def modules() -> dict[str, Path]:
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = ("weightsteer", *path.relative_to(PACKAGE).with_suffix("").parts)
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported(path: Path, known: dict[str, Path]) -> set[str]:
    """The modules that a file imports anywhere, inside functions and for annotations too."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in known else str(node.module) for name in names}
    return found & set(known)


def test_there_are_no_import_circles() -> None:
    """A circle makes what can be imported first depend on who was imported before, and no part of it is read alone."""
    known = modules()
    left = {name: imported(path, known) - {name} for name, path in known.items()}
    while free := {name for name, others in left.items() if not others}:
        left = {name: others - free for name, others in left.items() if name not in free}
    assert left == {}, "these import each other in a circle, or import one that is in it"


def run_linter(folder: Path) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, "PYTHONPATH": str(folder / "src")}
    command = [str(linter), "--no-cache"]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.skipif(not linter.exists(), reason="import-linter is part of the development install")
def test_a_forbidden_import_fails_the_linter(tmp_path: Path) -> None:
    """`make lint` must stop an import that runs up, also one inside a function."""
    shutil.copytree(PACKAGE, tmp_path / "src" / "weightsteer", ignore=shutil.ignore_patterns("weights", "__pycache__"))
    shutil.copy(ROOT / CONTRACT, tmp_path / CONTRACT)
    assert run_linter(tmp_path).returncode == 0
    low = tmp_path / "src/weightsteer/terms/lowrank.py"
    low.write_text(low.read_text() + "\n\ndef upwards() -> None:\n    from weightsteer.measure import sweep  # noqa\n")
    broken = run_linter(tmp_path)
    assert broken.returncode != 0
    assert "weightsteer.terms is not allowed to import weightsteer.measure" in broken.stdout
    assert "lint-imports" in (ROOT / "Makefile").read_text(encoding="utf-8")
