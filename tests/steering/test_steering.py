from copy import deepcopy

import pytest
import torch
from steered import FORMS, mixture, summed
from tiny import random_lora, tiny
from torch import nn
from vectors import ARCHITECTURES, batch, hooks, logits, made, peft_logits, same_weights, weights

from weightsteer.errors import WeightsteerError
from weightsteer.export import merge_into
from weightsteer.steering import first_layer, steer
from weightsteer.vector import WeightVector


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("shift", range(3))
def test_every_form_is_the_sum_of_weights(arch, shift):
    """θ + α·dW by whatever route a form takes is θ + α·dW by addition in fp32, row by row."""
    model, _ = tiny(arch)
    # the table is the output embedding too, but for llama
    others = ["embed_tokens", "input_layernorm"] if arch == "llama" else ["input_layernorm"]
    v, ids = mixture(model, shift=shift, suffixes=[*FORMS, *others]), batch(3)
    alphas = [0.0, -1.0, 1.5]
    expected = torch.cat([logits(summed(model, (v, alpha)), ids[i : i + 1]) for i, alpha in enumerate(alphas)])
    assert (expected[1:] - logits(model, ids)[1:]).abs().max() > 0.1
    with steer(model, v, alphas):
        steered = logits(model, ids)
    assert (steered - expected).abs().max() <= 1e-4
    assert torch.equal(steered[0], logits(model, ids)[0])


def test_several_need_a_strength_each(tmp_path):
    """A strength that is silently dropped steers by another amount."""
    model, v = made(tmp_path)
    for several, alpha, reason in [
        ({v: 1.0}, 2.0, "their own strengths"),
        ([v, v], None, "given as pairs"),
        (v, None, "strength is missing"),
    ]:
        with pytest.raises(WeightsteerError, match=reason), steer(model, several, alpha):
            raise AssertionError("the body must not run")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_zero_rows_among_others_are_the_models(dtype):
    """The α = 0 column of a sweep is the baseline of every effect, for every form and in half precision too."""
    model, _ = tiny("llama")
    v = mixture(model, suffixes=[*FORMS, "embed_tokens", "input_layernorm", "norm"])
    model, ids = deepcopy(model).to(dtype), batch(4)
    with steer(model, v, torch.tensor([0.0, 1.0, 0.0, -1.0]), other_base=True):
        mixed = logits(model, ids)
    plain = logits(model, ids)
    assert torch.equal(mixed[[0, 2]], plain[[0, 2]])
    assert not torch.equal(mixed[[1, 3]], plain[[1, 3]])


def test_a_model_of_other_weights_needs_the_word(tmp_path):
    """θ_ft + α·dW is meant only when it is said; a vector on the wrong checkpoint looks like a weak method."""
    model, v = made(tmp_path)
    for change in (lambda m: m.half(), lambda m: m.model.norm.weight.data.mul_(1.5)):
        other = deepcopy(model)
        with steer(other, v, 1.0):
            logits(other, batch())
        change(other)
        with pytest.raises(WeightsteerError, match="other weights") as refusal, steer(other, v, 1.0):
            raise AssertionError("the body must not run")
        assert "other_base=True" in str(refusal.value)
        with steer(other, v, 1.0, other_base=True):
            assert hooks(other) == len(v.names)


def test_another_fine_tune_is_steered_by_the_matrices_of_the_base():
    """θ_ft + α·dW for forms that depend on the base weight: dW is made of θ, not of θ_ft."""
    model, _ = tiny("qwen3")
    v, ids = mixture(model), batch()
    tuned = summed(model, (mixture(model, seed=5, shift=1), 0.5))
    expected = logits(summed(tuned, (v, 1.0)), ids)
    with steer(tuned, v, 1.0, other_base=True):
        assert (logits(tuned, ids) - expected).abs().max() <= 1e-4
    assert (logits(tuned, ids) - logits(model, ids)).abs().max() > 0.1


def test_generate_with_every_form():
    """Prefill and decoding steps of one token each, with one strength per row."""
    model, _ = tiny("llama")
    v, ids = mixture(model, suffixes=[*FORMS, "embed_tokens", "input_layernorm"]), batch(3, 6)
    alphas = torch.tensor([-1.5, 0.0, 1.5])
    options = {"max_new_tokens": 8, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    with steer(model, v, alphas):
        together = model.generate(input_ids=ids, **options)
    for row, alpha in enumerate(alphas.tolist()):
        copy = summed(model, (v, alpha))
        assert torch.equal(together[row : row + 1], copy.generate(input_ids=ids[row : row + 1], **options))


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_one_times_the_vector_is_the_adapter(arch, tmp_path):
    """The spec: a branch against a zero branch, at α = 1, is what PEFT itself computes with that branch."""
    model, _ = tiny(arch)
    branch = random_lora(model, tmp_path / "branch", seed=3)
    zero = random_lora(model, tmp_path / "zero", seed=4, std=0.0)
    ids = batch()
    expected = peft_logits(model, branch, ids)
    assert (expected - logits(model, ids)).abs().max() > 0.1
    with steer(model, WeightVector.from_adapters(branch, zero, model), 1.0):
        assert (logits(model, ids) - expected).abs().max() <= 1e-4
    with steer(model, WeightVector.from_adapters(zero, branch, model), -1.0):
        assert (logits(model, ids) - expected).abs().max() <= 1e-4


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("alpha", [-2.0, 0.5])
def test_unmerged_is_the_sum_of_weights(arch, alpha, tmp_path):
    """θ + α·dW by hooks is θ + α·dW by addition in fp32."""
    model, v = made(tmp_path, arch)
    merged = deepcopy(model)
    merge_into(v, merged, alpha)
    ids = batch()
    with steer(model, v, alpha):
        assert (logits(model, ids) - logits(merged, ids)).abs().max() <= 1e-4


def test_zero_is_the_model_itself(tmp_path):
    """At α = 0 a single different bit would mean that the baseline of every effect is another model."""
    model, v = made(tmp_path)
    ids = batch()
    plain = logits(model, ids)
    for zero in (0, 0.0, -0.0, torch.zeros(4), [0, 0, 0, 0]):
        with steer(model, v, zero):
            assert torch.equal(logits(model, ids).view(torch.int32), plain.view(torch.int32))
            assert hooks(model) == 0
    with steer(model, v, torch.tensor([0.0, 1.0, 0.0, -1.0])):
        mixed = logits(model, ids)
    assert torch.equal(mixed[[0, 2]], plain[[0, 2]])
    assert not torch.equal(mixed[[1, 3]], plain[[1, 3]])


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_one_strength_per_row_is_one_run_per_strength(arch, tmp_path):
    """α as a batch dimension must not mix rows."""
    model, v = made(tmp_path, arch)
    ids, alphas = batch(5), torch.tensor([-2.0, -0.5, 0.0, 1.0, 1.7])
    with steer(model, v, alphas):
        together = logits(model, ids)
    for row, alpha in enumerate(alphas.tolist()):
        with steer(model, v, alpha):
            alone = logits(model, ids[row : row + 1])[0]
        assert (together[row] - alone).abs().max() <= 1e-4


def test_generate_with_one_strength_per_row(tmp_path):
    """Prefill and every decoding step are steered, row by row, with left padding and cache."""
    model, v = made(tmp_path)
    ids = batch(3, 6)
    mask = torch.ones_like(ids)
    mask[1, :2] = 0
    alphas = torch.tensor([-1.5, 0.0, 1.5])
    options = {"max_new_tokens": 12, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    with steer(model, v, alphas):
        together = model.generate(input_ids=ids, attention_mask=mask, **options)
    for row, alpha in enumerate(alphas.tolist()):
        with steer(model, v, alpha):
            alone = model.generate(input_ids=ids[row : row + 1], attention_mask=mask[row : row + 1], **options)
        assert torch.equal(together[row], alone[0])
    assert not torch.equal(together[0], model.generate(input_ids=ids, attention_mask=mask, **options)[0])


def test_generate_with_several_sequences_per_prompt(tmp_path):
    """generate repeats each prompt in place: one strength per sequence, in the same order."""
    model, v = made(tmp_path)
    alphas = torch.tensor([-1.5, 1.5])
    options = {"max_new_tokens": 6, "num_beams": 2, "num_return_sequences": 2, "eos_token_id": None}
    ids = batch(2, 6)
    with steer(model, v, alphas.repeat_interleave(2)):
        together = model.generate(input_ids=ids, pad_token_id=0, **options)
    with steer(model, v, 1.5):
        alone = model.generate(input_ids=ids[1:], pad_token_id=0, **options)
    assert torch.equal(together[2:], alone)


def test_nothing_remains(tmp_path):
    """The weights keep their bits and the hooks go, however the context ends."""
    model, v = made(tmp_path)
    before, ids = weights(model), batch()
    plain = logits(model, ids)
    with steer(model, v, 3.0) as steered:
        assert steered is model
        logits(model, ids)
        assert hooks(model) == len(v.names)
        assert same_weights(model, before)
    with pytest.raises(KeyError), steer(model, v, 1.0):  # noqa: PT012
        logits(model, ids)
        raise KeyError
    assert hooks(model) == 0
    assert same_weights(model, before)
    assert torch.equal(logits(model, ids), plain)


def test_nothing_remains_when_entering_fails(tmp_path):
    """An error at the last of many hooks must take the first ones away again."""
    model, v = made(tmp_path)

    class Failing:
        method, metadata, names = v.method, v.metadata, v.names

        def modify(self, name, module):
            if name == v.names[-1]:
                raise RuntimeError("out of memory")
            return v.modify(name, module)

    before = weights(model)
    with pytest.raises(RuntimeError, match="out of memory"), steer(model, Failing(), 1.0):
        raise AssertionError("the body must not run")
    assert hooks(model) == 0
    assert same_weights(model, before)


@pytest.mark.parametrize("every_form", [False, True])
def test_gradients_flow_through_a_steered_model(every_form, tmp_path):
    """Attribution through a steered model needs the gradient of the steered function, also for α."""
    model, v = made(tmp_path)
    ids = batch(2)
    if every_form:
        v = mixture(model)

    def value(strengths):
        with steer(model, v, strengths):
            return model(input_ids=ids).logits[:, -1, 3].sum()

    for start in (torch.tensor([0.3, -0.4]), torch.zeros(2)):
        alpha = start.clone().requires_grad_()
        value(alpha).backward()
        step = torch.tensor([1e-2, 0.0])
        slope = (value(start + step) - value(start - step)) / 2e-2
        assert abs(slope) > 0.1
        assert torch.isclose(alpha.grad[0], slope, rtol=0.02)


def test_half_precision_models_are_steered_in_their_own_precision(tmp_path):
    """bf16 logits of the steered model must be as near to fp32 as those of the model itself are."""
    model, v = made(tmp_path)
    ids = batch()
    half = deepcopy(model).bfloat16()
    noise = (logits(half, ids).float() - logits(model, ids)).abs().mean()
    with steer(model, v, 1.0), steer(half, v, 1.0, other_base=True):
        steered = logits(half, ids)
        error = (steered.float() - logits(model, ids)).abs().mean()
    assert steered.dtype == torch.bfloat16
    assert error <= 3 * noise


def test_wrong_strengths_are_explained(tmp_path):
    """A strength that is broadcast by accident steers the wrong rows."""
    model, v = made(tmp_path)
    with pytest.raises(WeightsteerError, match=r"3 values.*4 rows"), steer(model, v, torch.ones(3)):
        logits(model, batch(4))
    assert hooks(model) == 0
    for alpha, reason in [
        (float("nan"), "NaN"),
        ([1.0, float("inf")], "infinity"),
        (torch.ones(2, 2), "one number per row"),
        ("strong", "must be a number"),
    ]:
        with pytest.raises(WeightsteerError, match=reason), steer(model, v, alpha):
            raise AssertionError("the body must not run")


def test_other_models_are_refused_before_anything_happens(tmp_path):
    """Steering half of the modules, or with broadcast shapes, gives numbers that mean nothing."""
    _, v = made(tmp_path)
    small, _ = tiny("qwen3", layers=2)
    with pytest.raises(WeightsteerError, match=r"no module model\.layers\.2\..*13 more of 28"):  # noqa: SIM117
        with steer(small, v, 1.0):
            raise AssertionError("the body must not run")
    other, _ = tiny("qwen3")
    other.model.layers[0].mlp.up_proj = nn.Linear(32, 48, bias=False)
    with pytest.raises(WeightsteerError, match=r"up_proj is 64×32, the model's is 48×32"):  # noqa: SIM117
        with steer(other, v, 1.0):
            raise AssertionError("the body must not run")
    assert hooks(other) == hooks(small) == 0


def test_first_layer_is_the_lowest_touched(tmp_path):
    """The sweep computes everything below it once per row; too high a layer would leave rows unsteered."""
    model, v = made(tmp_path, layers=[1, 3])
    assert first_layer(model, v) == 1
    assert first_layer(model, v.keep(3)) == 3
    outside = made(tmp_path / "head", "llama", targets=["lm_head", "down_proj"], layers=None)
    assert first_layer(*outside) == 0
