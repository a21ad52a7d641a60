"""Do the shifts follow something other than the behaviour: the base model's lean, its confidence, the length of a text?

Row shifts Δ (nats) are regressed on label g and one covariate c, both labels with one slope::

    Δ = b + d g + β c + rest

* ``correlation``: of Δ with c within labels, so that the behaviour itself is no part of it;
* ``adjusted``: d, the discrimination that is left when what follows c is taken away. It differs from the discrimination
  only where c also goes with the label (``with_label``), and that is where a nuisance can pass for the behaviour.

A correlation with ``lean`` is a change of confidence: positive, every answer gets surer; negative, all answers get
closer to a coin flip, as damage does.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import polars as pl
import polars.selectors as cs

from weightsteer.errors import WeightsteerError
from weightsteer.stats.bootstrap import Array, Bootstrap, interval
from weightsteer.stats.effects import totals
from weightsteer.stats.grid import Grid
from weightsteer.stats.pairing import GROUP, paired
from weightsteer.stats.spread import Spread

BUILT_IN = ("lean", "confidence")
"""``lean``: the log-ratio at α = 0, to Yes or No; ``confidence``: its size."""

_KEYS = ("eval", "item")


def nuisances(
    rows: pl.DataFrame, covariates: pl.DataFrame | None = None, *, resamples: int = 10_000, seed: int = 0
) -> pl.DataFrame:
    """Correlation of row shifts with nuisance covariates, and the effect that is left without them.

    Args:
        rows: of a sweep.
        covariates: ``item``, ``eval`` when there are several evaluations, and a number or a flag per item in every
            other column: its name is that of the covariate. `BUILT_IN` need none.

    Returns:
        One line per (model, behavior, method, adapter, eval, α ≠ 0, covariate): ``correlation`` with ``_low`` and
        ``_high`` at 95% and the p value ``correlation_p``, ``with_label``, ``discrimination`` and ``adjusted`` with
        ``_low`` and ``_high``, ``n`` and ``clusters``. Null where a covariate does not vary, or there is one label or
        cluster.

    Raises:
        WeightsteerError: an item has no covariates or several, or one has a missing or infinite value.
    """
    known = paired(rows)
    given = _checked(known, covariates)
    draws = Bootstrap(resamples, seed)
    lines: list[dict[str, Any]] = []
    for part in known.sort(GROUP, nulls_last=True).partition_by(GROUP, maintain_order=True):
        names = part.select(GROUP).row(0, named=True)
        lines += [{**names, **line} for line in _lines(Grid.build(part), _of(given, names["eval"]), draws)]
    numbers = ["correlation", "with_label", "discrimination", "adjusted"]
    bounds = [f"{name}_{end}" for name in ("correlation", "adjusted") for end in ("low", "high")]
    schema = {name: known.schema[name] for name in GROUP} | {"alpha": pl.Float64, "covariate": pl.String}
    schema |= dict.fromkeys((*numbers, *bounds, "correlation_p"), pl.Float64) | {"n": pl.Int64, "clusters": pl.Int64}
    return pl.DataFrame(lines, schema=schema)


def _checked(rows: pl.DataFrame, covariates: pl.DataFrame | None) -> pl.DataFrame | None:
    """The covariates as floats, of exactly the items of the rows."""
    if covariates is None:
        return None
    if "item" not in covariates.columns:
        raise WeightsteerError("the covariates need a column item: to which row does a value belong?")
    keys = [name for name in _KEYS if name in covariates.columns]
    values = covariates.select(*keys, (cs.numeric() | cs.boolean()) - cs.by_name(*keys)).with_columns(
        (cs.numeric() | cs.boolean()).cast(pl.Float64)
    )
    if left := [name for name in covariates.columns if name not in values.columns]:
        raise WeightsteerError(f"the covariates {', '.join(left)} are not numbers: encode them first.")
    asked = rows.select("eval", "item").unique()
    joined = asked.join(values, on=keys, how="left", maintain_order="left")
    numbers = [name for name in values.columns if name not in keys]
    wrong = joined.filter(pl.any_horizontal(~pl.col(numbers).is_finite().fill_null(False)))
    if wrong.height:
        raise WeightsteerError(f"{wrong.height} items lack a finite covariate, for example {wrong['item'].min()!r}.")
    if joined.height > asked.height:
        raise WeightsteerError("some items have several lines of covariates: give one per eval and item.")
    return joined


def _of(covariates: pl.DataFrame | None, evaluation: str) -> dict[str, dict[str, float]]:
    """The covariates of one evaluation: name to item to value."""
    if covariates is None:
        return {}
    own = covariates.filter(pl.col("eval") == evaluation)
    names = [name for name in own.columns if name not in _KEYS]
    return {name: dict(own.select("item", name).iter_rows()) for name in names}


def _lines(grid: Grid, given: dict[str, dict[str, float]], draws: Bootstrap) -> Iterator[dict[str, Any]]:
    start = grid.y[:, grid.zero]  # (s, n)
    shape = start.shape
    covariates = {"lean": start, "confidence": np.abs(start)}
    for name, values in given.items():
        covariates[name] = np.broadcast_to(np.array([values[item] for item in grid.item]), shape)
    clusters = int(grid.cluster.max()) + 1
    for name, covariate in covariates.items():
        regressed = _regressed(grid, covariate, draws)
        for k, alpha in enumerate(grid.alphas):
            if alpha == 0:
                continue
            seeds = np.flatnonzero(grid.present[:, k])
            line: dict[str, Any] = {
                "alpha": float(alpha),
                "covariate": name,
                "n": grid.label.size,
                "clusters": clusters,
            }
            for column, series in regressed.items():
                per_seed = series[:, seeds, k]
                point = float(per_seed[0].mean())
                line[column] = None if np.isnan(point) else point
                if column in ("correlation", "adjusted"):
                    held = clusters > 1 and not np.isnan(point)
                    low, high = interval(draws.pooled(per_seed, clusters)) if held else (None, None)
                    if column == "correlation" and low is not None and high is not None:
                        low, high = max(low, -1.0), min(high, 1.0)  # widened intervals need not end within the range
                    line[f"{column}_low"], line[f"{column}_high"] = low, high
                    if column == "correlation" and held:
                        line["correlation_p"] = Spread.of([per_seed], clusters).p(point, [1.0])
            yield line


def _regressed(grid: Grid, covariate: Array, draws: Bootstrap) -> dict[str, Array]:
    """The regression on the data (row 0) and on resampled clusters, each (1 + resamples, s, k).

    Its normal equations are sums over items, so a resample is a matrix product here too. Both variables are centred
    first: sums of squares of large numbers would cancel.
    """
    delta = grid.y - grid.y[:, grid.zero : grid.zero + 1]
    delta = delta - delta.mean(-1, keepdims=True)
    c = np.broadcast_to((covariate - covariate.mean(-1, keepdims=True))[:, None], delta.shape)
    columns: dict[str, Array] = {}
    for side, mask in (("+", grid.label > 0), ("-", grid.label < 0)):
        weight = mask.astype(float)
        columns |= {
            f"n{side}": weight,
            f"c{side}": c * weight,
            f"d{side}": delta * weight,
            f"cc{side}": c * c * weight,
            f"cd{side}": c * delta * weight,
            f"dd{side}": delta * delta * weight,
        }
    total = totals(grid, draws, columns)
    with np.errstate(divide="ignore", invalid="ignore"):
        within = {}
        for x, y in ("cc", "cd", "dd"):
            sides = [total[f"{x}{y}{s}"] - total[f"{x}{s}"] * total[f"{y}{s}"] / total[f"n{s}"] for s in "+-"]
            within[x + y] = sides[0] + sides[1]
        up, down = (total[f"d{s}"] / total[f"n{s}"] for s in "+-")
        c_up, c_down = (total[f"c{s}"] / total[f"n{s}"] for s in "+-")
        n_up, n_down = total["n+"], total["n-"]
        varies = within["cc"] > 1e-12 * np.maximum(total["cc+"] + total["cc-"], 1e-300)
        slope = np.where(varies, within["cd"] / within["cc"], np.nan)
        moves = within["dd"] > 1e-12
        correlation = np.where(varies & moves, within["cd"] / np.sqrt(within["cc"] * within["dd"]), np.nan)
        between = (c_up - c_down) ** 2 * n_up * n_down / (n_up + n_down)
        with_label = np.sign(c_up - c_down) * np.sqrt(between / (between + within["cc"]))
        discrimination = (up - down) / 2
        adjusted = discrimination - slope * (c_up - c_down) / 2
    return {
        "correlation": correlation,
        "with_label": with_label,
        "discrimination": discrimination,
        "adjusted": adjusted,
    }
