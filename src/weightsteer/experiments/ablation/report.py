"""The page of an analysis: what was measured of each vector, or how it is aligned with bases."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

from weightsteer.experiments.ablation.config import Options
from weightsteer.experiments.stages.vector import FILE
from weightsteer.files import file_digest
from weightsteer.runtime.models import ModelSpec
from weightsteer.runtime.stage import Runner, Stage
from weightsteer.versions import versions


@dataclass(frozen=True)
class VectorOf:
    """One of the vectors on the page: what it is named after, and the stage that makes it."""

    behavior: str
    behavior_digest: str
    adapter: str
    seed: int
    vector: Stage


@dataclass(frozen=True)
class AnalysisReport(Stage):
    """``report.html``, ``table.csv``, ``alignment.csv``, ``run.json`` and charts.

    Attributes:
        ablations: by the name of a vector, the plans that were measured of it, over its seeds.
        alignments: by the name of a vector, its alignment with bases, one for each seed.
        config: the configuration that repeats the run.
    """

    name: ClassVar[str] = "ablation-page"

    model: ModelSpec
    vectors: tuple[VectorOf, ...]
    ablations: Mapping[str, tuple[Stage, ...]]
    alignments: Mapping[str, tuple[Stage, ...]]
    options: Options
    config: Mapping[str, Any]
    resamples: int

    def build(self, work: Path, runner: Runner) -> None:
        import polars

        from weightsteer.analysis.ablation import Measured
        from weightsteer.experiments.ablation.page import write_ablations

        run = self._record(runner)
        measured = {
            name: Measured.joined([Measured.read(runner.make(stage).path) for stage in stages])
            for name, stages in self.ablations.items()
        }
        aligned = {
            name: polars.concat(
                polars.read_parquet(runner.make(stage).path / "alignment.parquet").with_columns(seed=polars.lit(number))
                for number, stage in enumerate(stages)
            )
            for name, stages in self.alignments.items()
        }
        published = {
            name: polars.concat(
                polars.read_parquet(runner.make(stage).path / "published.parquet").with_columns(seed=polars.lit(number))
                for number, stage in enumerate(stages)
            )
            for name, stages in self.alignments.items()
        }
        write_ablations(work, measured, aligned, published, run=run, resamples=self.resamples)

    def _record(self, runner: Runner) -> dict[str, Any]:
        """The content of ``run.json``."""
        return {
            "config": dict(self.config),
            "options": asdict(self.options),
            "versions": versions(),
            "model": {"name": self.model.name, "family": self.model.family, "digest": self.model.digest},
            "behaviors": {one.behavior: one.behavior_digest for one in self.vectors},
            "vectors": [
                {
                    "behavior": one.behavior,
                    "adapter": one.adapter,
                    "seed": one.seed,
                    "vector": runner.make(one.vector).digest,
                    "file": file_digest(runner.make(one.vector).path / FILE),
                }
                for one in self.vectors
            ],
        }
