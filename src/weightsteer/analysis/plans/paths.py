"""Paths along an adapter's own parameters: curves in weight space, where ``α · dW`` is a straight line.

A line leaves the set of models that the adapter can be: ``W + α W (R⁺ − R⁻)`` is no rotation of W. A path stays in it,
by moving the adapter's own parameter from its value at the base, by α times what the two branches differ in:

    oft     W X(α),             X(α) = Cayley(α (K⁺ − K⁻)), K the skew generators
    boft    diag(s(α)) W X(α),  s(α) = exp(α (log s⁺ − log s⁻)); for one butterfly factor
    ia3     W scaled by l(α),   l(α) = exp(α (log l⁺ − log l⁻))
    dora    m(α) V(α) / ‖V(α)‖, m(α) = ‖W‖ + α (m⁺ − m⁻), V(α) = W + α (s B⁺A⁺ − s B⁻A⁻), all by rows

All of it is read from the terms of the vector, so that a vector in a file has its path as well. Near α = 0 line and
path agree for branches near the base. For LoRA, PiSSA and DeLoRA (in λ) the two are the same, so they have no path.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from weightsteer.adapters.oft import cayley
from weightsteer.errors import WeightsteerError
from weightsteer.terms import BaseWeight, Butterfly, ColumnScale, LowRank, Modifier, Rotated, RowScale, Sum, Term

if TYPE_CHECKING:
    from weightsteer.vector import WeightVector

At = Callable[[float], Sum]
"""``α -> θ(α) − θ`` of one module."""

# entries of K + Kᵀ, for a rotation made by a truncated series
_SKEW = 1e-3


class Path:
    """An intervention that is ``θ(α) − θ`` along a path, at the strengths it is made for.

    At each of them it is a weight vector, ``(θ(α) − θ) / α`` times α; between them it is not defined.
    """

    method = "weight"

    def __init__(self, vector: "WeightVector", curves: Mapping[str, At], alphas: Sequence[float]) -> None:
        self.names = list(curves)
        self.alphas = tuple(float(alpha) for alpha in alphas if alpha)
        self.metadata: dict[str, Any] = vector.metadata
        self._curves = curves

    def with_metadata(self, **changes: Any) -> "Path":
        """The same path with some metadata changed."""
        twin = Path.__new__(Path)
        twin.__dict__ = self.__dict__ | {"metadata": {**self.metadata, **changes}}
        twin.method = str(twin.metadata["method"])
        return twin

    def at(self, alpha: float) -> "WeightVector":
        """``θ(α) − θ`` as a weight vector, to be applied with strength 1."""
        from weightsteer.vector import WeightVector

        return WeightVector({name: curve(alpha) for name, curve in self._curves.items()}, self.metadata)

    def modify(self, name: str, module: nn.Module) -> Modifier:
        """Each strength has its own change; a row is given that of its own."""
        curve = self._curves[name]
        steps = [(alpha, curve(alpha).scaled(1.0 / alpha).modifier(module)) for alpha in self.alphas]

        def modify(x: Tensor, own: Tensor, y: Tensor, alpha: Tensor) -> Tensor:
            for value, step in steps:
                y = step(x, own, y, torch.where(alpha == value, alpha, 0.0))
            return y

        return modify


def has_path(vector: "WeightVector") -> bool:
    """Whether the family of a vector has a path that is not the line itself."""
    return str(vector.metadata["adapter"]) in _PATHS


def path(vector: "WeightVector", alphas: Sequence[float]) -> Path:
    """The path of a vector along its adapter's parameters.

    Raises:
        WeightsteerError: the path of the family is the line itself; or the terms are not those of two branches of the
            family (a sum of several vectors, say), or lie where its parameter is not defined (a gate below 0 has no
            logarithm).
    """
    if not has_path(vector):
        raise WeightsteerError(
            f"the path of {vector.metadata['adapter']} along its own parameters is the line α·dW, or has not been "
            f"defined; there are paths for {', '.join(sorted(_PATHS))}."
        )
    make = _PATHS[str(vector.metadata["adapter"])]
    return Path(vector, {name: make(name, total) for name, total in vector.terms.items() if total.terms}, alphas)


def branches(name: str, total: Sum, *forms: type[Term]) -> tuple[list[Any], list[Any]]:
    """The terms of both branches, one of each form, each with its coefficient put into it: (plus, minus).

    Raises:
        WeightsteerError: they are not one of each form on each side.
    """
    sides: tuple[list[Any], list[Any]] = ([], [])
    for form in forms:
        for side, sign in zip(sides, (1, -1), strict=True):
            found = [(abs(c), term) for c, term in total.terms if isinstance(term, form) and c * sign > 0]
            if len(found) != 1:
                raise WeightsteerError(
                    f"the delta of {name} has {len(found)} terms of the form {form.form} with the sign of one branch, "
                    "where the difference of two branches has one: the adapter's own parameters cannot be read from "
                    "it. Take the vector as it was made, before sums and projections."
                )
            side.append(form.fuse(found))
    if len(total.terms) != 2 * len(forms):
        raise WeightsteerError(f"the delta of {name} has terms that are not of this family of adapters.")
    return sides


def _ia3(name: str, total: Sum) -> At:
    form: type[RowScale] | type[ColumnScale] = RowScale if isinstance(total.terms[0][1], RowScale) else ColumnScale
    (plus,), (minus,) = branches(name, total, form)
    slope = _log(name, plus.scale) - _log(name, minus.scale)

    def at(alpha: float) -> Sum:
        scale = torch.expm1(alpha * slope)
        term = RowScale(scale, plus.base, plus.bias) if isinstance(plus, RowScale) else ColumnScale(scale, plus.base)
        return Sum(total.shape, [(1.0, term)])

    return at


def _oft(name: str, total: Sum) -> At:
    (plus,), (minus,) = branches(name, total, Rotated)
    turn = generator(name, plus.blocks) - generator(name, minus.blocks)

    def at(alpha: float) -> Sum:
        blocks = cayley(alpha * turn)
        return Sum(total.shape, [(1.0, Rotated(blocks - torch.eye(blocks.shape[-1], dtype=blocks.dtype), plus.base))])

    return at


def _boft(name: str, total: Sum) -> At:
    plus, minus = branches(name, total, RowScale, Butterfly)
    if plus[1].factors.shape[:2] != (1, 1) or minus[1].factors.shape[:2] != (1, 1):
        raise WeightsteerError(
            f"the rotation of {name} is a product of several butterfly factors; only that of one factor has a "
            "generator that can be scaled."
        )
    base: BaseWeight = plus[0].base
    # the butterfly term holds its factor less the identity
    turn = generator(name, plus[1].factors[0, 0]) - generator(name, minus[1].factors[0, 0])
    slope = _log(name, plus[0].scale) - _log(name, minus[0].scale)

    def at(alpha: float) -> Sum:
        blocks, scale = cayley(alpha * turn), torch.expm1(alpha * slope)
        moved = Butterfly(
            (scale + 1.0)[None], (blocks - torch.eye(blocks.shape[-1], dtype=blocks.dtype))[None, None], base
        )
        return Sum(total.shape, [(1.0, RowScale(scale, base)), (1.0, moved)])

    return at


def _dora(name: str, total: Sum) -> At:
    plus, minus = (DoraBranch(*terms) for terms in branches(name, total, RowScale, LowRank))
    base, weight = plus.base, row_norms(plus.base)
    B = torch.cat([plus.B, -minus.B], dim=1)
    A = torch.cat([plus.A, minus.A])
    slope = plus.magnitude - minus.magnitude

    def at(alpha: float) -> Sum:
        gain = (weight + alpha * slope) / row_norms(base, alpha * B, A)
        return Sum(total.shape, [(1.0, RowScale(gain - 1.0, base)), (1.0, LowRank(gain[:, None] * alpha * B, A))])

    return at


class DoraBranch:
    """What DoRA learned in one branch, from its two terms ``diag(g − 1) W`` and ``(s g ∘ B) A``, in fp64.

    Attributes:
        B, A: the factors of the direction, ``V = W + B A`` (d_out, d_in).
        norms: ‖V‖ by rows (d_out,).
        magnitude: m (d_out,).
    """

    def __init__(self, scale: RowScale, factors: LowRank) -> None:
        self.base = scale.base
        gain = scale.scale.double() + 1.0
        self.B, self.A = factors.B.double() / gain[:, None], factors.A.double()
        self.norms = row_norms(self.base, self.B, self.A)
        self.magnitude = gain * self.norms


def row_norms(base: BaseWeight, B: Tensor | None = None, A: Tensor | None = None) -> Tensor:
    """``‖W + B A‖`` by rows, fp64 (d_out,); a few columns at a time."""
    squares = torch.zeros(base.shape[0], dtype=torch.float64)
    for start in range(0, base.shape[1], 256):
        columns = base.columns(start, min(start + 256, base.shape[1]))
        if B is not None and A is not None:
            columns = columns + B @ A[:, start : start + 256]
        squares += columns.square().sum(1)
    return squares.sqrt()


def generator(name: str, blocks: Tensor) -> Tensor:
    """The skew K with ``Cayley(K) = I + M`` for blocks M (n, s, s), fp64.

    Raises:
        WeightsteerError: I + M is no rotation, or turns something by half a circle, which no finite K does.
    """
    M = blocks.double()
    identity = torch.eye(M.shape[-1], dtype=M.dtype)
    try:
        K = torch.linalg.solve(2.0 * identity + M, -M)
    except RuntimeError as error:
        raise WeightsteerError(f"a block of {name} turns by half a circle: it has no finite generator.") from error
    if not float((K + K.transpose(1, 2)).abs().max()) < _SKEW:
        raise WeightsteerError(
            f"the blocks of {name} are no rotations (made by a truncated series, or scaled), so they have no generator "
            "to be scaled."
        )
    return (K - K.transpose(1, 2)) / 2


def _log(name: str, scale: Tensor) -> Tensor:
    """``log l`` of gates given as l − 1."""
    if bool((scale <= -1.0).any()):
        raise WeightsteerError(f"a gate of {name} is 0 or below and has no logarithm: this vector has no such path.")
    return torch.log1p(scale.double())


_PATHS: dict[str, Callable[[str, Sum], At]] = {"ia3": _ia3, "oft": _oft, "boft": _boft, "dora": _dora}
