"""The stages that measure: a sweep over rows, and what the same strengths cost."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from weightsteer.experiments.sweep.arms import Arm, Arms
from weightsteer.experiments.sweep.lab import Lab
from weightsteer.runtime.store import Artifact, digest_of, safe_name

if TYPE_CHECKING:
    import polars

    from weightsteer.data.evals import Evaluation


def swept(lab: Lab, arms: Arms, rows: Artifact, name: str, seed: int) -> Artifact:
    """``rows.parquet``: the arms over the rows of one evaluation, each at its strengths; one draw of each control.

    All draws are compared where the strengths are: at equal side effects (`matched`).
    """

    def build(work: Path) -> None:
        scored(lab, one_draw(arms.load()), rows, name).write_parquet(work / "rows.parquet")

    inputs = {
        "model": lab.on(lab.identity),
        "arms": dict(arms.inputs),
        "items": rows,
        "alphas": lab.config.alphas,
        "evaluation": name,
    }
    own = ("swept", "scored", "evaluation", "by_strengths", "one_draw")
    code = [
        *(f"experiments.sweep.measures:{each}" for each in own),
        "measure",
        "measure.guided",
        "models.loading",
        *arms.code,
    ]
    return lab.make("sweep", inputs, code, build, seed=seed, name=f"sweep-{safe_name(name)}")


def damaged(lab: Lab, arms: Arms, seed: int) -> Artifact:
    """``damage.parquet``: likelihood of neutral text under every arm, and its distance from the base model."""

    def build(work: Path) -> None:
        import polars

        from weightsteer.data.evals.neutral import neutral_texts
        from weightsteer.measure.damage import damage

        model, tokenizer = lab.models.trained
        texts = neutral_texts(model)
        parts = [
            damage(model, tokenizer, [arm.intervention for arm in together], texts, together[0].alphas)
            for together in by_strengths(one_draw(arms.load()))
        ]
        polars.concat(parts).write_parquet(work / "damage.parquet")

    inputs = {"model": lab.on(lab.identity), "arms": dict(arms.inputs), "alphas": lab.config.alphas}
    code = [
        "experiments.sweep.measures:damaged",
        "experiments.sweep.measures:one_draw",
        "measure.damage",
        "data.evals.neutral",
        "pocket.items",
        "pocket.world",
        *arms.code,
    ]
    return lab.make("damage", inputs, code, build, seed=seed)


def capable(lab: Lab, arms: Arms, seed: int) -> Artifact:
    """``capability.parquet``: the rows of neutral tasks under every arm, each at its strengths."""

    def build(work: Path) -> None:
        import polars

        from weightsteer.data.evals.capability import tasks
        from weightsteer.measure import sweep

        model, tokenizer = lab.models.trained
        parts = [
            sweep(model, tokenizer, [arm.intervention for arm in together], task, together[0].alphas)
            for task in tasks()
            for together in by_strengths(one_draw(arms.load()))
        ]
        polars.concat(parts).write_parquet(work / "capability.parquet")

    inputs = {"model": lab.on(lab.identity), "arms": dict(arms.inputs), "alphas": lab.config.alphas}
    own = ("capable", "one_draw", "by_strengths")
    tasks_of = ("data.evals.capability", "data.evals.arithmetic", "data.evals.facts", "pocket.items", "pocket.world")
    code = [*(f"experiments.sweep.measures:{each}" for each in own), "measure", *tasks_of, *arms.code]
    return lab.make("capability", inputs, code, build, seed=seed)


def one_draw(arms: Sequence[Arm]) -> list[Arm]:
    """The arms with one draw of each control: all have the same norms, and cost the same on the whole."""
    from weightsteer.measure.rows import identity

    once: dict[str, Arm] = {}
    for arm in arms:
        told = identity(arm.intervention)
        once.setdefault(digest_of({**told, "seed": None} if told["method"] == "control" else told), arm)
    return list(once.values())


def scored(lab: Lab, arms: Sequence[Arm], rows: Artifact, name: str) -> "polars.DataFrame":
    """The rows of one evaluation under every arm; those that ask for a thought are guided."""
    import polars

    from weightsteer.measure import sweep
    from weightsteer.measure.guided import guided
    from weightsteer.measure.rows import SCHEMA

    model, tokenizer = lab.models.trained
    asked = evaluation(rows, name)
    items = asked.items(model)
    parts = []
    for together in by_strengths(arms):
        chosen, alphas = [arm.intervention for arm in together], together[0].alphas
        if any(item.thinking_tokens for item in items):
            frames = [guided(model, tokenizer, items, each, alphas, name=name).select(list(SCHEMA)) for each in chosen]
            parts += frames
        else:
            parts.append(sweep(model, tokenizer, chosen, asked, alphas))
    return polars.concat(parts)


def evaluation(rows: Artifact, name: str) -> "Evaluation":
    """The rows of ``items.jsonl`` under the name they were asked for by."""
    from weightsteer.data.evals.files import FileRows

    found = FileRows(data=rows.path / "items.jsonl")
    found.name = name
    return found


def by_strengths(arms: Sequence[Arm]) -> list[list[Arm]]:
    """Arms of the same strengths together: they share the passes of the base model."""
    groups: dict[tuple[float, ...], list[Arm]] = defaultdict(list)
    for arm in arms:
        groups[arm.alphas].append(arm)
    return list(groups.values())
