"""What the engine computes once: common beginnings, layers below the steered ones, the unsteered model."""

from dataclasses import replace

import polars as pl
import pytest
from sweeps import ALPHAS, SCORES, Shift, assert_same, some_items, twins
from tiny import ARCHITECTURES, tiny

from weightsteer.measure import sweep
from weightsteer.models import render_chat


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_shared_beginnings_change_nothing(arch: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of one pack would leak into each other; or the engine would share where a sliding window cannot."""
    model, tokenizer = tiny(arch)
    sizes: list[int] = []
    embedding = model.get_input_embeddings()
    embedding.register_forward_pre_hook(lambda m, args: sizes.append(args[0].shape[0]))
    for names in (["model.layers.2"], ["model.layers.0"]):
        sizes.clear()
        shared = sweep(model, tokenizer, Shift(names), twins(), ALPHAS, shown=False)
        times = 1 if names == ["model.layers.2"] else len(ALPHAS)
        assert sum(sizes) == times * (6 if arch in ("mistral", "gemma2", "gemma3_text") else 3)
        alone = sweep(model, tokenizer, Shift(names), twins(), ALPHAS, share_prefixes=False, shown=False)
        assert_same(shared, alone.select(SCORES))


def test_layers_below_the_first_steered_one_run_once_per_row() -> None:
    """The engine would be no faster than steering one strength at a time."""
    model, tokenizer = tiny("qwen3")
    seen: dict[int, int] = {}
    for index, layer in enumerate(model.model.layers):
        layer.register_forward_hook(lambda m, a, y, i=index: seen.__setitem__(i, y.shape[0]))
    # rows and positions that modules of the last layer and the output embedding are given
    shapes: dict[str, tuple[int, int]] = {}
    last = model.model.layers[3]
    watched = {"q": last.self_attn.q_proj, "k": last.self_attn.k_proj, "mlp": last.mlp.up_proj, "out": model.lm_head}
    for name, module in watched.items():
        module.register_forward_hook(lambda m, x, y, name=name: shapes.__setitem__(name, tuple(x[0].shape[:2])))
    item = some_items(4)[3]
    items = [replace(item, item=f"row-{i}") for i in range(5)]
    tokens = len(render_chat(tokenizer, item.messages, answer_prefix=item.answer_prefix))
    sweep(model, tokenizer, Shift(["model.layers.2"]), items, ALPHAS, share_prefixes=False, shown=False)
    assert seen == {0: 5, 1: 5, 2: 20, 3: 20}
    assert shapes == {"q": (20, 1), "k": (20, tokens), "mlp": (20, 1), "out": (20, 1)}


def test_the_unsteered_model_is_computed_once() -> None:
    """Interventions would be compared with numbers that differ by rounding, at the price of a fifth of the time."""
    model, tokenizer = tiny("qwen3")
    tokens: list[int] = []
    model.model.layers[3].register_forward_hook(lambda m, a, y: tokens.append(y.shape[0]))
    several = [Shift([f"model.layers.{i}"], seed=i) for i in (1, 2, 3)]
    rows = sweep(model, tokenizer, several, some_items(5), ALPHAS, share_prefixes=False, shown=False)
    assert sum(tokens) == 5 * (1 + 3 * 3)
    base = rows.filter(pl.col("alpha") == 0.0).partition_by("seed", include_key=False)
    assert base[0].equals(base[1])
    assert base[0].equals(base[2])
    alone = sweep(model, tokenizer, several[2], some_items(5), ALPHAS, shown=False)
    assert_same(rows.filter(pl.col("seed") == 3), alone.select(SCORES))
