import json

import pytest
import torch
from made_vectors import quick, scales, vector
from tiny import tiny
from transformers import AutoModelForCausalLM, AutoTokenizer
from vectors import batch, logits

from weightsteer.errors import WeightsteerError
from weightsteer.export import export_merged
from weightsteer.steering import steer


def test_the_checkpoint_is_the_steered_model(tmp_path):
    """It is loaded by people who have never heard of the vector."""
    model, tokenizer = tiny("qwen3")
    v = vector(scales(model), model, behavior="honesty")
    ids = batch()
    with steer(model, v, 1.5):
        steered = logits(model, ids)
    report = export_merged(v, tmp_path / "merged", model, tokenizer, alpha=1.5)
    loaded = AutoModelForCausalLM.from_pretrained(report.folder)
    assert (logits(loaded, ids) - steered).abs().max() <= 1e-4
    assert AutoTokenizer.from_pretrained(report.folder).chat_template == tokenizer.chat_template
    written = json.loads((report.folder / "merge.json").read_text())
    assert written["alpha"] == 1.5
    assert written["modules"].keys() == set(v.names)
    assert written["logits"]["max"] == report.cost.max <= 1e-4
    card = (report.folder / "README.md").read_text()
    assert "base_model: tiny-qwen3" in card
    assert "library_name: transformers" in card
    assert "plus 1.5 times a steering vector" in card
    assert json.loads((report.folder / "weightsteer.json").read_text())["digest"] == v.digest


def test_another_dtype_and_what_it_costs(tmp_path):
    """The files are of the dtype that was asked for, and the loss is written next to them."""
    model, v = quick()
    _, tokenizer = tiny("qwen3")
    with pytest.warns(UserWarning, match="eats some of the vector"):
        report = export_merged(v, tmp_path / "merged", model, tokenizer, alpha=0.01, dtype="bfloat16")
    loaded = AutoModelForCausalLM.from_pretrained(report.folder, dtype="auto")
    assert loaded.dtype == torch.bfloat16
    assert report.cost.max > 1e-3
    assert "warning: bfloat16 eats some of the vector" in (report.folder / "README.md").read_text()
    assert "eats some of the vector" in str(report)
    assert json.loads((report.folder / "merge.json").read_text())["warning"] == report.merge.warning


def test_a_refused_merge_leaves_no_folder(tmp_path):
    """A checkpoint without the vector in it must not lie where one with it was asked for."""
    model, tokenizer = tiny("qwen3")
    v = vector(scales(model), model)
    with pytest.raises(WeightsteerError, match="unknown dtype"):
        export_merged(v, tmp_path / "merged", model, tokenizer, dtype="fp99")
    assert list(tmp_path.iterdir()) == []
