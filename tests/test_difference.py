import json
from pathlib import Path

import pytest
from tiny import random_lora, tiny

from weightsteer.errors import WeightsteerError
from weightsteer.models import weight_hash
from weightsteer.vector import WeightVector


def record(folder: Path, **content) -> Path:
    (folder / "training.json").write_text(json.dumps(content))
    return folder


def configure(folder: Path, **changes) -> Path:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return folder


def test_different_modules_are_named(tmp_path):
    """A difference over the common modules alone is silently another vector."""
    model, _ = tiny("qwen3")
    positive = random_lora(model, tmp_path / "p", seed=1, targets=["q_proj", "v_proj"], layers=[1, 2])
    negative = random_lora(model, tmp_path / "n", seed=2, targets=["q_proj", "o_proj"], layers=[1, 2])
    with pytest.raises(WeightsteerError) as error:
        WeightVector.from_adapters(positive, negative, model)
    assert "model.layers.1.self_attn.o_proj (only in the negative one)" in str(error.value)
    assert "model.layers.2.self_attn.v_proj (only in the positive one)" in str(error.value)
    assert "q_proj" not in str(error.value)


def test_adapters_of_another_base_are_refused(tmp_path):
    """θ⁺ − θ⁻ is a behaviour only when both branches left from the same weights."""
    model, _ = tiny("qwen3")
    base = {"name": "pocket", "hash": "0" * 32}
    positive = record(random_lora(model, tmp_path / "p", seed=1), base=base)
    negative = random_lora(model, tmp_path / "n", seed=2)
    mine = weight_hash(model)
    with pytest.raises(WeightsteerError, match=rf"pocket .weights 000000000000.*tiny-qwen3 .weights {mine[:12]}"):
        WeightVector.from_adapters(positive, negative, model)
    record(positive, base={"name": "tiny-qwen3", "hash": mine})
    assert WeightVector.from_adapters(positive, negative, model).metadata["base"]["hash"] == mine


def test_names_of_the_base_must_agree_when_there_is_nothing_better(tmp_path):
    """Adapters from elsewhere carry a name only; a hub id and a local copy of it are the same name."""
    model, _ = tiny("qwen3")
    positive = configure(random_lora(model, tmp_path / "p", seed=1), base_model_name_or_path="Qwen/Qwen3-0.6B")
    negative = configure(random_lora(model, tmp_path / "n", seed=2), base_model_name_or_path="/data/Qwen3-0.6B")
    v = WeightVector.from_adapters(positive, negative, model)
    assert v.metadata["branches"]["negative"]["base_name"] == "Qwen3-0.6B"
    configure(negative, base_model_name_or_path="Qwen/Qwen3-4B")
    with pytest.raises(WeightsteerError, match=r"different base models: Qwen3-0\.6B and Qwen3-4B"):
        WeightVector.from_adapters(positive, negative, model)


def test_swapped_folders_are_noticed(tmp_path):
    """A vector of the wrong sign looks like a method that does not work."""
    model, _ = tiny("qwen3")
    positive = record(random_lora(model, tmp_path / "p", seed=1), side="positive")
    negative = record(random_lora(model, tmp_path / "n", seed=2), side="negative")
    WeightVector.from_adapters(positive, negative, model)
    with pytest.raises(WeightsteerError, match=r"trained on the negative side\. Swap the two folders"):
        WeightVector.from_adapters(negative, positive, model)
