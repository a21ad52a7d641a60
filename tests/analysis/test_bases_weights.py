"""Bases read from weights: each holds what its name says, in dense numpy and in the model's own forward pass."""

import numpy as np
import pytest
import torch
from tiny import tiny
from transformers.models.llama.modeling_llama import repeat_kv

from weightsteer.analysis import bases
from weightsteer.analysis.bases import Materials
from weightsteer.analysis.bases.attention import heads, layers
from weightsteer.analysis.bases.stream import Stream, table_gram
from weightsteer.errors import WeightsteerError
from weightsteer.models import decoder_layers

ARCHITECTURES = ("qwen3", "llama", "gemma", "mistral", "qwen2", "gemma2", "gemma3_text")
LAYERS = 2


def uneven(arch):
    """A tiny model whose norms have gains far from 1 (as trained ones do), so that a forgotten gain is seen."""
    model, tokenizer = tiny(arch, layers=LAYERS)
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            if "norm" in name:
                parameter += torch.rand(parameter.shape, generator=generator)
    return model, tokenizer


def inside(columns, states):
    """The share of the squared norm of rows (n, d) that lies in a subspace."""
    states = states.double()
    return float((states @ columns.double()).square().sum() / states.square().sum())


def gains(model, norm):
    weight = model.get_submodule(norm).weight.detach().double().numpy()
    return 1 + weight if "gemma" in model.config.model_type else weight


def weight(model, name):
    return model.get_submodule(name).weight.detach().double().numpy()


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_every_module_at_the_stream_is_found(arch):
    """A reader or writer that is missed would be missing from every basis of the stream."""
    model, _ = uneven(arch)
    stream = Stream.of(model)
    linear = {name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)} - {"lm_head"}
    assert {projection.name for projection in (*stream.readers, *stream.writers)} == linear
    assert [projection.role for projection in stream.writers if projection.layer == 1] == ["o_proj", "down_proj"]
    assert stream.unembedding.shape == stream.embedding.shape == (model.config.vocab_size, 32)


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_a_direction_of_the_stream_is_what_readers_see_of_it_through_their_norm(arch):
    """With another gain (Gemma's is 1 + w) or another norm, bases of the stream would miss what modules read."""
    model, _ = uneven(arch)
    stream = Stream.of(model)
    columns = torch.linalg.qr(torch.randn(32, 3, generator=torch.Generator().manual_seed(0)).double()).Q
    states = (torch.randn(5, 3, generator=torch.Generator().manual_seed(1)).double() @ columns.T).float()
    found = stream.at_modules(columns, "input")
    assert found.keys() == {projection.name for projection in stream.readers}
    for projection in stream.readers:
        with torch.no_grad():
            seen = model.get_submodule(projection.norm)(states)
        assert inside(found[projection.name], seen) > 1 - 1e-9
        assert inside(columns, seen) < 1 - 1e-3


@pytest.mark.parametrize("arch", ["qwen3", "gemma2", "gemma3_text"])
def test_a_direction_of_the_stream_is_what_writers_add_to_it(arch):
    """Gemma 2 and 3 normalise what is written; without that norm in the account the subspace is another one."""
    model, _ = uneven(arch)
    stream = Stream.of(model)
    columns = torch.linalg.qr(torch.randn(32, 3, generator=torch.Generator().manual_seed(0)).double()).Q
    found = stream.at_modules(columns, "output")
    assert found.keys() == {projection.name for projection in stream.writers}
    for projection in stream.writers:
        written = (
            torch.randn(5, 3, generator=torch.Generator().manual_seed(1)).double() @ found[projection.name].T
        ).float()
        with torch.no_grad():
            added = model.get_submodule(projection.norm)(written) if projection.norm else written
        assert inside(columns, added) > 1 - 1e-9


def test_directions_by_depth_reach_the_right_blocks():
    """Off by one, a block would be projected on what the block after it has written."""
    stream = Stream.of(tiny("qwen3", layers=LAYERS)[0])
    eye = torch.eye(32, dtype=torch.float64)
    by_depth = {depth: eye[:, depth : depth + 1] for depth in range(LAYERS + 1)}
    written, seen = stream.at_modules(by_depth, "output"), stream.at_modules(by_depth, "input")
    assert int(written["model.layers.0.mlp.down_proj"].argmax()) == 1
    assert int(written["model.layers.1.self_attn.o_proj"].argmax()) == 2
    assert int(seen["model.layers.0.self_attn.q_proj"].abs().argmax()) == 0
    assert int(seen["model.layers.1.mlp.up_proj"].abs().argmax()) == 1
    del by_depth[0]
    assert "model.layers.0.self_attn.q_proj" not in stream.at_modules(by_depth, "input")


@pytest.mark.parametrize("side", ["output", "input"])
@pytest.mark.parametrize(("name", "part"), [("weights-top", slice(0, 3)), ("weights-weak", slice(-3, None))])
def test_singular_subspaces_hold_the_energy_of_their_singular_values(name, part, side):
    """Left and right, top and weak, tall and wide: any of them exchanged gives another energy."""
    model, _ = tiny("qwen3", layers=1)
    basis = bases.make(name, model, rank=3, side=side)
    assert len(basis.names) == 7
    for module in basis.names:
        W = weight(model, module)
        B = basis.vectors[module].double().numpy()
        held = np.square(B.T @ W if side == "output" else W @ B).sum()
        assert held == pytest.approx(np.square(np.linalg.svd(W, compute_uv=False)[part]).sum(), rel=1e-5)


@pytest.mark.parametrize("arch", ["qwen3", "llama", "gemma"])
def test_the_readout_is_that_of_the_unembedding_behind_its_norm(arch):
    """Tied or not: the strongest direction must move the logits most, and the weakest least."""
    model, _ = uneven(arch)
    U = model.get_output_embeddings().weight.detach().double().numpy() * gains(model, "model.norm")
    values = np.linalg.svd(U, compute_uv=False)
    top, weak = (bases.make(name, model, rank=2) for name in ("readout", "readout-weak"))
    for basis, expected in ((top, values[:2]), (weak, values[::-1][:2])):
        B = basis.vectors["model.layers.0.mlp.down_proj"].double().numpy()
        assert np.linalg.norm(U @ B, axis=0) == pytest.approx(expected, rel=1e-4)
        assert len(basis.groups) == 1


def test_large_tables_are_read_in_parts():
    """The rows behind the first part of a vocabulary of 150,000 must count too."""
    table = torch.randn(20000, 4, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(table_gram(table), table.double().T @ table.double(), rtol=1e-12)


@pytest.mark.parametrize("arch", ["qwen3", "llama", "gemma", "gemma2"])
def test_residual_spaces_are_those_of_all_readers_and_writers(arch):
    """Each of unit norm and behind its own norm; written out here for every architecture."""
    model, _ = uneven(arch)
    materials = Materials(model)
    # Gemma 2 puts a norm of its own in front of the MLP, and one behind each part
    mlp_norm = "pre_feedforward_layernorm" if arch == "gemma2" else "post_attention_layernorm"
    U = weight(model, "lm_head") * gains(model, "model.norm")
    E = weight(model, "model.embed_tokens")
    read, written = U.T @ U / np.square(U).sum(), E.T @ E / np.square(E).sum()
    for layer in range(LAYERS):
        at = f"model.layers.{layer}"
        norms = {"self_attn": f"{at}.input_layernorm", "mlp": f"{at}.{mlp_norm}"}
        for path in ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "mlp.gate_proj", "mlp.up_proj"):
            W = weight(model, f"{at}.{path}") * gains(model, norms[path.split(".")[0]])
            read += W.T @ W / np.square(W).sum()
        for path, behind in (("self_attn.o_proj", "post_attention"), ("mlp.down_proj", "post_feedforward")):
            W = weight(model, f"{at}.{path}")
            if arch == "gemma2":
                W = gains(model, f"{at}.{behind}_layernorm")[:, None] * W
            written += W @ W.T / np.square(W).sum()
    assert materials.reading.numpy() == pytest.approx(read, abs=1e-5)
    assert materials.writing.numpy() == pytest.approx(written, abs=1e-5)


@pytest.mark.parametrize(
    ("name", "gram", "best"),
    [
        ("residual-read", lambda m: m.reading, max),
        ("residual-read-weak", lambda m: m.reading, min),
        ("residual-write", lambda m: m.writing, max),
        ("residual-write-weak", lambda m: m.writing, min),
        ("write-not-read", lambda m: m.writing / m.writing.trace() - m.reading / m.reading.trace(), max),
    ],
)
def test_residual_spaces_are_extreme(name, gram, best):
    """No random subspace of that rank may be written or read more (or less) than the basis that claims it."""
    materials = Materials(tiny("qwen3", layers=LAYERS)[0])
    basis = bases.from_materials(name, materials, rank=4)
    G = gram(materials)

    def held(one):
        B = one.vectors[one.names[0]].double()
        return float((B.T @ G @ B).trace())

    values = [held(basis), *(held(basis.matched_random(seed)) for seed in range(20))]
    assert best(values) == values[0]


@pytest.mark.parametrize("arch", ["qwen3", "llama", "gemma", "mistral", "qwen2"])
def test_heads_are_those_of_the_model(arch):
    """One token attends to itself alone, so the layer's own output is Σ_h O_h V_h x: a wrong head layout shows."""
    model, _ = tiny(arch, layers=LAYERS)
    materials = Materials(model)
    attention = decoder_layers(model)[1][1].self_attn
    if attention.v_proj.bias is not None:
        attention.v_proj.bias.zero_()
    x = torch.randn(6, 1, 32, generator=torch.Generator().manual_seed(0))
    rotary = model.model.rotary_emb(x, torch.zeros(6, 1, dtype=torch.long))
    with torch.no_grad():
        output = attention(x, position_embeddings=rotary, attention_mask=None)[0][:, 0].double()
    of = heads(materials, layers(materials)[1])
    assert torch.allclose(x[:, 0].double() @ (of.O @ of.V).sum(0).T, output, atol=1e-5)
    keys = attention.k_proj.weight.detach().double().view(1, 2, 8, 32)
    gain = attention.k_norm.weight.detach().double()[:, None] if arch == "qwen3" else 1.0
    assert torch.allclose(of.K, repeat_kv(keys, 2)[0] * gain)


def test_attention_spaces_hold_most_of_their_circuits():
    """OV at what is written and read, QK at queries and at keys: each against the matrices of the heads, by hand."""
    model, _ = uneven("qwen3")
    materials = Materials(model)
    ov = {side: bases.from_materials("attention-ov", materials, rank=5, side=side) for side in ("output", "input")}
    qk = bases.from_materials("attention-qk", materials, rank=5, side="input")
    for layer, projections in enumerate(layers(materials)):
        of, at = heads(materials, projections), f"model.layers.{layer}.self_attn"
        gain = torch.from_numpy(gains(model, f"model.layers.{layer}.input_layernorm"))
        M, N = of.O @ of.V, of.Q.mT @ of.K
        for basis, name, stacked in (
            (ov["output"], f"{at}.o_proj", (M * gain).transpose(0, 1).flatten(1)),
            (ov["input"], f"{at}.v_proj", M.flatten(0, 1).T),
            (qk, f"{at}.q_proj", N.transpose(0, 1).flatten(1)),
            (qk, f"{at}.k_proj", N.flatten(0, 1).T),
        ):
            held = (basis.vectors[name].double().T @ stacked).square().sum()
            assert float(held) == pytest.approx(float(torch.linalg.svdvals(stacked)[:5].square().sum()), rel=1e-5)
    assert len(bases.from_materials("attention-qk", materials, side="output").groups) == 1


def test_mlp_spaces_hold_most_of_gates_and_round_trips():
    """Against the dense products."""
    model, _ = uneven("llama")
    gate = bases.make("mlp-gate", model, rank=4, side="input")
    trip = {side: bases.make("mlp-roundtrip", model, rank=4, side=side) for side in ("output", "input")}
    for layer in range(LAYERS):
        at = f"model.layers.{layer}.mlp"
        G, U, D = (weight(model, f"{at}.{path}_proj") for path in ("gate", "up", "down"))
        gain = gains(model, f"model.layers.{layer}.post_attention_layernorm")
        for basis, name, matrix in (
            (gate, "gate_proj", G.T),
            (gate, "up_proj", G.T),
            (trip["output"], "down_proj", D @ (U * gain)),
            (trip["input"], "up_proj", (D @ U).T),
            (trip["input"], "gate_proj", (D @ U).T),
        ):
            held = np.square(basis.vectors[f"{at}.{name}"].double().numpy().T @ matrix).sum()
            assert held == pytest.approx(np.square(np.linalg.svd(matrix, compute_uv=False)[:4]).sum(), rel=1e-5)
    assert len(bases.make("mlp-gate", model, side="output").groups) == 1


def test_weights_in_half_precision_give_the_same_spaces():
    """Checkpoints are bf16; a basis must not be computed in it."""
    model, _ = tiny("qwen3", layers=1)
    half = model.to(torch.bfloat16)
    found = bases.make("residual-read", half, rank=3)
    again = bases.make("residual-read", half.float(), rank=3)
    name = found.names[0]
    assert torch.linalg.svdvals(found.vectors[name].T @ again.vectors[name]).min() > 0.999999


def test_unknown_architectures_and_quantised_weights_are_refused():
    """A basis of the modules that happen to be known would be taken for one of all of them."""
    model, _ = tiny("qwen3", layers=1)
    del model.model.layers[0].mlp.up_proj
    with pytest.raises(WeightsteerError, match=r"model\.layers\.0 .* has no up_proj"):
        bases.make("residual-write", model)
    model, _ = tiny("qwen3", layers=1)
    model.model.layers[0].self_attn.o_proj.to("meta")
    with pytest.raises(WeightsteerError, match="without offloading"):
        bases.make("weights-top", model)
    model, _ = tiny("qwen3", layers=1)
    del model.model.layers[0].input_layernorm
    with pytest.raises(WeightsteerError, match="which norms are between"):
        bases.make("residual-read", model)
