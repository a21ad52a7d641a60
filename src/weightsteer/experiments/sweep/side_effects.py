"""The stages of equal side effects: the strengths at which all entries cost the same, and their rows there."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from weightsteer.experiments.stages.items import load_items
from weightsteer.experiments.sweep.entries import Entries, Entry, one_draw
from weightsteer.experiments.sweep.measures import scored
from weightsteer.runtime.inputs import InputFile
from weightsteer.runtime.models import ModelSpec
from weightsteer.runtime.stage import Runner, Stage
from weightsteer.runtime.store import SCRATCH

if TYPE_CHECKING:
    import polars

MEASURE = ("budget_kind", "statistic", "direction", "text", "tokens")
"""Those of the settings that say what a side effect is."""


@dataclass(frozen=True)
class Calibration(Stage):
    """``calibration.parquet``: the strengths at which every entry but the controls has the same side effect.

    Attributes:
        settings: the options of `weightsteer.measure.calibrate.calibrate`.
        suffixes: a pool of texts on which the KL is read; None: the neutral texts for the model.
    """

    name: ClassVar[str] = "calibration"

    model: ModelSpec
    entries: Entries
    settings: Mapping[str, Any]
    suffixes: InputFile | None = None

    def build(self, work: Path, runner: Runner) -> None:
        from weightsteer.measure.calibrate import calibrate

        interventions = [entry.intervention for entry in self.entries.load(runner)]
        options = dict(self.settings) | _prompts(self.suffixes)
        found = calibrate(*runner.model(self.model), interventions, **options)
        found.write_parquet(work / "calibration.parquet")


@dataclass(frozen=True)
class Strengths(Stage):
    """``strengths.parquet``: the calibration, with lines for the controls of its vector."""

    name: ClassVar[str] = "strengths"

    model: ModelSpec
    entries: Entries
    calibration: Stage
    settings: Mapping[str, Any]
    suffixes: InputFile | None = None

    def build(self, work: Path, runner: Runner) -> None:
        import polars

        found = polars.read_parquet(runner.make(self.calibration).path / "calibration.parquet")
        controls = [entry for entry in self.entries.load(runner) if entry.intervention.method == "control"]
        if controls:
            found = self._with_controls(found, controls, runner)
        found.write_parquet(work / "strengths.parquet")

    def _with_controls(
        self, found: "polars.DataFrame", controls: Sequence[Entry], runner: Runner
    ) -> "polars.DataFrame":
        """With lines for the controls of the one vector that was calibrated: a control takes its vector's strength.

        It has the same norm, but not the same side effect: that of one draw of each is measured.
        """
        import polars

        from weightsteer.measure.calibrate import side_effects
        from weightsteer.measure.rows import identity

        cost = ["value", "low", "high"]
        at = dict(found.drop_nulls("alpha_star").select("sign", "alpha_star").iter_rows())
        some = [entry.intervention for entry in one_draw(controls)]
        options = {name: self.settings[name] for name in MEASURE} | _prompts(self.suffixes)
        measured = side_effects(*runner.model(self.model), some, at, **options)
        whose = ["method", "adapter", "seed", "control", "control_of", "draw"]
        place = [*whose, "sign"]
        lines = [
            found.with_columns(
                *(polars.lit(known[name], found.schema[name]).alias(name) for name in whose),
                status=polars.when(polars.col("status") == "converged")
                .then(polars.lit("fixed"))
                .otherwise(polars.col("status")),
                **dict.fromkeys([f"audit_{name}" for name in cost], polars.lit(None, polars.Float64)),
            ).drop(cost)
            for known in (identity(entry.intervention) for entry in controls)
        ]
        costs = polars.concat(lines).join(measured.select(*place, *cost), on=place, how="left", nulls_equal=True)
        return polars.concat([found, costs.select(found.columns)])


def _prompts(suffixes: InputFile | None) -> dict[str, Any]:
    """The texts of a pool, as options of a calibration; none for the texts it takes by itself."""
    if suffixes is None:
        return {}
    from weightsteer.data.suffixes import calibration_texts, read_suffixes

    prompts, audit = calibration_texts(read_suffixes(suffixes.path))
    return {"prompts": prompts, "audit_prompts": audit}


@dataclass(frozen=True)
class Matched(Stage):
    """``rows.parquet``: all entries over the rows of one evaluation at the strengths of equal side effects."""

    name: ClassVar[str] = "matched"

    model: ModelSpec
    entries: Entries
    strengths: Stage
    items: Stage
    evaluation: str

    def build(self, work: Path, runner: Runner) -> None:
        import polars

        from weightsteer.measure.rows import identity

        found = polars.read_parquet(runner.make(self.strengths).path / "strengths.parquet")
        chosen = []
        for entry in self.entries.load(runner):
            me = [polars.col(key).eq_missing(value) for key, value in identity(entry.intervention).items()]
            chosen.append(Entry(entry.intervention, tuple(found.filter(*me)["alpha_star"].drop_nulls())))
        rows = load_items(runner.make(self.items), self.evaluation)
        scored(self.model, chosen, rows, runner, work / SCRATCH).write_parquet(work / "rows.parquet")
