"""Effects in the columns of published tables: mean log-ratio and shift, change along the label, SI, std over seeds.

These are here to compare a run with what was published. Where labels are unequal in number the mean along the label
(published as dd_delta) mixes the behaviour with the yes-bias; the effects of this package keep them apart.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from weightsteer.formatting import estimate, number, share
from weightsteer.report.cells import key
from weightsteer.report.charts import Series

RATES = {"fix": "rej", "broke": "cho", "flip": "cho", "counter": "rej"}


def published_tables(summary: pl.DataFrame, run: Mapping[str, Any], shown: Sequence[Series]) -> list[dict[str, Any]]:
    """A table for each evaluation of a behaviour on a model.

    ``one_label``: all rows have one label, so that mean and shift are all that can be said of them; ``published``: the
    size of the published set, from ``run["evaluations"]``.
    """
    sizes = run.get("evaluations") or {}
    tables = []
    for part in summary.partition_by("model", "behavior", "eval", maintain_order=True):
        first = part.row(0, named=True)
        groups = [
            {**key(one, shown), "lines": [_line(line) for line in lines.sort("alpha").iter_rows(named=True)]}
            for one in shown
            if (lines := one.of(part)).height
        ]
        tables.append(
            {
                **{name: first[name] for name in ("model", "behavior", "eval", "n", "clusters", "positives")},
                "negatives": first["n"] - first["positives"],
                "one_label": first["positives"] in (0, first["n"]),
                "published": (sizes.get(first["eval"]) or {}).get("published"),
                "several_seeds": part["seeds"].max() != 1,
                "groups": groups,
            }
        )
    return tables


def _line(line: Mapping[str, Any]) -> dict[str, Any]:
    """One strength, ready to print; counts are over all seeds."""
    base = line["alpha"] == 0
    return {
        "alpha": line["alpha"],
        "mean": number(line["logratio"], 3),
        "rows_sd": number(line["logratio_sd"], 2).removeprefix("+"),
        "shift": "" if base else estimate(line, "logratio_change"),
        "shift_sd": _sd(line, "logratio_change", 2),
        "along": number(line["along"], 3),
        "delta": "" if base else estimate(line, "along_change"),
        "delta_sd": _sd(line, "along_change", 2),
        "pmass": share(line, "pmass"),
        "si": number(line["si"], 2),
        "si_sd": _sd(line, "si", 1),
        "counts": ["–" if line[name] is None else _count(line[name], line[of]) for name, of in RATES.items()],
        "seeds": line["seeds"],
    }


def _count(rate: float, of: int) -> str:
    return "NaN" if rate != rate else f"{round(rate * of):,}"


def _sd(line: Mapping[str, Any], name: str, digits: int) -> str | None:
    """``± 0.12`` over seeds; None for one seed."""
    value = line[f"{name}_seed_sd"]
    return None if value is None else f"± {value:.{digits}f}"
