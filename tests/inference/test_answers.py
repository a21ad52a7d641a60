"""Choice scoring against its definition."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny import tiny_tokenizer

from weightsteer.errors import WeightsteerError
from weightsteer.inference.answers import choice_table, score_choices


@given(st.integers(0, 2**31), st.integers(1, 4), st.integers(1, 3))
def test_scores_follow_the_definition(seed: int, rows: int, spellings: int) -> None:
    """logratio and pmass would not be what the papers' numbers are."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(rows, 12, generator=generator) * 5
    ids = torch.randperm(12, generator=generator)[: 2 * spellings].view(2, spellings).repeat(rows, 1, 1)
    padded = torch.cat([ids, torch.full((rows, 2, 1), -1)], dim=-1)
    scores = score_choices(logits, padded)
    for row in range(rows):
        p = torch.softmax(logits[row].double(), 0)
        first, second = (float(p[ids[row, side]].sum()) for side in (0, 1))
        assert float(scores.logratio[row]) == pytest.approx(math.log(first / second), abs=1e-4)
        assert float(scores.pmass[row]) == pytest.approx(first + second, abs=1e-5)
        assert bool(scores.low_pmass[row]) == (first + second < 0.01 * float(p.max()))


def test_half_precision_logits_are_scored_in_fp32() -> None:
    """A bf16 log-softmax over a large vocabulary is coarse by tenths of a nat."""
    logits = torch.zeros(1, 100_000, dtype=torch.bfloat16)
    logits[0, 0], logits[0, 1] = 2.0, 1.0
    scores = score_choices(logits, torch.tensor([[[0], [1]]]))
    expected = (math.exp(2) + math.exp(1)) / (math.exp(2) + math.exp(1) + 99_998)
    assert float(scores.logratio) == 1.0
    assert float(scores.pmass) == pytest.approx(expected, rel=1e-4)


def test_nan_is_kept_and_flagged() -> None:
    """A broken row would look like an answer."""
    scores = score_choices(torch.full((1, 4), torch.nan), torch.tensor([[[0], [1]]]))
    assert math.isnan(float(scores.logratio))
    assert math.isnan(float(scores.pmass))
    assert bool(scores.low_pmass)


def test_choice_table_pads_and_refuses() -> None:
    """Two choices of the same tokens always have a log-ratio of 0."""
    tokenizer = tiny_tokenizer()
    table = choice_table(tokenizer, [("Yes", "No"), ("A", "B"), ("No", "Yes")])
    assert table.shape[:2] == (3, 2)
    assert table[0].tolist() == table[2].flip(0).tolist()
    assert (table[1] == -1).any()
    with pytest.raises(WeightsteerError, match="'Yes' and 'yes' are spelled by the same tokens"):
        choice_table(tokenizer, [("Yes", "yes")])
    with pytest.raises(WeightsteerError, match="'maybe' is not a single token"):
        choice_table(tokenizer, [("Yes", "maybe")])
