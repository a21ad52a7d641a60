"""Sign flip: ``−v``, which at α is the vector at −α."""

import polars as pl

from weightsteer.controls.base import Deltas, from_vector
from weightsteer.vector import WeightVector


@from_vector(
    "sign-flip",
    shows="the effect has no direction: it is damage, or a change that any perturbation brings about",
    drawn=False,
)
def flipped(vector: WeightVector, seed: int) -> Deltas:
    """The vector with the opposite sign, ``−dW``."""
    return (-vector).terms


def mirrored(rows: pl.DataFrame) -> pl.DataFrame:
    """The rows of the sign flip, from those of its vector: it need not be swept.

    ``θ + α (−dW)`` is ``θ + (−α) dW`` to the bit, so the rows of the vector at −α are those of the control at α.
    Rows of anything but weight vectors are left out.
    """
    return rows.filter(pl.col("method") == "weight").with_columns(
        method=pl.lit("control"),
        adapter=pl.format("{}-sign-flip", "adapter"),
        control=pl.lit("sign-flip"),
        control_of=pl.col("adapter"),
        draw=pl.lit(0, pl.Int64),
        alpha=pl.when(pl.col("alpha") == 0).then(0.0).otherwise(-pl.col("alpha")),
    )
