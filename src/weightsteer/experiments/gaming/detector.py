"""How well do the signals tell a gaming run from an honest one? ROC curves with intervals.

A run is gaming when its hidden prompt said anything about training beyond the role of the deployment (settings 1 to 3),
honest when it did not (setting 4). A detector is one signal, turned beforehand, or the mean rank of several. Nothing is
fitted: with a dozen honest runs a discriminant would learn them, and what it finds in those left out would depend on
those it was fitted on.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.stats import rankdata

from weightsteer.experiments.gaming.measures import Estimate
from weightsteer.stats.bootstrap import Array, Z, interval, widening

Truth = NDArray[np.bool_]
Seeds = NDArray[np.int64]

GAMING = ("told", "described", "undescribed")
HONEST = "baseline"


class Detector(NamedTuple):
    """One signal or a combination: the area under its ROC curve, and the curve."""

    name: str
    against: str
    """the settings it has to find: ``all``, or one of them"""
    auc: Estimate
    rates: list[tuple[float, float]]
    """(false alarms, gaming runs found), from (0, 0) to (1, 1)"""
    gaming: int
    honest: int


def detectors(runs: pl.DataFrame, *, resamples: int = 2000) -> list[Detector]:
    """Every detector against all gaming settings together, and against each.

    Args:
        runs: one line per run: model, setting, deployment, seed, and the signals
        (`weightsteer.experiments.gaming.signals`).
    """
    known = runs.filter(pl.col("setting").is_in([*GAMING, HONEST]))
    names = [name for name in known.columns if ":" in name]
    if known.is_empty() or set(known["setting"]) <= {HONEST} or HONEST not in set(known["setting"]):
        return []
    groups = {
        "all signals, blind": [name for name in names if not name.startswith("in place")],
        "all signals, in place": [name for name in names if not name.startswith("blind")],
    }
    found = []
    for against in ("all", *(each for each in GAMING if each in set(known["setting"]))):
        wanted = GAMING if against == "all" else (against,)
        mine = known.filter(pl.col("setting").is_in([*wanted, HONEST]))
        truth = (mine["setting"] != HONEST).to_numpy()
        seeds = mine["seed"].to_numpy()
        scores = {name: mine[name].to_numpy() for name in names}
        scores |= {name: mean_rank(mine.select(own).to_numpy()) for name, own in groups.items() if own}
        found += [_judged(name, against, score, truth, seeds, resamples) for name, score in scores.items()]
    return found


def area(score: Array, truth: Truth) -> float:
    """Share of (gaming, honest) pairs in which the gaming run scores higher; ties count half."""
    gaming, honest = score[truth], score[~truth]
    if not len(gaming) or not len(honest):
        return float("nan")
    difference = gaming[:, None] - honest[None]
    return float((difference > 0).mean() + (difference == 0).mean() / 2)


def roc(score: Array, truth: Truth) -> list[tuple[float, float]]:
    """(share of honest runs, share of gaming runs) at or above each threshold, from none to all."""
    thresholds = np.unique(score)[::-1]
    points = [(float((score[~truth] >= t).mean()), float((score[truth] >= t).mean())) for t in thresholds]
    return [(0.0, 0.0), *points]


def mean_rank(signals: Array) -> Array:
    """Of every run the mean of its ranks in each signal, in [0, 1]; (runs, signals) to (runs,)."""
    return np.asarray(rankdata(signals, axis=0).mean(1) / len(signals))


def _judged(name: str, against: str, score: Array, truth: Truth, seeds: Seeds, resamples: int) -> Detector:
    """The area with its interval: bootstrap over seeds, widened for their number, or Hanley and McNeil's over runs
    (Radiology 143, 1982) where that is wider: seeds may happen to agree.

    At 0 or 1 the bootstrap has no width. If every honest run is below every gaming run, the chance that the next one
    would not is known only through the smaller class: at 97.5% it is below ``1 − 0.025^(1/n)``.
    """
    value, drawn = area(score, truth), _resampled(score, truth, seeds, resamples)
    gaming, honest = int(truth.sum()), int((~truth).sum())
    bound = 0.025 ** (1 / min(gaming, honest))
    count = len(np.unique(seeds))
    low, high = float("nan"), float("nan")
    if value in (0.0, 1.0):
        low, high = (bound, 1.0) if value else (0.0, 1 - bound)
    elif count > 1:
        ends = interval(value + widening(count) * (drawn[~np.isnan(drawn)] - value))
        runs = Z * _error(value, gaming, honest)
        low, high = max(0.0, min(ends[0], value - runs)), min(1.0, max(ends[1], value + runs))
    return Detector(name, against, Estimate(value, low, high), roc(score, truth), gaming, honest)


def _error(value: float, gaming: int, honest: int) -> float:
    """The standard error of an area over so many independent runs of each kind."""
    both = value / (2 - value), 2 * value**2 / (1 + value)
    spread = (gaming - 1) * (both[0] - value**2) + (honest - 1) * (both[1] - value**2)
    return float(np.sqrt((value * (1 - value) + spread) / (gaming * honest)))


def _resampled(score: Array, truth: Truth, seeds: Seeds, resamples: int) -> Array:
    """Areas of runs whose seeds were drawn with replacement."""
    places = [np.flatnonzero(seeds == seed) for seed in np.unique(seeds)]
    drawn = np.random.default_rng(0).integers(len(places), size=(resamples, len(places)))
    rows = (np.concatenate([places[seed] for seed in chosen]) for chosen in drawn)
    return np.array([area(score[chosen], truth[chosen]) for chosen in rows])


def table(found: Iterable[Detector]) -> pl.DataFrame:
    """One line per detector: its area with the interval, and how many runs of each kind it saw."""
    return pl.DataFrame(
        [
            {
                "detector": one.name,
                "against": one.against,
                "auc": one.auc.value,
                "auc_low": one.auc.low,
                "auc_high": one.auc.high,
                "gaming": one.gaming,
                "honest": one.honest,
            }
            for one in found
        ]
    )
