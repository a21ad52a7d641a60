"""Every reader of files from elsewhere, with whatever a generator of bad files thinks of: a result, or one message."""

import json
import math
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from runs import BEHAVIOR
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tiny import random_lora, tiny

from weightsteer.adapters.folder import AdapterFolder
from weightsteer.data.behaviors import Behavior
from weightsteer.data.evals.files import FileRows
from weightsteer.errors import WeightsteerError
from weightsteer.experiments.gaming.config import GamingConfig
from weightsteer.experiments.stages.vector import file_metadata
from weightsteer.experiments.sweep.config import RunConfig
from weightsteer.files import parse_json, read_piece
from weightsteer.runtime.models import ModelSpec
from weightsteer.runtime.store import RECORD, Provenance, Store
from weightsteer.vector import WeightVector
from weightsteer.vector.header import sealed

fuzzed = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(["lora", "(", "1"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)


def mutated(draw: st.DrawFn, content: Any) -> Any:
    """A JSON value in which one value, at whatever depth, is another one, is gone, or is there twice."""
    if isinstance(content, dict) and content and draw(st.integers(0, 4)):
        name = draw(st.sampled_from(sorted(content)))
        if not draw(st.integers(0, 5)):
            return {key: value for key, value in content.items() if key != name}
        return {**content, name: mutated(draw, content[name])}
    if isinstance(content, list) and content and draw(st.integers(0, 4)):
        index = draw(st.integers(0, len(content) - 1))
        if not draw(st.integers(0, 5)):
            return [*content, content[index]]
        return [*content[:index], mutated(draw, content[index]), *content[index + 1 :]]
    return draw(VALUES)


def quietly(read: Any, *arguments: Any) -> None:
    """Nothing but our own error may come of it."""
    with suppress(WeightsteerError):
        read(*arguments)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("fuzz")
    model, _ = tiny("qwen3", layers=1)
    positive, negative = (random_lora(model, home / f"branch{seed}", seed, targets=["q_proj"]) for seed in (1, 2))
    WeightVector.from_adapters(positive, negative, model).save(home / "good.safetensors")
    made = Store(home / "out").make(Provenance("data", {"seed": 1}, ()), lambda work: (work / "a").touch())
    shutil.copy(made.path / RECORD, home / "record.json")
    return home


@fuzzed
@given(st.data())
def test_behaviours(home: Path, data: st.DataObject) -> None:
    """Text inserted anywhere, bytes, and whole trees of values."""
    path = home / "kind.yaml"
    at = data.draw(st.integers(0, len(BEHAVIOR)))
    piece = data.draw(
        st.text(max_size=12) | st.sampled_from(["&a ", "*a", "!!int ", "? ", "- - ", "\t", "<<: *a\n", "]"])
    )
    inserted = (BEHAVIOR[:at] + piece + BEHAVIOR[at:]).encode("utf-8", "surrogatepass")
    path.write_bytes(data.draw(st.just(inserted) | st.binary(max_size=40) | VALUES.map(lambda it: repr(it).encode())))
    quietly(Behavior.load, path)


@fuzzed
@given(st.data())
def test_rows(home: Path, data: st.DataObject) -> None:
    """JSONL and CSV, of rows with a wrong value, and of anything."""
    suffix = data.draw(st.sampled_from([".jsonl", ".csv"]))
    row = {
        "prompt": "Is it so?",
        "label": 1,
        "choices": ["Yes", "No"],
        "messages": None,
        "thinking_tokens": 0,
        "item": "a",
        "cluster": "b",
        "answer_prefix": "",
    }
    lines = [json.dumps(mutated(data.draw, row)) for _ in range(2)]
    content = data.draw(st.just("\n".join(lines)) | st.text(max_size=60))
    (home / f"rows{suffix}").write_bytes(content.encode("utf-8", "surrogatepass"))
    model, _ = tiny("qwen3", layers=1)
    quietly(FileRows(data=home / f"rows{suffix}").items, model)


@fuzzed
@given(st.data())
def test_vectors(home: Path, data: st.DataObject) -> None:
    """A header with a wrong value and a digest that fits; and a file cut or changed at any byte."""
    good, path = home / "good.safetensors", home / "bad.safetensors"
    with safe_open(good, framework="pt") as file:
        header = json.loads(file.metadata()["weightsteer"])
    if data.draw(st.booleans()):
        del header["digest"]
        changed = mutated(data.draw, header)
        with suppress(ValueError):  # NaN, or half of a character
            changed = sealed(changed) if isinstance(changed, dict) else changed
        save_file(load_file(good), path, {"weightsteer": json.dumps(changed)})
    else:
        content = bytearray(good.read_bytes())
        content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
        path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    model, _ = tiny("qwen3", layers=1)

    def used() -> None:
        vector = WeightVector.load(path, model, other_base=True)
        assert all(math.isfinite(norm) for norm in vector.norms().values())
        assert all(bool(vector.delta(name).isfinite().all()) for name in vector.names)
        repr(vector)

    quietly(used)
    file_metadata(path)


@fuzzed
@given(st.data())
def test_adapters(home: Path, data: st.DataObject) -> None:
    """adapter_config.json and training.json with a wrong value."""
    folder = home / "branch1"
    config = json.loads((home / "branch2" / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(mutated(data.draw, config)))
    record = {"side": "positive", "base": {"name": "a", "hash": "b"}, "recipe": {"name": "paper"}, "behavior": "kind"}
    (folder / "training.json").write_text(json.dumps(mutated(data.draw, record)))
    model, _ = tiny("qwen3", layers=1)
    quietly(AdapterFolder.read, folder)
    quietly(WeightVector.from_adapters, folder, home / "branch2", model)


@fuzzed
@given(st.data(), st.sampled_from([RunConfig, GamingConfig]))
def test_configurations(data: st.DataObject, kind: type[RunConfig] | type[GamingConfig]) -> None:
    """run.json with a wrong value."""
    quietly(kind.checked, mutated(data.draw, kind().model_dump(mode="json")), "run.json")


@fuzzed
@given(st.data())
def test_models_and_records(home: Path, data: st.DataObject) -> None:
    """The configuration of a model, the record of an artifact, and a piece of unfinished work."""
    folder = home / "model"
    folder.mkdir(exist_ok=True)
    model, _ = tiny("qwen3", layers=1)
    changed = mutated(data.draw, json.loads(model.config.to_json_string()))
    (folder / "config.json").write_text(json.dumps(changed))
    quietly(ModelSpec.of, str(folder))
    store = Store(home / "out")
    (artifact,) = (home / "out" / ".store").glob("data-*")
    (artifact / RECORD).write_text(json.dumps(mutated(data.draw, json.loads((home / "record.json").read_text()))))
    store.listing()
    store.verify()
    (home / "piece").write_bytes(data.draw(st.binary(max_size=50)))
    assert read_piece(home / "piece") is None
    with suppress(ValueError):
        parse_json(data.draw(st.text(max_size=30) | st.binary(max_size=30)))
