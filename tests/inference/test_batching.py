"""Batches keep every row, and the limits of memory."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny import tiny

from weightsteer.errors import WeightsteerError
from weightsteer.inference.batching import batches, check_length, distinct, left_padded, right_padded


@given(
    st.lists(st.tuples(st.integers(1, 200), st.integers(1, 40)), max_size=30),
    st.integers(1, 400),
    st.integers(1, 100),
    st.booleans(),
)
def test_batches_cover_every_row_once_within_the_limits(
    rows: list[tuple[int, int]], budget: int, most: int, ragged: bool
) -> None:
    """A row lost or doubled would bias a loss; too large a batch would exhaust the memory."""
    lengths, reads = [length for length, _ in rows], [read for _, read in rows]
    found = list(batches(lengths, budget, reads=reads, most_reads=most, ragged=ragged, least_filled=0.5))
    assert sorted(index for batch in found for index in batch) == list(range(len(rows)))
    for batch in found:
        own = [reads[index] for index in batch]
        longest = lengths[batch[0]]
        assert longest == max(lengths[index] for index in batch)
        assert len(batch) == 1 or len(batch) * longest <= budget
        assert len(batch) == 1 or (sum(own) if ragged else len(own) * max(own)) <= most
        assert all(lengths[index] > 0.5 * longest for index in batch[1:])


def test_batches_are_filled_and_keep_the_order_of_equal_rows() -> None:
    """Half-empty batches would be slow, and another order of equal rows would change the last bits of a result."""
    assert list(batches([3, 5, 5, 3, 3], 10)) == [[1, 2], [0, 3, 4]]
    assert list(batches([3, 3, 3], 100, reads=[1, 4, 1], most_reads=6, ragged=True)) == [[0, 1, 2]]
    assert list(batches([3, 3, 3], 100, reads=[1, 4, 1], most_reads=6)) == [[0], [1], [2]]


def test_equal_rows_are_found() -> None:
    """The value of one row would be given to another."""
    assert distinct(["b", "a", "b", "c", "a"]) == ([0, 1, 3], [0, 1, 0, 2, 1])
    assert distinct([]) == ([], [])


def test_padding_keeps_rows_at_their_side() -> None:
    """A row at the wrong side would be read behind its end, or decoded from its filling."""
    cpu = torch.device("cpu")
    assert right_padded([[1, 2, 3], [4]], cpu).tolist() == [[1, 2, 3], [4, 4, 4]]
    ids, mask = left_padded([[1, 2, 3], [4]], cpu)
    assert ids.tolist() == [[1, 2, 3], [4, 4, 4]]
    assert mask.tolist() == [[1, 1, 1], [0, 0, 1]]


def test_what_is_longer_than_the_context_is_refused() -> None:
    """Positions beyond the context give numbers that mean nothing."""
    model, _ = tiny("qwen3")
    check_length(model, 512, "a row has 512 tokens", "shorten it")
    with pytest.raises(WeightsteerError, match=r"a row has 513 tokens, but tiny-qwen3 reads at most 512: shorten it\."):
        check_length(model, 513, "a row has 513 tokens", "shorten it")
