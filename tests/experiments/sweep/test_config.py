"""What the settings of a run are when a vector comes from a file."""

import json
from pathlib import Path
from typing import Any

import pytest
from runs import BEHAVIOR

from weightsteer.errors import WeightsteerError
from weightsteer.experiments.sweep.config import RunConfig, of_vector


@pytest.fixture
def kind(tmp_path: Path) -> str:
    (tmp_path / "mine.yaml").write_text(BEHAVIOR)
    return str(tmp_path / "mine.yaml")


def vector(folder: Path, **metadata: Any) -> Path:
    """The header of a vector's file, all that the settings depend on."""
    header = json.dumps({"__metadata__": {"weightsteer": json.dumps({"version": 2, "metadata": metadata})}}).encode()
    path = folder / "v.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    return path


def test_the_file_decides_what_it_records(tmp_path: Path, kind: str) -> None:
    """A DeLoRA vector of seed 3 was reported as LoRA of seed 0, and as what the defaults say of the behaviour."""
    path = vector(tmp_path, adapter="delora", behavior="sycophancy", seed=3)
    config, notes = of_vector(RunConfig(limit=7), path)
    assert (config.adapter, config.behavior, config.seeds, config.limit) == (("delora",), ("sycophancy",), (3,), 7)
    assert not notes
    config, notes = of_vector(RunConfig(), path, adapter=("delora",), seeds=(1, 3))
    assert (config.adapter, config.seeds) == (("delora",), (3, 1))
    # a file of the user's that has the recorded name
    mine = vector(tmp_path, adapter="delora", behavior="kind")
    config, _ = of_vector(RunConfig(behavior=("honesty", kind), seeds=(4,)), mine)
    assert (config.behavior, config.seeds) == ((kind,), (4,))


def test_flags_that_contradict_the_file_are_refused_and_another_behavior_is_noted(tmp_path: Path, kind: str) -> None:
    """A number under the wrong name is worse than none; but a vector may be measured on another behaviour."""
    path = vector(tmp_path, adapter="delora", behavior="sycophancy", seed=3)
    with pytest.raises(WeightsteerError, match="made with delora, which --adapter contradicts"):
        of_vector(RunConfig(), path, adapter=("lora",))
    with pytest.raises(WeightsteerError, match="made with seed 3, which --seeds contradicts"):
        of_vector(RunConfig(), path, seeds=(0, 1))
    config, notes = of_vector(RunConfig(), path, behavior=("honesty",))
    assert config.behavior == ("honesty",)
    assert "made for the behaviour 'sycophancy'; it is measured on honesty" in notes[0]
    unknown = vector(tmp_path, adapter="delora", behavior="kind")
    with pytest.raises(WeightsteerError, match="'kind', which is not a shipped one"):
        of_vector(RunConfig(), unknown)
    assert of_vector(RunConfig(), unknown, behavior=(kind,)) == (RunConfig(behavior=(kind,), adapter=("delora",)), [])


def test_a_file_that_records_nothing_changes_nothing(tmp_path: Path) -> None:
    """Sums of vectors have no one family or seed, and what is no vector is explained by the stage that loads it."""
    broken = tmp_path / "broken"
    broken.write_text("no vector")
    config = RunConfig(adapter=("oft",), seeds=(2,))
    for path in (None, broken, tmp_path / "nowhere", vector(tmp_path, adapter="lora + oft", seed=None)):
        assert of_vector(config, path) == (config, [])
    # what `WeightVector` writes of a vector that was made from folders of the user's
    foreign = vector(tmp_path, adapter="unknown", behavior="unnamed", seed=0)
    assert of_vector(config, foreign, adapter=("oft",), seeds=(2,)) == (config, [])
