"""A sweep goes on after the last block of rows that was kept, with the same bytes."""

import shutil
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal
from runs import finished_run, tiny_config

from weightsteer import measure
from weightsteer.experiments.stages.items import load_items
from weightsteer.experiments.sweep import measures
from weightsteer.experiments.sweep.experiment import SweepExperiment
from weightsteer.experiments.sweep.measures import scored
from weightsteer.files import read_piece, write_piece
from weightsteer.runtime import Runner, Store

Scored = tuple[Any, ...]


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Scored:
    """What `scored` is asked for by the first seed of a finished run."""
    out = tmp_path_factory.mktemp("blocks") / "out"
    shutil.copytree(finished_run(), out, symlinks=True)
    experiment, runner = SweepExperiment(tiny_config()), Runner(Store(out))
    (family,) = experiment.families
    ((name, stage),) = experiment.items(family.behavior).items()
    entries = experiment.entries(family, 0).load(runner)
    return experiment.model, entries, load_items(runner.make(stage), name), runner


def test_an_interrupted_sweep_goes_on(given: Scored, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An interruption cost a sweep of hours, and a piece of it that was changed on the disk was used."""
    monkeypatch.setattr(measures, "BLOCK", 3)
    original, calls = measure.sweep, []

    def counted(*arguments: Any, **options: Any) -> pl.DataFrame:
        calls.append(arguments)
        if len(calls) == 3 and interrupting:
            raise KeyboardInterrupt
        return original(*arguments, **options)

    monkeypatch.setattr(measure, "sweep", counted)
    interrupting = False
    undisturbed = scored(*given, tmp_path / "undisturbed")
    total = len(calls)
    assert total > 3
    calls, interrupting = [], True
    with pytest.raises(KeyboardInterrupt):
        scored(*given, tmp_path / "scratch")
    calls, interrupting = [], False
    damaged = tmp_path / "scratch" / "block-00001"
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"x")
    found = scored(*given, tmp_path / "scratch")
    assert len(calls) == total - 1, "the first block was kept, the second was damaged"
    assert_frame_equal(found, undisturbed, check_exact=True)
    pieces = [sorted((tmp_path / name).iterdir()) for name in ("undisturbed", "scratch")]
    assert [path.read_bytes() for path in pieces[0]] == [path.read_bytes() for path in pieces[1]]


def test_blocks_change_nothing_but_the_order(given: Scored, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows lost or repeated at the border of a block would shift every number by a little."""
    whole = scored(*given, tmp_path / "whole")
    monkeypatch.setattr(measures, "BLOCK", 5)
    keys = ["method", "adapter", "seed", "alpha", "item"]
    apart = scored(*given, tmp_path / "apart")
    assert len(apart) == len(whole)
    assert_frame_equal(apart.sort(keys), whole.sort(keys), abs_tol=1e-4)


@pytest.mark.parametrize("content", [b"", b"[]", b"0" * 32 + b"\n[]", b"\xff"])
def test_a_piece_that_was_changed_is_made_again(tmp_path: Path, content: bytes) -> None:
    """One changed token in a piece was used; an empty list failed at every later run."""
    write_piece(tmp_path / "scratch" / "piece", b"[[1]]\n\x00")
    assert read_piece(tmp_path / "scratch" / "piece") == b"[[1]]\n\x00"
    (tmp_path / "scratch" / "piece").write_bytes(content)
    assert read_piece(tmp_path / "scratch" / "piece") is None
    assert read_piece(tmp_path / "nothing") is None
