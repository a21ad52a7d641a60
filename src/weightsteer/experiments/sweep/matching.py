"""The stages of equal side effects: the strengths at which all arms cost the same, and their rows there."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from weightsteer.experiments.sweep.arms import Arm, Arms
from weightsteer.experiments.sweep.lab import Lab
from weightsteer.experiments.sweep.measures import one_draw, scored
from weightsteer.runtime.store import Artifact, safe_name

if TYPE_CHECKING:
    import polars


def calibrated(lab: Lab, arms: Arms, seed: int) -> Artifact:
    """``calibration.parquet``: the strengths at which every arm but the controls has the same side effect."""
    chosen = settings(lab)
    arms = arms.calibrated or arms

    def build(work: Path) -> None:
        from weightsteer.measure.calibrate import calibrate

        interventions = [arm.intervention for arm in arms.load()]
        calibrate(*lab.models.trained, interventions, **chosen).write_parquet(work / "calibration.parquet")

    inputs = {"model": lab.on(lab.identity), "arms": dict(arms.inputs), "settings": chosen}
    code = ["experiments.sweep.matching:calibrated", *_CALIBRATES, *arms.code]
    return lab.make("calibration", inputs, code, build, seed=seed)


MEASURE = ("budget_kind", "statistic", "direction", "text", "tokens")
"""Those of the options that say what a side effect is."""
_CALIBRATES = ("measure.calibrate", "pocket.items", "pocket.world")


def settings(lab: Lab) -> dict[str, Any]:
    """The options of `weightsteer.measure.calibrate.calibrate`."""
    chosen = lab.config.calibration.model_dump()
    if chosen["statistic"] is None and chosen["budget_kind"] == "kl" and lab.identity.family == "pocket":
        # the answers of these models have a few tokens each: the p95 over them is that of a dozen
        chosen["statistic"] = "mean"
    return chosen


def strengths(lab: Lab, arms: Arms, calibration: Artifact, seed: int) -> Artifact:
    """``strengths.parquet``: the calibration, with lines for the controls of its vector."""
    chosen = settings(lab)

    def build(work: Path) -> None:
        import polars

        found = polars.read_parquet(calibration.path / "calibration.parquet")
        controls = [arm for arm in arms.load() if arm.intervention.method == "control"]
        _with_controls(lab, found, controls, chosen).write_parquet(work / "strengths.parquet")

    inputs = {
        "model": lab.on(lab.identity),
        "arms": dict(arms.inputs),
        "calibration": calibration,
        "settings": chosen,
    }
    own = (
        "experiments.sweep.matching:strengths",
        "experiments.sweep.matching:_with_controls",
        "experiments.sweep.measures:one_draw",
    )
    return lab.make("strengths", inputs, [*own, *_CALIBRATES, *arms.code], build, seed=seed)


def _with_controls(
    lab: Lab, found: "polars.DataFrame", controls: Sequence[Arm], chosen: dict[str, Any]
) -> "polars.DataFrame":
    """With lines for the controls of the one vector that was calibrated: a control is compared at the same strength.

    It has the same norm, but not the same side effect: that of one draw of each is measured.
    """
    import polars

    from weightsteer.measure.calibrate import side_effects
    from weightsteer.measure.rows import identity

    if not controls:
        return found
    price = ["value", "low", "high"]
    at = dict(found.drop_nulls("alpha_star").select("sign", "alpha_star").iter_rows())
    some = [arm.intervention for arm in one_draw(controls)]
    measured = side_effects(*lab.models.trained, some, at, **{name: chosen[name] for name in MEASURE})
    place = ["method", "adapter", "seed", "sign"]
    lines = [
        found.with_columns(
            *(polars.lit(told[name], found.schema[name]).alias(name) for name in place[:-1]),
            status=polars.when(polars.col("status") == "converged")
            .then(polars.lit("fixed"))
            .otherwise(polars.col("status")),
            **dict.fromkeys([f"audit_{name}" for name in price], polars.lit(None, polars.Float64)),
        ).drop(price)
        for told in (identity(arm.intervention) for arm in controls)
    ]
    priced = polars.concat(lines).join(measured.select(*place, *price), on=place, how="left", nulls_equal=True)
    return polars.concat([found, priced.select(found.columns)])


def matched(lab: Lab, arms: Arms, at: Artifact, rows: Artifact, name: str, seed: int) -> Artifact:
    """``rows.parquet``: all arms over the rows of one evaluation at the strengths that were found."""

    def build(work: Path) -> None:
        import polars

        from weightsteer.measure.rows import identity

        found = polars.read_parquet(at.path / "strengths.parquet")
        chosen = []
        for arm in arms.load():
            me = [polars.col(key).eq_missing(value) for key, value in identity(arm.intervention).items()]
            chosen.append(Arm(arm.intervention, tuple(found.filter(*me)["alpha_star"].drop_nulls())))
        scored(lab, chosen, rows, name).write_parquet(work / "rows.parquet")

    inputs = {
        "model": lab.on(lab.identity),
        "arms": dict(arms.inputs),
        "strengths": at,
        "items": rows,
        "evaluation": name,
    }
    own = ("matching:matched", "measures:scored", "measures:evaluation", "measures:by_strengths")
    code = [*(f"experiments.sweep.{each}" for each in own), "measure", "measure.guided", "models.loading", *arms.code]
    return lab.make("matched", inputs, code, build, seed=seed, name=f"matched-{safe_name(name)}")
