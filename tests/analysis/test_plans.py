"""Ablations of a vector: what is kept and what is dropped make the whole, for every family of adapters."""

from collections import Counter
from functools import cache

import pytest
import torch
from adapters_of import PEFT_FAMILIES, random_adapter
from tiny import tiny
from vectors import made

from weightsteer.analysis import bases, plans
from weightsteer.analysis.plans import families, layers, modules, norms
from weightsteer.analysis.plans.spectrum import Spectrum, between, energy, first
from weightsteer.controls import control
from weightsteer.errors import WeightsteerError
from weightsteer.vector import WeightVector

KINDS = ("norms", "layers", "modules", "coordinates", "projection")


@cache
def family_vector(tmp, name):
    model, _ = tiny("qwen3", layers=2)
    folders = [random_adapter(name, model, tmp / f"{name}{seed}", seed) for seed in (1, 2)]
    return model, WeightVector.from_adapters(*folders, model)


@pytest.fixture(scope="module")
def tmp(tmp_path_factory):
    return tmp_path_factory.mktemp("families")


def plan_input(model, v, **changes):
    found = cache(lambda name, side, rank: bases.make(name, model, rank=rank, side=side, vector=v))
    options = {"bases": ("residual-write", "residual-read@input"), "ranks": (1, 4), "draws": 2, **changes}
    return plans.PlanInput(v, model, found, **options)


def dense(v, names):
    return torch.cat([v.delta(name).flatten() if name in v.terms else torch.zeros(size) for name, size in names])


def flat(*vectors):
    """The same modules of all of them, side by side."""
    sizes = {name: v.terms.shape(name) for v in vectors for name in v.names}
    return [dense(v, [(name, d_out * d_in) for name, (d_out, d_in) in sizes.items()]) for v in vectors]


def add_up(v, *pieces):
    whole, *found = flat(v, *pieces)
    return float((whole - sum(found)).abs().max()) <= 1e-5 * float(whole.abs().max())


@pytest.mark.parametrize(
    ("name", "plan"),
    [("lora", plan) for plan in KINDS[1:]] + [(name, "coordinates") for name in ("dora", "delora", "ia3", "oft")],
)
def test_what_is_kept_and_what_is_dropped_make_the_whole(tmp, name, plan):
    """Otherwise "alone" and "without it" would be about two different components."""
    model, v = family_vector(tmp, name)
    listed = list(plans.ablations(plan, plan_input(model, v)))
    raw = {one.component: one for one in listed if one.how == "keep" and not one.matched and one.draw is None}
    rest = {one.component: one for one in listed if one.how == "drop"}
    for word in raw.keys() & rest.keys():
        assert add_up(v, raw[word].vector, rest[word].vector), word
    if plan != "projection" and name != "ia3":
        assert raw.keys() & rest.keys()


@pytest.mark.parametrize("plan", KINDS)
def test_matched_components_and_random_twins_have_the_norm_of_what_they_are_taken_from(tmp, plan):
    """A shorter control would make any component look sufficient."""
    model, v = family_vector(tmp, "lora")
    listed = list(plans.ablations(plan, plan_input(model, v)))
    by_key = {one.key: one for one in listed}
    for one in listed:
        if one.matched:
            of = by_key[one.of].vector.norm() if one.of else v.norm()
            assert one.vector.norm() == pytest.approx(of, rel=1e-4), one.key


@pytest.mark.parametrize("plan", KINDS[1:])
def test_every_part_said_to_be_alone_has_its_control_beside_it(tmp, plan):
    """Without its random twin nothing could be said to suffice; single modules make no claim and are cheaper."""
    model, v = family_vector(tmp, "lora")
    listed = list(plans.ablations(plan, plan_input(model, v)))
    raw = [p for p in listed if p.how == "keep" and not p.matched and p.draw is None and p.family != modules.CELLS]
    random = Counter(one.component for one in listed if one.draw is not None)
    for one in raw:
        if not one.component.startswith("the vector in"):
            assert random[one.component] == 2, one.component


def test_keys_are_shared_by_the_draws_of_a_control_alone(tmp):
    """Two ablations under one key would be averaged in the table."""
    model, v = family_vector(tmp, "dora")
    given = plan_input(model, v)
    listed = [one for plan in KINDS for one in plans.ablations(plan, given)] + list(plans.whole(given))
    assert {n for key, n in Counter((one.key, one.draw) for one in listed).items()} == {1}


@pytest.mark.parametrize("name", PEFT_FAMILIES)
def test_the_coordinates_of_every_family_can_be_made_or_say_why_not(tmp, name):
    """A family whose terms changed form would otherwise break in the middle of a run."""
    model, v = family_vector(tmp, name)
    for coordinate in families.coordinates(v, model):
        assert coordinate.make().norm() > 0, coordinate.name
    names = {coordinate.name for coordinate in families.coordinates(v, model)}
    expected = {"dora": "DoRA magnitude", "delora": "DeLoRA λ", "oft": "OFT rotation (skew)"}
    expected |= {"ia3": "IA3 MLP gates", "lora": "rank components b·a, largest quarter", "boft": "rotated component"}
    assert expected.get(name, "positive branch") in names


def test_dora_direction_has_the_row_norms_of_the_weight(tmp):
    """The direction of a branch with its magnitudes put back: θ = W + part has the rows' norms of W."""
    model, v = family_vector(tmp, "dora")
    name = v.names[0]
    weight = model.get_submodule(name).weight.double()
    both = families.dora_direction(name, v.terms[name]).delta().double()
    branches = families.branches(name, v.terms[name], families.RowScale, families.LowRank)
    turned = []
    for terms in branches:
        one = families.DoraBranch(*terms)
        V = weight + one.B @ one.A
        turned.append(V / V.norm(dim=1, keepdim=True) * weight.norm(dim=1, keepdim=True))
    assert torch.allclose(both, turned[0] - turned[1], atol=1e-5)


def test_delora_lambda_is_read_from_the_vector(tmp):
    """The λ component must vanish for two branches of one λ, whatever their directions are."""
    from safetensors.torch import load_file, save_file

    model, _ = tiny("qwen3", layers=2)
    folders = [random_adapter("delora", model, tmp / f"same{seed}", seed) for seed in (1, 2)]
    for folder in folders:
        path = folder / "adapter_model.safetensors"
        tensors = load_file(path)
        save_file({k: torch.full_like(t, 3.0) if "lambda" in k else t for k, t in tensors.items()}, path)
    v = WeightVector.from_adapters(*folders, model)
    direction, size = (one.make() for one in list(families.coordinates(v, model))[:2])
    assert size.norm() < 1e-4 * direction.norm()


@pytest.mark.parametrize("family", ["lora", "dora"])
def test_the_spectrum_is_that_of_the_dense_deltas(tmp, family):
    """Index and energy ranges are counted in it; a quarter of the rank is not a quarter of the matrix."""
    _, v = family_vector(tmp, family)
    spectrum = Spectrum(v)
    for name, squares in zip(v.names, spectrum.squares(), strict=True):
        exact = torch.linalg.svdvals(v.delta(name).double())[: len(squares)]
        assert torch.allclose(squares.sqrt(), exact, rtol=1e-3, atol=1e-5 * float(exact[0]))
    assert add_up(v, spectrum.component(between(0, 0.5)), spectrum.component(between(0.5, 1)))
    assert all(spectrum.component(first(2)).rank(name) == 2 for name in v.names)
    half = spectrum.component(energy(0.5))
    shares = [float(half.delta(n).norm() ** 2 / v.delta(n).norm() ** 2) for n in v.names]
    assert min(shares) >= 0.5 - 1e-5


def test_permuted_layers_are_those_of_the_control_without_its_memory(tmp):
    """The same matrices as the control, whose deltas of IA3 and OFT become dense."""
    _, v = family_vector(tmp, "dora")
    mine, theirs = norms.layer_permuted(v, 5), control("layer-permuted", v, 5)
    assert all(torch.allclose(mine.delta(name), theirs.delta(name), atol=1e-6) for name in v.names)
    assert not any(term.form == "dense" for total in mine.terms.values() for _, term in total.terms)


def test_groups_of_modules_are_found_in_every_architecture(tmp_path):
    """Attention, MLP and writers by their names, so that an empty group is never swept as an ablation."""
    for arch in ("llama", "gemma"):
        _, v = made(tmp_path / arch, arch)
        found = dict(modules.groups(v.names))
        assert {"attention", "MLP", "what writes to the residual stream", "mlp.up_proj"} <= set(found)
        assert {name.split(".")[-1] for name in found["what writes to the residual stream"]} == {"o_proj", "down_proj"}
        assert [part for part, _ in layers.groups(v)][:2] == ["middle layers (1 to 2)", "layer 0"]


def test_unknown_plans_and_a_lonely_shared_plan_say_what_to_do(tmp):
    """A misspelt plan must not be an empty one."""
    model, v = family_vector(tmp, "lora")
    with pytest.raises(WeightsteerError, match="layers"):
        list(plans.ablations("layer", plan_input(model, v)))
    with pytest.raises(WeightsteerError, match="--others"):
        list(plans.ablations("shared", plan_input(model, v)))


def test_a_basis_that_holds_the_vector_is_marked(tmp):
    """Projecting on a subspace that was made from the vector finds the vector: a tautology, not a finding."""
    model, v = family_vector(tmp, "lora")
    other = WeightVector.from_adapters(*(random_adapter("lora", model, tmp / f"o{s}", s) for s in (5, 6)), model)
    noted = {one.component: one.note for one in plans.ablations("shared", plan_input(model, v, others={"u": other}))}
    assert any("by construction" in note for part, note in noted.items() if part.startswith("shared"))
    assert not any(note for part, note in noted.items() if part.startswith("own subspace of u"))
