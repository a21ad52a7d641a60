"""``summarize``: a table with one line per intervention, strength and evaluation.

With ``y`` the log-ratio of a row (nats), ``Δ = y(α) − y(0)`` the paired shift of the *same* item and ``g = ±1`` its
label, the two effects are

    discrimination = ½ (mean Δ over g = +1  −  mean Δ over g = −1)      the behaviour
    bias           = ½ (mean Δ over g = +1  +  mean Δ over g = −1)      yes-bias

Both labels weigh the same, so a constant added to every log-ratio is all bias and no discrimination at any label ratio.
The mean of ``g Δ`` over rows (``along_change``), which is often published in their place, mixes the two unless the
labels are balanced: it is ``discrimination + (n₊ − n₋)/n · bias`` up to the weights of the labels.

Intervals are 95% bootstrap intervals over clusters crossed with training seeds: see ``weightsteer.stats.bootstrap``.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import polars as pl

from weightsteer.stats.bootstrap import Array, Bootstrap, interval
from weightsteer.stats.bootstrap import detectable as detectable_effect
from weightsteer.stats.effects import resampled
from weightsteer.stats.grid import Grid
from weightsteer.stats.informedness import of_yes_bias
from weightsteer.stats.null import EFFECTS, Null, correct
from weightsteer.stats.pairing import GROUP, REPEATED, paired
from weightsteer.stats.rates import wilson
from weightsteer.stats.spread import Spread
from weightsteer.stats.verdict import SMALLEST, verdict

PROBABILITIES = ("auc", "pmass")
RATES = {"fix": "rej", "broke": "cho", "flip": "cho", "counter": "rej"}
INTERVALS = (*EFFECTS, "along_change", "logratio_change", "auc", "pmass", "pmass_change", "si", "si_k1", "si_forward")
OVER_SEEDS = ("discrimination", "along_change", "logratio_change", "si")
"""What has a standard deviation over training seeds, as published tables give it beside a mean."""


def summarize(
    rows: pl.DataFrame,
    *,
    null: pl.DataFrame | None = None,
    smallest: float = SMALLEST,
    by_seed: bool = False,
    resamples: int = 10_000,
    seed: int = 0,
) -> pl.DataFrame:
    """One line per (model, behavior, method, adapter, eval, α), with ``by_seed`` one per training seed and draw.

    Effects in nats with ``_low`` and ``_high`` at 95%. A null means "does not apply" (one label only: no effect is
    identifiable; one cluster: no interval); NaN means that NaN rows went in, which ``nan`` counts. Beside the effects:

    * ``n`` items per seed, ``clusters``, ``seeds``, ``positives`` (items of label +1);
    * ``logratio`` and its ``logratio_sd`` over rows, and its paired change ``logratio_change``; ``along``, the mean of
      label · log-ratio over rows, and its paired change ``along_change``;
    * ``discrimination_seed_sd``, ``along_change_seed_sd``, ``logratio_change_seed_sd`` and ``si_seed_sd``: the standard
      deviation over training seeds (n − 1; null for one seed);
    * ``discrimination_p`` and ``bias_p``, for corrections over many lines (`weightsteer.stats.correction`);
      ``discrimination_seed_min`` and ``_max``, and ``sign_agreement``: the share of seeds with the commoner sign (null
      for one seed); ``mde``: the smallest discrimination found with 80% power;
    * ``null_sd``, the standard deviation of the discrimination of a random direction with the same norms, ``z``, the
      discrimination in units of it, its p value ``null_p``, and ``null_holm``, corrected over both effects on all
      evaluations of the intervention at both signs; the same for the bias; ``null_draws``: how many draws the null
      rests on (null: on a gradient);
    * ``auc`` of log-ratio for label, mean ``pmass``, its paired change and ``base_pmass``, ``low_pmass`` (share of
      flagged rows);
    * on the line of +α: ``fix`` and ``broke``, with −α swept too ``flip`` and ``counter``, as shares of ``rej`` and
      ``cho`` (counts over all seeds) with Wilson's interval over clusters; ``ties`` (y = 0 at α = 0); ``si`` (k = 2),
      ``si_k1`` and ``si_forward`` (of +α alone, for what has no opposite: one prompt); ``si_yes``: what pure
      yes-bias would score on these rows. See `weightsteer.stats.informedness`;
    * ``verdict``: see `weightsteer.stats.verdict`.

    Args:
        null: what `weightsteer.random_null` returned, for every intervention and evaluation it is known for. Without it
            verdicts rest on the intervals over rows alone.
        smallest: the smallest effect of interest, nats: what is distinguishable and smaller is negligible.

    Raises:
        WeightsteerError: see ``paired``.
    """
    known = paired(rows)
    keys = [*GROUP, *REPEATED] if by_seed else GROUP
    lines: list[dict[str, Any]] = []
    draws, nulls = Bootstrap(resamples, seed), Null(null)
    for part in known.sort(keys, nulls_last=True).partition_by(keys, maintain_order=True):
        names = part.select(keys).row(0, named=True)
        repeated: dict[float, list[tuple[Any, Any]]] = {}
        for alpha, *one in part.select("alpha", *REPEATED).unique(maintain_order=True).iter_rows():
            repeated.setdefault(alpha, []).append((one[0], one[1]))
        for line in _lines(Grid.build(part), draws):
            lines.append({**names, **line, **nulls.columns(names, repeated[line["alpha"]], line)})
    correct(lines)
    lines = [{**line, "verdict": verdict(line, smallest)} for line in lines]
    front = ["model", "behavior", "method", "adapter", *(REPEATED if by_seed else []), "alpha", "eval"]
    schema = {name: known.schema[name] for name in [*keys, "alpha"]}
    frame = pl.DataFrame(lines, schema_overrides=schema, infer_schema_length=None)
    untyped = [name for name, kind in frame.schema.items() if kind == pl.Null]
    frame = frame.with_columns(pl.col(untyped).cast(pl.Float64)).select(*front, pl.exclude(front))
    return _with_controls(frame, known)


def _with_controls(summary: pl.DataFrame, rows: pl.DataFrame) -> pl.DataFrame:
    """With ``control`` and ``control_of``, null for what is no control."""
    names = ["control", "control_of"]
    keys = ["model", "behavior", "method", "adapter"]
    if not set(names) <= set(rows.columns):
        return summary.with_columns(pl.lit(None, pl.String).alias(name) for name in names)
    known = rows.select(*keys, *names).unique(keys, maintain_order=True)
    return summary.join(known, on=keys, how="left", nulls_equal=True, maintain_order="left")


def agreement(points: Array) -> float | None:
    """Share of training seeds with the commoner sign of an effect; None for one seed, which has nothing to agree with.

    A 0 agrees with neither sign.
    """
    if len(points) < 2:
        return None
    return float(max((points > 0).mean(), (points < 0).mean())) if not np.isnan(points).any() else float("nan")


def _lines(grid: Grid, draws: Bootstrap) -> Iterator[dict[str, Any]]:
    """The lines of one grid, in the order of its strengths."""
    values = resampled(grid, draws)
    clusters, zero = int(grid.cluster.max()) + 1, grid.zero
    signed = grid.y[:, zero] * grid.label
    for k, alpha in enumerate(grid.alphas):
        seeds = np.flatnonzero(grid.present[:, k])
        y, start = grid.y[seeds, k], signed[seeds]
        cho, rej = start > 0, start < 0
        applies = _applicable(grid, k)
        line: dict[str, Any] = {
            "alpha": float(alpha),
            "n": grid.label.size,
            "clusters": clusters,
            "seeds": len(seeds),
            "positives": int((grid.label > 0).sum()),
            "logratio": float(y.mean()),
            "logratio_sd": float(y.std(ddof=1)) if y.size > 1 else None,
            "along": float((y * grid.label).mean()),
        }
        for name, series in values.items():
            per_seed = series[:, seeds, k]
            line[name] = float(per_seed[0].mean()) if applies[name] else None
            if name in INTERVALS:
                pooled = draws.pooled(per_seed, clusters) if applies[name] and clusters > 1 else None
                low, high = (None, None) if pooled is None else interval(pooled)
                if name in PROBABILITIES and low is not None and high is not None:
                    low, high = max(low, 0.0), min(high, 1.0)  # widened intervals need not end within the range
                line[f"{name}_low"], line[f"{name}_high"] = low, high
                if name == "discrimination":
                    line["mde"] = None if pooled is None else detectable_effect(pooled)
            if name in OVER_SEEDS:
                several = applies[name] and len(seeds) > 1
                line[f"{name}_seed_sd"] = float(per_seed[0].std(ddof=1)) if several else None
            if name in EFFECTS:
                known = applies[name] and clusters > 1 and alpha != 0
                line[f"{name}_p"] = Spread.of([per_seed], clusters).p(line[name], [1.0]) if known else None
            if name in RATES:
                rows_of = rej if RATES[name] == "rej" else cho
                units = len(np.unique(grid.cluster[rows_of.any(0)]))
                line[f"{name}_low"], line[f"{name}_high"] = wilson(line[name], units) if applies[name] else (None, None)
            if name == "pmass":
                line["base_pmass"] = float(series[0, seeds, zero].mean())
                line["low_pmass"] = None if grid.low is None else float(grid.low[seeds, k].mean())
            if name == "discrimination":
                line["discrimination_seed_min"] = float(per_seed[0].min()) if applies[name] else None
                line["discrimination_seed_max"] = float(per_seed[0].max()) if applies[name] else None
                line["sign_agreement"] = agreement(per_seed[0]) if applies[name] and alpha != 0 else None
        line["cho"], line["rej"], line["ties"] = int(cho.sum()), int(rej.sum()), int((start == 0).sum())
        line["si_yes"] = of_yes_bias(start, grid.label) if applies["si"] else None
        line["nan"] = int((~np.isfinite(y - grid.y[seeds, zero])).sum())
        yield line


def _applicable(grid: Grid, k: int) -> dict[str, bool]:
    """Which statistics mean something at the k-th strength."""
    seeds = np.flatnonzero(grid.present[:, k])
    start = (grid.y[:, grid.zero] * grid.label)[seeds]
    some_cho, some_rej = bool((start > 0).any(1).all()), bool((start < 0).any(1).all())
    two_labels = bool((grid.label > 0).any() and (grid.label < 0).any())
    up = bool(grid.alphas[k] > 0)
    both_arms = up and (o := grid.mirror(k)) is not None and bool(grid.present[seeds, o].all())
    return {
        **dict.fromkeys((*EFFECTS, "auc"), two_labels),
        **dict.fromkeys(("along_change", "logratio_change", "pmass", "pmass_change"), True),
        "fix": up and some_rej,
        "broke": up and some_cho,
        "flip": both_arms and some_cho,
        "counter": both_arms and some_rej,
        "si_forward": two_labels and up and some_cho and some_rej,
        **dict.fromkeys(("si", "si_k1"), two_labels and both_arms and some_cho and some_rej),
    }
