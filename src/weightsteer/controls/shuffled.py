"""Shuffled labels: the branches learn from the same answers, of both poles alike."""

import polars as pl
from transformers import PreTrainedModel

from weightsteer.controls.base import from_pairs
from weightsteer.data.behaviors import Behavior
from weightsteer.data.pairs.mixed import shuffled
from weightsteer.errors import WeightsteerError


@from_pairs(
    "shuffled-label",
    shows="two fine-tunes on these texts differ enough to do it: what the sides mean does not matter",
    of_behavior=True,
)
def shuffled_label(model: PreTrainedModel, behavior: Behavior, seed: int, pairs: pl.DataFrame | None) -> pl.DataFrame:
    """The pairs of the behaviour with the sides of half of each question's pairs exchanged."""
    if pairs is None:
        raise WeightsteerError("the control shuffled-label is made from the pairs of the behaviour: give pairs=….")
    return shuffled(pairs, seed).with_columns(behavior=pl.lit(f"{behavior.name}-shuffled"))
