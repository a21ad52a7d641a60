"""Every statistic of one intervention on one evaluation, on the data and on resampled clusters."""

import numpy as np

from weightsteer.stats.bootstrap import Array, Bootstrap
from weightsteer.stats.grid import Grid
from weightsteer.stats.informedness import one_sign, surgical_informedness


def resampled(grid: Grid, draws: Bootstrap) -> dict[str, Array]:
    """Every statistic as (1 + resamples, s, k): row 0 on the data, the others on resampled clusters.

    A bootstrap sample is a vector of multinomial counts, so that each statistic is a smooth function of
    ``counts @ per-cluster sums``: one matrix product for all seeds, strengths and statistics.
    """
    zero = grid.zero
    before = grid.y[:, zero : zero + 1]
    delta = grid.y - before
    plus, minus = (grid.label > 0).astype(float), (grid.label < 0).astype(float)
    signed, start = grid.y * grid.label, before * grid.label
    lost = np.where(np.isnan(delta), np.nan, 0.0)  # a NaN row makes the counts NaN: it is not a row that stayed
    area, influence = _auc(grid)
    total = totals(
        grid,
        draws,
        {
            "plus": delta * plus,
            "minus": delta * minus,
            "gained": ((start < 0) & (signed > 0)).astype(float) + lost,
            "broken": ((start > 0) & (signed < 0)).astype(float) + lost,
            "cho": (start > 0).astype(float),
            "rej": (start < 0).astype(float),
            "pmass": grid.pmass,
            "auc": influence,
            "n_plus": plus,
            "n_minus": minus,
            "n": np.ones_like(plus),
        },
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        up, down = total["plus"] / total["n_plus"], total["minus"] / total["n_minus"]
        pmass = total["pmass"] / total["n"]
        gained, broken = total["gained"] / total["rej"], total["broken"] / total["cho"]
        values = {
            "discrimination": (up - down) / 2,
            "bias": (up + down) / 2,
            "along_change": (total["plus"] - total["minus"]) / total["n"],
            "logratio_change": (total["plus"] + total["minus"]) / total["n"],
            "auc": area + total["auc"],
            "pmass": pmass,
            "pmass_change": pmass - pmass[..., zero : zero + 1],
            "fix": gained,
            "broke": broken,
        }
    for name in ("flip", "counter", "si", "si_k1"):
        values[name] = np.full(gained.shape, np.nan)
    values["si_forward"] = one_sign(
        total["gained"], total["broken"], gaining=total["rej"], losing=total["cho"], pmass=pmass
    )
    for k, alpha in enumerate(grid.alphas):
        if alpha <= 0 or (o := grid.mirror(k)) is None:
            continue
        values["flip"][..., k], values["counter"][..., k] = broken[..., o], gained[..., o]
        for name, price in (("si", 2.0), ("si_k1", 1.0)):
            values[name][..., k] = surgical_informedness(
                total["gained"][..., k],
                total["broken"][..., k],
                total["broken"][..., o],
                total["gained"][..., o],
                rej=total["rej"][..., 0],
                cho=total["cho"][..., 0],
                pmass=np.minimum(pmass[..., k], pmass[..., o]),
                k=price,
            )
    return values


def totals(grid: Grid, draws: Bootstrap, columns: dict[str, Array]) -> dict[str, Array]:
    """Bootstrap sums over items: columns (…, n) to (1 + resamples, …), an item column (n,) to (1 + resamples, 1, 1)."""
    blocks = {name: grid.sums(block) for name, block in columns.items()}
    stacked = np.concatenate([block.reshape(len(block), -1) for block in blocks.values()], axis=1)
    summed = draws.sums(stacked)
    total: dict[str, Array] = {}
    at = 0
    for name, block in blocks.items():
        width = int(np.prod(block.shape[1:], dtype=int))
        total[name] = summed[:, at : at + width].reshape(len(summed), *(block.shape[1:] or (1, 1)))
        at += width
    return total


def _auc(grid: Grid) -> tuple[Array, Array]:
    """Mann-Whitney area of y for the label, (s, k), and each row's influence on it, (s, k, n).

    ``area + Σ counts · influence`` is the linearised bootstrap of the area (DeLong's placements); ties count
    a half.
    """
    plus, minus = grid.label > 0, grid.label < 0
    influence = np.zeros(grid.y.shape)
    if not (plus.any() and minus.any()):
        return np.full(grid.y.shape[:2], np.nan), influence
    above = _placements(grid.y[..., plus], grid.y[..., minus])
    below = 1 - _placements(grid.y[..., minus], grid.y[..., plus])
    area = above.mean(-1)
    influence[..., plus] = (above - area[..., None]) / plus.sum()
    influence[..., minus] = (below - area[..., None]) / minus.sum()
    return area, influence


def _placements(values: Array, others: Array) -> Array:
    """Of each value the share of the others below it, ties counting a half; NaN in a line makes the line NaN."""
    out = np.full(values.shape, np.nan)
    for line in np.ndindex(values.shape[:-1]):
        if not (np.isnan(values[line]).any() or np.isnan(others[line]).any()):
            ordered = np.sort(others[line])
            below, upto = (np.searchsorted(ordered, values[line], side=side) for side in ("left", "right"))
            out[line] = (below + upto) / 2 / len(ordered)
    return out
