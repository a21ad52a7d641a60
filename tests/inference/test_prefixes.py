"""Packs: every row can be read from its pack, and only models that compute it alike are given one."""

from typing import Any

import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny import tiny
from transformers import AutoConfig, AutoModelForCausalLM

from weightsteer.inference.prefixes import common_beginning, pack, shares_prefixes, visible

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


def test_the_common_beginning_is_that_of_all_rows() -> None:
    """Rows would be continued from the keys and values of another row's beginning."""
    assert common_beginning([[1, 2, 3], [1, 2, 4, 5], [1, 2]]) == 2
    assert common_beginning([[1, 2], [3, 2], [1, 2]]) == 0
    assert common_beginning([[1, 2]]) == 2


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
