"""The search for the strength at which a curve first reaches a budget: a wide grid, then at most three rounds.

0. a coarse grid, each strength 2√2 times the last, on a part of the text: it only has to find the range;
1. three strengths around the estimate, on all of it;
2. the strength interpolated from these;
3. three close to the one interpolated from all of them.

Estimates are log-log: near 0 the KL divergence is ½ α² F with the Fisher information F along the vector, a line of
slope 2. A strength counts only when it has been measured, and its value is within the tolerance of the budget: the
search is over as soon as one does, on a smooth curve after the second round.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from math import exp, isclose, isfinite, log, sqrt
from typing import Literal

Status = Literal["converged", "saturated", "not monotone", "not converged", "fixed"]
Points = Mapping[float, float]

ROUNDS = 3
GRID = tuple(8 ** ((index - 8) / 2) for index in range(9))  # 1/4096 … 1, of the largest strength
AROUND = (sqrt(0.5), 1.0, sqrt(2))
SLOPES = 0.5, 4.0


@dataclass
class Search:
    """One sign of one intervention.

    Attributes:
        budget: the value to hit.
        largest: no strength above it is tried.
        tolerance: relative.
        step: between the strengths of the last round, relative to the estimate.
        coarse: strength → value, on a part of the text; NaN where the model is broken.
        fine: the same on all of it.
        rounds: measured on all of it.
    """

    budget: float
    largest: float
    tolerance: float
    step: float = 0.02
    coarse: dict[float, float] = field(default_factory=dict)
    fine: dict[float, float] = field(default_factory=dict)
    rounds: int = 0

    def wanted(self) -> list[float]:
        """The candidates of the next round; none when the search is over."""
        if not self.coarse:
            return [self.largest * share for share in GRID]
        if self.rounds == ROUNDS or self.hit() is not None or self._exhausted():
            return []
        factors = (AROUND, (1.0,), (1 - self.step, 1.0, 1 + self.step))[self.rounds]
        centre = estimate(self.fine or self.coarse, self.budget)
        tried = {min(centre * factor, self.largest) for factor in factors}
        return sorted(alpha for alpha in tried if not any(isclose(alpha, other) for other in self.fine))

    def record(self, values: Points) -> None:
        """The values of the candidates."""
        if self.coarse:
            self.fine.update(values)
            self.rounds += 1
        else:
            self.coarse.update(values)

    def hit(self) -> float | None:
        """The strength that meets the budget at the first crossing of the curve."""
        near: list[float] = []
        for alpha in sorted(self.fine):
            side = self._side(self.fine[alpha])
            if side > 0:
                break
            if side == 0:
                near.append(alpha)
        return min(near, key=self._miss, default=None)

    def nearest(self) -> float | None:
        """`hit`, or else the strength whose value came nearest the budget; None when none has a value."""
        finite = [alpha for alpha, value in self.fine.items() if isfinite(value)]
        hit = self.hit()
        return min(finite, key=self._miss, default=None) if hit is None else hit

    def status(self) -> Status:
        if self.hit() is not None:
            return "not monotone" if max(self._crossings(self.coarse), self._crossings(self.fine)) > 1 else "converged"
        reached = any(isfinite(value) and self._side(value) >= 0 for value in self.fine.values())
        broken = any(not isfinite(value) for value in self.fine.values())
        return "saturated" if not reached and (broken or self._exhausted()) else "not converged"

    def _exhausted(self) -> bool:
        """Whether the largest strength has been measured, and nothing reaches the budget."""
        return self.largest in self.fine and all(self._side(value) < 0 for value in self.fine.values())

    def _miss(self, alpha: float) -> float:
        return abs(self.fine[alpha] - self.budget)

    def _side(self, value: float) -> int:
        """−1 below the budget, 1 above it (or broken), 0 within the tolerance."""
        if not isfinite(value) or value > self.budget * (1 + self.tolerance):
            return 1
        return 0 if value >= self.budget * (1 - self.tolerance) else -1

    def _crossings(self, points: Points) -> int:
        """How often the curve, from 0 at α = 0, crosses the budget by more than the tolerance."""
        sides = [-1, *filter(None, (self._side(points[alpha]) for alpha in sorted(points)))]
        return sum(first != second for first, second in pairwise(sides))


def estimate(points: Points, budget: float) -> float:
    """Where the curve through the points, and through 0 at α = 0, first reaches the budget."""
    order = sorted(points)
    for index, high in enumerate(order):
        if points[high] < budget:
            continue
        low = order[index - 1] if index else 0.0
        if not isfinite(points[high]):
            return sqrt(low * high) if low else high / 4
        if not low:
            return _along(high, points[high], _slope(points, order[:2]), budget)
        if points[low] <= 0:  # a likelihood may rise before it falls
            return low + (high - low) * (budget - points[low]) / (points[high] - points[low])
        share = log(budget / points[low]) / log(points[high] / points[low])
        return exp(log(low) + share * log(high / low))
    last = order[-1]
    if points[last] <= 0:
        return last * AROUND[-1]
    return _along(last, points[last], _slope(points, order[-2:]), budget)


def _along(alpha: float, value: float, slope: float, budget: float) -> float:
    """The strength at which a power law through one point reaches the budget."""
    return float(alpha * (budget / value) ** (1 / slope))


def _slope(points: Points, pair: list[float]) -> float:
    """The exponent between two points; 2 where it is not known."""
    if len(pair) < 2 or not all(isfinite(points[alpha]) and points[alpha] > 0 for alpha in pair):
        return 2.0
    low, high = pair
    return min(max(log(points[high] / points[low]) / log(high / low), SLOPES[0]), SLOPES[1])
