"""Scale the modules of a vector by factors of their own: by pattern, or by depth (LiNeS)."""

from collections.abc import Mapping
from typing import Any

from weightsteer.errors import WeightsteerError
from weightsteer.vector import algebra
from weightsteer.vector.selection import layer_of, matching
from weightsteer.vector.weight_vector import WeightVector


def scaled_by(vector: WeightVector, coefficients: Mapping[Any, float]) -> WeightVector:
    """Modules times the coefficients of the patterns they match: ``scaled_by(v, {"mlp.*": 0.5, 3: 2.0})``.

    A module that several patterns match takes the product, one that none matches stays as it is.

    Raises:
        WeightsteerError: a pattern matches nothing, or a coefficient is not finite.
    """
    factors = dict.fromkeys(vector.names, 1.0)
    for pattern, coefficient in coefficients.items():
        for name in matching(vector.names, pattern):
            factors[name] *= algebra.finite(coefficient)
    listed = ", ".join(f"{pattern} × {float(factor)!r}" for pattern, factor in coefficients.items())
    return vector.derived(vector.terms.scaled(factors.__getitem__), f"scaled by module: {listed}")


def lines(vector: WeightVector, a: float = 0.5, b: float = 0.5, *, layers: int | None = None) -> WeightVector:
    """LiNeS: the modules of layer l = 0 … L − 1 times ``a + b · l / L``.

    Wang et al., *LiNeS: Post-training Layer Scaling*, arXiv 2410.17146: shallow layers carry what is general, so they
    are changed less.

    Args:
        vector: what to scale.
        a: the factor of the first layer.
        b: how much it grows towards the last.
        layers: L, the decoder layers of the model; known to vectors that know their base.

    Raises:
        WeightsteerError: L is not known, or a module is in none of the layers.
    """
    layers = layers or (vector.metadata.get("base") or {}).get("layers")
    if not layers:
        raise WeightsteerError("the vector does not know how many layers its model has: pass layers=28.")
    first, slope = algebra.finite(a), algebra.finite(b)
    factors = {}
    for name in vector.names:
        layer = layer_of(name)
        if layer is None or layer >= layers:
            raise WeightsteerError(
                f"{name} is in none of the {layers} layers, so it has no depth to be scaled by. Leave it out with "
                "v.drop(...), or give the number of layers of the model."
            )
        factors[name] = first + slope * layer / layers
    return vector.derived(vector.terms.scaled(factors.__getitem__), f"LiNeS {a!r} + {b!r} · l / {layers}")
