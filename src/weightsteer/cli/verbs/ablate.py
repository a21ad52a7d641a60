"""``weightsteer ablate``: which part of a vector carries its effect."""

from pathlib import Path
from typing import TYPE_CHECKING

from weightsteer.cli.verb import TRAIN, Verb

if TYPE_CHECKING:
    from weightsteer.experiments.sweep.config import RunConfig


def _ablate(
    config: "RunConfig",
    out: Path,
    plan: tuple[str, ...],
    vector: Path | None,
    others: tuple[Path, ...],
    bases: tuple[str, ...] | None,
    ranks: tuple[int, ...],
    alphas: tuple[float, ...],
    limit: int,
    draws: int,
    texts: int,
    resamples: int,
) -> None:
    from weightsteer.experiments.ablation.console import told
    from weightsteer.experiments.ablation.run import BASES, Options, ablate

    changed = {"alphas": alphas, "limit": limit, "resamples": resamples}
    config = type(config).checked({**config.model_dump(), **changed}, "command line")
    options = Options(bases or BASES, tuple(sorted(set(ranks))), draws, texts)
    found = ablate(config, out, options, plan, vector=vector, others=others)
    told(found.path)
    print(found.place / "report.html")


VERB = Verb(
    "take a vector apart: which layers, modules, directions and subspaces carry its effect",
    "weightsteer ablate --plan all --behavior honesty --seed 0",
    _ablate,
    (*TRAIN, "evals", "data"),
    {
        "plan": (tuple[str, ...], ("all",), "projection, norms, layers, modules, coordinates, shared, or all."),
        "vector": (Path | None, None, "Vector to take apart; made from the other flags when not given."),
        "others": (tuple[Path, ...], (), "Vectors of the same base, for the plan shared."),
        "bases": (
            tuple[str, ...] | None,
            None,
            "Subspaces to project on: NAME, NAME@input or NAME@both; a choice of five by default.",
        ),
        "ranks": (tuple[int, ...], (1, 2, 4, 8, 16, 32), "Ranks of the subspaces."),
        "alphas": (tuple[float, ...], (-1.0, 0.0, 1.0), "Strengths; few are enough, every part is swept at each."),
        "limit": (int, 128, "At most so many rows of each evaluation, in whole clusters."),
        "draws": (int, 10, "Random vectors behind each control of the whole vector."),
        "texts": (int, 16, "Neutral texts on which damage is read."),
        "resamples": (int, 2000, "Bootstrap resamples behind each interval."),
    },
)
