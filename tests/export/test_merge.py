import json
import warnings
from copy import deepcopy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from made_vectors import DOWN, EMBEDDING, HEAD, NORM, K, Q, bias, changed, dense, drawn, low_rank, scales, vector
from tiny import tiny
from torch import nn
from vectors import batch, logits, made, same_weights, vector_of, weights

from weightsteer.errors import WeightsteerError
from weightsteer.export import CastWarning, merge_into
from weightsteer.steering import steer
from weightsteer.terms import Bias, Dense, LowRank

DTYPES = (torch.float32, torch.bfloat16, torch.float16)

pytestmark = pytest.mark.filterwarnings("ignore::weightsteer.export.CastWarning")


def test_merge_rounds_once(tmp_path):
    """In bf16 the sum is taken in fp32 and cast once; adding a rounded delta would round twice."""
    model, v = made(tmp_path)
    half = deepcopy(model).bfloat16()
    before = weights(half)
    report = merge_into(v, half, 0.7)
    for name in v.names:
        exact = before[f"{name}.weight"].float() + 0.7 * v.delta(name)
        assert torch.equal(half.get_submodule(name).weight, exact.bfloat16())
    untouched = set(before) - {f"{name}.weight" for name in v.names}
    assert all(torch.equal(before[name], half.get_parameter(name)) for name in untouched)
    assert report.dtype == "bfloat16"
    assert list(report.modules) == v.names


# ‖dW‖/‖W‖: error, gain and share of unchanged entries, for Gaussian weights on the bf16 grid and dW of rank 32
PUBLISHED = {
    3e-4: (0.94, 0.18, 0.93),
    1e-3: (0.80, 0.52, 0.78),
    3e-3: (0.48, 0.93, 0.48),
    1e-2: (0.17, 1.00, 0.18),
    3e-2: (0.055, 1.00, 0.06),
    1e-1: (0.017, 1.00, 0.02),
}


@pytest.mark.parametrize("ratio", PUBLISHED)
def test_what_bf16_leaves_of_a_vector(ratio):
    """The report must find the known figures: a merge that halves the vector must not pass for one that works."""
    model = nn.ModuleDict({"a": nn.Linear(1024, 1024, bias=False)}).bfloat16().requires_grad_(False)
    weight = drawn(1024, 1024, scale=0.03).bfloat16()
    model["a"].weight.copy_(weight)
    B, A = drawn(1024, 32, seed=1), drawn(32, 1024, seed=2)
    v = vector({"a": [LowRank(B * (ratio * weight.float().norm() / (B @ A).norm()), A)]})
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        report = merge_into(v, model)
    error, gain, unchanged = PUBLISHED[ratio]
    total = report.total
    assert total.ratio == pytest.approx(ratio, rel=1e-3)
    assert total.error == pytest.approx(error, rel=0.03)
    assert total.gain == pytest.approx(gain, abs=0.01)
    assert total.unchanged_share == pytest.approx(unchanged, abs=0.01)
    assert [each.category for each in warned] == ([CastWarning] if ratio < 2e-2 else [])
    applied = model["a"].weight.double() - weight.double()
    wanted = v.delta("a").double()
    assert total.gain == pytest.approx(float((applied * wanted).sum() / wanted.square().sum()), rel=1e-5)
    assert total.error == pytest.approx(float((applied - wanted).norm() / wanted.norm()), rel=1e-5)


def test_the_warning_says_how_to_avoid_it(tmp_path):
    """Whoever loses half of a vector must learn it there and then, from the code and from the text."""
    model, v = made(tmp_path, std=1e-2)
    half = deepcopy(model).bfloat16()
    with pytest.warns(
        CastWarning, match=r"bfloat16 eats some of the vector.*dtype=\"float32\".*weightsteer\.steer"
    ) as warned:
        report = merge_into(v, half)
    assert warned[0].filename == __file__
    text = str(report)
    assert "warning: bfloat16 eats some of the vector" in text
    assert len(text.splitlines()) < 24
    worst = max(report.modules, key=lambda name: report.modules[name].error)
    assert worst in text
    assert "20 modules with smaller errors" in text
    content = json.loads(json.dumps(report.record(), allow_nan=False))
    assert content["total"]["gain"] == report.total.gain < 0.99
    assert content["modules"].keys() == set(v.names)


@pytest.mark.parametrize("arch", ["qwen3", "llama"])
def test_merging_in_fp32_loses_nothing(tmp_path, arch):
    """The way out that the warning names must work, for tied and untied embeddings."""
    model, v = made(tmp_path, arch, std=1e-2)
    half = deepcopy(model).bfloat16()
    exact = deepcopy(half).float()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        report = merge_into(v, half, 1.5, dtype="float32")
    assert {parameter.dtype for parameter in half.parameters()} == {torch.float32}
    assert (half.lm_head.weight is half.model.embed_tokens.weight) == (arch == "qwen3")
    assert report.total.error < 1e-3
    ids = batch()
    with steer(exact, v, 1.5, other_base=True):
        assert (logits(half, ids) - logits(exact, ids)).abs().max() <= 1e-4


def test_a_smaller_dtype_is_that_of_the_whole_model(tmp_path):
    """A model with some modules in bf16 and the others in fp32 fails in its first matrix product."""
    model, v = made(tmp_path)
    exact = {name: model.get_submodule(name).weight + v.delta(name) for name in v.names}
    report = merge_into(v, model, dtype=torch.bfloat16)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert model.model.rotary_emb.inv_freq.dtype == torch.float32
    assert all(torch.equal(model.get_submodule(name).weight, exact[name].bfloat16()) for name in v.names)
    assert report.dtype == "bfloat16"
    assert logits(model, batch()).isfinite().all()


@pytest.mark.parametrize("arch", ["qwen3", "gemma"])
def test_deltas_that_depend_on_the_base_weight(arch):
    """They read the weight that is being written: computed too late, they would scale the merged weight."""
    model, _ = tiny(arch)
    v = vector(scales(model), model)
    original, deltas = deepcopy(model), {name: v.delta(name) for name in v.names}
    ids = batch()
    with steer(model, v, -1.5):
        steered = logits(model, ids)
    merge_into(v, model, -1.5)
    expected = changed(original, {f"{name}.weight": -1.5 * delta for name, delta in deltas.items()})
    assert all(torch.equal(model.get_parameter(key), expected.get_parameter(key)) for key in weights(expected))
    assert (logits(model, ids) - steered).abs().max() <= 1e-4
    with pytest.raises(WeightsteerError, match="changed in place"):
        merge_into(v, model)


def test_biases_where_the_module_has_one():
    """qwen2 has biases in attention: the sum belongs into them, next to what is added to the weight."""
    model, _ = tiny("qwen2")
    v = vector({Q: [bias(model, Q), low_rank(model, Q)], K: [bias(model, K)]}, model)
    ids = batch()
    with steer(model, v, 2.0):
        steered = logits(model, ids)
    kept = model.get_submodule(K).weight.clone()
    report = merge_into(v, model, 2.0)
    assert (logits(model, ids) - steered).abs().max() <= 1e-4
    assert torch.equal(model.get_submodule(K).weight, kept)
    assert report.modules[K].entries == len(model.get_submodule(K).bias)


def test_embeddings_and_norms():
    """A full fine-tune changes these too; a norm keeps its gain as a vector, not as the column the delta is."""
    model, _ = tiny("llama")
    v = vector({name: [dense(model, name)] for name in (EMBEDDING, NORM, HEAD)}, model)
    expected = changed(model, {f"{name}.weight": 0.5 * v.delta(name) for name in v.names})
    merge_into(v, model, 0.5)
    assert same_weights(model, weights(expected))


def test_tied_weights_take_one_delta_once():
    """A full fine-tune of a tied model gives embedding and head the same delta; adding it twice would double it."""
    model, _ = tiny("qwen3")
    delta = dense(model, EMBEDDING)
    before = weights(model)
    different = vector({EMBEDDING: [delta], HEAD: [dense(model, HEAD, seed=9)]}, model)
    with pytest.raises(WeightsteerError, match=r"shares its weight with"):
        merge_into(different, model)
    assert same_weights(model, before)
    expected = changed(model, {f"{EMBEDDING}.weight": delta.values})
    report = merge_into(vector({EMBEDDING: [delta], HEAD: [Dense(delta.values.clone())]}, model), model)
    assert same_weights(model, weights(expected))
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert len(report.modules) == 1


def test_refused_before_anything_is_written(tmp_path):
    """A half-merged model is no model at all."""
    model, _ = tiny("qwen3")
    v = vector_of(model, tmp_path, targets=["q_proj", "lm_head"])
    before = weights(model)
    with pytest.raises(WeightsteerError, match=r"lm_head shares its weight with model\.embed_tokens"):
        merge_into(v, model)
    no_bias = vector({Q: [low_rank(model, Q)], DOWN: [bias(model, DOWN)]}, model)
    with pytest.raises(WeightsteerError, match=r"down_proj has no bias.*v\.drop"):
        merge_into(no_bias, model)
    for alpha in (float("nan"), float("inf")):
        with pytest.raises(WeightsteerError, match="finite strength"):
            merge_into(v.drop("lm_head"), model, alpha)
    for dtype in ("bflot16", torch.int8):
        with pytest.raises(WeightsteerError, match="unknown dtype"):
            merge_into(v.drop("lm_head"), model, dtype=dtype)
    with pytest.raises(WeightsteerError, match=r"alpha 1e\+06 .* could overflow float16"):
        merge_into(v.drop("lm_head"), model, 1e6, dtype="float16")
    assert same_weights(model, before)
    merge_into(v.drop("lm_head"), model)
    assert not same_weights(model, before)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float8_e4m3fn])
def test_quantised_weights_are_refused(tmp_path, dtype):
    """Packed numbers cannot be added to, and scaled ones mean something else than they say."""
    model, v = made(tmp_path, targets=["q_proj"])
    packed = nn.Parameter(torch.zeros(32, 32).to(dtype), requires_grad=False)
    model.model.layers[3].self_attn.q_proj.weight = packed
    first = model.model.layers[0].self_attn.q_proj.weight.clone()
    with pytest.raises(WeightsteerError, match="quantised"):
        merge_into(v, model)
    assert torch.equal(first, model.model.layers[0].self_attn.q_proj.weight)


def test_a_base_weight_that_changed_is_refused_before_anything_is_written():
    """The delta of the second module is wrong by then; the first must not have been merged."""
    model, _ = tiny("qwen3")
    v = vector(scales(model), model)
    model.get_submodule(DOWN).weight.mul_(2.0)
    before = weights(model)
    with pytest.raises(WeightsteerError, match="changed in place"):
        merge_into(v, model)
    assert same_weights(model, before)


@settings(max_examples=30, deadline=None)
@given(
    rows=st.integers(1, 9),
    columns=st.integers(1, 9),
    alpha=st.floats(-4, 4).map(lambda alpha: round(alpha, 3)),
    stored=st.sampled_from(DTYPES),
    wanted=st.sampled_from([None, *DTYPES]),
    seed=st.integers(0, 99),
)
def test_one_sum_and_one_cast_whatever_the_dtypes(rows, columns, alpha, stored, wanted, seed):
    """``cast(W + α·dW)`` and nothing else, for weight and bias; and the report must be about just that."""
    model = nn.ModuleDict({"a": nn.Linear(columns, rows), "b": nn.Linear(2, 2)}).to(stored).requires_grad_(False)
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    weight, added = drawn(rows, columns, seed=seed), drawn(rows, seed=seed + 1)
    report = merge_into(vector({"a": [Dense(weight), Bias(added, columns)]}), model, alpha, wanted)
    dtype = wanted or stored
    applied, steps = [], []
    for name, delta in (("a.weight", weight), ("a.bias", added)):
        after = model.get_parameter(name)
        assert torch.equal(after, (before[name].float() + alpha * delta).to(dtype))
        applied.append((after.double() - before[name].double()).flatten())
        steps.append((alpha * delta).double().flatten())
    assert all(torch.equal(model.get_parameter(name), before[name].to(dtype)) for name in ("b.weight", "b.bias"))
    assert {parameter.dtype for parameter in model.parameters()} == {dtype}
    got, step = torch.cat(applied), torch.cat(steps)
    if step.norm():
        assert report.total.gain == pytest.approx(float(got @ step / (step @ step)), rel=1e-3, abs=1e-3)
        assert report.total.error == pytest.approx(float((got - step).norm() / step.norm()), rel=1e-3, abs=1e-3)


def test_nothing_to_add(tmp_path):
    """No strength, or no difference between the branches: no weight changes, and nothing was lost."""
    model, v = made(tmp_path)
    before = weights(model)
    for report in (merge_into(v, model, 0.0), merge_into(v - v, model)):
        assert same_weights(model, before)
        assert (report.total.gain, report.total.error, report.warning) == (1.0, 0.0, None)
        assert "all modules" in str(report)
