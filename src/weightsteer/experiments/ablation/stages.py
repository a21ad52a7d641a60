"""The stages that take a vector apart: bases, its alignment with them, its ablations measured plan by plan.

A plan that was measured is not measured again, an interrupted one goes on with the chunk it was at, and a basis is
found once for all plans and strengths.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from weightsteer.experiments.ablation.config import Options
from weightsteer.experiments.stages.items import load_items
from weightsteer.experiments.stages.vector import load_vector
from weightsteer.registry import BASES
from weightsteer.runtime.models import ModelSpec
from weightsteer.runtime.stage import Runner, Stage, signature_of
from weightsteer.runtime.store import SCRATCH

if TYPE_CHECKING:
    from weightsteer.analysis.bases import Materials
    from weightsteer.analysis.basis import Basis
    from weightsteer.data.evals.files import FileRows
    from weightsteer.vector import WeightVector

Side = Literal["output", "input"]


@dataclass(frozen=True)
class Subject:
    """One vector with what its analysis is made from.

    Attributes:
        vector: a stage that makes ``vector.safetensors``.
        pairs: contrastive pairs for bases of activations, if some basis needs them.
        items: the rows of each evaluation.
        others: vectors that it is compared with, by name.
        bases: digests of the kinds of bases of other distributions, of which a plan may use any.
    """

    model: ModelSpec
    vector: Stage
    pairs: Stage | None
    items: Mapping[str, Stage]
    others: Mapping[str, Stage]
    seed: int
    bases: Mapping[str, str] = field(init=False, default_factory=BASES.outside)

    def steering(self, runner: Runner) -> "WeightVector":
        """The vector."""
        return self._loaded(self.vector, runner)

    def compared(self, runner: Runner) -> "dict[str, WeightVector]":
        """The vectors it is compared with."""
        return {name: self._loaded(stage, runner) for name, stage in self.others.items()}

    def _loaded(self, stage: Stage, runner: Runner) -> "WeightVector":
        made = runner.make(stage)
        return runner.once(f"vector {made.key}", lambda: load_vector(made, runner, self.model))

    def evaluations(self, runner: Runner) -> "list[FileRows]":
        """The rows of every evaluation, under its name."""
        return [load_items(runner.make(stage), name) for name, stage in self.items.items()]

    def materials(self, runner: Runner) -> "Materials":
        """What bases are made from; probe pairs that are evaluation rows as well are refused."""
        return runner.once(f"materials {signature_of(self)}", lambda: self._materials(runner))

    def _materials(self, runner: Runner) -> "Materials":
        import polars

        from weightsteer.analysis.bases import Materials

        model, tokenizer = runner.model(self.model)
        pairs = polars.read_parquet(runner.make(self.pairs).path / "pairs.parquet") if self.pairs else None
        rows = [row for evaluation in self.evaluations(runner) for row in evaluation.items(model)]
        compared = tuple(self.compared(runner).values())
        return Materials(model, tokenizer, pairs, self.steering(runner), compared, rows, self.seed)

    def basis(self, name: str, side: Side, rank: int, runner: Runner) -> "Basis":
        """A basis, made in a stage of its own and read once."""
        from weightsteer.analysis.basis import Basis

        made = runner.make(BasisOf(self, name, side, rank))
        return runner.once(f"basis {made.key}", lambda: Basis.load(made.path / "basis.safetensors"))


@dataclass(frozen=True)
class BasisOf(Stage):
    """``basis.safetensors``: one basis of the model or of the contrast of a vector."""

    name: ClassVar[str] = "basis"

    subject: Subject
    basis: str
    side: Side
    rank: int

    def build(self, work: Path, runner: Runner) -> None:
        from weightsteer.analysis.bases import from_materials

        made = from_materials(self.basis, self.subject.materials(runner), rank=self.rank, side=self.side)
        made.save(work / "basis.safetensors")


@dataclass(frozen=True)
class Ablations(Stage):
    """One plan measured: ``rows``, ``damage`` and ``ablations`` (Parquet), and what was skipped.

    Attributes:
        plan: the name of a plan; ``whole`` for the vector itself and its controls.
        source: digest of the code of the plan, where that is from another distribution.
    """

    name: ClassVar[str] = "ablations"

    subject: Subject
    plan: str
    options: Options
    alphas: tuple[float, ...]
    source: str = ""

    def build(self, work: Path, runner: Runner) -> None:
        from weightsteer.analysis import plans
        from weightsteer.analysis.ablation import measure
        from weightsteer.data.evals.neutral import neutral_texts

        subject, options = self.subject, self.options
        model, tokenizer = runner.model(subject.model)
        given = plans.PlanInput(
            subject.steering(runner),
            model,
            lambda name, side, rank: subject.basis(name, side, rank, runner),
            options.bases,
            tuple(alpha for alpha in self.alphas if alpha),
            options.ranks,
            options.draws,
            subject.compared(runner),
        )
        listed = list(plans.whole(given) if self.plan == "whole" else plans.ablations(self.plan, given))
        texts = neutral_texts(model)[: options.texts]
        found = measure(
            given,
            listed,
            tokenizer,
            subject.evaluations(runner),
            texts,
            self.alphas,
            kept=work / SCRATCH,
            title=f"ablations: {self.plan}",
        )
        found.write(work)


@dataclass(frozen=True)
class Alignment(Stage):
    """``alignment.parquet``: the share of the vector in each basis, and in random bases of the same ranks; and
    ``published.parquet``, the subspace alignment as published."""

    name: ClassVar[str] = "alignment"

    subject: Subject
    bases: tuple[str, ...]
    rank: int

    def build(self, work: Path, runner: Runner) -> None:
        from weightsteer.analysis.overlap import alignment
        from weightsteer.analysis.subspace_alignment import subspace_alignment

        subject = self.subject
        vector, (model, _) = subject.steering(runner), runner.model(subject.model)
        subspace_alignment(vector, model).write_parquet(work / "published.parquet")
        found = alignment(
            subject.steering(runner),
            lambda name, side, rank: subject.basis(name, side, rank, runner),
            self.bases,
            self.rank,
        )
        found.write_parquet(work / "alignment.parquet")
