"""What the seeds of a run have brought forth, and the last stage: one report over all of them."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from weightsteer.config import RunConfig
from weightsteer.lab import Lab
from weightsteer.store import Artifact, versions


@dataclass(frozen=True)
class Leg:
    """All that one seed of one lab has brought forth."""

    lab: Lab
    seed: int
    pairs: Artifact | None
    branches: tuple[Artifact, ...]
    vector: Artifact
    sweeps: dict[str, Artifact]
    samples: Artifact

    @property
    def name(self) -> str:
        """What tells its vector from those of other labs."""
        return self.lab.name


def report(legs: Sequence[Leg], rows: Mapping[str, Artifact], config: RunConfig, home: Path) -> Artifact:
    """``rows.parquet``, ``summary.csv``, ``run.json``, ``report.html`` and its charts, over all legs."""
    first = legs[0].lab

    def build(work: Path) -> None:
        import polars

        from weightsteer.report import write_report

        tidy = polars.concat(
            [polars.read_parquet(s.path / "rows.parquet") for leg in legs for s in leg.sweeps.values()]
        )
        tidy.write_parquet(work / "rows.parquet")
        run = described(legs, config)
        (work / "run.json").write_text(json.dumps(run, indent=1, ensure_ascii=False), encoding="utf-8")
        norms = [
            polars.read_parquet(leg.vector.path / "norms.parquet").select(
                polars.lit(leg.name).alias("vector"), polars.lit(leg.seed).alias("seed"), "layer", "module", "norm"
            )
            for leg in legs
        ]
        lines = [line for rows_of in rows.values() for line in (rows_of.path / "items.jsonl").open(encoding="utf-8")]
        told = [json.loads(line) for line in lines]
        several = len({leg.lab.behavior.name for leg in legs}) > 1
        audits = {  # one for all families: they learn from the same pairs
            f"{leg.lab.behavior.name}, seed {leg.seed}" if several else f"seed {leg.seed}": leg.pairs.read_json(name)
            for leg in legs
            if leg.pairs and (leg.pairs.path / (name := "audit.json")).exists()
        }
        write_report(
            work,
            tidy,
            run=run,
            samples=[line | {"vector": leg.name} for leg in legs for line in leg.samples.read_json("samples.json")],
            norms=polars.concat(norms),
            texts={row["item"]: row["text"] for row in told},
            pairs_audit=audits or None,
            branches=[line for leg in legs for line in trained(leg)],
            resamples=config.resamples,
        )

    inputs = {
        "legs": [
            {
                "pairs": leg.pairs,
                "branches": leg.branches,
                "vector": leg.vector,
                "sweeps": leg.sweeps,
                "samples": leg.samples,
            }
            for leg in legs
        ],
        "items": dict(rows),
        "run": described(legs, config),
    }
    code = ["legs:report", "legs:described", "legs:trained", "legs:Leg", "report"]
    return first.make("report", inputs, code, build, home=home)


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
        ],
    }
