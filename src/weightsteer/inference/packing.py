"""Rows that begin alike, packed into one sequence in which their common beginning stands once.

The rows of a pack form a tree: a row follows the previous one as far as both agree, and branches off there.
The pack lists the tree's tokens depth first. A token has the position it has in its own row, and sees its
ancestors alone, so that every row is computed as if it stood by itself:

    row 1   s s s a a a        pack       s s s a a a b b
    row 2   s s s b b          positions  0 1 2 3 4 5 3 4

Rows are taken in lexicographic order, in which no earlier row agrees with one for longer than its neighbour.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Pack:
    """One sequence of L tokens that holds m rows.

    Attributes:
        ids: the tokens (L).
        positions: the position of each token in its rows (L).
        parents: the index in the pack of the token before, -1 for the first of a row (L).
        rows: which rows it holds (m).
        answers: where in the pack each of them ends (m).
    """

    ids: list[int]
    positions: list[int]
    parents: list[int]
    rows: list[int]
    answers: list[int]

    @property
    def branches(self) -> bool:
        """Whether a plain causal mask would be wrong."""
        return len(self.rows) > 1


def pack(
    ids: Sequence[list[int]], rows: Sequence[int], token_worth: float, max_tokens: int, max_rows: int
) -> list[Pack]:
    """Packs of ``rows``, which are indices into ``ids``.

    A row joins the pack of its neighbour when the tokens it shares outweigh the attention it adds: a pack of L
    tokens is attended to in full, L² pairs, however few of them its mask leaves.

    Args:
        ids: the tokens of every row.
        rows: which of them to pack.
        token_worth: how many (query, key) pairs cost as much as one token; 0 keeps every row by itself.
        max_tokens: the most tokens of a pack of several rows.
        max_rows: the most rows of a pack.
    """
    packs: list[Pack] = []
    path: list[int] = []  # where in the pack the tokens of the previous row stand
    previous: list[int] = []
    for row in sorted(rows, key=lambda row: ids[row]):
        tokens = ids[row]
        shared = _agreement(previous, tokens) if packs and token_worth else 0
        if shared:
            last, new = packs[-1], len(tokens) - shared
            pairs = (len(last.ids) + new) ** 2 - len(last.ids) ** 2 - len(tokens) ** 2
            fits = len(last.ids) + new <= max_tokens and len(last.rows) < max_rows
            if not fits or shared * token_worth <= pairs:
                shared = 0
        if not shared:
            packs.append(Pack([], [], [], [], []))
        current = packs[-1]
        start = len(current.ids)
        path = path[:shared] + list(range(start, start + len(tokens) - shared))
        current.ids.extend(tokens[shared:])
        current.positions.extend(range(shared, len(tokens)))
        current.parents.extend(path[at - 1] if at else -1 for at in range(shared, len(tokens)))
        current.rows.append(row)
        current.answers.append(path[-1])
        previous = tokens
    return packs


def _agreement(first: list[int], second: list[int]) -> int:
    """How many tokens two rows begin with in common."""
    length = min(len(first), len(second))
    if first[:length] == second[:length]:
        return length
    return next(at for at in range(length) if first[at] != second[at])


def visible(packs: Sequence[Pack], tokens: int) -> NDArray[np.bool_]:
    """Which keys each query sees, its ancestors and itself: (n, tokens, tokens); padding sees only itself."""
    sees = np.zeros((len(packs), tokens, tokens), dtype=bool)
    parents = np.full((len(packs), tokens), -1)
    for row, one in zip(parents, packs, strict=True):
        row[: len(one.parents)] = one.parents
    every = np.arange(len(packs))
    for at in range(tokens):
        parent = parents[:, at]
        sees[:, at] = sees[every, parent] & (parent >= 0)[:, None]
        sees[:, at, at] = True
    return sees
