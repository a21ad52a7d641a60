"""The folder of an export is there complete, under its name, at every moment."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from weightsteer.export import folder as module
from weightsteer.export.folder import finished

GONE = subprocess.Popen([sys.executable, "-c", ""])
GONE.wait()


def export(folder: Path, text: str) -> None:
    with finished(folder, {}) as partial:
        (partial / "a.txt").write_text(text)
        (partial / "a.txt").chmod(0o600)


@pytest.mark.parametrize("exchange", [True, False])
def test_a_later_export_replaces_an_earlier_one(
    tmp_path: Path, exchange: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed between two renames, no folder stood under the name that others load."""
    if not exchange:
        monkeypatch.setattr(module, "_exchanged", lambda *_: False)
    export(tmp_path / "lora", "one")
    export(tmp_path / "lora", "two")
    assert (tmp_path / "lora" / "a.txt").read_text() == "two"
    assert [path.name for path in tmp_path.iterdir()] == ["lora"]
    assert (tmp_path / "lora" / "a.txt").stat().st_mode == (tmp_path / "lora" / "weightsteer.json").stat().st_mode


@pytest.mark.skipif(sys.platform != "linux", reason="other systems cannot exchange two names")
def test_there_is_no_moment_without_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever loads the folder while it is replaced, or after a kill in the middle, finds one of the two."""
    export(tmp_path / "lora", "one")
    original, seen = os.replace, []

    def watched(*arguments: Path) -> None:
        seen.append((tmp_path / "lora" / "a.txt").exists())
        original(*arguments)
        seen.append((tmp_path / "lora" / "a.txt").exists())

    monkeypatch.setattr(os, "replace", watched)
    export(tmp_path / "lora", "two")
    assert seen
    assert all(seen)


def test_what_a_killed_export_left_is_taken_up(tmp_path: Path) -> None:
    """Unfinished folders stayed for good, and so did an old one that had lost its name."""
    export(tmp_path / "lora", "one")
    (tmp_path / "lora").rename(tmp_path / f".lora.{GONE.pid}.old")
    (tmp_path / f".lora.{GONE.pid}.partial").mkdir()
    running = tmp_path / f".lora.{os.getppid()}.partial"
    running.mkdir()
    (tmp_path / ".lora.mine").mkdir()
    with pytest.raises(ZeroDivisionError), finished(tmp_path / "lora", {}):
        raise ZeroDivisionError
    assert (tmp_path / "lora" / "a.txt").read_text() == "one"
    assert {path.name for path in tmp_path.iterdir()} == {"lora", running.name, ".lora.mine"}
