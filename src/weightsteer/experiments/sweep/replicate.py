"""What the command line asks of a sweep: all of it, or the artifacts of some of its stages."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from weightsteer.errors import WeightsteerError
from weightsteer.experiments.stages.vector import VectorOfFolders
from weightsteer.experiments.sweep.config import RunConfig
from weightsteer.experiments.sweep.experiment import SweepExperiment
from weightsteer.files import file_digest, fixed, printable, safe_name
from weightsteer.runtime import Artifact, Runner, Stage, Step, Store, Unit, make_unit, processes, run
from weightsteer.versions import versions

__all__ = ["RunConfig", "calibrations", "difference", "joined_report", "nulls", "pairs", "replicate", "train"]


def replicate(config: RunConfig, out: Path, *, vector: Path | None = None, workers: int | None = 1) -> Artifact:
    """Make the whole sweep and return the artifact of its report.

    Args:
        out: the output folder; finished stages found there are used.
        vector: measure this file instead of making vectors; its report lies beside those of its own family, under a
            name of its own.
        workers: processes that share the vectors of the run, which change nothing but its duration; None: one per core
            on an embedded model, else one.

    Raises:
        WeightsteerError: a mistake in the configuration or its files, a full disk, a folder that is not writable.
    """
    experiment = SweepExperiment(config, vector)
    return run(experiment, out, processes(workers, embedded=experiment.model.embedded))


def pairs(config: RunConfig, out: Path) -> list[Artifact]:
    """The contrastive pairs of every behaviour and seed, generated here whatever file the configuration names."""
    experiment = SweepExperiment(config.model_copy(update={"pairs": None, "adapter": config.adapter[:1]}))
    units = []
    for family in experiment.families:
        for seed in experiment.seeds:
            step = experiment.step(experiment.pairs(family.behavior, seed), family, seed, "pairs")
            units.append((experiment.unit_name(family, seed), [step]))
    return [found[-1] for found in _made(experiment, units, out)]


def train(config: RunConfig, out: Path) -> list[tuple[Artifact, Artifact]]:
    """Both branches of every behaviour, adapter family and seed: (positive, negative)."""
    experiment = _alone(config)
    return [(found[1], found[2]) for found in _made(experiment, _training(experiment), out)]


def difference(
    config: RunConfig, out: Path, *, positive: Path | None = None, negative: Path | None = None
) -> list[Artifact]:
    """The weight vector of every behaviour, adapter family and seed.

    Args:
        positive: with ``negative``, a folder of the user's: a PEFT adapter of any family, or a full checkpoint. The one
            vector is then made from the two.

    Raises:
        WeightsteerError: only one of the two is given, or one is neither an adapter nor a checkpoint.
    """
    experiment = _alone(config)
    if positive is None and negative is None:
        return [found[-1] for found in _made(experiment, _training(experiment, vector=True), out)]
    if positive is None or negative is None:
        raise WeightsteerError("a difference needs two branches: give both --positive and --negative.")
    stage = VectorOfFolders.of(experiment.model, positive, negative)
    place = experiment.folder / "given" / safe_name(f"{positive.name}-{negative.name}") / "vector"
    return make_unit(Runner(Store(out)), Unit("all seeds", (Step(stage, place),), detailed=True))


def calibrations(config: RunConfig, out: Path, *, vector: Path | None = None, baselines: bool = True) -> list[Artifact]:
    """The strengths of equal side effects of every vector, and of what it is compared with.

    Args:
        vector: calibrate this file instead of making vectors.
        baselines: also activation vectors and prompts.
    """
    # without controls, which are not calibrated: they would be trained for nothing
    experiment = SweepExperiment(config.model_copy(update={"compare": baselines, "control": False}), vector)
    units = []
    for family in [*experiment.families, *experiment.baselines]:
        for seed in experiment.seeds_of(family):
            wanted = experiment.step(experiment.calibration(family, seed), family, seed, "calibration")
            units.append((experiment.unit_name(family, seed), [*experiment.making(family, seed)[1], wanted]))
    return [found[-1] for found in _made(experiment, units, out)]


def nulls(config: RunConfig, out: Path, *, vector: Path | None = None) -> list[Artifact]:
    """The null of random directions, slopes and attribution of all vectors, for each behaviour and evaluation.

    Args:
        vector: of this file instead of vectors that the run makes.
    """
    experiment = SweepExperiment(config.model_copy(update={"compare": False, "control": False}), vector)
    units = [("all seeds", list(experiment.first().steps))]
    for family in experiment.families:
        for seed in experiment.seeds_of(family):
            units.append((experiment.unit_name(family, seed), experiment.making(family, seed)[1]))
    steps = experiment.nulls()
    return _made(experiment, [*units, ("all seeds", steps)], out)[-1]


def joined_report(rows: Sequence[Path], out: Path, *, resamples: int = 10_000) -> Path:
    """One report over the rows of several runs: Parquet files as `weightsteer.sweep` returns them, or report folders,
    whose null of random directions counts too.

    Raises:
        WeightsteerError: a file is missing or not what ``sweep`` returns.
    """
    import polars

    from weightsteer.experiments.sweep.page import write_report
    from weightsteer.stats.null import SCHEMA

    files = [path / "rows.parquet" if path.is_dir() else path for path in rows]
    if missing := [str(path) for path in files if not path.is_file()]:
        raise WeightsteerError(f"no rows at {', '.join(missing)}. `weightsteer replicate` leaves them in its report.")
    shown, files = files, [fixed(path) for path in files]
    try:
        joined = polars.concat([polars.read_parquet(path) for path in files])
    except polars.exceptions.PolarsError as error:
        raise WeightsteerError(f"the rows do not fit together: {error}") from error
    # names in files from elsewhere are data, which a terminal and a chart must not obey
    named = [name for name in _NAMES if joined.schema.get(name) == polars.String]
    shown_names = {each: printable(each) for name in named for each in joined[name].drop_nulls().unique()}
    joined = joined.with_columns(polars.col(named).replace(shown_names)) if shown_names else joined
    nulls = [path / "null.csv" for path in rows if (path / "null.csv").is_file()]
    null = polars.concat([polars.read_csv(path, schema=SCHEMA) for path in nulls]) if nulls else None
    record = {
        "versions": versions(),
        "rows": {str(path): file_digest(file) for path, file in zip(shown, files, strict=True)},
    }
    return write_report(out, joined, run=record, null=null, resamples=resamples)


_NAMES = ("model", "behavior", "method", "adapter", "eval", "control", "control_of")


def _alone(config: RunConfig) -> SweepExperiment:
    """The vectors of a configuration, without what they are compared with."""
    return SweepExperiment(config.model_copy(update={"compare": False}))


def _training(experiment: SweepExperiment, *, vector: bool = False) -> Iterable[tuple[str, list[Step]]]:
    """For every family and seed the steps of its pairs and branches, and of its vector."""
    for family in experiment.families:
        for seed in experiment.seeds:
            stages: dict[str, Stage] = {"pairs": experiment.pairs(family.behavior, seed)}
            stages |= dict(experiment.branches(family, seed).items())
            if vector:
                stages["vector"] = experiment.vector(family, seed)
            steps = [experiment.step(stage, family, seed, name) for name, stage in stages.items()]
            yield experiment.unit_name(family, seed), steps


def _made(experiment: SweepExperiment, units: Iterable[tuple[str, Sequence[Step]]], out: Path) -> list[list[Artifact]]:
    """The artifacts of every unit of steps, made in this process."""
    runner, units = Runner(Store(out)), list(units)
    if not all(runner.find(step.stage) for _, steps in units for step in steps):
        experiment.check()
    return [make_unit(runner, Unit(name, tuple(steps), experiment.detailed)) for name, steps in units]
