"""The stages in front of pairs: a pilot that spares minutes, and answers that other filters reuse."""

from pathlib import Path

import pytest
from runs import tiny_config

from weightsteer.errors import WeightsteerError
from weightsteer.experiments.sweep.config import Generation, RunConfig
from weightsteer.experiments.sweep.replicate import pairs


def config(**generation: object) -> RunConfig:
    fields = {"samples": 2, "max_new_tokens": 8, "judge": "none", **generation}
    return tiny_config().model_copy(update={"seeds": (0,), "generation": Generation(**fields)})


def stored(out: Path, stage: str) -> int:
    return len(list((out / ".store").glob(f"{stage}-*/artifact.json")))


def test_another_filter_goes_on_from_the_same_answers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Minutes of generation would be spent again to change what is kept of it."""
    pairs(config(), tmp_path)
    assert "pairs would be kept" in capsys.readouterr().err
    pairs(config(cut="reject"), tmp_path)
    assert (stored(tmp_path, "answers"), stored(tmp_path, "probe"), stored(tmp_path, "pairs")) == (1, 1, 2)


def test_a_pilot_of_which_nothing_would_be_kept_stops_the_run(tmp_path: Path) -> None:
    """The user would learn it after all answers were made."""
    hopeless = config(judge="self", judge_margin=1000.0)
    with pytest.raises(WeightsteerError, match=r"0 would be kept \(.*judge.*--judge none.*--no-pilot"):
        pairs(hopeless, tmp_path)
    assert stored(tmp_path, "answers") == 0
    pairs(config(judge="self", judge_margin=1000.0, pilot=False), tmp_path)
    assert (stored(tmp_path, "answers"), stored(tmp_path, "probe")) == (1, 1)
    pairs(config(), tmp_path)  # the probe of the run that stopped serves this one
    assert stored(tmp_path, "probe") == 1
