"""A statistic of per-token values pooled over prompts, with an interval over clusters of prompts.

Tokens of one prompt are alike, so a resample draws whole clusters with all their tokens.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from weightsteer.measure.calibrate.definition import Statistic
from weightsteer.measure.calibrate.prompts import Asked
from weightsteer.stats.bootstrap import Array, Bootstrap, interval

QUANTILE = 0.95
CELLS = 4_000_000  # resamples × tokens held at once: 32 MB


def value(tokens: Sequence[Array], statistic: Statistic) -> float:
    """The statistic over the tokens of all prompts; NaN when one of them is not finite.

    Args:
        tokens: the values of each prompt (t,).
    """
    pooled = np.concatenate(tokens)
    if not np.isfinite(pooled).all():
        return float("nan")
    return float(pooled.mean() if statistic == "mean" else np.quantile(pooled, QUANTILE))


def bounds(
    tokens: Sequence[Array], clusters: Sequence[str], statistic: Statistic, draws: Bootstrap
) -> tuple[float | None, float | None]:
    """The 95% interval of `value` over clusters; None with one cluster or where the value is NaN."""
    names = sorted(set(clusters))
    pooled = np.concatenate(tokens)
    if len(names) < 2 or not np.isfinite(pooled).all():
        return None, None
    owner = np.repeat([names.index(cluster) for cluster in clusters], [len(part) for part in tokens])
    times = draws.sums(np.eye(len(names)))  # how often each resample holds each cluster
    order = np.argsort(pooled, kind="stable")
    pooled, owner = pooled[order], owner[order]
    step = max(1, CELLS // len(pooled))
    values = [_weighted(pooled, times[at : at + step][:, owner], statistic) for at in range(0, len(times), step)]
    low, high = interval(draws.pooled(np.concatenate(values)[:, None], len(names)))
    return low, high


def described(
    name: str, tokens: Sequence[Array] | None, prompts: Sequence[Asked], statistic: Statistic, draws: Bootstrap
) -> dict[str, float | None]:
    """The statistic and its interval as columns ``{name}value, {name}low, {name}high``; null where nothing was read."""
    if tokens is None:
        return {f"{name}value": None, f"{name}low": None, f"{name}high": None}
    low, high = bounds(tokens, [prompt.cluster for prompt in prompts], statistic, draws)
    return {f"{name}value": value(tokens, statistic), f"{name}low": low, f"{name}high": high}


def _weighted(ascending: Array, times: Array, statistic: Statistic) -> Array:
    """The statistic of samples in which value i occurs ``times[r, i]`` times: (r,)."""
    total = times.sum(1)
    if statistic == "mean":
        mean: Array = times @ ascending / total
        return mean
    running = times.cumsum(1)
    position = (total - 1) * QUANTILE
    below = np.floor(position)

    def at(index: Array) -> Array:
        found: NDArray[np.intp] = (running <= index[:, None]).sum(1)
        return ascending[np.minimum(found, len(ascending) - 1)]

    low, high = at(below), at(np.minimum(below + 1, total - 1))
    quantile: Array = low + (position - below) * (high - low)
    return quantile
