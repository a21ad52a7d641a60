"""The share of a vector in a basis, and its expectation for a random one.

The share ``‖Bᵀ dW‖² / ‖dW‖²`` (input side: ``‖dW B‖²``) is what `WeightVector.project` keeps of the squared norm. A
uniformly random subspace of rank k in d dimensions holds k/d on average, whatever dW is; how far single draws scatter
depends on the rank of dW and on how many modules share the subspace. So the null is drawn: uniformly random subspaces
of the same ranks, shared by the same modules (as those of `Basis.matched_random`), measured like the basis.

This null is a low bar. What training adds is where activations and gradients are large, so nearly every basis that is
read from a model holds more than a random one, and every weak one holds less, whatever was trained. Compare bases with
each other, and vectors of other behaviours in the same basis. And a share is not an effect: that a behaviour lies in a
subspace is shown by the effect of the projected vector, compared with that of its random twins.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import polars as pl
import torch
from torch import Tensor

from weightsteer.analysis.bases.leading import root
from weightsteer.analysis.basis import SIDES, Basis, Side, generator
from weightsteer.analysis.projection import check_basis
from weightsteer.errors import WeightsteerError
from weightsteer.vector.energy import OUTSIDE
from weightsteer.vector.selection import kind_of, layer_of

if TYPE_CHECKING:
    from weightsteer.vector import WeightVector

DRAWS = 120
"""How many random twins make the null."""

# of the whole energy: what is missing below this is rounding of fp32 columns
_WHOLE = 1e-5

SCHEMA = {
    "by": pl.String,
    "group": pl.String,
    "modules": pl.Int64,
    "rank": pl.Int64,
    "share": pl.Float64,
    "expected": pl.Float64,
    "low": pl.Float64,
    "high": pl.Float64,
    "z": pl.Float64,
    "unit_share": pl.Float64,
    "unit_z": pl.Float64,
    "warning": pl.String,
}
"""The columns of `overlap`."""

ALIGNMENT = {"basis": pl.String, "side": pl.String, "origin": pl.String, **SCHEMA}
"""The columns of `alignment`."""


class _Module(NamedTuple):
    """One module: ``‖dW‖²``, of that what lies in the basis, in a random one on average, and in each draw (draws,); k;
    and why its share is no finding."""

    name: str
    whole: float
    inside: float
    expected: float
    drawn: Tensor
    rank: int
    warning: str | None


def overlap(vector: "WeightVector", basis: Basis, *, draws: int = DRAWS, seed: int = 0) -> pl.DataFrame:
    """The share of the energy of a vector in a basis, by module, kind of module, layer, and over all.

    Modules the basis lacks do not count, and modules whose delta is zero have no share.

    Args:
        draws: random twins of the basis; at least 20, so that an interval of 95 % has ends.
        seed: of the draws.

    Returns:
        One line per group: ``by`` (module, kind, layer, all), ``group``, ``modules`` (their number), ``rank`` (the
        largest k), ``share``; ``expected`` (k/d, weighted by energy), ``low``, ``high`` (95 % of the draws) and ``z``
        (in standard deviations of the draws; null where all draws agree); ``unit_share`` and ``unit_z``, in which every
        module counts alike, however large its delta; ``warning``, why the share is no finding.

    Raises:
        WeightsteerError: vector and basis do not fit (`project`), or there are too few draws.
    """
    if draws < 20:
        raise WeightsteerError(f"{draws} draws do not give an interval of 95 %: take at least 20.")
    names = check_basis(vector, basis)
    modules = sorted(_measured(vector, basis, set(names), draws, seed), key=lambda one: names.index(one.name))
    groups: list[tuple[str, str, list[_Module]]] = [("module", one.name, [one]) for one in modules]
    layers = {one.name: layer_of(one.name) for one in modules}
    for by, label in (
        ("kind", {one.name: kind_of(one.name) for one in modules}),
        ("layer", {name: OUTSIDE if layer is None else str(layer) for name, layer in layers.items()}),
    ):
        for group in dict.fromkeys(label.values()):
            groups.append((by, group, [one for one in modules if label[one.name] == group]))
    groups.append(("all", "all", modules))
    return pl.DataFrame([_line(by, group, members) for by, group, members in groups], schema=SCHEMA)


def alignment(
    vector: "WeightVector", basis: Callable[[str, Side, int], Basis], names: Sequence[str], rank: int
) -> pl.DataFrame:
    """`overlap` of the vector with every basis.

    Args:
        basis: ``(name, side, rank) -> Basis``.
        names: as the plan ``projection`` takes them; ``name@both`` stands for a line of each side.
        rank: of all bases; what has fewer directions keeps those it has.

    Raises:
        WeightsteerError: a name or side that does not exist, or no basis is about modules of the vector.
    """
    found = []
    for asked in dict.fromkeys(names):
        name, _, word = asked.partition("@")
        for side in SIDES if word == "both" else (word or "output",):
            if side not in SIDES:
                raise WeightsteerError(f"{asked!r}: write {name}, {name}@input or {name}@both.")
            one = basis(name, side, rank)
            if any(module in one.vectors for module in vector.names):
                lines = overlap(vector, one)
                found.append(lines.with_columns(basis=pl.lit(name), side=pl.lit(side), origin=pl.lit(one.origin)))
    if not found:
        raise WeightsteerError(
            "none of these bases is about a module that the vector changes: the vector may be outside the layers, or "
            "in modules that neither read nor write the residual stream."
        )
    return pl.concat(found).select(list(ALIGNMENT)).unique(["basis", "side", "by", "group"], maintain_order=True)


def subspace_overlap(first: Basis, second: Basis) -> pl.DataFrame:
    """The overlap of two bases, module by module: ``‖AᵀB‖² / min(k_A, k_B)``, 0 for orthogonal, 1 for one in the other.

    Returns:
        One line per module both have: ``module``, ``rank_first``, ``rank_second``, ``overlap``; ``expected`` and ``z``
        against a uniformly random second subspace (both exact, `null_deviation`); ``cos_largest`` and ``cos_smallest``
        of the principal angles.

    Raises:
        WeightsteerError: the bases are of different sides, have no module in common, or other widths.
    """
    if first.side != second.side:
        raise WeightsteerError(
            f"{first.name} is on the {first.side} side and {second.name} on the {second.side} side: these "
            "are different spaces."
        )
    names = [name for name in first.names if name in second.vectors]
    if not names:
        raise WeightsteerError(f"{first.name} and {second.name} are about different modules: nothing to compare.")
    lines = []
    for name in names:
        if first.width(name) != second.width(name):
            raise WeightsteerError(
                f"{name} has width {first.width(name)} in {first.name} and {second.width(name)} in {second.name}: "
                "they are of different models."
            )
        A, B, d = first.vectors[name].double(), second.vectors[name].double(), first.width(name)
        cosines = torch.linalg.svdvals(A.T @ B).clamp(max=1.0)
        least = min(A.shape[1], B.shape[1])
        found, expected = float(cosines.square().sum()) / least, A.shape[1] * B.shape[1] / (d * least)
        deviation = null_deviation(B, A.shape[1]) / least
        lines.append(
            {
                "module": name,
                "rank_first": A.shape[1],
                "rank_second": B.shape[1],
                "overlap": found,
                "expected": expected,
                "z": (found - expected) / deviation if deviation else None,
                "cos_largest": float(cosines[0]),
                "cos_smallest": float(cosines[-1]),
            }
        )
    return pl.DataFrame(lines, schema_overrides={"z": pl.Float64})


def null_deviation(F: Tensor, rank: int) -> float:
    """The standard deviation of ``‖Bᵀ F‖²`` for a uniformly random B (d, k) and a fixed F (d, n).

    With ``M = F Fᵀ`` the variance is ``2 k (d − k) (d tr M² − (tr M)²) / (d² (d − 1) (d + 2))``; for k = 1 that of a
    quadratic form on the sphere.
    """
    d = F.shape[0]
    if rank >= d:
        return 0.0
    gram = F.T @ F
    spread = d * float(gram.square().sum()) - float(gram.trace()) ** 2
    return math.sqrt(max(2 * rank * (d - rank) * spread / (d**2 * (d - 1) * (d + 2)), 0.0))


def _measured(vector: "WeightVector", basis: Basis, names: set[str], draws: int, seed: int) -> Iterator[_Module]:
    for columns, sharing in basis.groups:
        here = [name for name in sharing if name in names]
        if not here:
            continue
        width, rank = columns.shape
        gaussian = torch.randn(draws, rank, width, generator=generator(seed, sharing[0]), dtype=torch.float64)
        cholesky = torch.linalg.cholesky(gaussian @ gaussian.mT)
        for name in here:
            total = vector.terms[name]
            F = root(total, basis.side)
            bias = total.bias_delta()
            missed = 0.0 if bias is None or basis.side == "output" else float(bias.double().square().sum())
            matrix = float(F.square().sum())
            whole = matrix + missed
            if whole == 0.0:
                continue
            inside = float((columns.double().T @ F).square().sum())
            # the span of Gaussian rows G is a uniform subspace, with the projection Gᵀ (G Gᵀ)⁻¹ G
            products = (gaussian.flatten(0, 1) @ F).view(draws, rank, -1)
            coordinates = torch.linalg.solve_triangular(cholesky, products, upper=False)
            drawn = coordinates.square().sum((1, 2))
            warning = _warning(vector, basis, name, inside / whole)
            yield _Module(name, whole, inside, matrix * rank / width, drawn, rank, warning)


def _warning(vector: "WeightVector", basis: Basis, name: str, share: float) -> str | None:
    """Why the share of one module is no finding; None when it is one."""
    rank, width, bound = basis.rank(name), basis.width(name), vector.terms.rank(name)
    if rank >= width:
        return f"a tautology: the basis spans all {width} dimensions, so the share of anything is 1"
    if basis.made_from & {term.digest for _, term in vector.terms[name].terms}:
        if rank >= bound:
            return f"a tautology: the basis was made from this vector and has {rank} dimensions for its rank of {bound}"
        return f"a tautology: the basis was made from this vector; no other {rank} directions could hold more of it"
    if share > 1 - _WHOLE:
        return "a tautology: the whole delta lies in the basis, as if it had been projected on it"
    return None


def _line(by: str, group: str, members: Sequence[_Module]) -> Mapping[str, object]:
    if not members:
        raise WeightsteerError("the vector is zero in all modules of the basis, so it has no share anywhere.")
    whole = math.fsum(one.whole for one in members)
    share = math.fsum(one.inside for one in members) / whole
    drawn = torch.stack([one.drawn for one in members]).sum(0) / whole
    units = torch.stack([one.drawn / one.whole for one in members]).mean(0)
    unit_share = math.fsum(one.inside / one.whole for one in members) / len(members)
    low, high = drawn.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return {
        "by": by,
        "group": group,
        "modules": len(members),
        "rank": max(one.rank for one in members),
        "share": share,
        "expected": math.fsum(one.expected for one in members) / whole,
        "low": low,
        "high": high,
        "z": _z(share, drawn),
        "unit_share": unit_share,
        "unit_z": _z(unit_share, units),
        "warning": _joined([one.warning for one in members]),
    }


def _z(value: float, drawn: Tensor) -> float | None:
    """In standard deviations of the draws; None when these agree (a basis of all dimensions)."""
    deviation = float(drawn.std())
    return (value - float(drawn.mean())) / deviation if deviation > _WHOLE * float(drawn.mean().abs()) else None


def _joined(warnings: Sequence[str | None]) -> str | None:
    known = [warning for warning in warnings if warning is not None]
    if not known:
        return None
    if len(known) == len(warnings) and len(set(known)) == 1:
        return known[0]
    return f"{len(known)} of {len(warnings)} modules, for instance: {known[0]}"
