"""``weightsteer subspace``: how a vector lies to the subspaces of its model."""

from pathlib import Path
from typing import TYPE_CHECKING

from weightsteer.cli.verb import TRAIN, Verb

if TYPE_CHECKING:
    from weightsteer.experiments.sweep.config import RunConfig


def _subspace(
    config: "RunConfig",
    out: Path,
    vector: Path | None,
    others: tuple[Path, ...],
    bases: tuple[str, ...] | None,
    dimensions: int,
) -> None:
    from weightsteer.experiments.ablation.console import aligned
    from weightsteer.experiments.ablation.run import ALIGNED, Options, subspace

    found = subspace(config, out, Options(bases or ALIGNED, (dimensions,), 0, 0), vector=vector, others=others)
    aligned(found.path)
    print(found.place / "report.html")


VERB = Verb(
    "how much of a vector lies in the subspaces of its model, beside random ones",
    "weightsteer subspace --behavior honesty --seed 0 --dimensions 8",
    _subspace,
    (*TRAIN, "evals", "data", "limit"),
    {
        "vector": (Path | None, None, "Vector to look at; made from the other flags when not given."),
        "others": (tuple[Path, ...], (), "Vectors of the same base, for the basis shared."),
        "bases": (tuple[str, ...] | None, None, "Subspaces: NAME, NAME@input or NAME@both; most kinds by default."),
        "dimensions": (int, 8, "Rank of the subspaces."),
    },
)
