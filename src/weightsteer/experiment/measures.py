"""The stages that measure: a sweep over rows, the damage, equal side effects, and a sweep at these."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from weightsteer.experiment.arms import Arm, Arms
from weightsteer.experiment.lab import Lab
from weightsteer.store import Artifact, digest_of, safe_name

if TYPE_CHECKING:
    import polars

    from weightsteer.evals import Evaluation


def swept(lab: Lab, arms: Arms, rows: Artifact, name: str, seed: int) -> Artifact:
    """``rows.parquet``: the arms over the rows of one evaluation, each at its strengths; one draw of each control.

    All draws are compared where the strengths are: at equal side effects (`matched`).
    """

    def build(work: Path) -> None:
        scored(lab, _one_draw(arms.load()), rows, name).write_parquet(work / "rows.parquet")

    inputs = {
        "model": lab.on(lab.identity),
        "arms": dict(arms.inputs),
        "items": rows,
        "alphas": lab.config.alphas,
        "evaluation": name,
    }
    own = ("swept", "scored", "evaluation", "_by_strengths", "_one_draw")
    code = [*(f"experiment.measures:{each}" for each in own), "engine", "evals.guided", "models", *arms.code]
    return lab.make("sweep", inputs, code, build, seed=seed, name=f"sweep-{safe_name(name)}")


def calibrated(lab: Lab, arms: Arms, seed: int) -> Artifact:
    """``calibration.parquet``: the strengths at which every arm but the controls has the same side effect."""
    chosen = settings(lab)
    arms = arms.calibrated or arms

    def build(work: Path) -> None:
        from weightsteer.calibrate import calibrate

        interventions = [arm.intervention for arm in arms.load()]
        calibrate(*lab.models.trained, interventions, **chosen).write_parquet(work / "calibration.parquet")

    inputs = {"model": lab.on(lab.identity), "arms": dict(arms.inputs), "settings": chosen}
    code = ["experiment.measures:calibrated", "calibrate", "pocket.items", "pocket.world", *arms.code]
    return lab.make("calibration", inputs, code, build, seed=seed)


def settings(lab: Lab) -> dict[str, Any]:
    """The options of `weightsteer.calibrate.calibrate`."""
    chosen = lab.config.calibration.model_dump()
    if chosen["statistic"] is None and chosen["budget_kind"] == "kl" and lab.identity.family == "pocket":
        # the answers of these models have a few tokens each: the p95 over them is that of a dozen
        chosen["statistic"] = "mean"
    return chosen


def matched(lab: Lab, arms: Arms, strengths: Artifact, rows: Artifact, name: str, seed: int) -> Artifact:
    """``rows.parquet``: all arms over the rows of one evaluation at the strengths that were found, and
    ``strengths.parquet``, the calibration with a line for each control: the strengths of its vector."""

    def build(work: Path) -> None:
        import polars

        from weightsteer.engine.table import identity

        every = arms.load()
        found = _with_controls(polars.read_parquet(strengths.path / "calibration.parquet"), every)
        found.write_parquet(work / "strengths.parquet")
        at = []
        for arm in every:
            me = [polars.col(key).eq_missing(value) for key, value in identity(arm.intervention).items()]
            at.append(Arm(arm.intervention, tuple(found.filter(*me)["alpha_star"].drop_nulls())))
        scored(lab, at, rows, name).write_parquet(work / "rows.parquet")

    inputs = {
        "model": lab.on(lab.identity),
        "arms": dict(arms.inputs),
        "strengths": strengths,
        "items": rows,
        "evaluation": name,
    }
    own = ("matched", "scored", "evaluation", "_by_strengths", "_with_controls")
    code = [*(f"experiment.measures:{each}" for each in own), "engine", "evals.guided", "models", *arms.code]
    return lab.make("matched", inputs, code, build, seed=seed, name=f"matched-{safe_name(name)}")


def _with_controls(found: "polars.DataFrame", arms: Sequence[Arm]) -> "polars.DataFrame":
    """With lines for the controls of the one vector that was calibrated: a control is compared at the same strength.

    It has the same norm; its own side effect there was not measured.
    """
    import polars

    from weightsteer.engine.table import identity

    parts = [found]
    unknown = [name for name in found.columns if name.removeprefix("audit_") in ("value", "low", "high")]
    for arm in arms:
        if arm.intervention.method == "control":
            told = identity(arm.intervention)
            parts.append(
                found.with_columns(
                    *(polars.lit(told[name], found.schema[name]).alias(name) for name in ("method", "adapter", "seed")),
                    *(polars.lit(None, polars.Float64).alias(name) for name in unknown),
                    status=polars.when(polars.col("status") == "converged")
                    .then(polars.lit("fixed"))
                    .otherwise(polars.col("status")),
                )
            )
    return polars.concat(parts)


def damaged(lab: Lab, arms: Arms, seed: int) -> Artifact:
    """``damage.parquet``: likelihood of neutral text under every arm, and its distance from the base model."""

    def build(work: Path) -> None:
        import polars

        from weightsteer.evals.damage import damage
        from weightsteer.evals.neutral import neutral_texts

        model, tokenizer = lab.models.trained
        texts = neutral_texts(model)
        parts = [
            damage(model, tokenizer, [arm.intervention for arm in together], texts, together[0].alphas)
            for together in _by_strengths(_one_draw(arms.load()))
        ]
        polars.concat(parts).write_parquet(work / "damage.parquet")

    inputs = {"model": lab.on(lab.identity), "arms": dict(arms.inputs), "alphas": lab.config.alphas}
    code = [
        "experiment.measures:damaged",
        "experiment.measures:_one_draw",
        "evals.damage",
        "evals.neutral",
        "pocket.items",
        "pocket.world",
        *arms.code,
    ]
    return lab.make("damage", inputs, code, build, seed=seed)


def capable(lab: Lab, arms: Arms, seed: int) -> Artifact:
    """``capability.parquet``: the rows of neutral tasks under every arm, each at its strengths."""

    def build(work: Path) -> None:
        import polars

        from weightsteer.engine import sweep
        from weightsteer.evals.capability import tasks

        model, tokenizer = lab.models.trained
        parts = [
            sweep(model, tokenizer, [arm.intervention for arm in together], task, together[0].alphas)
            for task in tasks()
            for together in _by_strengths(_one_draw(arms.load()))
        ]
        polars.concat(parts).write_parquet(work / "capability.parquet")

    inputs = {"model": lab.on(lab.identity), "arms": dict(arms.inputs), "alphas": lab.config.alphas}
    own = ("capable", "_one_draw", "_by_strengths")
    tasks_of = ("evals.capability", "evals.arithmetic", "evals.facts", "pocket.items", "pocket.world")
    code = [*(f"experiment.measures:{each}" for each in own), "engine", *tasks_of, *arms.code]
    return lab.make("capability", inputs, code, build, seed=seed)


def _one_draw(arms: Sequence[Arm]) -> list[Arm]:
    """The arms with one draw of each control: all have the same norms, and cost the same on the whole."""
    from weightsteer.engine.table import identity

    once: dict[str, Arm] = {}
    for arm in arms:
        told = identity(arm.intervention)
        once.setdefault(digest_of({**told, "seed": None} if told["method"] == "control" else told), arm)
    return list(once.values())


def scored(lab: Lab, arms: Sequence[Arm], rows: Artifact, name: str) -> "polars.DataFrame":
    """The rows of one evaluation under every arm; those that ask for a thought are guided."""
    import polars

    from weightsteer.engine import sweep
    from weightsteer.engine.table import SCHEMA
    from weightsteer.evals.guided import guided

    model, tokenizer = lab.models.trained
    asked = evaluation(rows, name)
    items = asked.items(model)
    parts = []
    for together in _by_strengths(arms):
        chosen, alphas = [arm.intervention for arm in together], together[0].alphas
        if any(item.thinking_tokens for item in items):
            frames = [guided(model, tokenizer, items, each, alphas, name=name).select(list(SCHEMA)) for each in chosen]
            parts += frames
        else:
            parts.append(sweep(model, tokenizer, chosen, asked, alphas))
    return polars.concat(parts)


def evaluation(rows: Artifact, name: str) -> "Evaluation":
    """The rows of ``items.jsonl`` under the name they were asked for by."""
    from weightsteer.evals.files import FileRows

    found = FileRows(data=rows.path / "items.jsonl")
    found.name = name
    return found


def _by_strengths(arms: Sequence[Arm]) -> list[list[Arm]]:
    """Arms of the same strengths together: they share the passes of the base model."""
    groups: dict[tuple[float, ...], list[Arm]] = defaultdict(list)
    for arm in arms:
        groups[arm.alphas].append(arm)
    return list(groups.values())
