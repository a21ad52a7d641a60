"""The stages of the analysis of a vector: bases, its alignment with them, its parts measured plan by plan, a page.

Like all stages they are made once (`weightsteer.experiments.sweep.stages`): a plan that was measured is not measured
again, an interrupted one goes on with the chunk it was at, and a basis is found once for all plans and strengths.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from weightsteer.errors import WeightsteerError
from weightsteer.experiments.sweep.lab import Lab
from weightsteer.runtime.store import SCRATCH, Artifact, file_digest, fixed, safe_name

if TYPE_CHECKING:
    from weightsteer.analysis.bases import Materials
    from weightsteer.analysis.basis import Basis, Side
    from weightsteer.data.evals.files import FileRows
    from weightsteer.vector import WeightVector

CODE = [
    "analysis.ablation",
    "analysis.plans",
    "analysis.bases",
    "measure",
    "data.evals",
    "vector.weight_vector",
    "models.loading",
]


@dataclass(frozen=True)
class Options:
    """How a vector is taken apart.

    Attributes:
        bases: to project on, as ``name``, ``name@input`` or ``name@both``.
        ranks: of the curves.
        draws: random vectors behind each control of the whole vector.
        texts: neutral texts for the damage.
    """

    bases: tuple[str, ...]
    ranks: tuple[int, ...]
    draws: int
    texts: int


@dataclass(frozen=True)
class Bench:
    """One vector with what its analysis is made from.

    Attributes:
        vector: the artifact of the vector.
        pairs: contrastive pairs for bases of activations, if some basis needs them.
        rows: the rows of each evaluation.
        others: vectors that it is compared with, by name.
    """

    lab: Lab
    seed: int
    vector: Artifact
    pairs: Artifact | None
    rows: Mapping[str, Artifact]
    others: Mapping[str, Artifact]
    _bases: "dict[tuple[str, str, int], Basis]" = field(default_factory=dict, repr=False)

    @cached_property
    def steering(self) -> "WeightVector":
        return self._loaded(self.vector)

    @cached_property
    def compared(self) -> "dict[str, WeightVector]":
        return {name: self._loaded(artifact) for name, artifact in self.others.items()}

    def _loaded(self, artifact: Artifact) -> "WeightVector":
        from weightsteer.vector import WeightVector

        return WeightVector.load(artifact.path / "vector.safetensors", self.lab.models.trained[0])

    def evaluations(self) -> "list[FileRows]":
        """The rows of every evaluation, under its name."""
        from weightsteer.data.evals.files import FileRows

        found = []
        for name, rows in self.rows.items():
            evaluation = FileRows(data=rows.path / "items.jsonl")
            evaluation.name = name
            found.append(evaluation)
        return found

    @cached_property
    def materials(self) -> "Materials":
        """What bases are made from; probe pairs that are evaluation rows as well are refused."""
        import polars

        from weightsteer.analysis.bases import Materials

        model, tokenizer = self.lab.models.trained
        pairs = None if self.pairs is None else polars.read_parquet(self.pairs.path / "pairs.parquet")
        items = [item for evaluation in self.evaluations() for item in evaluation.items(model)]
        return Materials(model, tokenizer, pairs, self.steering, tuple(self.compared.values()), items, self.seed)

    def basis(self, name: str, side: "Side", rank: int) -> "Basis":
        """A basis, made in a stage of its own and read once."""
        from weightsteer.analysis.basis import Basis

        asked = (name, side, rank)
        if asked not in self._bases:
            self._bases[asked] = Basis.load(basis(self, name, side, rank).path / "basis.safetensors")
        return self._bases[asked]

    def inputs(self) -> dict[str, Any]:
        """What a stage's key has to know of it."""
        return {
            "model": self.lab.on(self.lab.identity),
            "vector": self.vector,
            "pairs": self.pairs,
            "rows": dict(self.rows),
            "others": dict(self.others),
            "seed": self.seed,
        }


def basis(bench: Bench, name: str, side: "Side", rank: int) -> Artifact:
    """``basis.safetensors``."""
    from weightsteer.analysis.bases import from_materials

    def build(work: Path) -> None:
        from_materials(name, bench.materials, rank=rank, side=side).save(work / "basis.safetensors")

    inputs = {**bench.inputs(), "name": name, "side": side, "rank": rank}
    code = ["experiments.ablation.stages:basis", "analysis.bases"]
    link = f"basis-{safe_name(name)}-{side}-{rank}"
    return bench.lab.make("basis", inputs, code, build, seed=bench.seed, name=link)


def other_vector(lab: Lab, path: Path) -> Artifact:
    """A vector from a file of the user's that others are compared with."""
    if not path.is_file():
        raise WeightsteerError(f"no vector {path}. Make one with `weightsteer diff`, or leave it out of --others.")
    path = fixed(path)

    def build(work: Path) -> None:
        from weightsteer.experiments.sweep.stages import write_vector
        from weightsteer.vector import WeightVector

        write_vector(WeightVector.load(path, lab.models.trained[0]), work)

    inputs = {"model": lab.on(lab.identity), "file": file_digest(path)}
    code = ["experiments.ablation.stages:other_vector", "experiments.sweep.stages:write_vector", "vector.weight_vector"]
    return lab.make("other-vector", inputs, code, build, name=f"other-{safe_name(path.stem)}")


def measured(bench: Bench, plan: str, options: Options) -> Artifact:
    """One plan measured: ``rows``, ``damage`` and ``parts`` (Parquet), and what was skipped."""
    alphas = bench.lab.config.alphas

    def build(work: Path) -> None:
        from weightsteer.analysis import plans
        from weightsteer.analysis.ablation import measure
        from weightsteer.data.evals.neutral import neutral_texts

        model, tokenizer = bench.lab.models.trained
        given = plans.PlanInput(
            bench.steering,
            model,
            bench.basis,
            options.bases,
            tuple(alpha for alpha in alphas if alpha),
            options.ranks,
            options.draws,
            bench.compared,
        )
        listed = list(plans.whole(given) if plan == "whole" else plans.ablations(plan, given))
        texts = neutral_texts(model)[: options.texts]
        evaluations = bench.evaluations()
        scratch = work / SCRATCH
        found = measure(given, listed, tokenizer, evaluations, texts, alphas, kept=scratch, title=f"parts: {plan}")
        found.write(work)

    inputs = {**bench.inputs(), "plan": plan, "options": asdict(options), "alphas": alphas}
    code = ["experiments.ablation.stages:measured", *CODE]
    return bench.lab.make("parts", inputs, code, build, seed=bench.seed, name=f"parts-{plan}")


def alignment(bench: Bench, options: Options) -> Artifact:
    """``alignment.parquet``: how much of the vector lies in each basis, beside random bases of the same ranks."""

    def build(work: Path) -> None:
        from weightsteer.analysis.alignment import alignment as aligned

        aligned(bench.steering, bench.basis, options.bases, max(options.ranks)).write_parquet(
            work / "alignment.parquet"
        )

    inputs = {**bench.inputs(), "options": asdict(options)}
    code = ["experiments.ablation.stages:alignment", "analysis.alignment", "analysis.bases", "vector.weight_vector"]
    return bench.lab.make("alignment", inputs, code, build, seed=bench.seed)


def page(
    first: Lab,
    measurements: Mapping[str, list[Artifact]],
    alignments: Mapping[str, list[Artifact]],
    run: Mapping[str, Any],
    resamples: int,
    home: Path,
) -> Artifact:
    """``report.html``, ``table.csv``, ``alignment.csv``, ``run.json`` and charts; by the name of the vector."""

    def build(work: Path) -> None:
        import polars

        from weightsteer.analysis.ablation import Measured
        from weightsteer.experiments.ablation.page import write_parts

        (work / "run.json").write_text(json.dumps(run, indent=1, ensure_ascii=False), encoding="utf-8")
        found = {
            name: Measured.joined([Measured.read(artifact.path) for artifact in artifacts])
            for name, artifacts in measurements.items()
        }
        aligned = {
            name: polars.concat(
                [
                    polars.read_parquet(artifact.path / "alignment.parquet").with_columns(seed=polars.lit(number))
                    for number, artifact in enumerate(artifacts)
                ]
            )
            for name, artifacts in alignments.items()
            if artifacts
        }
        write_parts(work, found, aligned, run=run, resamples=resamples)

    inputs = {
        "measurements": dict(measurements),
        "alignments": dict(alignments),
        "run": dict(run),
        "resamples": resamples,
    }
    code = ["experiments.ablation.stages:page", "analysis.ablation", "report"]
    return first.make("parts-page", inputs, code, build, name=home.name, home=home.parent)
