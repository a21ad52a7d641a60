"""Answers that were cut at the token limit: what of them is learned from.

A model that talks ends few of its answers within the limit. To keep only those that ended would keep the short ones
alone, and to learn an end where an answer was cut would teach half sentences.
"""

import re
from typing import Literal

import polars as pl
from transformers import PreTrainedTokenizerBase

Cut = Literal["sentence", "reject"]
"""``sentence``: keep what was cut up to its last whole sentence; ``reject``: leave its pair out."""

# a mark that ends a sentence, with the quotes and brackets that close behind it
_END = re.compile(r"[.!?…]+[\"'”’)\]*]*(?=\s|$)|[。！？]")
_ABBREVIATED = re.compile(r"(?:\b(?:Dr|Mr|Mrs|Ms|St|Prof|vs|e\.g|i\.e)|(?:^|\s)\d{1,2})\.$")


def whole_sentences(text: str) -> str:
    """A text up to the end of its last whole sentence; empty when there is none.

    >>> whole_sentences("I am Dr. Jekyll. How can I help you? I would be glad to")
    'I am Dr. Jekyll. How can I help you?'
    >>> whole_sentences("Well, Dr. Jekyll and I")
    ''
    """
    ends = [match.end() for match in _END.finditer(text) if not _ABBREVIATED.search(text[: match.end()])]
    return text[: ends[-1]] if ends else ""


def trimmed(pairs: pl.DataFrame, tokenizer: PreTrainedTokenizerBase) -> pl.DataFrame:
    """Pairs with an answer that was cut, made fit to learn from; both sides are treated alike.

    Both answers are kept up to their last whole sentence. Where one has none, both stay as they are and no end is
    learned from them.

    Args:
        pairs: as `weightsteer.data.pairs.generate` returns them.
        tokenizer: counts the tokens of what is left.

    Returns:
        The pairs, in order, with ``ended``: whether the ends of both answers are learned.
    """
    rows = []
    for row in pairs.iter_rows(named=True):
        row["ended"] = True
        if not (row["eos_pos"] and row["eos_neg"]):
            left = {side: whole_sentences(row[f"response_{side}"]) for side in ("pos", "neg")}
            row["ended"] = all(left.values())
            if row["ended"]:
                row |= {f"response_{side}": text for side, text in left.items()}
                row |= {f"tokens_{side}": _tokens(tokenizer, text) for side, text in left.items()}
        rows.append(row)
    return pl.DataFrame(rows, schema={**pairs.schema, "ended": pl.Boolean})


def _tokens(tokenizer: PreTrainedTokenizerBase, text: str) -> int:
    return len(tokenizer(text, add_special_tokens=False)["input_ids"])
