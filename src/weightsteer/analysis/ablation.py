"""Measure ablations of a vector over identical rows: one line per ablation and strength, in one table.

Every ablation is swept like the vector, at the same strengths over the same rows, and its damage on neutral text is
measured as well. With the effect (discrimination, nats) of an ablation and of the whole vector on the same rows,

    retained = effect(ablation) / effect(whole)

has Fieller's interval of the paired ratio (`weightsteer.stats.compare`): items are resampled together, training seeds
paired. It is not clipped: an ablation may do more than the whole vector. Where the interval of the whole vector's own
effect contains 0, the ratio is null.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path as Folder
from typing import Any

import polars as pl
from transformers import PreTrainedTokenizerBase

from weightsteer.analysis.plans import Ablation, PlanInput
from weightsteer.analysis.plans.paths import Path
from weightsteer.data.evals.base import Evaluation
from weightsteer.data.evals.neutral import Text
from weightsteer.errors import WeightsteerError
from weightsteer.files import file_digest, read_piece, write_piece
from weightsteer.measure import sweep
from weightsteer.measure.damage import damage
from weightsteer.measure.damage_table import damage_summary
from weightsteer.progress import progress
from weightsteer.stats import compare
from weightsteer.vector import WeightVector

CHUNK = 24
"""Ablations that are swept together, and kept together when the measurement is interrupted."""

DAMAGED_DRAWS = 2
"""Draws of each random control whose damage is read: it varies little, and costs as much as the effect."""

WHOLE = "whole/full vector/whole"

_ABLATIONS = {
    "key": pl.String,
    "family": pl.String,
    "component": pl.String,
    "how": pl.String,
    "group": pl.String,
    "of": pl.String,
    "matched": pl.Boolean,
    "control": pl.Boolean,
    "rank": pl.Float64,
    "energy": pl.Float64,
    "modules": pl.Int64,
    "seed": pl.Int64,
    "note": pl.String,
}


@dataclass(frozen=True)
class Measured:
    """What was measured of some ablations.

    Attributes:
        rows: as `sweep` returns them; ``adapter`` is the key of the ablation.
        damage: as `weightsteer.measure.damage.damage` returns it.
        ablations: one line each: key, family, component, how, group, of, matched, control, rank, energy, modules, seed,
            note.
        skipped: the ablations that do not exist, with the reason.
    """

    rows: pl.DataFrame
    damage: pl.DataFrame
    ablations: pl.DataFrame
    skipped: tuple[tuple[str, str], ...] = ()

    @classmethod
    def joined(cls, several: Sequence["Measured"]) -> "Measured":
        """All of them as one."""
        rows, damaged = (
            pl.concat([frame for frame in frames if not frame.is_empty()] or [pl.DataFrame()])
            for frames in ([one.rows for one in several], [one.damage for one in several])
        )
        return cls(
            rows,
            damaged,
            pl.concat([one.ablations for one in several]),
            tuple(dict.fromkeys(line for one in several for line in one.skipped)),
        )

    def keep(self, place: Folder) -> None:
        """Keep it as a piece of unfinished work, with the digests of its files."""
        place.mkdir(parents=True, exist_ok=True)
        self.write(place)
        write_piece(place / COMPLETE, json.dumps(_digests(place)).encode())

    @classmethod
    def kept(cls, place: Folder) -> "Measured | None":
        """What `keep` wrote; None where there is nothing, or a file is not as it was written."""
        content = read_piece(place / COMPLETE)
        return cls.read(place) if content is not None and json.loads(content) == _digests(place) else None

    def write(self, folder: Folder) -> None:
        """``rows.parquet``, ``damage.parquet``, ``ablations.parquet``, ``skipped.json``."""
        self.rows.write_parquet(folder / "rows.parquet")
        self.damage.write_parquet(folder / "damage.parquet")
        self.ablations.write_parquet(folder / "ablations.parquet")
        (folder / "skipped.json").write_text(json.dumps(self.skipped, ensure_ascii=False), encoding="utf-8")

    @classmethod
    def read(cls, folder: Folder) -> "Measured":
        """What `write` wrote."""
        rows, cost, ablations = (
            pl.read_parquet(folder / f"{name}.parquet") for name in ("rows", "damage", "ablations")
        )
        skipped = json.loads((folder / "skipped.json").read_text(encoding="utf-8"))
        return cls(rows, cost, ablations, tuple((key, reason) for key, reason in skipped))


COMPLETE = "complete"
"""The file that tells which files a finished chunk has."""


def _digests(place: Folder) -> dict[str, str]:
    return {path.name: file_digest(path) for path in sorted(place.iterdir()) if path.name != COMPLETE}


def measure(
    given: PlanInput,
    ablations: Sequence[Ablation],
    tokenizer: PreTrainedTokenizerBase,
    evaluations: Sequence[Evaluation],
    texts: Sequence[Text],
    alphas: Sequence[float],
    *,
    kept: Folder | None = None,
    title: str = "ablations",
    token_budget: int = 8192,
) -> Measured:
    """Sweep every ablation over the same rows, and read its damage.

    Ablations are made one chunk at a time. One that does not exist (a component that is zero, a branch that the vector
    does not know) is left out, with the reason.

    Args:
        given: what the ablations were listed from.
        evaluations: rows, the same for all ablations.
        texts: neutral texts for the damage.
        kept: a folder for finished chunks, from which an interrupted measurement goes on.
    """
    chunks = [list(ablations[start : start + CHUNK]) for start in range(0, len(ablations), CHUNK)]
    found = []
    with progress(title, len(ablations)) as advance:
        for number, chunk in enumerate(chunks):
            place = None if kept is None else kept / f"{number:04d}"
            measured = Measured.kept(place) if place else None
            if measured is None:
                measured = _measured(given, chunk, tokenizer, evaluations, texts, alphas, token_budget)
                if place:
                    measured.keep(place)
            found.append(measured)
            advance(len(chunk))
    return Measured.joined(found)


def _measured(
    given: PlanInput,
    ablations: Sequence[Ablation],
    tokenizer: PreTrainedTokenizerBase,
    evaluations: Sequence[Evaluation],
    texts: Sequence[Text],
    alphas: Sequence[float],
    token_budget: int,
) -> Measured:
    made: list[WeightVector | Path] = []
    described: list[dict[str, Any]] = []
    skipped: list[tuple[str, str]] = []
    harmed = []
    for one in ablations:
        try:
            vector = one.vector
            line = _line(given.vector, one, vector)
        except WeightsteerError as error:
            skipped.append((one.key, str(error)))
            continue
        own = int(given.vector.metadata["seed"])
        method = "weight" if one.draw is None else "control"
        control = None
        if one.draw is not None:
            control = {"kind": "random", "of": given.vector.digest, "of_adapter": WHOLE, "draw": one.draw}
        labelled = vector.with_metadata(
            method=method,
            adapter=one.key,
            seed=own,
            behavior=given.vector.metadata["behavior"],
            control=control,
        )
        made.append(labelled)
        described.append(line | {"seed": own})
        if one.draw is None or one.draw < DAMAGED_DRAWS:
            harmed.append(labelled)
    frame = pl.DataFrame(described, schema=_ABLATIONS)
    if not made:
        return Measured(pl.DataFrame(), pl.DataFrame(), frame, tuple(skipped))
    model = given.model
    rows = [
        sweep(model, tokenizer, made, evaluation, alphas, token_budget=token_budget, shown=False)
        for evaluation in evaluations
    ]
    cost = damage(model, tokenizer, harmed, texts, alphas, token_budget=token_budget, shown=False) if harmed else None
    return Measured(pl.concat(rows), pl.DataFrame() if cost is None else cost, frame, tuple(skipped))


def _line(whole: WeightVector, one: Ablation, made: WeightVector | Path) -> dict[str, Any]:
    energy = rank = None
    if isinstance(made, WeightVector):
        if one.draw is None and not one.matched:
            energy = energy_share(whole, made)
        ranks = [made.rank(name) for name in made.names]
        rank = one.rank if one.rank is not None else sum(ranks) / len(ranks)
        if made.norm() == 0.0:
            raise WeightsteerError("this component of the vector is zero.")
    return {
        "key": one.key,
        "family": one.family,
        "component": one.component,
        "how": one.how,
        "group": one.group,
        "of": one.of,
        "matched": one.matched,
        "control": one.draw is not None,
        "rank": rank,
        "energy": energy,
        "modules": len(made.names),
        "note": one.note,
    }


def energy_share(whole: WeightVector, component: WeightVector) -> float:
    """``‖component‖² / ‖dW‖²``; the norms of modules that are as they were are not computed again."""
    known = whole.norms()
    squares = (
        known[name] ** 2 if name in known and total == whole.terms[name] else component.terms.norm(name) ** 2
        for name, total in component.terms.items()
    )
    return sum(squares) / whole.norm() ** 2


SCHEMA = {
    "model": pl.String,
    "behavior": pl.String,
    "eval": pl.String,
    "alpha": pl.Float64,
    **{name: kind for name, kind in _ABLATIONS.items() if name != "seed"},
    **{f"{name}{end}": pl.Float64 for name in ("effect", "retained", "retained_of") for end in ("", "_low", "_high")},
    "p": pl.Float64,
    "mde": pl.Float64,
    "pmass": pl.Float64,
    **{f"damage{end}": pl.Float64 for end in ("", "_low", "_high")},
    "n": pl.Int64,
    "clusters": pl.Int64,
    "seeds": pl.Int64,
    "draws": pl.Int64,
}


def table(measured: Measured, *, resamples: int = 2000) -> pl.DataFrame:
    """One line per evaluation, strength and ablation: effect, retained effect and damage with their intervals.

    Returns:
        The columns of `SCHEMA`. ``retained`` is relative to the whole vector, ``retained_of`` to the vector ``of``
        which the component is taken from (null where that is the whole one); ``seeds`` are training seeds, ``draws``
        the random vectors per seed of a control. ``energy`` (the share of ‖dW‖²) is null for random and rescaled
        vectors. ``damage`` is the rise of the NLL of neutral text, nats per token.

    Raises:
        WeightsteerError: the whole vector was not measured.
    """
    rows = measured.rows
    if WHOLE not in rows["adapter"].unique():
        raise WeightsteerError("the whole vector is missing among the ablations: nothing can be compared with it.")
    strengths = sorted({abs(alpha) for alpha in rows["alpha"].unique() if alpha})
    lines = pl.concat([_effects(rows, WHOLE, strength, resamples) for strength in strengths])
    within = [key for key in measured.ablations["of"].unique().sort() if key and key in rows["adapter"].unique()]
    of = [
        _effects(
            rows.filter(pl.col("adapter").is_in([key, *measured.ablations.filter(pl.col("of") == key)["key"]])),
            key,
            strength,
            resamples,
        ).filter(pl.col("adapter") != key)
        for key in within
        for strength in strengths
    ]
    on = ["model", "behavior", "eval", "adapter", "alpha"]
    if of:
        ratios = pl.concat(of).select(*on, *(_renamed("retained", "retained_of")))
        lines = lines.join(ratios, on=on, how="left")
    lines = lines.join(_harm(measured.damage, resamples), on=["behavior", "adapter", "alpha"], how="left")
    mass = rows.group_by(on).agg(pl.mean("pmass"))
    lines = lines.join(mass, on=on, how="left").rename({"adapter": "key"})
    listed = (
        measured.ablations.group_by(
            [name for name in _ABLATIONS if name not in ("rank", "energy", "seed")], maintain_order=True
        )
        .agg(
            pl.mean("rank"),
            pl.mean("energy"),
            pl.col("seed").n_unique().cast(pl.Int64).alias("seeds"),
            (pl.len() // pl.col("seed").n_unique()).cast(pl.Int64).alias("draws"),
        )
        .with_row_index("order")
    )
    joined = listed.join(lines.drop("seeds"), on="key", how="inner").sort("eval", "order", "alpha")
    missing = [name for name in SCHEMA if name not in joined.columns]
    joined = joined.with_columns(pl.lit(None).alias(name) for name in missing)
    return joined.select(pl.col(name).cast(kind) for name, kind in SCHEMA.items())


def _effects(rows: pl.DataFrame, reference: str, strength: float, resamples: int) -> pl.DataFrame:
    """Effects and retained effects of all ablations at ±strength; the reference has a retained effect of 1."""
    used = rows.filter(pl.col("alpha").is_in([0.0, strength, -strength]))
    entries = used.filter(pl.col("alpha") != 0).select("method", "adapter", "alpha").unique(maintain_order=True)
    found = compare(used, entries, reference=("weight", reference), resamples=resamples)
    found = found.filter(pl.col("reason").is_null())
    base = ["model", "behavior", "eval", "alpha"]
    effect = {f"effect{end}": f"reference_effect{end}" for end in ("", "_low", "_high")}
    own = found.unique(["eval", "sign"], maintain_order=True).select(
        *base, pl.lit(reference).alias("adapter"), *(pl.col(old).alias(new) for new, old in effect.items())
    )
    own = own.join(found.select(*base, "n", "clusters", "seeds").unique(["eval", "alpha"]), on=base)
    ends = ("retained", "retained_low", "retained_high")
    own = own.with_columns(pl.lit(1.0).alias(name) for name in ends)
    own = own.with_columns(pl.lit(None, pl.Float64).alias(name) for name in ("p", "mde"))
    columns = [*base, "adapter", *effect, *ends, "p", "mde", "n", "clusters", "seeds"]
    both = pl.concat([own.select(columns), found.select(columns)])
    # `compare` counts effects along the sign of the strength; a table of effects is not turned
    turned = pl.col("alpha") < 0
    return both.with_columns(
        effect=pl.when(turned).then(-pl.col("effect")).otherwise("effect"),
        effect_low=pl.when(turned).then(-pl.col("effect_high")).otherwise("effect_low"),
        effect_high=pl.when(turned).then(-pl.col("effect_low")).otherwise("effect_high"),
    )


def _harm(cost: pl.DataFrame, resamples: int) -> pl.DataFrame:
    if cost.is_empty():
        return pl.DataFrame(
            schema={"behavior": pl.String, "adapter": pl.String, "alpha": pl.Float64, "damage": pl.Float64}
        )
    return damage_summary(cost, resamples=resamples).select(
        "behavior", "adapter", "alpha", *(_renamed("nll_change", "damage"))
    )


def _renamed(old: str, new: str) -> Iterator[pl.Expr]:
    return (pl.col(f"{old}{end}").alias(f"{new}{end}") for end in ("", "_low", "_high"))
