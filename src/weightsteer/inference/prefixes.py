"""Rows that begin alike: their common beginning is computed once.

There are two ways, each for a reason.

- **By mask** (`pack`): the rows of a pack form a tree in one sequence. A row follows the previous one as far as both
  agree, and branches off there. The tree's tokens are in depth-first order; each has the position it has in its own row
  and sees its ancestors alone, so that every row is computed as if it were alone::

      row 1   s s s a a a        pack       s s s a a a b b
      row 2   s s s b b          positions  0 1 2 3 4 5 3 4

  A sweep does this. Its rows agree to within a few tokens, and beginnings of any number and depth are found. A pack is
  one row of the batch with one strength, so every strength needs the whole pack once. Attention to all tokens of the
  pack makes long continuations expensive.

- **By cache** (`weightsteer.inference.likelihood.grouped_log_likelihood`): the keys and values of one beginning per
  group are computed first, and each row continues from them. Joint training and curves along a line of weights do
  this. Their rows share one system prompt and go on with whole questions and answers, a group is one adapter or one
  strength, and gradients flow through keys and values. No mask is needed, so the fast causal kernels stay in use.

Both order rows lexicographically, where no earlier row agrees with one for longer than its neighbour does, and
compare neighbours with `agreement`.
"""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedModel

from weightsteer.inference.forward import plain_stack


def agreement(first: Sequence[int], second: Sequence[int]) -> int:
    """How many tokens two rows begin with in common."""
    length = min(len(first), len(second))
    if first[:length] == second[:length]:
        return length
    return next(at for at in range(length) if first[at] != second[at])


def common_beginning(rows: Sequence[list[int]]) -> int:
    """How many tokens all rows begin with: in lexicographic order, all others are between the first and the last."""
    return agreement(min(rows), max(rows))


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
    path: list[int] = []  # positions in the pack of the tokens of the previous row
    previous: list[int] = []
    for row in sorted(rows, key=lambda row: ids[row]):
        tokens = ids[row]
        shared = agreement(previous, tokens) if packs and token_worth else 0
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


def shares_prefixes(model: PreTrainedModel, tokens: int) -> bool:
    """Whether this model computes a pack of rows of at most ``tokens`` tokens as it would compute each row.

    It must take positions and a mask of our own, and mix tokens by attention to all earlier ones alone:
    recurrent layers, windows shorter than a row and positions that are counted rather than given are out.
    """
    config = model.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    window = getattr(config, "sliding_window", None)
    slides = "sliding_attention" in kinds or not getattr(config, "layer_types", None)
    return (
        kinds <= {"full_attention", "sliding_attention"}
        and not (slides and window is not None and window < tokens)
        and config._attn_implementation in ("eager", "sdpa")
        and bool(getattr(model, "_supports_attention_backend", False))
        and not getattr(config, "alibi", False)
        and "position_ids" in inspect.signature(model.forward).parameters
        and plain_stack(model)
    )
