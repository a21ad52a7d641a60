"""Two ways to remove by-products from a vector: train it on pairs that do not have them, or project them out.

`balanced` makes the pairs differ in nothing else; `project_out` removes from dW what it shares with vectors that carry
nothing but a by-product (`weightsteer.controls`, kinds ``yes``, ``length`` and ``agreement``). Neither is sure to help:
a by-product may lie in another direction than the nuisance vector, so the repaired vector has to be measured again.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from weightsteer import terms
from weightsteer.controls import nuisance_name
from weightsteer.data.pairs.balance import Balance, balanced
from weightsteer.errors import WeightsteerError, unknown
from weightsteer.terms import Sum
from weightsteer.vector import WeightVector, algebra

__all__ = ["Balance", "Projection", "balanced", "project_out"]

By = Literal["vector", "module"]

# eigenvalues of a correlation matrix below this are rounding: the nuisances are linearly dependent
DEPENDENT = 1e-13
# of a vector's squared norm: what is left of one that lies in the span of the nuisances
NOTHING = 1e-12


@dataclass(frozen=True)
class Projection:
    """What a projection removed.

    Attributes:
        nuisances: their names.
        by: over the whole vector, or in every module by itself.
        before, after: the cosine of the vector with each nuisance.
        removed: the share of ``‖dW‖²`` that was removed.
        norm_before, norm_after: ‖dW‖; equal when the norm was kept.
    """

    nuisances: tuple[str, ...]
    by: By
    before: tuple[float, ...]
    after: tuple[float, ...]
    removed: float
    norm_before: float
    norm_after: float

    def record(self) -> dict[str, Any]:
        """As the metadata of a vector has it, JSON-able."""
        return asdict(self)

    def __str__(self) -> str:
        where = "the vector" if self.by == "vector" else "every module"
        lines = [
            f"{self.removed:.2%} of ‖dW‖² removed from {where}; norm {self.norm_before:.4g} → {self.norm_after:.4g}"
        ]
        for name, before, after in zip(self.nuisances, self.before, self.after, strict=True):
            lines.append(f"  cosine with {name}: {before:+.3f} → {after:+.1e}")
        return "\n".join(lines)


def project_out(
    vector: WeightVector, nuisances: Sequence[WeightVector], *, by: By = "vector", keep_norm: bool = False
) -> tuple[WeightVector, Projection]:
    """``v − Σ_k c_k n_k``, orthogonal to every nuisance n_k: an exact formal sum, no dense matrix is formed.

    The coefficients solve ``G c = b`` with ``G_jk = <n_j, n_k>`` and ``b_j = <v, n_j>`` (Frobenius), which is what
    Gram–Schmidt gives, in whatever order the nuisances come.

    Args:
        by: ``vector``: one c for all modules, and the result is orthogonal as a whole; ``module``: a c for each, and
            every delta is orthogonal to that of each nuisance in the same module. This removes more, of the behaviour
            too.
        keep_norm: scale the result to the norm of ``vector``.

    Returns:
        The repaired vector, with the adapter ``<its adapter>-without-<nuisances>``, and what was removed.

    Raises:
        WeightsteerError: no nuisance, a zero one, vectors of different base models, or nothing would be left.
    """
    if by not in get_args(By):
        raise unknown("way to project", by, get_args(By))
    if not nuisances:
        raise WeightsteerError("nothing to project out: give at least one nuisance vector.")
    before = algebra.gram([vector, *nuisances])
    names = [nuisance_name(nuisance) for nuisance in nuisances]
    for name, square in zip(["the vector", *names], before.diag().tolist(), strict=True):
        if square == 0.0:
            raise WeightsteerError(f"{name} is zero, so it has no direction to project out or to keep.")
    sums = _whole(vector, nuisances, before) if by == "vector" else _by_module(vector, nuisances)
    repaired = WeightVector(sums, vector.metadata)
    after = algebra.gram([repaired, *nuisances])
    left = float(after[0, 0] / before[0, 0])
    if left < NOTHING:
        raise WeightsteerError(
            f"the vector is a linear combination of {', '.join(names)}, so nothing would be left. It carries the "
            "by-product, and no behaviour that could be separated from it."
        )
    if keep_norm:
        repaired = repaired * left**-0.5
    removed = Projection(
        nuisances=tuple(names),
        by=by,
        before=_cosines(before),
        after=_cosines(after),
        removed=1.0 - left,
        norm_before=float(before[0, 0].sqrt()),
        norm_after=repaired.norm(),
    )
    # one table may hold all of them
    suffix = f"-without-{'-'.join(names)}{'-by-module' if by == 'module' else ''}{'-norm-kept' if keep_norm else ''}"
    metadata = vector.metadata
    operation = f"projected out by {by}: {', '.join(f'{n} {v.digest}' for n, v in zip(names, nuisances, strict=True))}"
    changes = {
        "adapter": metadata["adapter"] + suffix,
        "projected": removed.record(),
        "operations": [*metadata.get("operations", []), operation],
        "geometry": None,  # it described two branches, of which this is no longer the difference
    }
    return repaired.with_metadata(**changes), removed


def _whole(vector: WeightVector, nuisances: Sequence[WeightVector], gram: Tensor) -> dict[str, Sum]:
    coefficients = [1.0, *(-_coefficients(gram)).tolist()]
    return algebra.combined([vector, *nuisances], coefficients)[0]


def _by_module(vector: WeightVector, nuisances: Sequence[WeightVector]) -> dict[str, Sum]:
    sums = {}
    for name, total in vector.terms.items():
        here = [nuisance.terms[name] for nuisance in nuisances if name in nuisance.terms]
        for c, other in zip(_coefficients(terms.gram([total, *here])).tolist(), here, strict=True):
            total = total.plus(other.scaled(-c))
        sums[name] = total
    return sums


def _coefficients(gram: Tensor) -> Tensor:
    """c of the projection of the first vector on the span of the others, fp64 (k − 1,), from all inner products."""
    lengths = gram.diag()[1:].sqrt()
    scale = torch.where(lengths > 0, 1.0 / lengths, 0.0)
    correlation = gram[1:, 1:] * scale[:, None] * scale
    inverse = torch.linalg.pinv(correlation, rtol=DEPENDENT, hermitian=True)
    return (inverse @ (gram[0, 1:] * scale)) * scale


def _cosines(gram: Tensor) -> tuple[float, ...]:
    lengths = gram.diag().sqrt()
    return tuple((gram[0, 1:] / (lengths[0] * lengths[1:])).tolist())
