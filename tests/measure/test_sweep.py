"""The engine against the plain way: merge in fp32, one strength and one row at a time, logits of every position."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from sweeps import ALPHAS, TOLERANCE, Shift, assert_same, merged_difference, plain, some_items, twins
from tiny import ARCHITECTURES, random_lora, tiny, tiny_tokenizer
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from weightsteer.data.evals import Item, load
from weightsteer.measure import sweep
from weightsteer.models import decoder_layers, load_model, render_chat
from weightsteer.steering import steer
from weightsteer.vector import WeightVector


def one_by_one(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, intervention: Any, items: Sequence[Item]
) -> pl.DataFrame:
    """`sweep` with a budget of one token: every row is a batch of its own, one strength per call."""
    frames = []
    for alpha in ALPHAS:
        rows = sweep(model, tokenizer, intervention, items, [alpha], token_budget=1, share_prefixes=False, shown=False)
        frames.append(rows.filter(pl.col("alpha") == alpha))
    return pl.concat(frames)


@pytest.mark.parametrize(
    ("arch", "layers"), [*((arch, [1, 2]) for arch in ARCHITECTURES), ("qwen3", [0, 3]), ("gemma2", [0, 3])]
)
def test_sweep_equals_the_plain_way(arch: str, layers: list[int], tmp_path: Path) -> None:
    """Every number the package reports would be wrong: masks, positions, repetition, padding or scoring."""
    model, tokenizer = tiny(arch)
    positive = random_lora(model, tmp_path / "positive", seed=1, layers=layers)
    negative = random_lora(model, tmp_path / "negative", seed=2, layers=layers)
    vector = WeightVector.from_adapters(positive, negative, model)
    items = [*some_items(7), *twins()]
    reference = plain(model, tokenizer, merged_difference(model, positive, negative), items, ALPHAS)
    spread = (
        reference.filter(pl.col("alpha") == 2.0)["logratio"] - (reference.filter(pl.col("alpha") == 0.0)["logratio"])
    )
    assert spread.abs().max() > 0.1, "the vector does nothing, so this test would show nothing"
    for budget in (8192, 600):
        rows = sweep(model, tokenizer, vector, items, ALPHAS, token_budget=budget, shown=False)
        assert_same(rows, reference)
    assert_same(sweep(model, tokenizer, vector, items, ALPHAS, share_prefixes=False, shown=False), reference)


def test_sweep_equals_the_plain_way_on_the_embedded_model(tmp_path: Path) -> None:
    """The numbers of the shipped demo would be wrong."""
    model, tokenizer = load_model("pocket", device="cpu")
    positive = random_lora(model, tmp_path / "positive", seed=1, std=0.03, layers=[1, 2])
    negative = random_lora(model, tmp_path / "negative", seed=2, std=0.03, layers=[1, 2])
    vector = WeightVector.from_adapters(positive, negative, model)
    for name in ("dilemmas", "sycophancy"):
        items = load(name, limit=16).items(model)
        reference = plain(model, tokenizer, merged_difference(model, positive, negative), items, ALPHAS)
        assert_same(sweep(model, tokenizer, vector, items, ALPHAS, shown=False), reference)


@pytest.mark.parametrize("kind", ["gpt2", "gpt_neox", "phi3", "olmo2", "qwen3_moe", "gemma4_text"])
def test_other_architectures(kind: str) -> None:
    """Layers that take arguments by position, experts, or keys shared between layers would be repeated wrongly."""
    tokenizer = tiny_tokenizer()
    options: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "initializer_range": 0.15,
        "max_position_embeddings": 512,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 3,
    }
    extra: dict[str, dict[str, Any]] = {
        "qwen3_moe": {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "head_dim": 8},
        "gemma4_text": {
            "head_dim": 8,
            "global_head_dim": 8,
            "num_key_value_heads": 2,
            "num_kv_shared_layers": 2,
            "hidden_size_per_layer_input": 8,
            "vocab_size_per_layer_input": len(tokenizer),
            "layer_types": ["sliding_attention", "full_attention"] * 2,
            "sliding_window": 8,
        },
    }
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, **options, **extra.get(kind, {}))
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval().requires_grad_(False)
    prefix, _ = decoder_layers(model)
    intervention = Shift([f"{prefix}.2"])
    items = [*some_items(5), *twins()]
    rows = sweep(model, tokenizer, intervention, items, ALPHAS, shown=False)
    assert_same(rows, one_by_one(model, tokenizer, intervention, items))
    with steer(model, intervention, 2.0), torch.no_grad():
        ids = render_chat(tokenizer, items[1].messages, answer_prefix=items[1].answer_prefix)
        logp = model(torch.tensor([ids]), use_cache=False).logits[0, -1].log_softmax(-1)
    yes, no = (
        logp[[i for t, i in tokenizer.get_vocab().items() if t.lstrip("Ġ▁").lower() == c]].logsumexp(0)
        for c in ("yes", "no")
    )
    found = rows.filter((pl.col("alpha") == 2.0) & (pl.col("item") == "row-1"))["logratio"].item()
    assert found == pytest.approx(float(yes - no), abs=TOLERANCE)


@pytest.mark.parametrize(
    "names",
    [
        ["model.embed_tokens"],
        ["model.norm"],
        ["model.layers.0"],
        ["model.layers.3", "model.norm"],
        ["model.layers.3.mlp", "model.layers.3.self_attn.o_proj"],
        ["model.layers.3.self_attn"],
        [],
    ],
)
def test_steering_outside_the_layers(names: list[str]) -> None:
    """Modules before, after or at the edge of the layers would see rows and strengths that do not match."""
    model, tokenizer = tiny("qwen3")
    items = [*some_items(4), *twins()]
    intervention = Shift(names)
    rows = sweep(model, tokenizer, intervention, items, ALPHAS, shown=False)
    assert_same(rows, one_by_one(model, tokenizer, intervention, items))
    moved = rows.group_by("item").agg(pl.col("logratio").max() - pl.col("logratio").min())
    assert (moved["logratio"].max() > 0.01) == bool(names)


def test_alpha_zero_is_the_unsteered_model() -> None:
    """Effects are paired against α = 0: it must be the model itself, also when only asked for implicitly."""
    model, tokenizer = tiny("llama")
    items = some_items(3)
    rows = sweep(model, tokenizer, Shift(["model.layers.2"]), items, [1.0], shown=False)
    assert rows["alpha"].unique(maintain_order=True).to_list() == [0.0, 1.0]
    unsteered = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    assert_same(rows.filter(pl.col("alpha") == 0.0), plain(model, tokenizer, unsteered, items, [0.0]))


def test_half_precision_models_sweep_too() -> None:
    """On a GPU models come in bf16: hooks, scores and strengths must go with that, up to its rounding."""
    model, tokenizer = tiny("qwen3")
    items, intervention = [*some_items(6), *twins()], Shift(["model.layers.2"])
    full = sweep(model, tokenizer, intervention, items, ALPHAS, shown=False)
    half = sweep(model.bfloat16(), tokenizer, intervention, items, ALPHAS, shown=False)
    assert_same(half, full.select("alpha", "item", "logratio", "pmass"), tolerance=0.3)
