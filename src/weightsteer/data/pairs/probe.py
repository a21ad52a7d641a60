"""A few answers before many: how long this model's answers are, and so how long they may become.

Most small chat models talk on: of SmolLM2's answers to questions about its character, hardly any ends within 100
tokens. What is learned from an answer that was cut ends with a whole sentence, so the limit has to hold one.
"""

from typing import Any

import polars as pl
from pydantic import BaseModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from weightsteer.data.behaviors import Behavior
from weightsteer.data.pairs.cut import whole_sentences
from weightsteer.data.pairs.grid import SIDES, generate
from weightsteer.inference.sampling import GENERAL_TOKENS

TOPICS, PERSONAS = 4, 3
LENGTHS = (48, 64, 96)
"""The limits that are considered; the answers of the probe are as long as the last."""
ENOUGH = 0.9
"""Share of the answers that must have ended, or hold a whole sentence, within the limit."""


class Probe(BaseModel):
    """What a few answers say about the length limit.

    Attributes:
        answers: how many were looked at, both sides together.
        ended: share that the model ended itself within the longest limit.
        whole: by limit, the share that has ended or holds a whole sentence.
        max_new_tokens: the limit that follows.
    """

    answers: int
    ended: float
    whole: dict[int, float]
    max_new_tokens: int

    def __str__(self) -> str:
        whole = ", ".join(f"{share:.0%} within {length}" for length, share in self.whole.items())
        return (
            f"of {self.answers} answers the model ended {self.ended:.0%} within {LENGTHS[-1]} tokens; ended or with a "
            f"whole sentence: {whole}; so the limit is {self.max_new_tokens} tokens"
        )


def probe(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, behavior: Behavior, **options: Any
) -> tuple[Probe, pl.DataFrame]:
    """Sample a few pairs and choose the length limit.

    A model that ends its answers itself gets ``GENERAL_TOKENS``, which it hardly uses; for any other one the limit is
    the shortest of ``LENGTHS`` within which nine of ten answers hold a whole sentence.

    Args:
        options: of `weightsteer.data.pairs.generate`; a given ``max_new_tokens`` is kept.

    Returns:
        What was found, and the pairs, cut at the limit that follows.
    """
    given = options.pop("max_new_tokens", None)
    asked = {"topics": TOPICS, "personas": PERSONAS}
    available = {"topics": len(behavior.questions.train), "personas": len(behavior.positive.personas)}
    sizes = {name: min(asked[name], available[name], options.pop(name, None) or available[name]) for name in asked}
    longest = given or LENGTHS[-1]
    pairs = generate(model, tokenizer, behavior, **{**options, **sizes, "samples": 1}, max_new_tokens=longest)
    sides = {length: _cut(pairs, tokenizer, length) for length in {*LENGTHS, longest} if length <= longest}
    whole = {length: _whole(sides[length]) for length in sorted(sides)}
    ended = float(pairs.select((pl.col("eos_pos").mean() + pl.col("eos_neg").mean()) / 2).item())
    fitting = [length for length, share in whole.items() if share >= ENOUGH]
    limit = given or (GENERAL_TOKENS if ended >= ENOUGH else fitting[0] if fitting else longest)
    found = Probe(answers=2 * len(pairs), ended=ended, whole=whole, max_new_tokens=limit)
    return found, sides[min(limit, longest)]


def _cut(pairs: pl.DataFrame, tokenizer: PreTrainedTokenizerBase, length: int) -> pl.DataFrame:
    """The pairs as they would be under a shorter limit."""
    rows = []
    for row in pairs.iter_rows(named=True):
        for side in SIDES:
            ids = tokenizer(row[f"response_{side}"], add_special_tokens=False)["input_ids"]
            if row[f"tokens_{side}"] > length:
                row[f"response_{side}"] = str(tokenizer.decode(ids[:length])).strip()
                row |= {f"tokens_{side}": length, f"eos_{side}": False}
        rows.append(row)
    return pl.DataFrame(rows, schema=pairs.schema)


def _whole(pairs: pl.DataFrame) -> float:
    rows = [(row[f"response_{side}"], row[f"eos_{side}"]) for row in pairs.iter_rows(named=True) for side in SIDES]
    return sum(ended or bool(whole_sentences(text)) for text, ended in rows) / len(rows)
