"""What the engine computes once: common beginnings, layers below the steered ones, the unsteered model."""

from dataclasses import replace
from typing import Any

import polars as pl
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sweeps import ALPHAS, SCORES, Shift, assert_same, some_items, twins
from tiny import ARCHITECTURES, tiny
from transformers import AutoConfig, AutoModelForCausalLM

from weightsteer.inference.prefixes import pack, shares_prefixes, visible
from weightsteer.measure import sweep
from weightsteer.models import render_chat

rows_of_tokens = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=9), min_size=1, max_size=12)


@given(rows_of_tokens, st.sampled_from([0, 1, 10, 1000]), st.integers(1, 30), st.integers(1, 5))
def test_every_row_can_be_read_from_its_pack(
    ids: list[list[int]], worth: float, max_tokens: int, max_rows: int
) -> None:
    """A row would be scored with tokens of another one, at wrong positions, or not at all."""
    packs = pack(ids, range(len(ids)), worth, max_tokens, max_rows)
    assert sorted(row for one in packs for row in one.rows) == list(range(len(ids)))
    longest = max(len(one.ids) for one in packs)
    for one, sees in zip(packs, visible(packs, longest), strict=True):
        assert len(one.rows) == len(one.answers) <= max_rows
        assert len(one.ids) <= max(max_tokens, len(ids[one.rows[0]]))
        for row, answer in zip(one.rows, one.answers, strict=True):
            seen = [at for at in range(longest) if sees[answer, at]]
            assert [one.ids[at] for at in seen] == ids[row]
            assert [one.positions[at] for at in seen] == list(range(len(ids[row])))
            # and each of these sees the row up to itself
            for at, key in enumerate(seen):
                assert [k for k in range(longest) if sees[key, k]] == seen[: at + 1]
        if not worth:
            assert not one.branches


def test_a_pack_holds_a_common_beginning_once() -> None:
    """Nothing would be saved; or packs would grow until attention costs more than what they save."""
    stem = list(range(50))
    (one,) = pack([[*stem, 1, 2], [*stem, 3], stem], range(3), 1000, 1000, 10)
    assert one.ids == [*stem, 1, 2, 3]
    assert one.positions == [*range(52), 50]
    assert sorted(zip(one.rows, one.answers, strict=True)) == [(0, 51), (1, 52), (2, 49)]
    # one shared token of a hundred is not worth the attention between the two rows
    far = [[0, *range(1 + 100 * i, 100 + 100 * i)] for i in range(2)]
    assert len(pack(far, range(2), 10, 1000, 10)) == 2


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


def test_only_architectures_that_mix_tokens_by_plain_attention_share() -> None:
    """Recurrent layers, short windows and kernels without masks would give wrong numbers without a word."""
    model, _ = tiny("mistral")
    assert shares_prefixes(model, 8)
    assert not shares_prefixes(model, 9)
    model, _ = tiny("gemma3_text")
    assert shares_prefixes(model, 8)
    assert not shares_prefixes(model, 9)
    model.config.layer_types = ["full_attention", "linear_attention"] * 2
    assert not shares_prefixes(model, 8)
    model, _ = tiny("qwen3")
    assert shares_prefixes(model, 500)
    model.config._attn_implementation = "flash_attention_2"
    assert not shares_prefixes(model, 8)
    options: dict[str, Any] = {"vocab_size": 50, "hidden_size": 32}
    for kind, extra in {
        "mamba": {"num_hidden_layers": 2},
        "bloom": {"n_layer": 2, "n_head": 2},
        "falcon": {"num_hidden_layers": 2, "num_attention_heads": 4, "alibi": True},
    }.items():
        config = AutoConfig.for_model(kind, **options, **extra)
        with torch.device("meta"):
            assert not shares_prefixes(AutoModelForCausalLM.from_config(config), 8), kind


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
