"""What the cells of the report's tables are made of: chips, intervals as drawings, keys, oriented numbers."""

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from weightsteer.formatting import estimate, signed
from weightsteer.report.charts import PALETTE, Series

BAR = 132.0  # width of an interval drawn in a table cell, in px

WIDE = 1.5  # a bar shows intervals up to so many times the largest effect; what is longer is cut off

Line = Mapping[str, Any]


def reach(lines: pl.DataFrame) -> float:
    """Half the width of the bars of one table: the farthest end of an interval, or `WIDE` times the largest effect.

    Intervals of two seeds can be ten times as long as anything else, which would be drawn as a dot.
    """
    known = lines.filter(pl.col("discrimination").is_finite())
    largest = max((abs(value) for value in known["discrimination"]), default=0.0)
    ends = known.select("discrimination_low", "discrimination_high").drop_nulls()
    farthest = max((abs(end) for row in ends.iter_rows() for end in row if end == end), default=largest)
    return float(min(farthest, WIDE * largest)) or 1.0


def bar(
    line: Line, reach: float, own: Sequence[float | None] = (), name: str = "discrimination"
) -> dict[str, Any] | None:
    """Positions in px of an interval, its point and the seeds, around 0 in the middle; None without an interval.

    ``reach``: nats from the middle to the edge.
    """
    ends = [line[f"{name}_low"], line[name], line[f"{name}_high"]]
    if any(end is None or end != end for end in ends):
        return None

    def at(value: float) -> float:
        return round(BAR / 2 + max(-1.0, min(1.0, value / reach)) * (BAR / 2 - 5), 1)

    low, point, high = (at(end) for end in ends)
    return {"low": low, "point": point, "high": high, "own": [at(v) for v in own if v is not None and v == v]}


def key(one: Series, shown: Sequence[Series]) -> dict[str, Any]:
    """The name of an intervention and how its key looks, the same wherever it occurs."""
    index = "c" if one.control else shown.index(one) % len(PALETTE)
    return {"name": one.name, "index": index, "key": one.key, "control": one.control}


def oriented(line: Line, name: str, sign: int) -> dict[str, float | None]:
    """An effect and its interval counted along the sign of the strength: more is more of what was asked for."""
    low, high = ("low", "high") if sign > 0 else ("high", "low")
    ends = {name: line[name], f"{name}_low": line[f"{name}_{low}"], f"{name}_high": line[f"{name}_{high}"]}
    return {end: None if value is None else value * sign for end, value in ends.items()}


def percent(line: Line, name: str) -> tuple[str, str] | None:
    """A share and its interval in percent; None where it does not apply."""
    if line[name] is None:
        return None
    low, high = line[f"{name}_low"], line[f"{name}_high"]
    return f"{line[name]:.0%}", "" if low is None or high is None else f"[{100 * low:.0f}, {100 * high:.0f}]"


def within(line: Line, name: str, low: float, high: float) -> dict[str, Any]:
    """An estimate whose interval ends where its range does: a widened interval need not, but no value is there."""
    ends = {f"{name}_low": line[f"{name}_low"], f"{name}_high": line[f"{name}_high"]}
    held = {end: None if value is None else min(max(value, low), high) for end, value in ends.items()}
    return {name: line[name], **held}


def p_value(value: float | None) -> str:
    """``0.031``, ``< 0.001``, or a dash."""
    if value is None or value != value:
        return "–"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def small(line: Line, name: str) -> str:
    """A cost in nats with its interval: three digits, because a budget is a fraction of one."""
    value, low, high = line[name], line[f"{name}_low"], line[f"{name}_high"]
    if value is None:
        return "–"
    digits = 3 if abs(value) < 0.1 else 2 if abs(value) < 10 else 1
    point = estimate({"x": value, "x_low": None, "x_high": None}, "x") if value != value else f"{value:.{digits}f}"
    ends = "" if low is None or high is None else f" [{low:.{digits}f}, {high:.{digits}f}]"
    return (point + ends).replace("-", "−")


def sign_label(sign: float) -> str:
    """``+α`` or ``−α``."""
    return "+α" if sign > 0 else "−α"


def rounded(value: float) -> str:
    """A strength that was solved for: ``+1.24``. More digits would be noise."""
    return signed(float(f"{value:.3g}"))


def unit(definition: str) -> str:
    """What side effects are counted in, by the definition of a calibration."""
    return "probability" if definition.startswith("capability") else "nats per token"
