"""The published subspace alignment: how much of dW lies in the k × k block of the leading singular directions of W.

With ``W = U S Vᵀ`` and ``P = Uᵀ dW V``, k the leading tenth of the m = min(d_out, d_in) directions of each module,

    energy_top = ‖P[:k, :k]‖² / ‖dW‖²          of a random dW:  k² / (d_out · d_in), (k/m)² where W is square

and, for modules that write to the residual stream, the weak read-out: with V_w the last hundredth of the right singular
directions of the unembedding as it is, without the gain of the final norm in front of it,

    energy_weak = ‖V_wᵀ dW‖² / ‖dW‖²           of a random dW:  k_w / d

`energy_weak` over its expectation was published as ratio_weak_write. Biases do not count.
"""

import math
from collections.abc import Iterable

import polars as pl
import torch
from torch import Tensor
from transformers import PreTrainedModel

from weightsteer.analysis.bases.leading import orthonormal, weakest
from weightsteer.analysis.bases.stream import Stream, matrix, table_gram
from weightsteer.analysis.projection import low_rank_factors
from weightsteer.errors import WeightsteerError
from weightsteer.terms import Sum
from weightsteer.vector import WeightVector
from weightsteer.vector.selection import kind_of, layer_of

TOP, WEAK = 0.1, 0.01
"""Shares of the singular directions of a weight, and of the unembedding."""

SCHEMA = {
    "by": pl.String,
    "group": pl.String,
    "modules": pl.Int64,
    "k": pl.Int64,
    "energy_top": pl.Float64,
    "top_expected": pl.Float64,
    "energy_weak": pl.Float64,
    "weak_expected": pl.Float64,
}

_Line = tuple[str, float, int, float, float, float | None, float]


def subspace_alignment(
    vector: WeightVector, model: PreTrainedModel, *, top: float = TOP, weak: float = WEAK
) -> pl.DataFrame:
    """The two published shares of a vector, by module, kind of module, layer, and over all.

    Args:
        model: its base model.
        top: share of the singular directions of each weight.
        weak: share of those of the unembedding.

    Returns:
        One line per group (``by``, ``group``): ``modules``, ``k`` (the largest), ``energy_top`` and ``energy_weak``,
        with what a random delta of these norms would have (``top_expected``, ``weak_expected``); the weak share is over
        modules that write to the stream, null where there is none.

    Raises:
        WeightsteerError: the vector changes no module that reads or writes the residual stream.
    """
    stream = Stream.of(model)
    few = max(1, round(weak * stream.width))
    readout = weakest(table_gram(stream.unembedding), few)
    writers = {site.name for site in stream.writers}
    lines: list[_Line] = []
    for site in (*stream.readers, *stream.writers):
        total = vector.terms.get(site.name)
        whole = 0.0 if total is None else total.inner(total) - _bias(total)
        if total is None or not whole > 0:
            continue
        weight = matrix(site.module, site.name)
        k = max(1, int(top * min(weight.shape)))
        near, far = low_rank_factors(total) or (total.columns(0, total.shape[1]), None)
        U, V = _leading(weight, k)
        right = (near if far is None else far) @ V
        inside = float((U.T @ right if far is None else (U.T @ near) @ right).square().sum())
        read = None
        if site.name in writers:
            seen = readout.T @ near if far is None else (readout.T @ near) @ torch.linalg.qr(far.T).R.T
            read = float(seen.square().sum())
        lines.append((site.name, whole, k, inside, whole * k * k / weight.numel(), read, whole * few / stream.width))
    if not lines:
        raise WeightsteerError("the vector changes no module that reads or writes the residual stream.")
    groups = [("module", name, [line for line in lines if line[0] == name]) for name, *_ in lines]
    for by, label in (("kind", kind_of), ("layer", lambda name: str(layer_of(name)))):
        for group in dict.fromkeys(label(line[0]) for line in lines):
            groups.append((by, group, [line for line in lines if label(line[0]) == group]))
    groups.append(("all", "all", lines))
    return pl.DataFrame([_grouped(*group) for group in groups], schema=SCHEMA, orient="row")


def _leading(weight: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k leading left and right singular vectors, by the Gram matrix of the smaller side."""
    rows, columns = weight.shape
    near = weight if columns <= rows else weight.T
    V = torch.linalg.eigh(near.T @ near).eigenvectors.flip(1)[:, :k]
    U = orthonormal(near @ V)
    return (U, V) if columns <= rows else (V, U)


def _bias(total: Sum) -> float:
    bias = total.bias_delta()
    return 0.0 if bias is None else float(bias.double().square().sum())


def _grouped(by: str, group: str, lines: Iterable[_Line]) -> tuple[object, ...]:
    some = list(lines)
    whole = math.fsum(line[1] for line in some)
    writing = [line for line in some if line[5] is not None]
    written = math.fsum(line[1] for line in writing)
    return (
        by,
        group,
        len(some),
        max(line[2] for line in some),
        math.fsum(line[3] for line in some) / whole,
        math.fsum(line[4] for line in some) / whole,
        math.fsum(line[5] or 0.0 for line in writing) / written if writing else None,
        math.fsum(line[6] for line in writing) / written if writing else None,
    )
