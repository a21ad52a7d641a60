"""From frames to the page: every sentence and cell of the report, handed to the template."""

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from weightsteer.audit import headline, intervention
from weightsteer.audit.words import of as words_of
from weightsteer.experiments.sweep.page.audit import cosine_table, followed, in_short, matrices, verdicts
from weightsteer.experiments.sweep.page.controls import control_tables, meanings, without_strength
from weightsteer.experiments.sweep.page.costs import cost_tables
from weightsteer.experiments.sweep.page.cues import cue_tables
from weightsteer.experiments.sweep.page.decisions import decision_tables
from weightsteer.experiments.sweep.page.details import audit_table, flipped, limits, sample_grids
from weightsteer.experiments.sweep.page.diagnosis import diagnoses
from weightsteer.experiments.sweep.page.evidence import Evidence
from weightsteer.experiments.sweep.page.families import comparisons, price
from weightsteer.experiments.sweep.page.figures import SCOPE, Placed
from weightsteer.experiments.sweep.page.matched import in_words, matched_tables, not_usable
from weightsteer.experiments.sweep.page.published import published_tables
from weightsteer.formatting import estimate, listed, number, share, signed
from weightsteer.report.cells import bar, key, reach
from weightsteer.report.charts import Series, series, short_module
from weightsteer.report.figure import Figure, key_entries
from weightsteer.report.page import rendered
from weightsteer.stats import WEAKNESSES, headline_strengths
from weightsteer.stats.verdict import PMASS_GATE, SMALLEST


def render(
    known: pl.DataFrame,
    summary: pl.DataFrame,
    by_seed: pl.DataFrame,
    drawn: Sequence[Placed],
    run: Mapping[str, Any],
    samples: Sequence[Mapping[str, Any]],
    norms: pl.DataFrame | None,
    texts: Mapping[str, str],
    pairs_audit: Mapping[str, Any] | None,
    branches: Sequence[Mapping[str, Any]] = (),
    evidence: Evidence | None = None,
    *,
    smallest: float = SMALLEST,
    resamples: int,
) -> str:
    """The HTML of a report. ``known`` are paired rows, ``summary`` and ``by_seed`` their statistics."""
    evidence = evidence or Evidence()
    strengths = headline_strengths(summary["alpha"])
    shown = series(known)
    sections = [
        _section(part, by_seed, known, drawn, shown, strengths, texts, evidence)
        for part in summary.partition_by(SCOPE, maintain_order=True)
    ]
    spoken, asides = headline(summary), headline(summary.filter(pl.col("method") == "control"))
    folded = len(asides) > 2
    found, matched = verdicts(evidence, shown), matched_tables(evidence, shown)
    controls, unusable = control_tables(evidence, shown), not_usable(evidence, shown)
    sentences = [each for each in spoken if each not in asides] if folded else spoken
    behaviors, models = (summary[name].unique().sort().to_list() for name in ("behavior", "model"))
    return rendered(
        __package__,
        "page.html.jinja",
        title=f"{listed(behaviors)} on {listed(models)}",
        facts=_facts(summary, shown),
        sentences=[*in_short(found, unusable), *in_words(matched)] or sentences,
        asides=asides if folded and not found else [],
        spoken=spoken if found else [],
        verdicts=found,
        unusable=unusable,
        calibrated=evidence.calibrated,
        in_distribution=evidence.in_distribution,
        frontiers=_of_kind(drawn, "frontier"),
        damage=None if evidence.damage is None else evidence.damage.row(0, named=True),
        matched=matched,
        decisions=decision_tables(summary, evidence, shown, strengths),
        weaknesses=WEAKNESSES,
        matrices=matrices(evidence, shown),
        balances=_of_kind(drawn, "balance"),
        followed=(correlated := followed(evidence, shown)),
        covariates=correlated[0]["covariates"][2:] if correlated else [],
        cosines=cosine_table(evidence, shown),
        controls=controls,
        controls_gone=without_strength(evidence),
        controls_show=meanings(controls) if controls else [],
        strengths=strengths,
        sections=sections,
        published=published_tables(summary, run, shown),
        diagnoses=diagnoses(known, evidence.noise, shown, strengths),
        cues=cue_tables(evidence.cues, shown),
        families=comparisons(summary, branches, norms, shown, strengths, evidence.damage),
        priced=evidence.damage is not None,
        costs=cost_tables(evidence, shown, strengths),
        several=len({(each["model"], each["behavior"]) for each in sections}) > 1,
        grids=sample_grids(samples),
        norms=_norms(norms, drawn),
        audit=audit_table(pairs_audit),
        limits=limits(summary),
        forests=_of_kind(drawn, "forest"),
        attributions=_of_kind(drawn, "attribution"),
        smallest=f"{smallest:g}",
        resamples=resamples,
        run=run,
    )


def _facts(summary: pl.DataFrame, shown: Sequence[Series]) -> list[tuple[str, str]]:
    """The run in one table: what was steered by what, where, how often."""
    evaluations = summary.unique("eval", maintain_order=True).sort("eval")
    rows = [
        f"{line['eval']} ({line['n']:,} rows in {line['clusters']:,} clusters, {line['positives']:,} of label +1)"
        for line in evaluations.iter_rows(named=True)
    ]
    return [
        ("Model", listed(summary["model"].unique().sort().to_list())),
        ("Interventions", listed([name for _, name in key_entries(shown)])),
        ("Repetitions", _repetitions(summary)),
        ("Strengths α", "; ".join(_strengths(summary, shown))),
        ("Evaluations", "; ".join(rows)),
    ]


def _repetitions(lines: pl.DataFrame) -> str:
    """Training seeds of what is trained; a prompt has wordings in their place."""
    trained = lines.filter(pl.col("method") != "prompt")
    several = int((trained if trained.height else lines)["seeds"].max())  # type: ignore[arg-type]
    word = "training seed" if trained.height else "wording"
    return f"{several} {word}{'s' if several != 1 else ''}"


def _strengths(summary: pl.DataFrame, shown: Sequence[Series]) -> list[str]:
    """The strengths of each method, those of vectors that all have in common without its name."""
    swept: dict[str, list[str]] = {}
    for method in dict.fromkeys(one.method for one in shown if not one.control) or ["control"]:
        alphas = summary.filter(pl.col("method") == method)["alpha"].unique().sort()
        swept.setdefault(", ".join(signed(alpha) for alpha in alphas), []).append(method)
    if len(swept) == 1:
        return list(swept)
    return [f"{alphas} ({', '.join(methods)})" for alphas, methods in swept.items()]


def _section(
    part: pl.DataFrame,
    by_seed: pl.DataFrame,
    known: pl.DataFrame,
    drawn: Sequence[Placed],
    shown: Sequence[Series],
    strengths: Sequence[float],
    texts: Mapping[str, str],
    evidence: Evidence,
) -> dict[str, Any]:
    """One evaluation of one behaviour on one model: its cards, table, charts and flipped rows."""
    model, behavior, evaluation = part.select(SCOPE).row(0)
    here = (pl.col("model") == model) & (pl.col("behavior") == behavior) & (pl.col("eval") == evaluation)
    present = [one for one in shown if one.of(part).height]
    far = reach(part.filter(pl.col("method") != "control"))
    near = reach(part.filter(pl.col("alpha").is_in(strengths), pl.col("method") != "control"))
    groups: list[dict[str, Any]] = []
    for one in present:
        lines = one.of(part).sort("alpha")
        seeds = one.of(by_seed.filter(here))
        groups.append(
            {
                **key(one, shown),
                "words": intervention(lines.row(0, named=True)),
                "seeds": _repetitions(lines),
                "lines": [_line(line, seeds, far, evidence) for line in lines.iter_rows(named=True)],
                "headline": [
                    _line(line, seeds, near, evidence)
                    for alpha in strengths
                    for line in lines.filter(pl.col("alpha") == alpha).iter_rows(named=True)
                ],
            }
        )
    mine = [placed for placed in drawn if placed.scope == (model, behavior, evaluation)]
    return {
        "model": model,
        "behavior": behavior,
        "eval": evaluation,
        "n": part["n"][0],
        "clusters": part["clusters"][0],
        "seeds": _repetitions(part),
        "unanswered": _unanswered(part),
        "groups": groups,
        "dose": _of_kind(mine, "dose"),
        "rows": [
            {
                "name": one.name,
                "figures": _of_kind([placed for placed in mine if placed.series == one], "rows"),
                "flips": [flipped(one.of(known.filter(here)), alpha, texts, one.name) for alpha in strengths],
            }
            for one in _followed_by_row(present)
        ],
    }


def _unanswered(part: pl.DataFrame) -> str | None:
    """The answer mass of the base model, where it does not answer in this format."""
    base = part.filter(alpha=0.0).row(0, named=True)
    return share(base, "pmass") if base["pmass"] < PMASS_GATE else None


def _followed_by_row(present: Sequence[Series]) -> list[Series]:
    """Whose single rows are shown: the weight vectors, or what there is in their place."""
    vectors = [one for one in present if one.method == "weight"]
    return vectors or [one for one in present if not one.control]


def _of_kind(drawn: Sequence[Placed], kind: str) -> list[Figure]:
    return [placed.figure for placed in drawn if placed.kind == kind]


def _line(line: dict[str, Any], seeds: pl.DataFrame, reach: float, evidence: Evidence) -> dict[str, Any]:
    """One strength, ready to print."""
    words = words_of(line)
    own = seeds.filter(pl.col("alpha") == line["alpha"]).sort("seed")["discrimination"].to_list()
    base = line["alpha"] == 0
    discrimination = estimate(line, "discrimination")
    value = discrimination.split(" ", 1)[0]
    return {
        "alpha": line["alpha"],
        "base": base,
        "label": words.label or "base",
        "tone": words.tone,
        "value": value,
        "interval": discrimination.removeprefix(value).strip(),
        "discrimination": discrimination,
        "bias": estimate(line, "bias"),
        "z": None if line["z"] is None else number(line["z"], 1),
        "auc": share(line, "auc"),
        "pmass": share(line, "pmass"),
        "damage": price(evidence.damage, line, line["alpha"]),
        "own": [number(value) for value in own] if len(own) > 1 else [],
        "bar": None if base else bar(line, reach, own if len(own) > 1 else []),
    }


def _norms(norms: pl.DataFrame | None, drawn: Sequence[Placed]) -> list[dict[str, Any]]:
    """The heat map of each vector, with its total norm by seed and the share of the square by kind of module."""
    maps = []
    for placed in drawn:
        if norms is None or placed.kind != "norms":
            continue
        (vector,) = placed.scope
        mine = norms.filter(pl.col("vector") == vector)
        square = pl.col("norm").pow(2).sum()
        totals = mine.group_by("seed").agg(square.sqrt()).sort("seed")["norm"].to_list()
        kinds = mine.group_by(short_module()).agg(square).sort("norm", "module", descending=[True, False])
        whole = kinds["norm"].sum() or 1.0
        maps.append(
            {
                "figure": placed.figure,
                "totals": [f"{total:.3g}" for total in totals],
                "shares": [(module, f"{norm / whole:.0%}") for module, norm in kinds.rows()],
            }
        )
    return maps
