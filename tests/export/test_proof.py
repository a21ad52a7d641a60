import json
from dataclasses import replace

import pytest
import torch
from made_vectors import Q, low_rank, quick, vector
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file, save_file
from tiny import tiny
from vectors import batch, logits, peft_logits

from weightsteer.errors import WeightsteerError
from weightsteer.export import export_peft, peft_folder, proof
from weightsteer.export.proof import between, default_probe, prove
from weightsteer.models import render_chat
from weightsteer.steering import steer


def test_the_proof_says_what_plain_peft_says(tmp_path):
    """Its figures are what a reader trusts the folder by: they must be those of PEFT's own forward."""
    model, v = quick()
    ids = batch(rows=3)
    report = export_peft(v, tmp_path / "exported", model=model, probe=ids)
    plain = logits(model, ids)
    with steer(model, v, 1.0):
        steered = logits(model, ids)
    apart = (peft_logits(model, report.folder, ids) - steered).abs()
    assert report.proof.logits.max <= float(apart.max()) + 2e-5
    effect = (steered - plain).abs()
    assert report.proof.effect.max == pytest.approx(float(effect.max()), rel=1e-4)
    assert report.proof.effect.mean == pytest.approx(float(effect.mean()), rel=1e-4)
    assert report.proof.probe["tokens"] == ids.numel()
    written = json.loads((report.folder / "proof.json").read_text())
    assert written["passed"] is True
    assert written["vector"] == v.digest
    assert written["versions"].keys() >= {"torch", "transformers", "peft", "weightsteer"}
    assert written["model"]["dtype"] == "float32"
    other = export_peft(v, tmp_path / "other", model=model, probe=batch(rows=3, seed=1))
    assert other.proof.probe["hash"] != written["probe"]["hash"]


def broken(monkeypatch, change):
    """PEFT as it would be if it read the folder wrongly."""
    real = PeftModel.from_pretrained

    def from_pretrained(model, folder, **options):
        adapted = real(model, folder, **options)
        with torch.no_grad():
            change([module for module in adapted.modules() if isinstance(module, LoraLayer)])
        return adapted

    monkeypatch.setattr(proof.PeftModel, "from_pretrained", from_pretrained)


def negated(layers):
    for layer in layers:
        layer.scaling["default"] *= -1


def without_one(layers):
    layers[5].lora_B["default"].weight.zero_()


def not_a_number(layers):
    layers[5].lora_B["default"].weight[0, 0] = torch.nan


@pytest.mark.parametrize("change", [negated, without_one, not_a_number])
def test_a_failing_proof_leaves_no_folder(tmp_path, monkeypatch, change):
    """A folder that looks complete and is another vector would be shipped; an older good one must survive."""
    model, v = quick()
    good = export_peft(v, tmp_path / "good", model=model).folder
    before = {path.name: path.read_bytes() for path in good.iterdir()}
    broken(monkeypatch, change)
    for out in (tmp_path / "new" / "exported", good):
        with pytest.raises(WeightsteerError, match="not proved, so it was not kept"):
            export_peft(v, out, model=model)
    assert list((tmp_path / "new").iterdir()) == []
    assert {path.name: path.read_bytes() for path in good.iterdir()} == before
    assert not [path for path in tmp_path.iterdir() if "partial" in path.name]


def test_a_lost_tensor_is_found_though_no_logit_tells(tmp_path):
    """PEFT only warns of keys it does not find; with a small vector or in half precision no logit gives it away."""
    model, v = quick()
    small = v * 1e-6
    folder = export_peft(small, tmp_path / "exported").folder
    probe = default_probe(model, None)
    assert prove(folder, small, model, probe).passed
    file = folder / "adapter_model.safetensors"
    tensors = load_file(file)
    key = next(key for key in tensors if "lora_B" in key)
    save_file({f"{name}x" if name == key else name: tensor for name, tensor in tensors.items()}, file, {"format": "pt"})
    with pytest.warns(UserWarning, match="missing adapter keys"):
        found = prove(folder, small, model, probe)
    assert found.logits.max <= found.tolerance
    assert not found.passed
    with pytest.raises(WeightsteerError, match=r"other modules than the vector, model\.layers"):
        prove(folder, small.drop(0), model, probe)


@pytest.mark.filterwarnings("ignore:.*missing adapter keys.*")
def test_what_peft_cannot_load_is_not_kept(tmp_path, monkeypatch):
    """The error of another library must become one that says what to do."""
    model, v = quick()

    def refused(*_, **__):
        raise ValueError("Target module Thing() is not supported.")

    monkeypatch.setattr(proof.PeftModel, "from_pretrained", refused)
    with pytest.raises(WeightsteerError, match=r"Thing\(\) is not supported.*v\.drop"):
        export_peft(v, tmp_path / "exported", model=model)
    assert not (tmp_path / "exported").exists()


def test_half_precision_is_judged_by_its_own_rounding(tmp_path):
    """In bf16 no two orders of summation agree to 1e-4; but a wrong adapter must still fail."""
    model, v = quick()
    model = model.bfloat16()
    report = export_peft(v, tmp_path / "exported", model=model)
    assert report.proof.model["dtype"] == "bfloat16"
    assert 1e-4 < report.proof.tolerance < report.proof.effect.max
    assert not replace(report.proof, logits=report.proof.effect).passed
    assert not replace(report.proof, weights=1e-3).passed


def test_the_default_probe_is_made_of_chats():
    """Random ids reach states that no chat does; prompts of different length need no padding."""
    model, tokenizer = tiny("gemma")
    rows = default_probe(model, tokenizer)
    assert rows[0] == render_chat(tokenizer, [{"role": "user", "content": "Is honesty always the best policy?"}])
    assert len({len(row) for row in rows}) > 1
    ids = torch.tensor(default_probe(model, None))
    assert ids.shape == (4, 16)
    assert 0 <= int(ids.min()) <= int(ids.max()) < model.config.vocab_size
    assert ids.tolist() == default_probe(model, None)


def test_nan_is_never_equal():
    """The maximum of numbers with a NaN among them must not be a number, or a diverged model would be proved."""
    first, second = [torch.zeros(2, 3), torch.zeros(2, 3)], [torch.zeros(2, 3), torch.full((2, 3), torch.nan)]
    found = between(first, second)
    assert found.max != found.max
    model, _ = tiny("qwen3")
    v = vector({Q: [low_rank(model, Q)]}, model)
    assert v.names == [Q]
    with pytest.raises(WeightsteerError, match="not proved"):
        peft_folder._check_proof(proof.Proof(0.0, found, 1.0, found, {}, {}, {}))
