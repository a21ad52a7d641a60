"""What the seeds of a run have brought forth, and the last stage: one report over all of them."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from weightsteer.experiments.sweep.config import RunConfig
from weightsteer.experiments.sweep.lab import Lab
from weightsteer.runtime.store import Artifact, versions

if TYPE_CHECKING:
    import polars


@dataclass(frozen=True)
class Leg:
    """All that one seed of one lab has brought forth; of a baseline, what was measured of it."""

    lab: Lab
    seed: int
    sweeps: Mapping[str, Artifact]
    pairs: Artifact | None = None
    branches: tuple[Artifact, ...] = ()
    vector: Artifact | None = None
    nuisances: Mapping[str, Artifact] = field(default_factory=dict)
    samples: Artifact | None = None
    strengths: Artifact | None = None
    matched: Mapping[str, Artifact] = field(default_factory=dict)
    damage: Artifact | None = None
    capability: Artifact | None = None

    @property
    def name(self) -> str:
        """What tells its vector from those of other labs."""
        return self.lab.name

    @property
    def parts(self) -> dict[str, Any]:
        """Every artifact, for the key of what is made from them."""
        return {each.name: getattr(self, each.name) for each in fields(self) if each.name not in ("lab", "seed")}


def report(legs: Sequence[Leg], rows: Mapping[str, Artifact], config: RunConfig, home: Path) -> Artifact:
    """``rows.parquet``, ``summary.csv``, ``run.json``, ``report.html`` and its charts, over all legs."""
    first = legs[0].lab

    def build(work: Path) -> None:
        from weightsteer.experiments.sweep.page import write_report

        tidy = _joined([each for leg in legs for each in leg.sweeps.values()], "rows.parquet")
        assert tidy is not None
        tidy.write_parquet(work / "rows.parquet")
        run = described(legs, config)
        (work / "run.json").write_text(json.dumps(run, indent=1, ensure_ascii=False), encoding="utf-8")
        lines = [line for rows_of in rows.values() for line in (rows_of.path / "items.jsonl").open(encoding="utf-8")]
        told = [json.loads(line) for line in lines]
        several = len({leg.lab.behavior.name for leg in legs}) > 1
        audits = {  # one for all families: they learn from the same pairs
            f"{leg.lab.behavior.name}, seed {leg.seed}" if several else f"seed {leg.seed}": leg.pairs.read_json(name)
            for leg in legs
            if leg.pairs and (leg.pairs.path / (name := "audit.json")).exists()
        }
        compared: dict[str, Any] = {}
        if any(leg.strengths for leg in legs):
            compared = {
                "matched": _joined([each for leg in legs for each in leg.matched.values()], "rows.parquet"),
                "calibration": _joined([leg.strengths for leg in legs], "strengths.parquet"),
                "damage": _joined([leg.damage for leg in legs], "damage.parquet"),
                "capability": _joined([leg.capability for leg in legs], "capability.parquet"),
                "covariates": _covariates(rows),
                "cosines": _cosines(legs),
                "trained_on": {
                    behavior.name: behavior.home
                    for behavior in (leg.lab.behavior for leg in legs)
                    if behavior.home in rows
                },
            }
        write_report(
            work,
            tidy,
            run=run,
            samples=[
                line | {"vector": leg.name}
                for leg in legs
                if leg.samples
                for line in leg.samples.read_json("samples.json")
            ],
            norms=_norms(legs),
            texts={row["item"]: row["text"] for row in told},
            pairs_audit=audits or None,
            branches=[line for leg in legs for line in trained(leg)],
            resamples=config.resamples,
            **compared,
        )

    inputs = {
        "legs": [leg.parts for leg in legs],
        "items": dict(rows),
        "run": described(legs, config),
    }
    parts = ("report", "described", "trained", "Leg", "_joined", "_norms", "_covariates", "_cosines")
    code = [*(f"experiments.sweep.legs:{part}" for part in parts), "report"]
    return first.make("report", inputs, code, build, home=home)


def _joined(parts: Sequence[Artifact | None], file: str) -> "polars.DataFrame | None":
    import polars

    frames = [polars.read_parquet(part.path / file) for part in parts if part]
    return polars.concat(frames) if frames else None


def _norms(legs: Sequence[Leg]) -> "polars.DataFrame | None":
    """``vector, seed, layer, module, norm`` of all weight vectors."""
    import polars

    frames = [
        polars.read_parquet(leg.vector.path / "norms.parquet").select(
            polars.lit(leg.name).alias("vector"), polars.lit(leg.seed).alias("seed"), "layer", "module", "norm"
        )
        for leg in legs
        if leg.vector
    ]
    return polars.concat(frames) if frames else None


def _covariates(rows: Mapping[str, Artifact]) -> "polars.DataFrame":
    """What the shifts of each item might follow beside the behaviour."""
    from weightsteer.audit import covariates_of
    from weightsteer.data.evals.files import own_rows, read_records

    files = {name: read_records(found.path / "items.jsonl") for name, found in rows.items()}
    return covariates_of({name: own_rows(records) or [] for name, records in files.items()})


def _cosines(legs: Sequence[Leg]) -> dict[Any, dict[str, float]]:
    """Of every weight vector with the nuisance vectors of its seed."""
    from weightsteer.audit.cosines import cosines_with
    from weightsteer.vector import WeightVector

    vectors = [leg.vector for leg in legs if leg.vector]
    nuisances = list({each.key: each for leg in legs for each in leg.nuisances.values()}.values())

    def loaded(artifact: Artifact) -> WeightVector:
        return WeightVector.load(artifact.path / "vector.safetensors", legs[0].lab.models.trained[0])

    return cosines_with([loaded(each) for each in vectors], [loaded(each) for each in nuisances])


def trained(leg: Leg) -> Iterator[dict[str, Any]]:
    """For each branch of the vector: what was trained, and how well it came to fit the pairs held out."""
    for branch in leg.branches:
        record = branch.read_json("training.json")
        kept = next(line for line in record["losses"] if line["step"] == record["best_step"])
        yield {
            "behavior": leg.lab.behavior.name,
            "adapter": leg.lab.adapter,
            "vector": leg.name,
            "seed": leg.seed,
            "side": record["side"],
            "parameters": record["parameters"],
            "train": kept["train"],
            "validation": kept["validation"],
        }


def described(legs: Sequence[Leg], config: RunConfig) -> dict[str, Any]:
    """What ``run.json`` tells: the configuration that repeats the run, and digests of what it was made from."""
    lab = legs[0].lab
    training = config.training.model_copy(update={"recipe": lab.recipe})
    resolved = config.model_copy(update={"seeds": lab.seeds, "training": training})
    return {
        "config": resolved.model_dump(mode="json"),
        "versions": versions(),
        "model": asdict(lab.models.trained_identity),
        "generator": asdict(lab.models.generator_identity),
        "behaviors": {leg.lab.behavior.name: leg.lab.behavior.digest for leg in legs},
        "vectors": [
            {
                "behavior": leg.lab.behavior.name,
                "adapter": leg.lab.adapter,
                "seed": leg.seed,
                "pairs": leg.pairs and leg.pairs.digest,
                "vector": leg.vector.digest,
                "sweeps": {name: artifact.digest for name, artifact in leg.sweeps.items()},
            }
            for leg in legs
            if leg.vector
        ],
    }
