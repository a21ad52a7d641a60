"""What a line of ``summarize`` or ``compare`` shows: a verdict from intervals, never from points.

A verdict is a value of an enumeration; what it is called in a table, a sentence or a report is decided there
(`weightsteer.audit.words`).
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

PMASS_GATE = 0.9
"""Below this share of probability on the two answers a log-ratio is about a corner of what the model says."""


class Verdict(StrEnum):
    """What one intervention does to one evaluation at one strength.

    Attributes:
        BASE: α = 0, to which everything is compared.
        STEERS: the interval of the discrimination excludes 0 on the side of α.
        STEERS_WITH_MORE_BIAS: so it does, but the whole interval of the bias is farther from 0.
        REVERSED: the interval of the discrimination excludes 0 on the side opposite to α.
        REVERSED_WITH_MORE_BIAS: so it does, and the whole interval of the bias is farther from 0.
        YES_BIAS: only the interval of the bias excludes 0.
        NOT_SEPARABLE: neither interval excludes 0.
        FORMAT_DAMAGE: the interval of pmass lies below `PMASS_GATE`, and that of its change below 0.
        NOT_IDENTIFIABLE: all rows have one label, so behaviour and yes-bias are one.
        NO_INTERVAL: all rows are one cluster.
        UNDEFINED: some rows are NaN.
    """

    BASE = "base"
    STEERS = "steers"
    STEERS_WITH_MORE_BIAS = "steers_with_more_bias"
    REVERSED = "reversed"
    REVERSED_WITH_MORE_BIAS = "reversed_with_more_bias"
    YES_BIAS = "yes_bias"
    NOT_SEPARABLE = "not_separable"
    FORMAT_DAMAGE = "format_damage"
    NOT_IDENTIFIABLE = "not_identifiable"
    NO_INTERVAL = "no_interval"
    UNDEFINED = "undefined"


class Difference(StrEnum):
    """How one intervention compares with another over identical rows, after correction for many comparisons."""

    MORE = "more"
    LESS = "less"
    NOT_SEPARABLE = "not_separable"
    NO_INTERVAL = "no_interval"
    UNDEFINED = "undefined"
    NOT_COMPARED = "not_compared"


def verdict(line: Mapping[str, Any]) -> Verdict:
    """The verdict of one line of ``summarize``, see `Verdict`."""
    if line["alpha"] == 0:
        return Verdict.BASE
    if line["nan"]:
        return Verdict.UNDEFINED
    if line["discrimination"] is None:
        return Verdict.NOT_IDENTIFIABLE
    if line["discrimination_low"] is None:
        return Verdict.NO_INTERVAL
    if line["pmass_high"] < PMASS_GATE and line["pmass_change_high"] < 0:
        return Verdict.FORMAT_DAMAGE
    side = side_of(line, "discrimination")
    biased = side_of(line, "bias") != 0
    if side == 0:
        return Verdict.YES_BIAS if biased else Verdict.NOT_SEPARABLE
    more_bias = biased and farther_from_zero(line, "bias", "discrimination")
    if side == (1 if line["alpha"] > 0 else -1):
        return Verdict.STEERS_WITH_MORE_BIAS if more_bias else Verdict.STEERS
    return Verdict.REVERSED_WITH_MORE_BIAS if more_bias else Verdict.REVERSED


def side_of(line: Mapping[str, Any], name: str) -> int:
    """+1 or −1 when the interval excludes 0, else 0."""
    return int(line[f"{name}_low"] > 0) - int(line[f"{name}_high"] < 0)


def farther_from_zero(line: Mapping[str, Any], name: str, other: str) -> bool:
    """Whether the whole interval of one effect is farther from 0 than that of another."""
    own, its = ([abs(line[f"{each}_{end}"]) for end in ("low", "high")] for each in (name, other))
    return min(own) > max(its)
