"""The table that `weightsteer calibrate` prints: a line for each intervention, seed and sign."""

from typing import Any

import polars as pl
from rich.table import Table
from rich.text import Text

from weightsteer.files import printable
from weightsteer.formatting import signed
from weightsteer.report.cells import unit
from weightsteer.report.console import table
from weightsteer.stats import MATCHED


def calibration_table(found: pl.DataFrame) -> Table:
    """Strengths with the side effect measured there, from what ``calibrate`` returned.

    A strength whose search did not end at the budget is not shown; what it came to is.
    """
    numbers = ("seed", "α*", "side effect", "on other prompts")
    shown = table(("intervention", *numbers, "status"), numbers=numbers, caption=_caption(found))
    keys = ["behavior", "method", "adapter"]
    for i, group in enumerate(found.sort(*keys, "seed", "sign", nulls_last=True).partition_by(keys)):
        if i:
            shown.add_section()
        for line in group.iter_rows(named=True):
            ok = line["status"] in MATCHED
            shown.add_row(
                printable(f"{line['behavior']}, {line['method']} {line['adapter']}"),
                str(line["seed"]),
                signed(round(line["alpha_star"], 4)) if line["alpha_star"] is not None else "–",
                _interval(line, ""),
                _interval(line, "audit_"),
                line["status"] if ok else Text(line["status"], style="yellow"),
            )
    return shown


def _interval(line: dict[str, Any], prefix: str) -> str:
    value, low, high = (line[f"{prefix}{name}"] for name in ("value", "low", "high"))
    if value is None:
        return "–"
    return f"{value:.3f}" if low is None or high is None else f"{value:.3f} [{low:.3f}, {high:.3f}]"


def _caption(found: pl.DataFrame) -> str:
    searched = found.filter(pl.col("status") != "fixed")
    first = (found if searched.is_empty() else searched).row(0, named=True)
    return (
        f"{first['definition']}; {unit(first['definition'])}, 95% intervals over {first['prompts']} prompts, "
        f"and {first['audit_prompts']} others."
    )
