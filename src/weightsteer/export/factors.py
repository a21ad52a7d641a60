"""The factors of an adapter: exact for deltas of low rank, by truncation for the others when that is asked for."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from weightsteer.errors import WeightsteerError
from weightsteer.terms import LowRank, Sum
from weightsteer.vector.recompress import Loss, Recompression, truncated

if TYPE_CHECKING:
    from weightsteer.vector import WeightVector


@dataclass(frozen=True)
class LeftOut:
    """What an adapter does not hold of a vector.

    Attributes:
        matrices: what truncation lost, by module and in total; None when nothing was truncated.
        bias: the norm of the bias terms that were dropped.
    """

    matrices: Recompression | None
    bias: float

    @property
    def energy(self) -> float:
        """The share of ``‖dW‖²`` that truncation lost, over all modules."""
        return self.matrices.total.energy_lost if self.matrices else 0.0

    def worst(self, count: int) -> dict[str, float]:
        """The modules that lost the largest shares of their own ``‖dW_i‖²``, worst first; only those that lost some."""
        lost = {name: part.energy_lost for name, part in self.matrices.modules.items()} if self.matrices else {}
        worst = sorted(lost, key=lambda name: -lost[name])[:count]
        return {name: lost[name] for name in worst if lost[name] > 0}

    def record(self) -> dict[str, Any]:
        """For JSON."""
        return {"truncation": self.matrices.record() if self.matrices else None, "bias_norm": self.bias}


def factors(
    vector: "WeightVector", *, rank: int | None = None, energy: float | None = None, drop_bias: bool = False
) -> tuple[dict[str, LowRank], LeftOut | None]:
    """One pair of factors per module, and what they leave out (None for nothing).

    Args:
        vector: of any forms; one dense delta is formed at a time, and only where a form asks for it.
        rank: keep this many singular values per module.
        energy: keep as few of them as hold this share of ``‖dW_i‖²``, in each module.
        drop_bias: leave out what the vector adds to biases.

    Raises:
        WeightsteerError: something cannot be had as a product of two small matrices, and it was not said which part
            of it may be lost.
    """
    truncate = rank is not None or energy is not None
    matrices: dict[str, Sum] = {}
    biases = []
    for name, term in vector.terms.items():  # refuse first: decomposing may take minutes
        if (added := term.bias_delta()) is not None:
            if not drop_bias:
                raise _no_bias(name)
            biases.append(float(added.double().norm()))
        matrix = Sum(term.shape, [(c, one) for c, one in term.terms if one.form != "bias"])
        if not truncate and not all(isinstance(part, LowRank) for _, part in matrix.terms):
            raise _not_low_rank(name, matrix)
        if matrix.terms or not term.terms:  # not what is nothing but a bias
            matrices[name] = matrix
    found: dict[str, LowRank] = {}
    lost: dict[str, Loss] = {}
    for name, matrix in matrices.items():
        if truncate:
            # module by module: no more than one dense delta at a time
            sums, report = truncated({name: matrix}, rank, energy)
            lost |= report.modules
            matrix = Sum(matrix.shape, [part for part in sums[name].terms if isinstance(part[1], LowRank)])
        found[name] = matrix.low_rank()
    if not found:
        raise WeightsteerError("without its biases nothing is left of the vector, so there is nothing to export.")
    if not truncate and not biases:
        return found, None
    return found, LeftOut(Recompression(lost) if truncate else None, math.hypot(*biases))


def _no_bias(name: str) -> WeightsteerError:
    return WeightsteerError(
        f"the vector adds to the bias of {name}, and a plain LoRA holds no biases. Steer unmerged with "
        "weightsteer.steer, merge the vector into a model that has these biases, leave the module out with "
        "v.drop(...), or export without the biases (drop_bias=True, --drop-bias)."
    )


def _not_low_rank(name: str, matrix: Sum) -> WeightsteerError:
    forms = ", ".join(sorted({part.form for _, part in matrix.terms}))
    return WeightsteerError(
        f"the delta of {name} is not of low rank (its terms: {forms}), so no LoRA holds it exactly. Give a rank or "
        "an energy (--rank 32, --energy 0.99) to export the nearest LoRA and see what it loses, merge the vector "
        "into a checkpoint (--merged), or steer with the vector itself."
    )
