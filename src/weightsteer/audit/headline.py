"""The first sentences of a report: what each intervention does to every evaluation."""

from collections.abc import Iterable, Mapping
from typing import Any

import polars as pl

from weightsteer.audit.words import named
from weightsteer.formatting import signed
from weightsteer.stats.strengths import headline_strengths
from weightsteer.stats.verdict import Verdict


def headline(summary: pl.DataFrame) -> list[str]:
    """A sentence per intervention: what it does to every evaluation at the headline strengths.

    ``summary`` is what ``summarize`` returned (not by seed). Controls come last.
    """
    keys = ["model", "behavior", "method", "adapter"]
    strengths = headline_strengths(summary["alpha"])
    groups = summary.filter(pl.col("alpha").is_in(strengths)).partition_by(keys, maintain_order=True)
    models = summary["model"].n_unique()
    sentences = []
    for group in sorted(groups, key=lambda g: bool(g["method"][0] == "control")):
        names = group.row(0, named=True)
        described = {a: _described(group.filter(pl.col("alpha") == a).iter_rows(named=True)) for a in strengths}
        clauses = [(a, words) for a, words in described.items() if words]
        if not clauses:
            continue
        subject = intervention(names) + (f" on {names['model']}" if models > 1 else "")
        if len(clauses) == 2 and clauses[0][1] == clauses[1][1] and clauses[0][0] == -clauses[1][0]:
            sentences.append(f"At α = ±{clauses[0][0]:g} {subject} {clauses[0][1]}.")
            continue
        first, *rest = (f"at α = {signed(a)} {{}} {words}" for a, words in clauses)
        sentence = "; ".join([first.format(subject), *(clause.format("it") for clause in rest)])
        sentences.append(sentence[0].upper() + sentence[1:] + ".")
    return sentences


def intervention(names: Mapping[str, Any]) -> str:
    """``the honesty vector (lora)``: an intervention in words, from its ``method``, ``behavior`` and ``adapter``."""
    kind = {"weight": "vector", "activation": "activation vector", "prompt": "prompt"}.get(names["method"])
    if names["method"] == "control":
        random = names.get("control") == "random"
        return (
            f"a random vector of the same norms ({names['adapter']})" if random else f"the control {names['adapter']}"
        )
    if kind is None:
        return f"{names['method']} ({names['adapter']})"
    return f"the {names['behavior']} {kind}" + (f" ({names['adapter']})" if names["adapter"] else "")


def _described(lines: Iterable[Mapping[str, Any]]) -> str:
    """The evaluations of one strength, those with the same verdict named together."""
    by_verdict: dict[Verdict, list[str]] = {}
    for line in lines:
        by_verdict.setdefault(Verdict(line["verdict"]), []).append(line["eval"])
    return named(by_verdict)
