import json
from copy import deepcopy

import pytest
import torch
from made_vectors import DOWN, EMBEDDING, NORM, Q, bias, dense, low_rank, quick, scales, vector
from peft import PeftModel
from tiny import random_lora, tiny
from transformers import GPT2Config, GPT2LMHeadModel
from vectors import ARCHITECTURES, batch, hooks, logits, made, peft_logits, same_weights, vector_of, weights

from weightsteer.errors import WeightsteerError
from weightsteer.export import export_peft, merge_into
from weightsteer.steering import steer
from weightsteer.terms import LowRank, Sum
from weightsteer.vector import WeightVector

FILES = ["README.md", "adapter_config.json", "adapter_model.safetensors", "proof.json", "weightsteer.json"]


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_plain_peft_reads_the_export(arch, tmp_path):
    """Whoever loads the folder without this package must get the same logits."""
    model, v = made(tmp_path, arch)
    report = export_peft(v, tmp_path / "exported", model=model)
    ids = batch()
    exported = peft_logits(model, report.folder, ids)
    with steer(model, v, 1.0):
        assert (logits(model, ids) - exported).abs().max() <= 1e-4
    config = json.loads((report.folder / "adapter_config.json").read_text())
    assert config["r"] == config["lora_alpha"] == report.rank == 8
    assert report.left_out is None
    assert report.proof.passed
    assert report.proof.logits.max <= 1e-4 < report.proof.effect.max
    zero = random_lora(model, tmp_path / "zero", seed=0, std=0.0, rank=8)
    back = WeightVector.from_adapters(report.folder, zero, model)
    assert all(torch.allclose(back.delta(name), v.delta(name), atol=1e-6) for name in v.names)


@pytest.mark.parametrize("alpha", [0.5, -2.0])
def test_another_strength_is_baked_in(alpha, tmp_path):
    """Runtimes that know no strength get it from the folder; for the others it must be said what is inside."""
    model, v = quick()
    report = export_peft(v, tmp_path / "exported", alpha=alpha, model=model)
    ids = batch()
    exported = peft_logits(model, report.folder, ids)
    with steer(model, v, alpha):
        assert (logits(model, ids) - exported).abs().max() <= 1e-4
    record = json.loads((report.folder / "weightsteer.json").read_text())
    assert (record["alpha"], record["digest"]) == (alpha, v.digest)


def test_modules_of_different_ranks_are_padded(tmp_path):
    """Sums have other ranks here and there; runtimes that read no rank patterns need one rank."""
    model, v = quick()
    u = vector_of(model, tmp_path, seed=5, rank=3, layers=[1], targets=["q_proj"])
    total = v - 0.5 * u + (v - v).keep(0)
    report = export_peft(total, tmp_path / "exported")
    assert report.rank == 14
    ids = batch()
    exported = peft_logits(model, report.folder, ids)
    with steer(model, total, 1.0):
        assert (logits(model, ids) - exported).abs().max() <= 1e-4
    nothing = export_peft(v - v, tmp_path / "nothing", model=model)
    assert torch.equal(peft_logits(model, nothing.folder, ids), logits(model, ids))


def test_the_same_vector_gives_the_same_bytes(tmp_path):
    """An export that differs from run to run cannot be content-addressed."""
    model, v = quick()
    first, second = (export_peft(v, tmp_path / name, model=model).folder for name in "ab")
    assert sorted(path.name for path in first.iterdir()) == FILES
    assert all((first / name).read_bytes() == (second / name).read_bytes() for name in FILES)
    config = json.loads((first / "adapter_config.json").read_text())
    assert config["target_modules"] == sorted(v.names)


def test_transposed_weights(tmp_path):
    """GPT-2 stores its weights the other way round: steering, merging and export must agree with PEFT."""
    config = GPT2Config(vocab_size=300, n_embd=32, n_layer=2, n_head=4, initializer_range=0.15)
    torch.manual_seed(0)
    model = GPT2LMHeadModel(config).eval()
    v = vector_of(model, tmp_path, targets=["c_attn", "c_fc"])
    assert v.delta("transformer.h.0.attn.c_attn").shape == (96, 32)
    zero = random_lora(model, tmp_path / "zero", seed=0, std=0.0, targets=["c_attn", "c_fc"])
    ids = batch() % 300
    branch = WeightVector.from_adapters(tmp_path / "positive1", zero, model)
    expected = peft_logits(model, tmp_path / "positive1", ids)
    with steer(model, branch, 1.0):
        assert (logits(model, ids) - expected).abs().max() <= 1e-4
    merged = deepcopy(model)
    merge_into(v, merged, -1.5)
    with steer(model, v, -1.5):
        assert (logits(model, ids) - logits(merged, ids)).abs().max() <= 1e-4
    report = export_peft(v, tmp_path / "exported", model=model)
    exported = peft_logits(model, report.folder, ids)
    with steer(model, v, 1.0):
        assert (logits(model, ids) - exported).abs().max() <= 1e-4
    assert report.proof.weights <= 1e-6


def test_export_keeps_the_name_of_the_base(tmp_path):
    """PEFT looks there for the base model; a path of this machine would mislead everyone else."""
    v = WeightVector(
        {"a": Sum((2, 3), [(2.0, LowRank(torch.ones(2, 1), torch.ones(1, 3)))])},
        {"base": {"name": "owner/model", "hash": "00"}},
    )
    report = export_peft(v, tmp_path / "new" / "folder")
    config = json.loads((report.folder / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "owner/model"
    assert json.loads((report.folder / "weightsteer.json").read_text())["digest"] == v.digest
    assert report.proof is None
    assert "not proved" in str(report)


def singular(matrix):
    return torch.linalg.svdvals(matrix.double())


@pytest.mark.parametrize(("rank", "energy"), [(5, None), (None, 0.9)])
def test_truncation_is_the_nearest_lora_and_says_what_it_loses(tmp_path, rank, energy):
    """What is lost must be what the singular values say, and what it does to logits must be seen before shipping."""
    model, _ = tiny("qwen3")
    v = vector(scales(model), model)
    probe = batch()
    report = export_peft(v, tmp_path / "exported", rank=rank, energy=energy, alpha=2.0, model=model, probe=probe)
    adapted = PeftModel.from_pretrained(deepcopy(model), report.folder).get_base_model()
    exported = {
        name: layer.get_delta_weight("default")
        for name, layer in adapted.named_modules()
        if hasattr(layer, "get_delta_weight")
    }
    assert exported.keys() == set(v.names)
    lost, whole = 0.0, 0.0
    for name in v.names:
        squares = singular(2.0 * v.delta(name)).square()
        kept = rank or int((squares.cumsum(0) < 0.9 * squares.sum()).sum()) + 1
        beyond, all_of_it = float(squares[kept:].sum()), float(squares.sum())
        assert (2.0 * v.delta(name) - exported[name]).norm() == pytest.approx(beyond**0.5, rel=1e-4)
        assert report.left_out.matrices.modules[name].energy_lost == pytest.approx(beyond / all_of_it, rel=1e-4)
        lost, whole = lost + beyond, whole + all_of_it
    assert report.left_out.energy == pytest.approx(lost / whole, rel=1e-4)
    with steer(model, v, 2.0):
        steered = logits(model, probe)
    apart = (steered - peft_logits(model, report.folder, probe)).abs()
    assert report.cost.max == pytest.approx(float(apart.max()), rel=1e-3)
    assert report.cost.mean == pytest.approx(float(apart.mean()), rel=1e-3)
    assert report.cost.max > 1e-2
    assert report.proof.passed
    assert "not exact" in str(report)
    written = json.loads((report.folder / "proof.json").read_text())
    assert written["left_out"]["truncation"]["energy_lost"] == report.left_out.energy
    assert written["cost"]["max"] == report.cost.max


def test_low_rank_vectors_can_be_made_smaller(tmp_path):
    """A sum of many vectors has a large rank and often little in it; energy 1 must keep all there is."""
    model, v = quick()
    total = v + 1e-3 * quick(seed=999)[1]
    whole = export_peft(total, tmp_path / "whole", energy=1.0, model=model)
    assert whole.rank == 16
    assert whole.left_out.energy == 0
    assert whole.cost.max <= 1e-4
    small = export_peft(total, tmp_path / "small", energy=0.999, model=model)
    assert small.rank <= 8
    assert 0 < small.left_out.energy < 1e-3


def test_what_is_not_exact_is_refused(tmp_path):
    """A folder that silently lacks a part of the vector would be measured as if it were the vector."""
    model, _ = tiny("qwen2")
    v = vector({Q: [low_rank(model, Q)], DOWN: scales(model)[DOWN]}, model)
    out = tmp_path / "exported"
    with pytest.raises(
        WeightsteerError, match=r"down_proj is not of low rank .*column_scale.*--rank.*--energy.*--merged"
    ):
        export_peft(v, out)
    with pytest.raises(WeightsteerError, match=r"bias of .*q_proj.*v\.drop.*drop_bias"):
        export_peft(vector({Q: [low_rank(model, Q), bias(model, Q)]}, model), out)
    full = vector({name: [dense(model, name)] for name in (EMBEDDING, NORM, Q)}, model)
    with pytest.raises(WeightsteerError, match=r"only its base model can tell.*model="):
        export_peft(full, out, rank=4)
    with pytest.raises(WeightsteerError, match=r"embed_tokens is a Embedding.*v\.drop"):
        export_peft(full, out, rank=4, model=model)
    with pytest.raises(WeightsteerError, match="RMSNorm"):
        export_peft(full.drop("embed_tokens"), out, rank=4, model=model)
    for wrong in ({"rank": 0}, {"energy": 0.0}, {"energy": 1.1}, {"rank": 3, "energy": 0.5}, {"alpha": float("nan")}):
        with pytest.raises(WeightsteerError):
            export_peft(v, out, **wrong)
    with pytest.raises(WeightsteerError, match="at least one prompt"):
        export_peft(v.keep("q_proj"), out, model=model, probe=[])
    assert list(tmp_path.iterdir()) == []
    assert export_peft(full.keep(Q), out, rank=4, model=model).proof.passed


def test_biases_are_left_out_when_that_is_asked_for(tmp_path):
    """Then the rest goes out, with the size of what is missing and what that does."""
    model, _ = tiny("qwen2")
    v = vector({Q: [low_rank(model, Q), bias(model, Q)], DOWN: [bias(model, DOWN)]}, model)
    report = export_peft(v, tmp_path / "exported", drop_bias=True, model=model)
    expected = vector({Q: [low_rank(model, Q)]}, model)
    ids = batch()
    exported = peft_logits(model, report.folder, ids)
    with steer(model, expected, 1.0):
        assert (logits(model, ids) - exported).abs().max() <= 1e-4
    biases = torch.cat([v.terms[name].bias_delta() for name in v.names])
    assert report.left_out.bias == pytest.approx(float(biases.norm()))
    assert report.modules == 1
    assert report.cost.max > 1e-2
    with pytest.raises(WeightsteerError, match="nothing is left"):
        export_peft(v.keep(DOWN), tmp_path / "nothing", drop_bias=True)


def test_an_older_export_is_replaced_and_other_folders_are_not(tmp_path):
    """Running the same command again is fine; overwriting somebody's checkpoint is not."""
    model, v = quick()
    out = tmp_path / "exported"
    export_peft(v, out, model=model)
    assert not export_peft(v * 2.0, out).proof
    assert json.loads((out / "weightsteer.json").read_text())["digest"] == (v * 2.0).digest
    assert sorted(path.name for path in out.iterdir()) == [name for name in FILES if name != "proof.json"]
    (out / "notes.txt").write_text("mine")
    with pytest.raises(WeightsteerError, match=r"notes\.txt"):
        export_peft(v, out)
    assert (out / "notes.txt").read_text() == "mine"
    with pytest.raises(WeightsteerError, match="is a file"):
        export_peft(v, out / "notes.txt")
    with pytest.raises(WeightsteerError, match="cannot write"):
        export_peft(v, out / "notes.txt" / "below")


@pytest.mark.parametrize("training", [False, True])
def test_the_model_is_as_before(tmp_path, training):
    """The proof loads the adapter around the model's own tensors: nothing of that may stay."""
    model, v = quick()
    model.requires_grad_(True).train(training)
    model.lm_head.weight.requires_grad_(False)
    before, names = weights(model), [name for name, _ in model.named_modules()]
    flags = [parameter.requires_grad for parameter in model.parameters()]
    export_peft(v, tmp_path / "exported", model=model)
    assert same_weights(model, before)
    assert [name for name, _ in model.named_modules()] == names
    assert [parameter.requires_grad for parameter in model.parameters()] == flags
    assert hooks(model) == 0
    assert {module.training for module in model.modules()} == {training}
    assert not hasattr(model, "peft_config")
