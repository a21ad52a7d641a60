"""The whole experiment: pairs → two branches → their difference → sweeps → samples → report, over seeds.

Everything is a chain of stages (`weightsteer.stages`): a finished stage is not made again, a changed knob makes again
exactly what depends on it, and an interrupted run goes on where it was.
"""

from collections.abc import Sequence
from pathlib import Path

from weightsteer import stages
from weightsteer.config import RunConfig
from weightsteer.errors import WeightsteerError
from weightsteer.lab import Lab, Models
from weightsteer.stages import Leg
from weightsteer.store import Artifact, Store, file_digest, safe_name, versions

__all__ = ["RunConfig", "difference", "joined_report", "labs", "pairs", "replicate", "train"]


def labs(config: RunConfig, out: Path) -> list[Lab]:
    """One lab for each behaviour × adapter family of the configuration; they share the loaded models.

    Raises:
        WeightsteerError: unknown model or behaviour, or ``out`` cannot be written.
    """
    models, store = Models(config), Store(out)
    return [Lab(config, models, store, name, adapter) for name in config.behavior for adapter in config.adapter]


def pairs(config: RunConfig, out: Path) -> list[Artifact]:
    """The contrastive pairs of every behaviour and seed, made here whatever file the configuration names."""
    own = config.model_copy(update={"pairs": None})
    return [stages.pairs(lab, seed) for lab in labs(own, out) for seed in lab.seeds]


def train(config: RunConfig, out: Path) -> list[tuple[Artifact, Artifact]]:
    """Both branches of every behaviour, adapter family and seed: (positive, negative)."""
    return [_branches(lab, stages.pairs(lab, seed), seed) for lab in labs(config, out) for seed in lab.seeds]


def difference(
    config: RunConfig, out: Path, *, positive: Path | None = None, negative: Path | None = None
) -> list[Artifact]:
    """The weight vector of every behaviour, adapter family and seed.

    ``positive`` and ``negative``: two PEFT folders of the user's; the one vector is then made from them.
    """
    if positive is None and negative is None:
        return [_vector(lab, seed)[1] for lab in labs(config, out) for seed in lab.seeds]
    if positive is None or negative is None:
        raise WeightsteerError("a difference needs two branches: give both --positive and --negative.")
    lab = labs(config, out)[0]
    seed = lab.seeds[0]
    plus = stages.given_branch(lab, positive, "positive", seed)
    minus = stages.given_branch(lab, negative, "negative", seed)
    return [stages.vector(lab, plus, minus, seed)]


def replicate(config: RunConfig, out: Path, *, vector: Path | None = None) -> Artifact:
    """Run all of it and return the report's artifact.

    Args:
        out: the output folder; finished stages found there are used.
        vector: measure this file instead of making a vector; the rest is as without it.

    Raises:
        WeightsteerError: a mistake in the configuration or its files, a full disk, a folder that is not writable.
    """
    legs: list[Leg] = []
    rows: dict[str, Artifact] = {}
    for lab in labs(config, out):
        if not lab.evals:
            raise WeightsteerError(
                f"the behaviour {lab.behavior.name!r} names no evaluations: add some to its file, or give --evals."
            )
        if lab.config.data and len(lab.evals) != 1:
            raise WeightsteerError(
                f"--data gives rows for one evaluation, but {', '.join(lab.evals)} are run: "
                f"name one with --evals, or write --evals {lab.evals[0]}=FILE."
            )
        # Before the training: a mistake in the rows should not cost minutes.
        found = dict(stages.items(lab, asked) for asked in lab.evals)
        rows |= found
        legs += [_leg(lab, found, seed, vector) for seed in (lab.seeds if vector is None else lab.seeds[:1])]
    homes = [[safe_name(leg.lab.behavior.name) for leg in legs], [safe_name(leg.lab.adapter) for leg in legs]]
    joined = ["+".join(dict.fromkeys(names)) for names in homes]
    home = Path(safe_name(legs[0].lab.identity.name), *joined)
    return stages.report(legs, rows, config, home)


def joined_report(rows: Sequence[Path], out: Path, *, resamples: int = 10_000) -> Path:
    """One report over the rows of several runs: Parquet files as `weightsteer.sweep` returns them, or report folders.

    Raises:
        WeightsteerError: a file is missing or not what ``sweep`` returns.
    """
    import polars

    from weightsteer.report import write_report

    files = [path / "rows.parquet" if path.is_dir() else path for path in rows]
    if missing := [str(path) for path in files if not path.is_file()]:
        raise WeightsteerError(f"no rows at {', '.join(missing)}. `weightsteer replicate` leaves them in its report.")
    try:
        tidy = polars.concat([polars.read_parquet(path) for path in files])
    except polars.exceptions.PolarsError as error:
        raise WeightsteerError(f"the rows do not fit together: {error}") from error
    run = {"versions": versions(), "rows": {str(path): file_digest(path) for path in files}}
    return write_report(out, tidy, run=run, resamples=resamples)


def _leg(lab: Lab, rows: dict[str, Artifact], seed: int, given: Path | None) -> Leg:
    if given is None:
        data, vector = _vector(lab, seed)
    else:
        data, vector = None, stages.given_vector(lab, given, seed)
    sweeps = {name: stages.swept(lab, vector, found, name, seed) for name, found in rows.items()}
    return Leg(lab, seed, data, vector, sweeps, stages.samples(lab, vector, seed))


def _vector(lab: Lab, seed: int) -> tuple[Artifact, Artifact]:
    data = stages.pairs(lab, seed)
    return data, stages.vector(lab, *_branches(lab, data, seed), seed)


def _branches(lab: Lab, data: Artifact, seed: int) -> tuple[Artifact, Artifact]:
    return stages.branch(lab, data, "positive", seed), stages.branch(lab, data, "negative", seed)
