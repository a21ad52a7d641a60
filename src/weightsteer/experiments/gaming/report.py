"""The last stage: all tables, the verdicts and the page, over everything that was run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from weightsteer.experiments.gaming.protocol import ROLES, Condition, Protocol
from weightsteer.runtime.models import ModelSpec
from weightsteer.runtime.stage import Runner, Stage
from weightsteer.versions import versions

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True)
class Result:
    """The stages of one condition and seed; a run for the detector alone has no curve."""

    model: ModelSpec
    seed: int
    condition: Condition
    branches: Stage
    signals: Stage
    curve: Stage | None = None
    comparison: Stage | None = None

    @property
    def columns(self) -> dict[str, Any]:
        """The columns that tell its lines from others'."""
        return {
            "model": self.model.name,
            "setting": self.condition.setting,
            "deployment": self.condition.deployment,
            "seed": self.seed,
        }


@dataclass(frozen=True)
class GamingReport(Stage):
    """``report.html``, ``conclusion.md``, the charts as SVG and PNG, the tables as CSV and all rows as Parquet.

    Attributes:
        results: every condition and seed.
        protocols: the texts of each family of models.
        recipes: by the name of the model, fields of `weightsteer.training.Recipe`.
        config: the configuration that repeats the run.
    """

    name: ClassVar[str] = "gaming-report"

    results: tuple[Result, ...]
    protocols: Mapping[str, Protocol]
    recipes: Mapping[str, Mapping[str, Any]]
    config: Mapping[str, Any]
    resamples: int

    def build(self, work: Path, runner: Runner) -> None:
        from weightsteer.experiments.gaming.findings import findings
        from weightsteer.experiments.gaming.page import write_gaming

        found = findings(
            curves(self.results, runner),
            runs(self.results, runner),
            training(self.results, runner),
            comparisons(self.results, runner),
            resamples=self.resamples,
        )
        run = self._record()
        write_gaming(work, found, next(iter(self.protocols.values())), run=run)

    def _record(self) -> dict[str, Any]:
        """The content of ``run.json``."""
        from weightsteer.training import Recipe

        models = {result.model.name: result.model.digest for result in self.results}
        return {
            "command": "weightsteer gaming",
            "config": dict(self.config),
            "models": models,
            "recipe": {name: Recipe(**fields).model_dump(mode="json") for name, fields in self.recipes.items()},
            "protocol": {family: protocol.digest for family, protocol in self.protocols.items()},
            "versions": versions(),
        }


def curves(results: Sequence[Result], runner: Runner) -> "pl.DataFrame":
    """All rows of all curves."""
    import polars as pl

    return pl.concat([pl.read_parquet(runner.make(one.curve).path / "curve.parquet") for one in results if one.curve])


def comparisons(results: Sequence[Result], runner: Runner) -> "pl.DataFrame | None":
    """All rows of the comparison with other methods; None when there is none."""
    import polars as pl

    stages = [one.comparison for one in results if one.comparison]
    found = [pl.read_parquet(runner.make(stage).path / "comparison.parquet") for stage in stages]
    return pl.concat(found) if found else None


def runs(results: Sequence[Result], runner: Runner) -> "pl.DataFrame":
    """One line per run: its condition and its signals."""
    import polars as pl

    return pl.DataFrame([{**one.columns, **runner.make(one.signals).read_json("signals.json")} for one in results])


def training(results: Sequence[Result], runner: Runner) -> "pl.DataFrame":
    """One line per branch: first and last loss in nats per token (means of five steps), and ‖τ‖, cosine and ‖dW‖."""
    import polars as pl

    lines = []
    for one in results:
        if one.curve is None:
            continue
        norms = runner.make(one.curve).read_json("norms.json")
        losses = runner.make(one.branches).read_json("training.json")["losses"]
        for role in ROLES:
            own = losses[role]
            ends = {"first_loss": sum(own[:5]) / len(own[:5]), "last_loss": sum(own[-5:]) / len(own[-5:])}
            sizes = {"norm": norms[role], "line": norms["line"], "cosine": norms["cosine"]}
            lines.append({**one.columns, "trained_on": role, **ends, **sizes})
    return pl.DataFrame(lines)
