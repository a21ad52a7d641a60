"""Bases of activations: read at the right tokens and depths, whatever is beside them in a batch."""

import numpy as np
import polars as pl
import pytest
import torch
from contrasts import ANSWERS, hidden_states, last_block, pairs, passing
from tiny import tiny

from weightsteer.analysis import bases
from weightsteer.analysis.bases import Materials, materials
from weightsteer.analysis.bases.leading import principal
from weightsteer.data.evals.base import Item
from weightsteer.data.pairs.encoding import encode
from weightsteer.errors import WeightsteerError
from weightsteer.inference.capture import HookPoint, capture


@pytest.mark.parametrize("arch", ["qwen3", "llama", "gemma", "mistral", "qwen2"])
def test_states_are_the_models_own_whatever_is_in_the_batch(arch):
    """Padding that is seen, a place off by one, or the end of sequence among the tokens would all be silent."""
    model, tokenizer = tiny(arch, layers=2)
    made = Materials(model, tokenizer, pairs(ANSWERS))
    rows = encode(model, tokenizer, pairs(ANSWERS), personas=True)
    points = made.stream_points
    found = {answers: made.states(points, answers=answers, personas=True) for answers in (True, False)}
    for index in (0, 7, 19):
        for side, side_rows in (("positive", rows.positive), ("negative", rows.negative)):
            row = side_rows[index]
            own = hidden_states(model, torch.tensor([row.ids]))
            for depth in (0, 1):  # the model normalises the last entry of its own record
                for answers, tokens in ((True, slice(row.start, -1)), (False, slice(row.start - 1, row.start))):
                    expected = own[depth][0, tokens].mean(0)
                    state = getattr(found[answers][points[depth]], side)[index]
                    assert torch.allclose(state.float(), expected, atol=1e-4)


def test_inputs_and_outputs_of_modules_are_read():
    """An output read in place of an input has another width at best, and another meaning at worst."""
    model, tokenizer = tiny("qwen3", layers=1)
    made = Materials(model, tokenizer, pairs(ANSWERS))
    down = "model.layers.0.mlp.down_proj"
    into, out = made.states(
        [HookPoint(down, "input"), HookPoint(down, "output")], answers=True, personas=False
    ).values()
    assert into.positive.shape == (20, 64)
    W = model.get_submodule(down).weight.double()
    assert torch.allclose(into.differences @ W.T, out.differences, atol=1e-5)


def test_rows_keep_their_order_over_batches():
    """Batches are packed by length; a positive side compared with another pair's negative side is no contrast."""
    model, tokenizer = tiny("qwen3", layers=1)
    rows = encode(model, tokenizer, pairs(ANSWERS)).positive
    point = HookPoint("model.layers.0", "output")
    whole = capture(model, rows, [point], shown=False)[point].values
    assert torch.allclose(capture(model, rows, [point], token_budget=40, shown=False)[point].values, whole, atol=1e-5)


def test_activation_bases_hold_most_of_the_differences():
    """Cumulative, block-local, inputs: each against a dense SVD of the differences at its own place."""
    model, tokenizer = tiny("qwen3", layers=2)
    made = Materials(model, tokenizer, pairs(ANSWERS))
    stream, out, into = (
        bases.from_materials("activation-pca", made, rank=3),
        bases.from_materials("activation-pca-block", made, rank=3),
        bases.from_materials("activation-pca", made, rank=3, side="input"),
    )
    at = "model.layers.1"
    down, q = f"{at}.mlp.down_proj", f"{at}.self_attn.q_proj"
    for basis, name, point in (
        (stream, down, HookPoint(at, "output")),
        (stream, f"{at}.self_attn.o_proj", HookPoint(at, "output")),
        (out, down, HookPoint(down, "output")),
        (into, down, HookPoint(down, "input")),
        (into, q, HookPoint(q, "input")),
    ):
        (sides,) = made.states([point], answers=True, personas=True).values()
        D = sides.differences.numpy()
        held = np.square(D @ basis.vectors[name].double().numpy()).sum()
        assert held == pytest.approx(np.square(np.linalg.svd(D, compute_uv=False)[:3]).sum(), rel=1e-5)
    assert into.vectors[q] is into.vectors[f"{at}.self_attn.v_proj"]


def test_the_persona_contrast_is_read_in_front_of_the_answer():
    """With answers in it, it would hold what is said and not under whom; without personas there is nothing to see."""
    model, tokenizer = tiny("qwen3", layers=2)
    one = bases.make("persona-contrast", model, tokenizer=tokenizer, pairs=pairs(ANSWERS), rank=2)
    other = bases.make("persona-contrast", model, tokenizer=tokenizer, pairs=pairs((("No", "Yes"),)), rank=2)
    for name in one.names:
        assert torch.linalg.svdvals(one.vectors[name].T @ other.vectors[name]).min() > 0.999
    with pytest.raises(WeightsteerError, match="lack the columns sys_prompt_pos"):
        bases.make("persona-contrast", model, tokenizer=tokenizer, pairs=pairs().drop("sys_prompt_pos"))


def test_the_task_difference_is_one_subspace_without_personas():
    """It is what the branches are trained on; personas in the prompt would put another contrast in."""
    model, tokenizer = tiny("qwen3", layers=2)
    with_personas = bases.make("task-difference", model, tokenizer=tokenizer, pairs=pairs(ANSWERS), rank=3)
    without = bases.make(
        "task-difference",
        model,
        tokenizer=tokenizer,
        pairs=pairs(ANSWERS).drop("sys_prompt_pos", "sys_prompt_neg"),
        rank=3,
    )
    assert with_personas.digest == without.digest
    assert len(without.groups) == 1


def test_a_contrast_that_is_planted_is_found():
    """Blocks that add nothing, and answers that differ in a known way: the differences are those of embeddings."""
    model, tokenizer = passing()
    answers = (("Yes", "No"),)
    basis = bases.make("task-difference", model, tokenizer=tokenizer, pairs=pairs(answers), rank=1)
    yes, no = (tokenizer(text)["input_ids"] for text in answers[0])
    table = model.get_input_embeddings().weight
    difference = (table[yes].mean(0) - table[no].mean(0)).detach()
    found = basis.vectors["model.layers.0.mlp.down_proj"][:, 0]
    assert abs(float(found @ difference / difference.norm())) > 0.9999


@pytest.mark.parametrize(("name", "factor"), [("suppressed", 0.0), ("amplified", 4.0)])
def test_a_direction_the_last_block_suppresses_or_amplifies_is_found(name, factor):
    """Exchanged signs, or depths exchanged, would call what grows suppressed."""
    model, tokenizer = passing()
    made = Materials(model, tokenizer, pairs(ANSWERS))
    # a principal direction of the states: what else correlates with it would be suppressed in part
    middle = made.stream_points[2]
    states = torch.cat(made.states([middle], answers=True, personas=True)[middle])
    states = states / states.norm(dim=1, keepdim=True)
    direction = torch.linalg.svd(states - states.mean(0)).Vh[2].float()
    with last_block(model, lambda h: h + (factor - 1) * (h @ direction)[..., None] * direction):
        basis = bases.from_materials(name, made, rank=1)
    found = basis.vectors["model.layers.0.mlp.down_proj"][:, 0]
    assert abs(float(found @ direction)) > 0.95


def test_places_with_fewer_directions_have_fewer_and_too_few_everywhere_is_an_error():
    """Directions beyond what the pairs span would be rounding, and would be swept as if they meant something."""
    rows = {
        "two": torch.diag(torch.tensor([3.0, 2.0, 0.0])),
        "none": torch.zeros(4, 3),
        "noise": torch.diag(torch.tensor([1.0, 1e-6, 1e-6])),
    }
    found = principal(rows, 2, "the differences")
    assert {name: columns.shape for name, columns in found.items()} == {"two": (3, 2), "noise": (3, 1)}
    with pytest.raises(WeightsteerError, match=r"the differences span 2 directions.*rank 3.*more pairs"):
        principal(rows, 3, "the differences")


def test_probe_prompts_must_not_be_evaluated():
    """A subspace fitted on evaluation rows explains them by construction."""
    model, tokenizer = tiny("qwen3", layers=1)
    leaked = Item("a", "a", 1, ({"role": "user", "content": "tell me  about RIVERS."},))
    with pytest.raises(WeightsteerError, match=r"1 of the prompts.*'Tell me about rivers\.'"):
        Materials(model, tokenizer, pairs(), items=[leaked])
    other = Item("b", "b", 1, ({"role": "user", "content": "Tell me about stones."},))
    assert bases.make("activation-pca", model, tokenizer=tokenizer, pairs=pairs(ANSWERS), items=[other], rank=2).names


def test_many_pairs_are_sampled(monkeypatch):
    """Memory must not grow with the number of pairs; the sample must be the same for the same seed."""
    model, tokenizer = tiny("qwen3", layers=1)
    monkeypatch.setattr(materials, "PROBES", 6)
    many = pl.concat([pairs(ANSWERS)] * 3)
    found = [
        Materials(model, tokenizer, many, seed=seed)
        .states([HookPoint("model.layers.0", "output")], answers=True, personas=True)
        .popitem()[1]
        .positive
        for seed in (0, 0, 1)
    ]
    assert found[0].shape == (6, 32)
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])
