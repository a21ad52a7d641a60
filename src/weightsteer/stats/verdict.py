"""What a line of ``summarize`` says, in words: from intervals, never from points."""

from collections.abc import Mapping
from typing import Any

from weightsteer.formatting import estimate, share

PMASS_GATE = 0.9
"""Below this share of probability on the two answers a log-ratio is about a corner of what the model says."""


def verdict(line: Mapping[str, Any]) -> str:
    """One line of ``summarize`` in words: a short label, a colon, the numbers it rests on.

    Labels: ``base``; ``undefined`` (NaN rows); ``not identifiable`` (one label only); ``no interval`` (one
    cluster); ``format damage`` (the interval of pmass lies below 0.9, and that of its change below 0);
    ``steers`` and ``wrong direction`` (the interval of the discrimination excludes 0 on the side of α or on
    the other one), with ``but moves Yes-saying more`` when the whole interval of the bias is farther from 0;
    ``moves Yes-saying only`` (only the bias excludes 0); ``not separable at this n``.
    """
    if line["alpha"] == 0:
        return "base"
    if line["nan"]:
        return f"undefined: {line['nan']} of {line['n'] * line['seeds']} rows are NaN"
    if line["discrimination"] is None:
        only = "+1" if line["positives"] else "−1"
        return f"not identifiable: all {line['n']} rows have label {only}; behaviour and Yes-saying are one"
    discrimination, bias = estimate(line, "discrimination"), estimate(line, "bias")
    if line["discrimination_low"] is None:
        return f"no interval: all {line['n']} rows are one cluster; discrimination {discrimination}"
    if line["pmass_high"] < PMASS_GATE and line["pmass_change_high"] < 0:
        return f"format damage: pmass {share(line, 'pmass')}; discrimination {discrimination}"
    side = side_of(line, "discrimination")
    biased = side_of(line, "bias") != 0
    if side == 0:
        if biased:
            return f"moves Yes-saying only: bias {bias}; discrimination {discrimination}"
        units = f"{line['clusters']} clusters" + (f", {line['seeds']} seeds" if line["seeds"] > 1 else "")
        return (
            f"not separable at this n: discrimination {discrimination}; "
            f"effects under {line['mde']:.2f} nats would go unseen ({units})"
        )
    right = side == (1 if line["alpha"] > 0 else -1)
    if biased and mostly_bias(line):
        words = "steers, but moves Yes-saying more" if right else "wrong direction, and moves Yes-saying more"
    else:
        words = "steers" if right else "wrong direction"
    return f"{words}: discrimination {discrimination}" + (f"; bias {bias}" if biased else "")


def label(line: Mapping[str, Any]) -> str:
    """The verdict's words without its numbers."""
    return str(line["verdict"]).split(":", 1)[0]


def side_of(line: Mapping[str, Any], name: str) -> int:
    """+1 or −1 when the interval excludes 0, else 0."""
    return int(line[f"{name}_low"] > 0) - int(line[f"{name}_high"] < 0)


def mostly_bias(line: Mapping[str, Any]) -> bool:
    """The whole interval of the bias is farther from 0 than that of the discrimination."""
    bias, along = ([abs(line[f"{name}_{end}"]) for end in ("low", "high")] for name in ("bias", "discrimination"))
    return min(bias) > max(along)
