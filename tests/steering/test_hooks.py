"""What is active on a module: several effects at once, in any order, on any kind of model."""

from copy import deepcopy
from itertools import permutations

import pytest
import torch
from mixed import term
from steered import FORMS, mixture, summed
from tiny import tiny
from torch import nn
from vectors import batch, hooks, logits, made, same_weights, vector_of, weights

from weightsteer.steering import steer
from weightsteer.terms import Dense, Sum
from weightsteer.vector import WeightVector


def test_any_number_at_once_in_any_order(tmp_path):
    """Forms that scale or turn read the module's own output and input: seen after another vector they would
    multiply with it."""
    model, _ = tiny("llama", layers=2)
    u, v = mixture(model, 0), mixture(model, 1, shift=2)
    w = vector_of(model, tmp_path, layers=[1])
    strengths = {u: 0.7, v: torch.tensor([0.0, -1.0, 1.3]), w: [1.0, 0.0, -0.5]}
    ids = batch(3)
    row_by_row = [{one: float(torch.as_tensor(a).expand(3)[i]) for one, a in strengths.items()} for i in range(3)]
    expected = torch.cat([logits(summed(model, *row.items()), ids[i : i + 1]) for i, row in enumerate(row_by_row)])
    with steer(model, strengths):
        assert (logits(model, ids) - expected).abs().max() <= 1e-4
    for first, second, third in permutations(strengths.items()):
        with steer(model, [first, second, third]):
            assert (logits(model, ids) - expected).abs().max() <= 1e-4
        with steer(model, *first):
            alone = logits(model, ids)
            with steer(model, *second), steer(model, *third):
                assert (logits(model, ids) - expected).abs().max() <= 1e-4
            assert torch.equal(logits(model, ids), alone)
    assert hooks(model) == 0


def test_contexts_may_end_in_any_order():
    """Handles held by hand, as in a notebook: the one that stays must be the one that is applied."""
    model, _ = tiny("qwen3")
    u, v, ids = mixture(model, 0), mixture(model, 1, shift=3), batch(2)
    with steer(model, v, 1.0):
        expected = logits(model, ids)
    outer, inner = steer(model, u, 1.0), steer(model, v, 1.0)
    outer.__enter__()
    inner.__enter__()
    outer.__exit__(None, None, None)
    assert torch.equal(logits(model, ids), expected)
    inner.__exit__(None, None, None)
    assert hooks(model) == 0


def test_the_same_vector_twice_counts_twice():
    """A list may hold a vector twice; one of the two must not be lost, on the way in or out."""
    model, _ = tiny("qwen3")
    v, ids = mixture(model), batch(2)
    with steer(model, v, 1.0):
        once = logits(model, ids)
    with steer(model, [(v, 0.25), (v, 0.75)]):
        assert (logits(model, ids) - once).abs().max() <= 1e-4
    assert hooks(model) == 0


class Either:
    """An intervention that notes which of its two ways was taken."""

    method, metadata, names = "weight", {}, ["0"]

    def __init__(self):
        self.taken = []

    def modify(self, name, module):
        return lambda x, own, y, alpha: self.taken.append("output") or y

    def modify_input(self, name, module):
        return lambda x, alpha: self.taken.append("input") or x


def test_the_input_is_changed_only_where_that_is_exact():
    """Half precision would round the changed input once more, and with another vector on the module its own output
    would be lost: ``W x`` of the changed x is not what that one scales."""
    model, one, other = nn.Sequential(nn.Linear(3, 3)), Either(), Either()
    x = torch.ones(2, 3)
    with steer(model, one, 1.0):
        model(x)
        model.double()(x.double())
        model.bfloat16()(x.bfloat16())
        model.float()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            model(x)
        with steer(model, other, 1.0):
            model(x)
        model(x)
    assert one.taken == ["input", "input", "output", "output", "output", "input"]
    assert other.taken == ["output"]


def test_a_forward_of_the_model_itself_is_kept():
    """Offloading puts a forward on every module: it must run, and be there again afterwards."""
    model, _ = tiny("qwen3")
    module, v, ids = model.model.layers[1].mlp.down_proj, mixture(model), batch()
    with steer(model, v, 1.0):
        expected = logits(model, ids)
    calls, own = [], module.forward

    def forward(x):
        calls.append(1)
        return own(x)

    module.forward = forward
    with steer(model, v, 1.0):
        assert torch.equal(logits(model, ids), expected)
    assert calls == [1]
    assert module.forward is forward


def test_hooks_of_others_see_the_steered_output():
    """Reading activations of a steered model must not depend on when the hook was set."""
    model, _ = tiny("qwen3")
    v, ids, seen = mixture(model), batch(), []
    module = model.model.layers[1].mlp.gate_proj
    early = module.register_forward_hook(lambda _, args, output: seen.append(output))
    logits(model, ids)
    with steer(model, v, 1.0):
        late = module.register_forward_hook(lambda _, args, output: seen.append(output))
        logits(model, ids)
    early.remove()
    late.remove()
    plain, first, second = seen
    assert torch.equal(first, second)
    assert not torch.equal(first, plain)


def test_a_copy_of_a_steered_model_is_a_model():
    """No context would ever end its steering; and a forward copied with it must not run on the weights of the
    original, or training the copy would do nothing."""
    model, _ = tiny("qwen3")
    v, ids = mixture(model), batch()
    plain = logits(model, ids)
    with steer(model, v, 1.0):
        copy = deepcopy(model)
        assert torch.equal(logits(copy, ids), plain)
    for layer in copy.model.layers:
        layer.self_attn.k_proj.weight.zero_()
    assert not torch.allclose(logits(copy, ids), plain, atol=1e-2)


class Small(nn.Sequential):
    """Every kind of module that can be steered: tracing a whole decoder takes seconds."""

    def __init__(self):
        super().__init__(nn.Embedding(300, 8), nn.LayerNorm(8), *[nn.Linear(8, 8) for _ in FORMS])
        self.requires_grad_(False)

    def vector(self, seed, shift=0):
        generator, chosen = torch.Generator().manual_seed(seed), [*FORMS.values()] * 2
        terms = {
            str(i): Sum(shape, [(0.2, Dense(torch.randn(shape, generator=generator)))])
            for i, shape in enumerate([(300, 8), (8, 1)])
        }
        for i, forms in enumerate(chosen[shift : shift + len(FORMS)], start=2):
            terms[str(i)] = Sum((8, 8), [(0.2, term(form, self[i], generator)) for form in forms])
        return WeightVector(terms, {})


def test_compiled_models_are_steered():
    """A graph compiled without steering must not be used with it, nor the other way round, nor one vector's for
    another: the outputs would be those of another model, without a word."""
    model, ids = Small(), batch()
    u, v, w = model.vector(0), model.vector(1), model.vector(0, shift=3)
    torch._dynamo.reset()
    compiled, plain = torch.compile(model, backend="eager", fullgraph=True), model(ids)
    rows = torch.tensor([0.0, 1.0, 2.0, -1.0])
    for one, alpha in [(u, 1.0), (None, None), (u, -0.5), (v, 1.0), (w, 1.0), (None, None), (u, rows), (u, 1.0)]:
        if one is None:
            assert torch.equal(compiled(ids), plain)
            continue
        with steer(model, one, alpha):
            expected = model(ids)
            assert torch.allclose(compiled(ids), expected, atol=1e-5)
        assert (expected - plain).abs().max() > 0.01


def test_a_compiled_model_is_the_model_it_was_made_of():
    """The wrapper renames every parameter; the base of a vector must be recognised, and its modules found."""
    model, _ = tiny("qwen3")
    v, ids = mixture(model), batch()
    compiled = torch.compile(model, backend="eager")
    with steer(model, v, 1.0):
        expected = logits(model, ids)
    with steer(compiled, v, 1.0):
        assert torch.equal(logits(model, ids), expected)


def test_nothing_remains_when_setting_fails(tmp_path):
    """The same when a module refuses, after others were set."""
    model, v = made(tmp_path)

    class Stubborn(nn.Linear):
        def __setattr__(self, name, value):
            if name == "forward":
                raise RuntimeError("not here")
            super().__setattr__(name, value)

    model.get_submodule(v.names[-1]).__class__ = Stubborn
    before = weights(model)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="not here"), steer(model, v, 1.0):
            raise AssertionError("the body must not run")
        assert hooks(model) == 0
    assert same_weights(model, before)


def test_contexts_nest_and_add(tmp_path):
    """Two vectors at once are the sum of both; leaving the inner context leaves the outer one."""
    model, v = made(tmp_path)
    u = vector_of(model, tmp_path, seed=7, layers=[1, 2])
    ids = batch()
    plain = logits(model, ids)
    with steer(model, v * 0.7 + u * -1.3, 1.0):
        both = logits(model, ids)
    with steer(model, v, 0.7):
        outer = logits(model, ids)
        with steer(model, u, torch.full((4,), -1.3)):
            assert (logits(model, ids) - both).abs().max() <= 1e-4
        assert torch.equal(logits(model, ids), outer)
    with steer(model, v, 1.0), steer(model, v, -1.0):
        assert (logits(model, ids) - plain).abs().max() <= 1e-4


class AddToLayer:
    """The smallest activation intervention: its module takes more than x and may return a tuple."""

    method, metadata, names = "activation", {"behavior": "b", "adapter": "a", "seed": 0}, ["1"]

    def modify(self, name, module):
        return lambda x, own, y, alpha: y + alpha.view(-1, 1)


def test_modules_with_tuples_and_keywords():
    """Decoder layers of some models return tuples or take keywords: steering must reach the hidden states."""

    class Layer(nn.Module):
        def forward(self, hidden_states):
            return hidden_states * 2, "cache"

    class Model(nn.Sequential):
        def forward(self, x):
            return self[1](hidden_states=self[0](x))

    model = Model(nn.Linear(3, 3), Layer())
    x = torch.randn(2, 3)
    (plain, _), alpha = model(x), torch.tensor([1.0, -2.0])
    with steer(model, AddToLayer(), alpha):
        steered, cache = model(x)
    assert torch.equal(steered, plain + alpha.view(-1, 1))
    assert cache == "cache"
