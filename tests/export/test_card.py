import re

import pytest
from huggingface_hub import ModelCard
from made_vectors import DOWN, FEW, Q, bias, low_rank, quick, scales, vector
from tiny import tiny
from vectors import batch, logits, made

from weightsteer.export import export_peft
from weightsteer.steering import steer


def card_of(report):
    return ModelCard.load(report.folder / "README.md")


def snippets(card):
    return re.findall(r"```python\n(.*?)```", card.text, flags=re.DOTALL)


def test_the_hub_can_read_it(tmp_path):
    """The hub files a model by its front matter: base model and library decide who finds and can load it."""
    model, v = made(tmp_path, targets=FEW)
    v = v.with_metadata(behavior="honesty: frank | open", geometry={"cos_anti": 0.25, "reading": "Clean.", "by": {}})
    card = card_of(export_peft(v, tmp_path / "exported", model=model))
    assert card.data.base_model == "tiny-qwen3"
    assert card.data.library_name == "peft"
    assert card.data.tags == ["weightsteer", "steering-vector", "lora", "honesty-frank-open"]
    table = [line for line in card.text.splitlines() if line.startswith("|")]
    assert all(len(re.findall(r"(?<!\\)\|", line)) == 3 for line in table)
    facts = dict(
        re.fullmatch(r"\| (.*?) \| (.*) \|", line).groups() for line in table if "---" not in line and line != "| | |"
    )
    assert facts["behaviour"] == r"honesty: frank \| open"
    assert facts["adapter family"] == "lora"
    assert facts["norm ‖dW‖"] == f"{v.norm():.4g}"
    assert facts["geometry: cos_anti"] == "0.25"
    assert facts["geometry: reading"] == "Clean."
    assert facts["digest"] == v.digest
    assert v.metadata["branches"]["positive"]["digest"] in facts["positive branch"]
    assert facts["recommended α"] == "not measured"
    assert facts["exact"].startswith("yes")
    assert r"max \|Δlogit\|" in card.text.split("## Proof")[1]
    assert "--max-lora-rank 8 --lora-modules honesty-frank-open=path/to/this/folder" in card.text


def executed(code, model, folder, monkeypatch):
    """Run what the card shows, with the names of the base and the folder it was written for; its logits."""
    ids, found = batch(), {}
    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", lambda name, **_: model)
    monkeypatch.setattr("weightsteer.models.load_model", lambda name: (model, None))
    shown = code.replace("path/to/this/folder", str(folder)).replace("    ...", "    found['logits'] = run(model)")
    exec(shown, {"found": found, "run": lambda each: logits(each, ids)})
    return found["logits"], ids


@pytest.mark.parametrize(("baked", "recommended", "scale"), [(1.0, 1.5, 1.5), (0.5, -1.0, -2.0), (1.0, None, 1.0)])
def test_what_it_shows_does_what_it_says(tmp_path, monkeypatch, baked, recommended, scale):
    """People copy the code of a card: it must run, and steer at the recommended strength."""
    model, v = quick()
    if recommended is not None:
        v = v.with_metadata(recommended_alpha=recommended)
    report = export_peft(v, tmp_path / "exported", alpha=baked, model=model)
    with_peft, with_us = snippets(card_of(report))
    assert f"rescale_adapter_scale(model, {scale:g})" in with_peft
    assert f"alpha={scale:g}" in with_us
    ours, ids = executed(with_us, model, report.folder, monkeypatch)
    with steer(model, v, baked * scale):
        expected = logits(model, ids)
    assert (ours - expected).abs().max() <= 1e-4
    assert (executed(with_peft, model, report.folder, monkeypatch)[0] - expected).abs().max() <= 1e-4


def test_what_is_lost_is_said(tmp_path):
    """A truncated LoRA is another vector: whoever downloads it sees only the card."""
    model, _ = tiny("qwen2")
    v = vector({**scales(model), Q: [low_rank(model, Q), bias(model, Q)]}, model)
    report = export_peft(v, tmp_path / "exported", rank=4, drop_bias=True, model=model)
    text = card_of(report).text
    assert f"no: {report.left_out.energy:.3%} of ‖dW‖² is lost" in text
    assert f"of norm {report.left_out.bias:.4g}" in text
    assert rf"max \|Δ\| {report.cost.max:.3g}" in text
    assert v.names == [Q, DOWN]


def test_what_was_not_proved_is_said(tmp_path):
    """No proof must not read like one."""
    _, v = quick()
    text = card_of(export_peft(v, tmp_path / "exported", alpha=-0.5)).text
    assert "Not proved" in text
    assert "adds `-0.5·dW` to 8 modules" in text
    assert "a scale of s means α = -0.5·s" in text
