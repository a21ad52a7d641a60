"""Pairs as token ids: each side a prompt with its answer, cut in front of the answer."""

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import polars as pl
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from weightsteer.errors import WeightsteerError
from weightsteer.inference.likelihood import Answered, answered
from weightsteer.inference.sampling import turn_end


class Pairs(NamedTuple):
    """Encoded pairs; row i of both sides belongs to pair i. ``empty`` pairs without an answer were left out."""

    positive: list[Answered]
    negative: list[Answered]
    empty: int


def encoder(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> Callable[[str, str, str, bool, bool], Answered]:
    """A function that encodes (system prompt or "", question, answer, whether the model thinks, whether it ends).

    It remembers what it has encoded: small models give the same answer again and again, and rendering takes time.
    """
    end = turn_end(model, tokenizer)

    @cache
    def encoded(system: str, question: str, answer: str, thinking: bool, ended: bool) -> Answered:
        chat = [{"role": "system", "content": system}] if system else []
        row = answered(tokenizer, [*chat, {"role": "user", "content": question}], answer, end, thinking=thinking)
        return row if ended else Answered(row.ids[:-1], row.start)

    return encoded


def encode(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, pairs: pl.DataFrame, *, personas: bool = False
) -> Pairs:
    """Both sides of the pairs that have an answer on both.

    Args:
        personas: put each side's own system prompt (sys_prompt_pos, sys_prompt_neg) in front, as when the pair
            was made.

    Raises:
        WeightsteerError: a column is missing, or no pair has an answer on both sides.
    """
    check_columns(pairs, personas=personas)
    encoded = encoder(model, tokenizer)
    both = [
        [
            encoded(
                pair[f"sys_prompt_{side}"] if personas else "",
                pair["prompt"],
                pair[f"response_{side}"],
                bool(pair.get("thinking", False)),
                bool(pair.get("ended", True)),
            )
            for side in ("pos", "neg")
        ]
        for pair in pairs.iter_rows(named=True)
    ]
    # an answer without a token of its own has at most its end of sequence
    full = [sides for sides in both if all(row.length - row.start > 1 for row in sides)]
    if not full:
        raise WeightsteerError(
            f"none of the {len(pairs)} pairs has an answer on both sides. Generate pairs again, or look at their audit."
        )
    positive, negative = map(list, zip(*full, strict=True))
    return Pairs(positive, negative, len(both) - len(full))


def check_columns(pairs: pl.DataFrame, *, personas: bool) -> None:
    """Raise a `WeightsteerError` unless the frame has the columns that are read."""
    prompts = ["sys_prompt_pos", "sys_prompt_neg"] if personas else []
    needed = ["prompt", "response_pos", "response_neg", *prompts]
    if missing := [name for name in needed if name not in pairs.columns]:
        hint = " Set personas=False to read the answers without system prompts." if missing[0] in prompts else ""
        raise WeightsteerError(
            f"the pairs lack the columns {', '.join(missing)}; {', '.join(needed)} are needed.{hint}"
        )
