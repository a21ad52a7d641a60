"""Bootstrap over clusters crossed with training seeds, with intervals that hold their promise in small samples.

Rows of one cluster (the two actions of one dilemma) are drawn together; seeds are drawn too when there are several,
crossed with the clusters because every seed answers the same items (Owen, "The pigeonhole bootstrap", Annals of
Applied Statistics 1, 2007: mildly conservative). With n units a percentile interval is too narrow by
``t(n−1)/z · √(n/(n−1))`` (Hesterberg, "What teachers should know about the bootstrap", arXiv 1411.5279), which is 2.7
for three seeds: deviations are widened by it, so that 95% means 95%.
"""

from collections.abc import Iterator
from functools import lru_cache
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

Array = NDArray[np.float64]

TAILS = (0.025, 0.975)
Z = NormalDist().inv_cdf(TAILS[1])
POWER = NormalDist().inv_cdf(0.8)
CELLS = 4_000_000  # counts held at once: 32 MB
KEPT = 4  # kinds of draws that are kept for later: a report asks thousands of times for those of a few evaluations


class Bootstrap:
    """Seeded draws, the same for every table with as many clusters and seeds, whatever else is in the frame."""

    def __init__(self, resamples: int, seed: int) -> None:
        self.resamples = resamples
        self.seed = seed

    def sums(self, per_cluster: Array) -> Array:
        """Bootstrap sums (1 + resamples, columns) of per-cluster sums (clusters, columns); row 0 is the data.

        A resample is a vector of multinomial counts, so all statistics of all resamples are one matrix product, taken
        in chunks that leave the draws as they are.
        """
        clusters = len(per_cluster)
        return np.concatenate([per_cluster.sum(0)[None], *(w @ per_cluster for w in self._counts(clusters))])

    def pooled(self, per_seed: Array, clusters: int) -> Array:
        """Distribution of the mean over seeds, from (1 + resamples, seeds) values whose row 0 is the data."""
        spread = per_seed[0] + widening(clusters) * (per_seed[1:] - per_seed[0])
        seeds = per_seed.shape[1]
        pooled: Array = (spread * _weights(self.seed, len(spread), seeds)).sum(1) if seeds > 1 else spread[:, 0]
        # A resample may hold no cluster of one label. NaN rows in the data, instead, make every draw NaN.
        return pooled[~np.isnan(pooled)]

    def _counts(self, clusters: int) -> Iterator[Array]:
        if clusters * self.resamples <= CELLS:
            yield _all_counts(self.seed, self.resamples, clusters)
            return
        rng = np.random.default_rng([self.seed, 0])
        chunk = max(1, CELLS // clusters)
        for start in range(0, self.resamples, chunk):
            yield _drawn(rng, clusters, min(chunk, self.resamples - start))


def _drawn(rng: np.random.Generator, n: int, size: int) -> Array:
    """How often each of n units is in each resample, (size, n)."""
    counts: Array = rng.multinomial(n, np.full(n, 1 / n), size=size).astype(float)
    return counts


@lru_cache(maxsize=KEPT)
def _all_counts(seed: int, resamples: int, clusters: int) -> Array:
    return _drawn(np.random.default_rng([seed, 0]), clusters, resamples)


@lru_cache(maxsize=KEPT)
def _weights(seed: int, resamples: int, seeds: int) -> Array:
    """Weights of the training seeds in each resample, widened, (resamples, seeds)."""
    equal = 1 / seeds
    return equal + widening(seeds) * (_drawn(np.random.default_rng([seed, 1]), seeds, resamples) / seeds - equal)


@lru_cache(maxsize=64)
def widening(n: int) -> float:
    """What turns the percentile spread of n units into Student's: t(n−1)/z · √(n/(n−1))."""
    return float(stdtrit(n - 1, TAILS[1])) / Z * (n / (n - 1)) ** 0.5


def interval(pooled: Array) -> tuple[float, float]:
    """The 95% percentile interval; NaN without draws."""
    if not len(pooled):
        return float("nan"), float("nan")
    low, high = np.quantile(pooled, TAILS)
    return float(low), float(high)


def detectable(pooled: Array) -> float:
    """Minimum detectable effect, (z₀.₉₇₅ + z₀.₈) · standard error: found in 80% of repetitions if it is true."""
    return (Z + POWER) * float(pooled.std()) if len(pooled) else float("nan")
