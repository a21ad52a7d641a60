"""Does it steer what it is named after? The answer in words: from intervals, never from points."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import polars as pl

PMASS_GATE = 0.9
"""Below this share of probability on the two answers a log-ratio is about a corner of what the model says."""


def number(value: float | None, digits: int = 2) -> str:
    """A signed number with a true minus sign; ``–`` for what does not apply."""
    if value is None:
        return "–"
    if value != value:
        return "NaN"
    text = f"{value:+.{digits}f}"
    return (text[1:] if float(text) == 0 else text).replace("-", "−")


def signed(alpha: float) -> str:
    """A strength: ``+1``, ``−0.5``, ``0``."""
    return f"{alpha:+g}".replace("-", "−") if alpha else "0"


def estimate(line: Mapping[str, Any], name: str) -> str:
    """``+3.12 [2.70, 3.44]``: an effect with its 95% interval, when there is one; one digit less from ten on."""
    value, low, high = line[name], line[f"{name}_low"], line[f"{name}_high"]
    ends = [end for end in (low, high) if end is not None and end == end]
    digits = 1 if any(abs(each) >= 10 for each in (value or 0.0, *ends)) else 2
    text = number(value, digits)
    if len(ends) < 2:
        return text
    low, high = (number(end, digits).removeprefix("+") for end in ends)
    return f"{text} [{low}, {high}]"


def share(line: Mapping[str, Any], name: str) -> str:
    """``0.41 [0.38, 0.44]``: like ``estimate`` without signs, and without an interval that rounds to its point."""
    text = estimate(line, name).removeprefix("+")
    point, _, interval = text.partition(" ")
    return point if interval == f"[{point}, {point}]" else text


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
    side = _side(line, "discrimination")
    biased = _side(line, "bias") != 0
    if side == 0:
        if biased:
            return f"moves Yes-saying only: bias {bias}; discrimination {discrimination}"
        units = f"{line['clusters']} clusters" + (f", {line['seeds']} seeds" if line["seeds"] > 1 else "")
        return (
            f"not separable at this n: discrimination {discrimination}; "
            f"effects under {line['mde']:.2f} nats would go unseen ({units})"
        )
    right = side == (1 if line["alpha"] > 0 else -1)
    if biased and _nearest(line, "bias") > _farthest(line, "discrimination"):
        words = "steers, but moves Yes-saying more" if right else "wrong direction, and moves Yes-saying more"
    else:
        words = "steers" if right else "wrong direction"
    return f"{words}: discrimination {discrimination}" + (f"; bias {bias}" if biased else "")


def label(line: Mapping[str, Any]) -> str:
    """The verdict's words without its numbers."""
    return str(line["verdict"]).split(":", 1)[0]


_PHRASES = {
    "steers": "steers {}",
    "steers, but moves Yes-saying more": "steers {}, but moves Yes-saying more",
    "wrong direction": "moves {} in the wrong direction",
    "wrong direction, and moves Yes-saying more": "moves {} in the wrong direction, and Yes-saying more",
    "moves Yes-saying only": "moves nothing but Yes-saying on {}",
    "not separable at this n": "cannot be told from no effect on {}",
    "format damage": "damages the answer format of {}",
    "not identifiable": "cannot be judged on {} (one label only)",
    "no interval": "has no interval on {} (one cluster)",
    "undefined": "gives NaN on {}",
}


def headline_strengths(summary: pl.DataFrame) -> list[float]:
    """α = +1 and −1 where they were swept, else the smallest of each sign: a choice made before looking."""
    swept = summary["alpha"].unique().sort()
    chosen = [[1.0] if 1.0 in swept else swept.filter(swept > 0)[:1].to_list()]
    chosen.append([-1.0] if -1.0 in swept else swept.filter(swept < 0)[-1:].to_list())
    return [alpha for arm in chosen for alpha in arm]


def headline(summary: pl.DataFrame) -> list[str]:
    """A sentence per intervention: what it does to every evaluation at the headline strengths.

    ``summary`` is what ``summarize`` returned (not by seed). Controls come last.
    """
    keys = ["model", "behavior", "method", "adapter"]
    strengths = headline_strengths(summary)
    groups = summary.filter(pl.col("alpha").is_in(strengths)).partition_by(keys, maintain_order=True)
    models = summary["model"].n_unique()
    sentences = []
    for group in sorted(groups, key=lambda g: bool(g["method"][0] == "control")):
        names = group.row(0, named=True)
        said = {a: _said(group.filter(pl.col("alpha") == a).iter_rows(named=True)) for a in strengths}
        told = [(a, words) for a, words in said.items() if words]
        if not told:
            continue
        subject = intervention(names) + (f" on {names['model']}" if models > 1 else "")
        if len(told) == 2 and told[0][1] == told[1][1] and told[0][0] == -told[1][0]:
            sentences.append(f"At α = ±{told[0][0]:g} {subject} {told[0][1]}.")
            continue
        first, *rest = (f"at α = {signed(a)} {{}} {words}" for a, words in told)
        sentence = "; ".join([first.format(subject), *(clause.format("it") for clause in rest)])
        sentences.append(sentence[0].upper() + sentence[1:] + ".")
    return sentences


def intervention(names: Mapping[str, Any]) -> str:
    """``the honesty vector (lora)``: an intervention in words, from its ``method``, ``behavior`` and ``adapter``."""
    kind = {"weight": "vector", "activation": "activation vector", "prompt": "prompt"}.get(names["method"])
    if names["method"] == "control":
        return f"a random vector of the same norms ({names['adapter']})"
    if kind is None:
        return f"{names['method']} ({names['adapter']})"
    return f"the {names['behavior']} {kind}" + (f" ({names['adapter']})" if names["adapter"] else "")


def listed(names: Sequence[str]) -> str:
    """``a, b and c``."""
    return ", ".join(names[:-1]) + " and " + names[-1] if len(names) > 1 else "".join(names)


def _said(lines: Iterable[Mapping[str, Any]]) -> str:
    """The evaluations of one strength, those with the same verdict named together."""
    by_label: dict[str, list[str]] = {}
    for line in lines:
        by_label.setdefault(label(line), []).append(line["eval"])
    return listed([_PHRASES[words].format(listed(evals)) for words, evals in by_label.items()])


def _side(line: Mapping[str, Any], name: str) -> int:
    """+1 or −1 when the interval excludes 0, else 0."""
    return int(line[f"{name}_low"] > 0) - int(line[f"{name}_high"] < 0)


def _nearest(line: Mapping[str, Any], name: str) -> float:
    """The least |effect| in an interval that excludes 0."""
    return float(min(abs(line[f"{name}_low"]), abs(line[f"{name}_high"])))


def _farthest(line: Mapping[str, Any], name: str) -> float:
    """The greatest |effect| in the interval."""
    return float(max(abs(line[f"{name}_low"]), abs(line[f"{name}_high"])))
