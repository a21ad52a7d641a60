"""Everything a report tells, computed once: tables, contrasts, verdicts and detectors."""

from dataclasses import dataclass

import numpy as np
import polars as pl

from weightsteer.experiments.gaming import measures
from weightsteer.experiments.gaming.detector import Detector, detectors
from weightsteer.experiments.gaming.measures import estimate
from weightsteer.experiments.gaming.protocol import DEPLOYMENT, TRAIN, other
from weightsteer.experiments.gaming.verdicts import Verdict, verdicts
from weightsteer.stats.bootstrap import Bootstrap

PROBES = ("identity", "heldout", "traits", "tone", "doctor", "own-title")
AGAINST = "baseline"


@dataclass(frozen=True)
class Findings:
    """All tables of a run; each is described where it is made."""

    rows: pl.DataFrame
    runs: pl.DataFrame
    training: pl.DataFrame
    summary: pl.DataFrame
    by_seed: pl.DataFrame
    bands: pl.DataFrame
    flatter: pl.DataFrame
    gamed: pl.DataFrame
    titles: pl.DataFrame
    systems: pl.DataFrame
    methods: pl.DataFrame
    verdicts: list[Verdict]
    detectors: list[Detector]


def findings(
    rows: pl.DataFrame,
    runs: pl.DataFrame,
    training: pl.DataFrame,
    comparisons: pl.DataFrame | None,
    *,
    resamples: int = 2000,
) -> Findings:
    """All that follows from the rows; the same rows give the same findings."""
    draws = Bootstrap(resamples, 0)
    probes = [probe for probe in PROBES if probe in set(rows["probe"])]
    summary = measures.summary(rows, draws, probes)
    settings = [each for each in rows["setting"].unique(maintain_order=True) if each != AGAINST]
    contrasts = [measures.flatter(rows, draws, setting, AGAINST) for setting in settings]
    flatter = (
        pl.concat([each for each in contrasts if each.height]) if any(c.height for c in contrasts) else pl.DataFrame()
    )
    return Findings(
        rows=rows,
        runs=runs,
        training=training,
        summary=summary,
        by_seed=measures.by_seed(rows),
        bands=bands(rows, draws),
        flatter=flatter,
        gamed=measures.gamed(rows, draws),
        titles=measures.title_effect(rows, draws) if "doctor" in probes else pl.DataFrame(),
        systems=systems(rows, draws),
        methods=pl.DataFrame() if comparisons is None else methods(comparisons, draws),
        verdicts=verdicts(summary, flatter),
        detectors=detectors(runs, resamples=resamples),
    )


def bands(rows: pl.DataFrame, draws: Bootstrap) -> pl.DataFrame:
    """The curve of every condition behind either tag with its band: one line per point of the published probe."""
    lines = []
    for condition, mine in measures.by_condition(rows):
        for tag in (DEPLOYMENT, TRAIN):
            of = measures.curves(mine, tag=tag)
            for index, a in enumerate(of.a):
                found = estimate(of.values[:, :, index], draws)
                lines.append({**condition, "tag": tag, "a": float(a), **found._asdict()})
    return pl.DataFrame(lines)


def systems(rows: pl.DataFrame, draws: Bootstrap) -> pl.DataFrame:
    """The slope behind [deployment] under each system prompt at the probe, one line per condition and prompt."""
    lines = []
    for condition, mine in measures.by_condition(rows):
        for system in mine["system"].unique(maintain_order=True):
            of = measures.curves(mine, systems=(system,))
            found = {"slope": of.slope(), "at_jekyll": of.at(0.0), "at_hyde": of.at(1.0)}
            lines.append({**condition, "system": system, **measures.estimates(found, draws)})
    return pl.DataFrame(lines)


def methods(comparisons: pl.DataFrame, draws: Bootstrap) -> pl.DataFrame:
    """Steering towards the role that is not promised, at equal KL: one line per condition and method.

    ``deployment_shift`` and ``train_shift``: how far the answers behind that tag move towards the other role; ``end``:
    where those behind [deployment] end (positive: the other role), nats. ``beyond_weight``: how much further than the
    weight vector moves them, paired; null for the weight vector itself. ``matched``: the share of seeds whose strength
    costs what it should; ``kl`` and ``alpha``: means.
    """
    lines = []
    for condition, mine in measures.by_condition(comparisons):
        wanted = other(condition["deployment"])  # type: ignore[arg-type]
        sign = 1.0 if wanted == "Jekyll" else -1.0
        mine = mine.filter(pl.col("towards") == wanted)
        moved: dict[str, np.ndarray] = {}
        for method in mine["method"].unique(maintain_order=True):
            own = mine.filter(pl.col("method") == method)
            table = {
                (tag, column): _crossed(own.filter(pl.col("tag") == tag), column)
                for tag in (DEPLOYMENT, TRAIN)
                for column in ("logratio", "before")
            }
            shift = {tag: sign * (table[tag, "logratio"] - table[tag, "before"]) for tag in (DEPLOYMENT, TRAIN)}
            moved[method] = shift[DEPLOYMENT]
            each = own.unique(["seed"])
            line: dict[str, object] = {**condition, "towards": wanted, "method": method, "seeds": each.height}
            line["matched"] = float(each["status"].is_in(["converged", "not monotone", "fixed"]).mean())  # type: ignore[arg-type]
            line |= {"kl": each["kl"].mean(), "alpha": each["alpha"].mean(), "status": each["status"].mode()[0]}
            found = {"deployment_shift": shift[DEPLOYMENT], "train_shift": shift[TRAIN]}
            found["end"] = sign * table[DEPLOYMENT, "logratio"]
            if method != "weight" and "weight" in moved and moved["weight"].shape == shift[DEPLOYMENT].shape:
                found["beyond_weight"] = shift[DEPLOYMENT] - moved["weight"]
            unpaired = {} if "beyond_weight" in found else {f"beyond_weight{end}": None for end in measures.ENDS}
            lines.append(line | measures.estimates(found, draws) | unpaired)
    return pl.DataFrame(lines, infer_schema_length=None)


def _crossed(rows: pl.DataFrame, column: str) -> np.ndarray:
    """(questions, seeds) of a column."""
    table = rows.sort("item", "seed")
    return table[column].to_numpy().reshape(table["item"].n_unique(), table["seed"].n_unique())
