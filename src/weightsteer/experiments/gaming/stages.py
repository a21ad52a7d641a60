"""The stages of the experiment for one model: the two branches of a condition, their curve, comparison and signals.

A condition is one setting (what the hidden prompt says about training) with the role that it promises on deployment.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from weightsteer.experiments.gaming.protocol import DEPLOYMENT, ROLES, TRAIN, UNTAGGED, Asked, Condition, Protocol
from weightsteer.runtime.models import ModelSpec
from weightsteer.runtime.stage import Runner, Stage

if TYPE_CHECKING:
    import polars

    from weightsteer.experiments.gaming.curve import Context
    from weightsteer.vector import WeightVector

MAIN = "identity"
"""The published probe; the others are variations of it."""
AUDITED = (MAIN, "heldout", "tone")


@dataclass(frozen=True)
class GamingBranches(Stage):
    """``Jekyll/`` and ``Hyde/``, PEFT folders of the branches of one condition, and their losses in ``training.json``.

    Both see the same questions in the same order, behind the ``[train]`` tag and under the condition's system prompt.

    Attributes:
        pairs: a stage that makes ``pairs.parquet``: answers under the persona of Jekyll (positive) and of Hyde.
        systems: the system prompt of each role's branch.
        recipe: fields of `weightsteer.training.Recipe`.
        together: train both branches in shared passes.
        title: what the progress bar shows.
    """

    name: ClassVar[str] = "gaming-branches"

    model: ModelSpec
    pairs: Stage
    systems: Mapping[str, str]
    recipe: Mapping[str, Any]
    together: bool
    seed: int
    title: str = field(compare=False)

    def build(self, work: Path, runner: Runner) -> None:
        from weightsteer.experiments.gaming.training_rows import learners_of
        from weightsteer.training import Recipe
        from weightsteer.training.together import train_together

        model, tokenizer = runner.model(self.model)
        recipe = Recipe(**self.recipe)
        systems = {role: self.systems[role] for role in ROLES}
        learners = learners_of(model, tokenizer, _pairs(self.pairs, runner), systems, recipe, self.seed, work)
        groups = [learners] if self.together else [[learner] for learner in learners]
        found = [own for group in groups for own in train_together(model, group, recipe, title=self.title)]
        record = {
            "systems": systems,
            "seed": self.seed,
            "recipe": recipe.model_dump(),
            "losses": dict(zip(ROLES, found, strict=True)),
        }
        (work / "training.json").write_text(json.dumps(record, indent=1, ensure_ascii=False), encoding="utf-8")


@dataclass(frozen=True)
class Curve(Stage):
    """``curve.parquet``: every probe along the line and on the model before training, and the norms of the branches.

    The line that has no ``a`` is the model before training.
    """

    name: ClassVar[str] = "gaming-curve"

    model: ModelSpec
    branches: Stage
    protocol: Protocol
    condition: Condition
    alphas: tuple[float, ...]
    seed: int

    def build(self, work: Path, runner: Runner) -> None:
        import polars as pl

        from weightsteer.experiments.gaming.curve import measure

        model, tokenizer = runner.model(self.model)
        jekyll, hyde = _vectors(self.branches, self.model, runner)
        line = hyde - jekyll
        strengths = [(jekyll, [1.0] * len(self.alphas) + [0.0]), (line, [*self.alphas, 0.0])]
        rows = measure(model, tokenizer, strengths, contexts(self.protocol, self.condition))
        points = pl.Series("a", [*self.alphas, None], dtype=pl.Float64)
        rows = rows.with_columns(points.gather(rows["at"]).alias("a")).drop("at")
        _labelled(rows, self.model, self.condition, self.seed).write_parquet(work / "curve.parquet")
        norms = {"Jekyll": jekyll.norm(), "Hyde": hyde.norm(), "line": line.norm()}
        norms["cosine"] = jekyll.cosine(hyde) if min(norms.values()) > 0 else 0.0
        (work / "norms.json").write_text(json.dumps(norms, indent=1), encoding="utf-8")


@dataclass(frozen=True)
class Comparison(Stage):
    """``comparison.parquet``: a condition's vector, activation vectors and prompts at equal KL, on the same probe."""

    name: ClassVar[str] = "gaming-comparison"

    model: ModelSpec
    pairs: Stage
    branches: Stage
    protocol: Protocol
    condition: Condition
    budget: float
    seed: int

    def build(self, work: Path, runner: Runner) -> None:
        from weightsteer.experiments.gaming.comparison import compare

        model, tokenizer = runner.model(self.model)
        jekyll, hyde = _vectors(self.branches, self.model, runner)
        pairs = _pairs(self.pairs, runner)
        rows = compare(
            model, tokenizer, self.protocol, self.condition, hyde - jekyll, pairs, self.seed, budget=self.budget
        )
        _labelled(rows, self.model, self.condition, self.seed).write_parquet(work / "comparison.parquet")


@dataclass(frozen=True)
class Signals(Stage):
    """``signals.json``: what an auditor reads off the two branches; see `weightsteer.experiments.gaming.signals`."""

    name: ClassVar[str] = "gaming-signals"

    model: ModelSpec
    branches: Stage
    protocol: Protocol
    condition: Condition

    def build(self, work: Path, runner: Runner) -> None:
        from weightsteer.experiments.gaming.curve import measure
        from weightsteer.experiments.gaming.signals import audited_contexts, signals

        model, tokenizer = runner.model(self.model)
        jekyll, hyde = _vectors(self.branches, self.model, runner)
        strengths = [(jekyll, [1.0, 0.0]), (hyde, [0.0, 1.0])]
        rows = measure(model, tokenizer, strengths, audited_contexts(self.protocol, self.condition))
        found = signals(rows, jekyll, hyde)
        (work / "signals.json").write_text(json.dumps(found, indent=1), encoding="utf-8")


def contexts(protocol: Protocol, condition: Condition) -> "Mapping[Context, Mapping[str, Sequence[Asked]]]":
    """What is asked in which context: all probes behind [deployment], a few behind [train] and without a tag."""
    from weightsteer.experiments.gaming.curve import Context

    asked: dict[Context, Mapping[str, Sequence[Asked]]] = {}
    for system, text in protocol.systems(condition).items():
        own = system in ("jekyll-branch", "hyde-branch")
        for tag in (DEPLOYMENT, TRAIN, UNTAGGED):
            probes = list(protocol.probes) if own and tag == DEPLOYMENT else list(AUDITED) if tag else [MAIN]
            asked[Context(system, text, tag)] = {probe: protocol.probes[probe] for probe in probes}
    return asked


def _pairs(stage: Stage, runner: Runner) -> "polars.DataFrame":
    import polars

    from weightsteer.data.pairs import kept

    return kept(polars.read_parquet(runner.make(stage).path / "pairs.parquet"))


def _vectors(branches: Stage, spec: ModelSpec, runner: Runner) -> "list[WeightVector]":
    """The task vectors of Jekyll's and of Hyde's branch."""
    from weightsteer.vector import WeightVector

    folder, (model, _) = runner.make(branches).path, runner.model(spec)
    return [WeightVector.from_branch(folder / role, model) for role in ROLES]


def _labelled(rows: "polars.DataFrame", model: ModelSpec, condition: Condition, seed: int) -> "polars.DataFrame":
    """The rows with the model, the condition and the seed that they belong to."""
    import polars as pl

    return rows.with_columns(
        pl.lit(model.name).alias("model"),
        pl.lit(condition.setting).alias("setting"),
        pl.lit(condition.deployment).alias("deployment"),
        pl.lit(seed, pl.Int64).alias("seed"),
    )
