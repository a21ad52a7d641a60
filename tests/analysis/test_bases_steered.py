"""Bases of what a vector does to the states, and of the tokens that attention selects: against plain passes."""

import torch
from contrasts import ANSWERS, pairs, random_vector
from tiny import tiny
from vectors import hooks

import weightsteer as ws
from weightsteer.analysis import bases
from weightsteer.analysis.bases import Materials, selected
from weightsteer.analysis.bases.leading import principal
from weightsteer.analysis.overlap import overlap
from weightsteer.data.pairs.encoding import encode


def plain_states(model, rows, layer, vector, alpha):
    """The mean state of each answer behind one block, one text at a time."""
    found, seen = [], []

    def record(module, args, output):
        seen.append(output[0] if isinstance(output, tuple) else output)

    for row in rows:
        handle = model.get_submodule(f"model.layers.{layer}").register_forward_hook(record)
        with torch.no_grad(), ws.steer(model, vector, alpha):
            model(input_ids=torch.tensor([row.ids]), use_cache=False)
        handle.remove()
        found.append(seen.pop()[0, row.start : -1].mean(0).double())
    return torch.stack(found)


def test_the_shift_is_that_from_minus_to_plus_the_vector():
    """The published projection rests on this basis; states of the pairs in its place would be another one."""
    model, tokenizer = tiny("qwen3", layers=2)
    vector = random_vector(model)
    made = Materials(model, tokenizer, pairs(ANSWERS), vector)
    basis = bases.from_materials("steering-shift", made, rank=3)
    rows = encode(model, tokenizer, pairs(ANSWERS))
    every = [*rows.positive, *rows.negative]
    D = plain_states(model, every, 1, vector, 1.0) - plain_states(model, every, 1, vector, -1.0)
    expected = principal({0: D}, 3, "")[0]
    found = basis.vectors["model.layers.1.mlp.down_proj"].double()
    assert torch.linalg.matrix_norm(expected.T @ found).item() ** 2 > 3 - 1e-4
    assert hooks(model) == 0
    block = bases.from_materials("steering-shift-block", made, rank=2)
    assert block.rank("model.layers.0.self_attn.o_proj") == 2


def test_a_share_in_the_shift_is_no_tautology():
    """The one basis that is made from the vector and does not hold it by construction would be struck out."""
    model, tokenizer = tiny("qwen3", layers=2)
    vector = random_vector(model)
    made = Materials(model, tokenizer, pairs(ANSWERS), vector)
    shift = overlap(vector, bases.from_materials("steering-shift", made, rank=2), draws=20)
    own = overlap(vector, bases.from_materials("own", made, rank=2), draws=20)
    assert shift["warning"].null_count() == shift.height
    assert own["warning"].null_count() < own.height


def test_attention_selects_the_tokens_of_the_answer(monkeypatch):
    """States of the prompt, or of tokens that another block weighs, would pass for those that are selected."""
    model, tokenizer = tiny("llama", layers=2)
    monkeypatch.setattr(selected, "TOKENS", 2)
    kernel = model.config._attn_implementation
    basis = bases.make("attention-selected", model, tokenizer=tokenizer, pairs=pairs(ANSWERS), rank=2)
    assert model.config._attn_implementation == kernel
    rows = encode(model, tokenizer, pairs(ANSWERS), personas=True)
    sides = []
    model.set_attn_implementation("eager")
    for side in (rows.positive, rows.negative):
        means = []
        for row in side:
            ids = torch.tensor([row.ids[:-1]])
            with torch.no_grad():
                out = model(input_ids=ids, output_hidden_states=True, output_attentions=True, use_cache=False)
            last = ids.shape[1] - 1
            weights = out.attentions[1][0, :, last].mean(0)[row.start : last]
            tokens = sorted(range(len(weights)), key=lambda i: -float(weights[i]))[:2]
            places = [row.start + token for token in tokens] or [last]
            means.append(out.hidden_states[1][0, places].double().mean(0))
        sides.append(torch.stack(means))
    expected = principal({0: sides[0] - sides[1]}, 2, "")[0]
    found = basis.vectors["model.layers.0.mlp.down_proj"].double()
    assert torch.linalg.matrix_norm(expected.T @ found).item() ** 2 > 2 - 1e-4
