import json
from pathlib import Path

import pytest
import torch
from made_vectors import FEW, Q, dense, scales, vector
from peft import PeftModel
from tiny import random_lora, tiny
from transformers import AutoModelForCausalLM
from vectors import batch, logits

from weightsteer.cli import main
from weightsteer.models import load_model
from weightsteer.steering import steer
from weightsteer.vector import WeightVector


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A tiny model on disk in bf16, a low-rank vector of it and one that is not of low rank."""
    root = tmp_path_factory.mktemp("models")
    model, tokenizer = tiny("qwen3")
    model.bfloat16().save_pretrained(root / "tiny")
    tokenizer.save_pretrained(root / "tiny")
    model, _ = load_model(str(root / "tiny"), dtype="float32")
    folders = [
        random_lora(model, root / side, seed=seed, targets=FEW) for seed, side in enumerate(("positive", "negative"))
    ]
    WeightVector.from_adapters(*folders, model).save(root / "low.safetensors")
    vector(scales(model), model).save(root / "scales.safetensors")
    vector({Q: [dense(model, Q)]}).save(root / "nameless.safetensors")
    return root


def test_a_lora_folder_is_proved(place, tmp_path, capsys):
    """The whole way from the shell: the base is loaded in fp32, whatever it is stored in, and the proof is there."""
    vector, out = place / "low.safetensors", tmp_path / "lora"
    line = ["export", "--vector", str(vector), "--model", str(place / "tiny"), "--out", str(out), "--alpha", "0.5"]
    assert main(line) == 0
    said = capsys.readouterr().out
    assert "proved in plain PEFT" in said
    assert Path(said.splitlines()[-1]) == out
    proof = json.loads((out / "proof.json").read_text())
    assert (proof["passed"], proof["model"]["dtype"], proof["alpha"]) == (True, "float32", 0.5)
    assert main(line) == 0


def test_truncation(place, tmp_path, capsys):
    """What a DoRA or an IA3 loses on its way into a LoRA is said on the screen."""
    line = f"export --vector {place}/scales.safetensors --model {place}/tiny --out {tmp_path}/lora --energy 0.9"
    assert main(line.split()) == 0
    said = capsys.readouterr().out
    assert "of ‖dW‖² is lost" in said
    assert "|Δlogit| it makes on the probe" in said


def test_a_merged_checkpoint(place, tmp_path, capsys):
    """In fp32 it is the steered model; in the bf16 of the base it says what it lost."""
    line = f"export --vector {place}/scales.safetensors --model {place}/tiny --out {tmp_path}/merged --merged"
    assert main([*line.split(), "--dtype", "float32"]) == 0
    assert "summed in fp32, cast once to float32" in capsys.readouterr().out
    model, _ = load_model(str(place / "tiny"), dtype="float32")
    v = WeightVector.load(place / "scales.safetensors", model)
    ids = batch()
    with steer(model, v, 1.0):
        steered = logits(model, ids)
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype="auto")
    assert merged.dtype == torch.float32
    assert (logits(merged, ids) - steered).abs().max() <= 1e-4
    assert main(line.split()) == 0
    assert "cast once to bfloat16" in capsys.readouterr().out
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype="auto").dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("--vector {place}/low.safetensors", ["cannot load the model 'tiny'", "--model", "--no-proof"]),
        ("--vector {place}/low.safetensors --model pockt", ["did you mean 'pocket'"]),
        ("--vector {place}/low.safetensors --model pocket-s", ["32×64", "80×240", "tiny"]),
        ("--vector {place}/nameless.safetensors", ["does not name its base model", "--model"]),
        ("--vector {place}/nameless.safetensors --no-proof --rank 2", ["in full", "base model"]),
        ("--vector {place}/scales.safetensors --model {place}/tiny", ["not of low rank", "--rank", "--merged"]),
        ("--vector {place}/low.safetensors --no-proof --private", ["--private", "--push"]),
        ("--vector {place}/low.safetensors --no-proof --dtype bfloat16", ["--dtype", "--merged"]),
        ("--vector {place}/low.safetensors --merged --rank 3", ["--merged", "--rank"]),
        ("--vector {place}/low.safetensors --merged --dtype bf16 --model {place}/tiny", ["unknown dtype 'bf16'"]),
        ("--vector {place}/low.safetensors --no-proof --push a/b/c", ["a/b/c", "owner/name"]),
        ("--vector {place}/low.safetensors --no-proof --rank 2 --energy 0.5", ["rank", "energy"]),
    ],
)
def test_mistakes(arguments, expected, place, tmp_path, capsys):
    """One message with cause and next step, no traceback, no folder."""
    line = ["export", *arguments.format(place=place).split(), "--out", str(tmp_path / "out")]
    assert main(line) == 2
    message = capsys.readouterr().err
    assert all(part in message for part in expected), message
    assert list(tmp_path.iterdir()) == []


def test_without_a_proof(place, tmp_path, capsys):
    """Where the base model is not at hand the folder can still be had, and says that it was not proved."""
    line = f"export --vector {place}/low.safetensors --no-proof --out {tmp_path}/lora"
    assert main(line.split()) == 0
    assert "not proved" in capsys.readouterr().out
    assert not (tmp_path / "lora" / "proof.json").exists()


def test_the_embedded_model(tmp_path, capsys):
    """What the README shows: a vector of pocket, exported without naming its base, is read by plain PEFT."""
    model, _ = load_model("pocket")
    folders = [random_lora(model, tmp_path / side, seed=seed, std=0.03) for seed, side in enumerate(("yes", "no"))]
    v = WeightVector.from_adapters(*folders, model)
    v.save(tmp_path / "vector.safetensors")
    line = f"export --vector {tmp_path}/vector.safetensors --out {tmp_path}/lora"
    assert main(line.split()) == 0
    assert "exact: nothing of the vector is lost" in capsys.readouterr().out
    ids = batch(tokens=20)
    with steer(model, v, 1.0):
        steered = logits(model, ids)
    adapted = PeftModel.from_pretrained(model, tmp_path / "lora")
    assert (logits(adapted, ids) - steered).abs().max() <= 1e-4
