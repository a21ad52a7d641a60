"""What a line of ``summarize`` or ``compare`` shows.

An effect counts when three things hold. Its 95% interval over rows excludes 0: it generalises to other rows of this
kind. It is outside the null of random directions (`weightsteer.stats.null`, where one is known): a random vector with
the same norms does not have it. And it is at least the smallest effect of interest: with enough rows everything has
some effect.

A verdict is a value of an enumeration; what it is called in a table, a sentence or a report is decided there
(`weightsteer.audit.words`).
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from weightsteer.stats.correction import LEVEL

PMASS_GATE = 0.9
"""Below this share of probability on the two answers a log-ratio is about a corner of what the model says."""


SMALLEST = 0.1
"""The smallest effect of interest, nats: it changes the probability of an answer by 2.5 points at most."""


class Verdict(StrEnum):
    """What one intervention does to one evaluation at one strength.

    Attributes:
        BASE: α = 0, to which everything is compared.
        STEERS: the discrimination counts, with the sign of α.
        STEERS_WITH_MORE_BIAS: so it does, but the bias counts too, and its whole interval is farther from 0.
        REVERSED: the discrimination counts, with the sign opposite to α.
        REVERSED_WITH_MORE_BIAS: so it does, and the bias counts too, and its whole interval is farther from 0.
        YES_BIAS: only the bias counts.
        NEGLIGIBLE: an effect is distinguishable from 0 and from random directions, and none that is has the smallest
            size of interest.
        NOT_SEPARABLE: no effect is distinguishable from 0 and from random directions.
        FORMAT_DAMAGE: the interval of pmass lies below `PMASS_GATE`, that of its change below 0, and the base model
            answers in this format.
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
    NEGLIGIBLE = "negligible"
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


def verdict(line: Mapping[str, Any], smallest: float = SMALLEST) -> Verdict:
    """The verdict of one line of ``summarize``, see `Verdict`."""
    if line["alpha"] == 0:
        return Verdict.BASE
    if line["nan"]:
        return Verdict.UNDEFINED
    if line["discrimination"] is None:
        return Verdict.NOT_IDENTIFIABLE
    if line["discrimination_low"] is None:
        return Verdict.NO_INTERVAL
    if lost_mass(line) and answers(line):
        return Verdict.FORMAT_DAMAGE
    moved, biased = distinguishable(line, "discrimination"), distinguishable(line, "bias")
    if not (moved or biased):
        return Verdict.NOT_SEPARABLE
    biased = biased and abs(line["bias"]) >= smallest
    if not moved or abs(line["discrimination"]) < smallest:
        return Verdict.YES_BIAS if biased else Verdict.NEGLIGIBLE
    more_bias = biased and farther_from_zero(line, "bias", "discrimination")
    if side_of(line, "discrimination") == (1 if line["alpha"] > 0 else -1):
        return Verdict.STEERS_WITH_MORE_BIAS if more_bias else Verdict.STEERS
    return Verdict.REVERSED_WITH_MORE_BIAS if more_bias else Verdict.REVERSED


def lost_mass(line: Mapping[str, Any]) -> bool:
    """Whether the answer mass is distinguishably below `PMASS_GATE` and below that of the base model."""
    return bool(line["pmass_high"] < PMASS_GATE and line["pmass_change_high"] < 0)


def answers(line: Mapping[str, Any]) -> bool:
    """Whether the base model answers in the format of the evaluation: its answer mass reaches `PMASS_GATE`."""
    return bool(line["base_pmass"] >= PMASS_GATE)


def distinguishable(line: Mapping[str, Any], effect: str) -> bool:
    """Whether the interval excludes 0, and the null of random directions, where it is known, is excluded too."""
    p = line.get("null_holm" if effect == "discrimination" else f"{effect}_null_holm")
    return side_of(line, effect) != 0 and (p is None or p < LEVEL)


def side_of(line: Mapping[str, Any], name: str) -> int:
    """+1 or −1 when the interval excludes 0, else 0."""
    return int(line[f"{name}_low"] > 0) - int(line[f"{name}_high"] < 0)


def farther_from_zero(line: Mapping[str, Any], name: str, other: str) -> bool:
    """Whether the whole interval of one effect is farther from 0 than that of another."""
    own, its = ([abs(line[f"{each}_{end}"]) for end in ("low", "high")] for each in (name, other))
    return min(own) > max(its)
