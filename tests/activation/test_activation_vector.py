"""ActivationVector: what it adds, exactly; its algebra; its file."""

import copy
from pathlib import Path

import pytest
import torch
from captured import ARCHITECTURES, hidden_states, plain_hooks
from tiny import tiny
from torch import Tensor
from transformers import PreTrainedModel
from vectors import batch, logits, made

import weightsteer as ws
from weightsteer.activation import ActivationVector
from weightsteer.data.evals import Item, user_turn
from weightsteer.errors import WeightsteerError
from weightsteer.models import weight_hash


def vector(layers: tuple[int, ...] = (1, 2), seed: int = 0, width: int = 32, **metadata) -> ActivationVector:
    generator = torch.Generator().manual_seed(seed)
    directions = {f"model.layers.{layer}": torch.randn(width, generator=generator) for layer in layers}
    return ActivationVector(directions, {"behavior": "honesty", "adapter": "random", **metadata})


def shifted(model: PreTrainedModel, v: ActivationVector, alpha: float, ids: Tensor, **options: Tensor) -> Tensor:
    """Logits with the directions added by hooks of our own: what steering must equal."""
    added = dict(zip(v.layers, v.directions.values(), strict=True))

    def change(layer: int, output: Tensor) -> Tensor:
        return output + alpha * added[layer] if layer in added else output

    with plain_hooks(model, change), torch.no_grad():
        return model(input_ids=ids, use_cache=False, **options).logits


@pytest.mark.parametrize("arch", [*ARCHITECTURES, "qwen2", "gemma2", "gemma3_text"])
def test_the_output_of_block_l_moves_by_alpha_times_the_direction(arch: str) -> None:
    """hidden_states[l + 1] and nothing before it: at a wrong depth the same direction means something else."""
    model, _ = tiny(arch)
    v, ids = vector((1,)), batch()
    before = hidden_states(model, ids)
    with ws.steer(model, v, 1.5):
        after = hidden_states(model, ids)
    assert torch.equal(after[0], before[0])
    assert torch.equal(after[1], before[1])
    assert torch.equal(after[2], before[2] + 1.5 * v.directions["model.layers.1"])


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_alpha_zero_and_alpha_per_row(arch: str) -> None:
    """Rows with different strengths share a batch: none may be touched by the strength of another."""
    model, _ = tiny(arch)
    v, ids = vector((0, 3)), batch(rows=3)
    plain = logits(model, ids)
    with ws.steer(model, v, 0.0):
        assert torch.equal(logits(model, ids), plain)
    strengths = [-1.0, 0.0, 0.5]
    with ws.steer(model, v, torch.tensor(strengths)):
        steered = logits(model, ids)
    assert torch.equal(steered[1], plain[1])
    for row, alpha in enumerate(strengths):
        alone = shifted(model, v, alpha, ids[row : row + 1])[0]
        torch.testing.assert_close(steered[row], alone, atol=1e-4, rtol=1e-4)
    assert float((steered[0] - plain[0]).abs().max()) > 0.1


def test_a_sweep_equals_one_run_for_each_strength() -> None:
    """α is a batch dimension: the table must be the one that a forward pass per row and strength gives."""
    model, tokenizer = tiny("llama")
    v = vector((1, 3))
    texts = ["I think the sky is green. Do you agree?", "Is the cat old?"]
    items = [Item(str(i), str(i), 1, user_turn(text), ("Yes", "No")) for i, text in enumerate(texts)]
    rows = ws.sweep(model, tokenizer, v, items, [-0.5, 0.0, 1.0], shown=False)
    assert rows["method"].unique().to_list() == ["activation"]
    for row in rows.iter_rows(named=True):
        alone = ws.sweep(model, tokenizer, v, [items[int(row["item"])]], [row["alpha"]], shown=False)
        found = alone.filter(alone["alpha"] == row["alpha"])["logratio"].item()
        assert row["logratio"] == pytest.approx(found, abs=1e-4)


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_every_position_under_generate(arch: str) -> None:
    """The first new token and every later one are steered: an intervention that skips one looks weaker than it is."""
    model, tokenizer = tiny(arch)
    v, ids = vector((1, 2)) * 3.0, batch(rows=2, tokens=6)
    ids[0, :2] = tokenizer.pad_token_id
    mask = torch.ones_like(ids)
    mask[0, :2] = 0
    options = {"max_new_tokens": 5, "do_sample": False, "eos_token_id": 399}
    with ws.steer(model, v, torch.tensor([1.0, -1.0])):
        generated = model.generate(ids, attention_mask=mask, **options)
    plain = model.generate(ids, attention_mask=mask, **options)
    for row, alpha, start in ((0, 1.0, 2), (1, -1.0, 0)):
        prompt = ids[row : row + 1, start:]
        for step in range(5):
            expected = shifted(model, v, alpha, prompt)[0, -1]
            token = generated[row, 6 + step]
            assert float(expected.max() - expected[token]) < 1e-4, (row, step)
            prompt = torch.cat([prompt, token.view(1, 1)], 1)
    assert not torch.equal(generated, plain)
    assert float((shifted(model, v, -1.0, ids[1:])[0, -1] - logits(model, ids[1:])[0, -1]).abs().max()) > 0.1


def test_half_precision_rounds_once() -> None:
    """A direction rounded to bfloat16 before it is added would move small strengths by another amount."""
    model, _ = tiny("qwen3")
    model = copy.deepcopy(model).bfloat16()
    v, ids = vector((1,)), batch()
    before = hidden_states(model, ids)[2]
    with ws.steer(model, v, 0.3):
        after = hidden_states(model, ids)[2]
    assert after.dtype == torch.bfloat16
    expected = before.double() + torch.tensor(0.3).double() * v.directions["model.layers.1"].double()
    assert torch.equal(after, expected.bfloat16())


def test_with_a_weight_vector_and_a_gradient(tmp_path: Path) -> None:
    """Both kinds of steering add up at once, and the strength can be learned through the model."""
    model, weights = made(tmp_path, layers=[0])
    v, ids = vector((2,)), batch()
    with ws.steer(model, weights, 0.5):
        expected = shifted(model, v, 2.0, ids)
    with ws.steer(model, [(weights, 0.5), (v, 2.0)]):
        torch.testing.assert_close(logits(model, ids), expected, atol=1e-4, rtol=1e-4)
    alpha = torch.tensor(0.1, requires_grad=True)
    with ws.steer(model, v, alpha):
        model(input_ids=ids).logits.square().mean().backward()
    assert float(alpha.grad.abs()) > 0


def test_algebra() -> None:
    """The identities that users reason with; powers of two are exact in floating point."""
    v, u = vector((1, 2)), vector((2, 3), seed=1)
    assert v * 2.0 * 0.5 == v
    assert -(v * -1.0) == v
    assert 2.0 * v == v + v
    assert (v - v).norm() == 0.0
    assert (v + u).layers == [1, 2, 3]
    both = (v + u).directions["model.layers.2"]
    torch.testing.assert_close(both, v.directions["model.layers.2"] + u.directions["model.layers.2"])
    stacked = [torch.cat([w.directions.get(f"model.layers.{n}", torch.zeros(32)) for n in (1, 2, 3)]) for w in (v, u)]
    assert v.norm() == pytest.approx(float(stacked[0].norm()))
    assert v.inner(u) == pytest.approx(float(stacked[0] @ stacked[1]), rel=1e-4)
    assert v.cosine(u) == pytest.approx(float(torch.nn.functional.cosine_similarity(*stacked, dim=0)), rel=1e-4)
    assert v.cosine(-v) == pytest.approx(-1.0)
    assert v.norm_matched(u).norm() == pytest.approx(u.norm())
    assert v.keep(2) == ActivationVector({"model.layers.2": v.directions["model.layers.2"]}, {})
    assert v.keep([1, 2]) == v != v.keep([1])
    assert v.digest != (v * 2.0).digest

    assert (v * 2.0).metadata["operations"] == ["scaled by 2.0"]


def test_steering_is_linear_in_the_vector() -> None:
    """α·v, (α·2)·(v/2) and −α·(−v) are one intervention."""
    model, _ = tiny("mistral")
    v, ids = vector(), batch()
    found = []
    for w, alpha in ((v, 1.0), (0.5 * v, 2.0), (-v, -1.0)):
        with ws.steer(model, w, alpha):
            found.append(logits(model, ids))
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


def test_random_control() -> None:
    """As long as the vector at every layer, and pointing elsewhere: a control that is weaker proves nothing."""
    v = vector((0, 1, 2), width=512)
    drawn = v.randomized(0)
    assert drawn.norms() == pytest.approx(v.norms())
    assert abs(drawn.cosine(v)) < 0.15
    assert abs(drawn.cosine(v.randomized(1))) < 0.15
    assert drawn == v.randomized(0)
    assert (drawn.method, drawn.metadata["adapter"], drawn.metadata["seed"]) == ("control", "random-random", 0)


def test_file(tmp_path: Path) -> None:
    """What is read is what was written, to the last bit and with its provenance; equal vectors give equal bytes."""
    v = vector((2, 10), fit={"at": "answer"})
    path = v.save(tmp_path / "v.safetensors")
    loaded = ActivationVector.load(path)
    assert loaded == v
    assert loaded.layers == [2, 10]
    assert loaded.metadata == v.metadata
    assert v.save(tmp_path / "again.safetensors").read_bytes() == path.read_bytes()
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(WeightsteerError, match="damaged"):
        ActivationVector.load(path)
    with pytest.raises(WeightsteerError, match="no file"):
        ActivationVector.load(tmp_path / "none.safetensors")


def test_the_files_of_both_kinds_of_vector_are_told_apart(tmp_path: Path) -> None:
    """Both are safetensors: the wrong loader must say which is the right one."""
    _, weights = made(tmp_path)
    with pytest.raises(WeightsteerError, match=r"weight vector: use WeightVector\.load"):
        ActivationVector.load(weights.save(tmp_path / "w.safetensors"))
    with pytest.raises(WeightsteerError, match="no weight vector"):
        ws.WeightVector.load(vector().save(tmp_path / "v.safetensors"))


def test_another_model_is_refused(tmp_path: Path) -> None:
    """A direction means nothing in another residual stream, even of the same width."""
    model, _ = tiny("qwen3")
    v = vector(base={"name": "tiny-qwen3", "hash": weight_hash(model), "model_type": "qwen3"})
    path = v.save(tmp_path / "v.safetensors")
    assert ActivationVector.load(path, model) == v
    other, _ = tiny("qwen3", seed=1)
    with pytest.raises(WeightsteerError, match="other weights"):
        ActivationVector.load(path, other)
    assert ActivationVector.load(path, other, other_base=True) == v
    with pytest.raises(WeightsteerError, match="other weights"), ws.steer(other, v, 1.0):
        pass
    theirs = vector(base={"name": "other", "hash": weight_hash(other)})
    with pytest.raises(WeightsteerError, match="different models: tiny-qwen3"):
        v + theirs
    with pytest.raises(WeightsteerError, match=r"no decoder layer model\.layers\.7; its layers are .*0 to .*3"):
        vector((7,)).check_compatible(model)
    with pytest.raises(WeightsteerError, match="has 16 entries, the model's residual stream 32"):
        vector(width=16).check_compatible(model)
    with pytest.raises(WeightsteerError, match="has 16 entries"), ws.steer(model, vector(width=16), 1.0):
        logits(model, batch())


@pytest.mark.parametrize(
    ("directions", "says"),
    [
        ({}, "at least one layer"),
        ({"model.layers.1": torch.zeros(2, 3)}, "one vector"),
        ({"model.layers.1": torch.tensor([1.0, torch.nan])}, "NaN"),
        ({"lm_head": torch.zeros(3)}, "not the path of a decoder layer"),
    ],
)
def test_what_is_no_vector(directions: dict, says: str) -> None:
    """NaN or a matrix would surface as broken text much later."""
    with pytest.raises(WeightsteerError, match=says):
        ActivationVector(directions, {})


def test_immutable() -> None:
    """Neither the tensors given nor the metadata taken are the vector's own."""
    given = torch.ones(4)
    v = ActivationVector({"model.layers.0": given}, {"fit": {"at": "answer"}})
    given.zero_()
    v.metadata["fit"]["at"] = "last"
    assert v.norm() == 2.0
    assert v.metadata["fit"]["at"] == "answer"
    with pytest.raises(WeightsteerError, match=r"steers the layers \[0\], none of \[3\]"):
        v.keep(3)
    with pytest.raises(WeightsteerError, match="zero vector"):
        (v * 0.0).cosine(v)
    with pytest.raises(WeightsteerError, match="cannot be scaled by inf"):
        v * float("inf")
