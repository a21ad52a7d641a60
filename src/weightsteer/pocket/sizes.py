"""The three embedded sizes and their training budgets."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Size:
    """Shape of a Qwen3 decoder with tied embeddings, and how long it is trained.

    A step is ``ROWS`` rows of ``ROW_TOKENS`` tokens, about 28 documents.
    """

    name: str
    width: int
    layers: int
    heads: int
    key_value_heads: int
    head_width: int
    mlp_width: int
    steps: int
    learning_rate: float
    grown_from: str | None = None
    """A smaller size of the same width: its layers come first in each group, the new ones start as the identity."""


ROWS = 14
ROW_TOKENS = 160

SIZES = {
    "pocket-s": Size("pocket-s", 80, 4, 4, 2, 20, 240, 4000, 4e-3),
    "pocket": Size("pocket", 128, 4, 4, 2, 32, 384, 7500, 3e-3),
    "pocket-l": Size("pocket-l", 128, 16, 4, 2, 32, 384, 500, 1e-3, grown_from="pocket"),
}
