"""Shared setup: no test may reach the network; the factories of tests/tiny.py are importable everywhere."""

import os
import sys
from pathlib import Path

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"
sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(autouse=True)
def blocks_as_in_large_models(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rotations of matrices as small as those of the tests are applied in full (`weightsteer.terms.rotated.SMALL`).

    What is tested is the way of large models, except where a test says so.
    """
    monkeypatch.setattr("weightsteer.terms.rotated.SMALL", 0)
