"""The geometry of the two branches of a vector: opposite, unrelated, or both drifted the same way.

With the task vectors τ⁺ = θ⁺ − θ and τ⁻ = θ⁻ − θ, their half difference b = (τ⁺ − τ⁻)/2 = dW/2 is what they learned
apart and their mean M = (τ⁺ + τ⁻)/2 what they learned in common. ``‖τ⁺‖² + ‖τ⁻‖² = 2‖M‖² + 2‖b‖²``, so the two share
out what was learned. All numbers follow from three inner products: ‖τ⁺‖², ‖τ⁻‖² and <τ⁺, τ⁻>.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from weightsteer.terms import Sum, gram
from weightsteer.vector.energy import OUTSIDE
from weightsteer.vector.selection import kind_of, layer_of, natural


@dataclass(frozen=True)
class Geometry:
    """Two task vectors, by their inner products. What has no meaning (the angle of a zero vector) is None.

    Attributes:
        positive: ‖τ⁺‖².
        negative: ‖τ⁻‖².
        inner: <τ⁺, τ⁻>.
    """

    positive: float
    negative: float
    inner: float

    @property
    def norms(self) -> tuple[float, float]:
        """‖τ⁺‖ and ‖τ⁻‖."""
        return math.sqrt(self.positive), math.sqrt(self.negative)

    @property
    def contrast(self) -> float:
        """``‖dW‖ = ‖τ⁺ − τ⁻‖``."""
        return math.sqrt(max(self.positive + self.negative - 2 * self.inner, 0.0))

    @property
    def drift(self) -> float:
        """``‖M‖ = ‖τ⁺ + τ⁻‖ / 2``."""
        return math.sqrt(max(self.positive + self.negative + 2 * self.inner, 0.0)) / 2

    @property
    def cos_anti(self) -> float | None:
        """``cos(τ⁺, −τ⁻)``: 1 for antipodal branches, −1 for equal ones."""
        return _cosine(-self.inner, *self.norms)

    @property
    def asymmetry(self) -> float | None:
        """``‖τ⁺‖ / ‖τ⁻‖``."""
        plus, minus = self.norms
        return plus / minus if minus else None

    @property
    def drift_ratio(self) -> float | None:
        """``‖M‖ / ‖b‖``: far above 1, the branches have learned mostly the same."""
        return 2 * self.drift / self.contrast if self.contrast else None

    @property
    def drift_share(self) -> float | None:
        """``‖M‖² / (‖M‖² + ‖b‖²)``: the share of what was learned that both branches have in common."""
        learned = self.positive + self.negative
        return max(learned + 2 * self.inner, 0.0) / (2 * learned) if learned else None

    @property
    def cos_dW_M(self) -> float | None:
        """``|cos(dW, M)| = |‖τ⁺‖² − ‖τ⁻‖²| / (2 ‖dW‖ ‖M‖)``: how far dW holds common drift, because one branch is
        the louder one."""
        return _cosine(abs(self.positive - self.negative) / 2, self.contrast, self.drift)

    def record(self) -> dict[str, float | None]:
        """The numbers, JSON-able."""
        plus, minus = self.norms
        return {
            "norm_positive": plus,
            "norm_negative": minus,
            "cos_anti": self.cos_anti,
            "asymmetry": self.asymmetry,
            "drift_ratio": self.drift_ratio,
            "drift_share": self.drift_share,
            "cos_dW_M": self.cos_dW_M,
        }

    def __add__(self, other: "Geometry") -> "Geometry":
        """Of two sets of modules together."""
        return Geometry(self.positive + other.positive, self.negative + other.negative, self.inner + other.inner)


@dataclass(frozen=True)
class PairGeometry:
    """The geometry of a pair of branches, by module, and summed by layer and kind of module."""

    modules: dict[str, Geometry] = field(repr=False)

    @cached_property
    def total(self) -> Geometry:
        return sum(self.modules.values(), Geometry(0.0, 0.0, 0.0))

    @cached_property
    def by_layer(self) -> dict[str, Geometry]:
        """By the number of the layer, in ascending order; embeddings and the like under "outside", at the end."""
        layers = self._grouped({name: str(layer_of(name)) for name in self.modules})
        inside = {layer: layers[layer] for layer in sorted(set(layers) - {"None"}, key=int)}
        return inside | ({OUTSIDE: layers["None"]} if "None" in layers else {})

    @cached_property
    def by_kind(self) -> dict[str, Geometry]:
        return self._grouped({name: kind_of(name) for name in self.modules})

    @property
    def reading(self) -> str:
        """What the numbers say, in words."""
        whole = self.total
        if whole.cos_anti is None or whole.asymmetry is None or whole.drift_share is None:
            return "One of the branches did not move at all: it was not trained, or the adapter is empty."
        sentences = [
            f"The two branches moved in {_direction(whole.cos_anti)} (cos(τ⁺, −τ⁻) = {whole.cos_anti:.2f}).",
            f"{whole.drift_share:.0%} of what they learned is common drift, which cancels in dW.",
        ]
        if whole.drift_share > 0.5:
            sentences.append("That is more than what sets them apart: look for what both branches were taught alike.")
        louder, ratio = ("positive", whole.asymmetry) if whole.asymmetry > 1 else ("negative", 1 / whole.asymmetry)
        if ratio > 1.25:
            sentences.append(
                f"The {louder} branch moved {ratio:.1f} times as far and outweighs the other; mode='bisector' weighs "
                "both alike."
            )
        return " ".join(sentences)

    def record(self) -> dict[str, Any]:
        """All of it, JSON-able; the numbers of the whole, by layer and by kind."""
        return {
            **self.total.record(),
            "reading": self.reading,
            "by_layer": {layer: part.record() for layer, part in self.by_layer.items()},
            "by_kind": {kind: part.record() for kind, part in self.by_kind.items()},
        }

    def _grouped(self, group: Mapping[str, str]) -> dict[str, Geometry]:
        groups: dict[str, Geometry] = {}
        for name, part in self.modules.items():
            key = group[name]
            groups[key] = groups[key] + part if key in groups else part
        return groups


def geometry(positive: Mapping[str, Sum], negative: Mapping[str, Sum]) -> PairGeometry:
    """The geometry of two task vectors, from inner products alone, module by module.

    Args:
        positive: τ⁺ by module path (``WeightVector.terms``).
        negative: τ⁻; a module that one of them lacks did not move there.

    Raises:
        WeightsteerError: a delta depends on base weights that are not at hand.
    """
    modules = {}
    for name in sorted({*positive, *negative}, key=natural):
        shape = (positive[name] if name in positive else negative[name]).shape
        products = gram([positive.get(name, Sum(shape)), negative.get(name, Sum(shape))])
        modules[name] = Geometry(float(products[0, 0]), float(products[1, 1]), float(products[0, 1]))
    return PairGeometry(modules)


def _cosine(inner: float, first: float, second: float) -> float | None:
    return max(-1.0, min(1.0, inner / (first * second))) if first and second else None


def _direction(cos_anti: float) -> str:
    if cos_anti >= 0.9:
        return "nearly opposite directions"
    if cos_anti >= 0.3:
        return "partly opposite directions"
    if cos_anti > -0.3:
        return "nearly unrelated directions"
    return "partly the same direction" if cos_anti > -0.9 else "nearly the same direction"
