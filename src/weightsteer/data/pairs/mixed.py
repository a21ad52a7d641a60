"""Pairs whose sides are exchanged: for controls that learn from the same answers without learning the behaviour."""

import random
from collections.abc import Iterable

import polars as pl

from weightsteer.data.pairs.audit import kept


def exchanged(pairs: pl.DataFrame, rows: Iterable[int]) -> pl.DataFrame:
    """The pairs with the two sides of some rows exchanged: every column ``…_pos`` with its ``…_neg``.

    Doing it twice gives the pairs again.
    """
    chosen = set(rows)
    here = pl.Series([index in chosen for index in range(len(pairs))], dtype=pl.Boolean)
    sides = [name.removesuffix("_pos") for name in pairs.columns if name.endswith("_pos")]
    both = [name for name in sides if f"{name}_neg" in pairs.columns]
    columns = {}
    for name in both:
        pos, neg = pairs[f"{name}_pos"], pairs[f"{name}_neg"]
        columns[f"{name}_pos"] = neg.zip_with(here, pos)
        columns[f"{name}_neg"] = pos.zip_with(here, neg)
    return pairs.with_columns(**columns)


def shuffled(pairs: pl.DataFrame, seed: int) -> pl.DataFrame:
    """The pairs to train on with the sides of a random half of every question's pairs exchanged.

    Half of every question's and not half of all: a branch that had more of one pole on some questions would learn
    the behaviour there. Where their number is odd, one more or one less in turn. The column ``exchanged`` tells which.

    Args:
        pairs: as `weightsteer.data.pairs.curate` returns them; those rejected are left out.
    """
    pairs = kept(pairs)
    groups: dict[object, list[int]] = {}
    by = "topic_idx" if "topic_idx" in pairs.columns else "prompt"
    for index, topic in enumerate(pairs[by]):
        groups.setdefault(topic, []).append(index)
    rng = random.Random(f"shuffled/{seed}")
    chosen: set[int] = set()
    before = 0
    for group in groups.values():
        # of all pairs up to here half are chosen, to one
        half = (before + len(group)) // 2 - before // 2
        chosen.update(rng.sample(group, half))
        before += len(group)
    flags = pl.Series([index in chosen for index in range(len(pairs))], dtype=pl.Boolean)
    return exchanged(pairs, chosen).with_columns(exchanged=flags)
