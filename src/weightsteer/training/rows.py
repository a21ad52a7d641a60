"""Pairs as training rows: token ids with the cut in front of the answer, and the validation split."""

import hashlib
import json
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import polars as pl
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from weightsteer.data.pairs import kept
from weightsteer.data.pairs.encoding import encoder
from weightsteer.errors import WeightsteerError
from weightsteer.inference.likelihood import Answered
from weightsteer.training.recipes import Recipe

Side = Literal["positive", "negative"]
COLUMNS = {"positive": "response_pos", "negative": "response_neg"}


class Rows(NamedTuple):
    """What one branch learns from.

    ``lengths`` belong to ``train`` and are those of the longer side of each pair: the order of the batches is
    made from them, so that it is the same for both branches.
    """

    train: list[Answered]
    lengths: list[int]
    validation: list[Answered]
    too_long: int


def rows_of(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    pairs: pl.DataFrame,
    side: Side,
    recipe: Recipe,
    seed: int,
) -> Rows:
    """Encode the pairs that were not rejected, drop what is too long on either side, and hold some out.

    Raises:
        WeightsteerError: columns or texts are missing, no pair is left, or there are too few for a split.
    """
    pairs = _checked(kept(pairs))
    encoded = encoder(model, tokenizer)
    thinking = pairs["thinking"].to_list() if "thinking" in pairs.columns else [False] * len(pairs)
    ended = pairs["ended"].to_list() if "ended" in pairs.columns else [True] * len(pairs)
    sides = {
        name: [encoded("", *key) for key in zip(pairs["prompt"], pairs[column], thinking, ended, strict=True)]
        for name, column in COLUMNS.items()
    }
    lengths = [max(row.length for row in both) for both in zip(*sides.values(), strict=True)]
    fitting = [index for index, length in enumerate(lengths) if length <= recipe.max_length]
    if not fitting:
        raise WeightsteerError(
            f"all {len(pairs)} pairs are longer than max_length {recipe.max_length} (the shortest has "
            f"{min(lengths)} tokens). Raise max_length, or generate shorter answers."
        )
    held = _held_out(pairs[fitting], recipe, seed)
    train = [index for index, out in zip(fitting, held, strict=True) if not out]
    return Rows(
        train=[sides[side][index] for index in train],
        lengths=[lengths[index] for index in train],
        validation=[sides[side][index] for index, out in zip(fitting, held, strict=True) if out],
        too_long=len(pairs) - len(fitting),
    )


def digest(pairs: pl.DataFrame) -> str:
    """blake2b-128 over the questions and answers of both sides that were not rejected, in order.

    Pairs from which no end is learned are told apart.
    """
    pairs = kept(pairs)
    some_open = "ended" in pairs.columns and not pairs["ended"].all()
    texts = pairs.select("prompt", *COLUMNS.values(), *(["ended"] if some_open else [])).rows()
    return hashlib.blake2b(json.dumps(texts, ensure_ascii=False).encode(), digest_size=16).hexdigest()


def _checked(pairs: pl.DataFrame) -> pl.DataFrame:
    needed = ("prompt", *COLUMNS.values())
    if missing := [name for name in needed if name not in pairs.columns]:
        raise WeightsteerError(f"the pairs lack the columns {', '.join(missing)}; {', '.join(needed)} are needed.")
    if not len(pairs):
        raise WeightsteerError(
            "there are no pairs to train on. Look at their audit: if the judge rejected all of them, the model does "
            "not show the behaviour under these personas, and another generator, or no judge, gives some."
        )
    for name in needed:
        if pairs[name].dtype != pl.String or pairs[name].null_count():
            raise WeightsteerError(f"the column {name} of the pairs holds something else than texts. Mend the file.")
    return pairs


def _held_out(pairs: pl.DataFrame, recipe: Recipe, seed: int) -> list[bool]:
    """For every pair whether it is for validation: single pairs, or all pairs of some questions."""
    if recipe.validation == 0:
        return [False] * len(pairs)
    units: Sequence[int] = range(len(pairs))
    if recipe.split == "topic":
        if "topic_idx" not in pairs.columns:
            raise WeightsteerError('the pairs have no column topic_idx, so set the recipe\'s split to "row".')
        units = pairs["topic_idx"].to_list()
    distinct = sorted(set(units))
    if len(distinct) < 2:
        raise WeightsteerError(
            f"nothing can be held out for validation of only one {recipe.split}. Make more pairs, or set "
            "validation to 0."
        )
    count = min(len(distinct) - 1, max(1, round(recipe.validation * len(distinct))))
    chosen = np.random.default_rng([seed, 1]).permutation(len(distinct))[:count]
    held = {distinct[index] for index in chosen}
    return [unit in held for unit in units]
