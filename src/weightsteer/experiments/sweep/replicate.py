"""The whole experiment: pairs → two branches → their difference → sweeps → samples → report, over seeds.

Everything is a chain of stages (`weightsteer.experiments.sweep.stages`): a finished stage is not made again, a changed
knob makes again exactly what depends on it, and an interrupted run goes on where it was.
"""

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from weightsteer.errors import WeightsteerError, same_name
from weightsteer.experiments.sweep import arms, matching, measures, stages
from weightsteer.experiments.sweep.config import RunConfig
from weightsteer.experiments.sweep.lab import BASELINES, Lab, Models
from weightsteer.experiments.sweep.legs import Leg, report
from weightsteer.runtime.store import Artifact, Store, Unmade, file_digest, fixed, safe_name, versions
from weightsteer.runtime.workers import work

__all__ = ["RunConfig", "difference", "joined_report", "labs", "measure", "pairs", "replicate", "train"]


class Share(NamedTuple):
    """One vector of a run: the name of its lab, which is behaviour and adapter family, and its seed."""

    vector: str
    seed: int


def labs(config: RunConfig, out: Path) -> list[Lab]:
    """One lab for each behaviour × adapter family of the configuration; they share the loaded models.

    Raises:
        WeightsteerError: unknown model or behaviour, two behaviours of one name, or ``out`` cannot be written.
    """
    models, store = Models(config), Store(out)
    found, leads = [], []
    for name in config.behavior:
        lead = Lab(config, models, store, name, config.adapter[0])
        leads.append(lead)
        found += [lead, *(Lab(config, models, store, name, each, lead=lead) for each in config.adapter[1:])]
    # as folders: two names that differ in signs alone would share them
    if same := same_name((lead.asked, safe_name(lead.behavior.name)) for lead in leads):
        raise WeightsteerError(
            "the behaviors {first} and {second} are both named {name!r}, and one would be lost: change `name:` in one "
            "of the files, or run them into different folders with --out.".format(**same)
        )
    return found


def baselines_of(every: Sequence[Lab]) -> list[Lab]:
    """For each behaviour of these labs, those of what its vectors are compared with; none unless it is asked for."""
    leads = {id(lab.lead): lab.lead for lab in every if lab.config.compare}
    return [
        Lab(lead.config, lead.models, lead.store, lead.asked, lead.adapter, baseline=kind, lead=lead)
        for lead in leads.values()
        for kind in BASELINES
    ]


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

    ``positive`` and ``negative``: two folders of the user's, PEFT adapters of any family or full checkpoints; the one
    vector is then made from them.
    """
    if positive is None and negative is None:
        asked = [(lab, seed) for lab in labs(config, out) for seed in lab.seeds]
        return [stages.vector(lab, *_branches(lab, stages.pairs(lab, seed), seed), seed) for lab, seed in asked]
    if positive is None or negative is None:
        raise WeightsteerError("a difference needs two branches: give both --positive and --negative.")
    return [stages.given_difference(labs(config, out)[0], positive, negative)]


def replicate(config: RunConfig, out: Path, *, vector: Path | None = None, workers: int = 1) -> Artifact:
    """Run all of it and return the report's artifact.

    Args:
        out: the output folder; finished stages found there are used.
        vector: measure this file instead of making a vector; the rest is as without it.
        workers: processes that share the vectors of the run; they change nothing but its duration.

    Raises:
        WeightsteerError: a mistake in the configuration or its files, a full disk, a folder that is not writable.
    """
    every = labs(config, out)
    beside = baselines_of(every)
    # before the training: a mistake in them should not cost minutes
    rows = {lab.name: _rows(lab) for lab in [*every, *beside]}
    if vector is None:
        legs = _legs([*every, *beside], rows, config, out, workers)
    else:
        legs = [_leg(lab, rows[lab.name], lab.seeds[0], vector) for lab in every]
        legs += _legs(beside, rows, config, out, workers) if beside else []
    homes = [[safe_name(lab.behavior.name) for lab in every], [safe_name(lab.adapter) for lab in every]]
    joined = ["+".join(dict.fromkeys(names)) for names in homes]
    home = Path(safe_name(every[0].identity.name), *joined)
    return report(legs, {name: each for found in rows.values() for name, each in found.items()}, config, home)


def calibrations(config: RunConfig, out: Path, *, vector: Path | None = None, baselines: bool = True) -> list[Artifact]:
    """The strengths of equal side effects of every vector, and of what it is compared with.

    ``vector``: calibrate this file instead of making vectors.
    """
    # without controls, which are not calibrated: they would be trained for nothing
    every = labs(config.model_copy(update={"compare": baselines, "control": False}), out)
    plan = [(lab, seed) for lab in every for seed in (lab.seeds if vector is None else lab.seeds[:1])]
    plan += [(lab, seed) for lab in baselines_of(every) for seed in lab.seeds]
    return [matching.calibrated(lab, _made(lab, seed, vector)[0], seed) for lab, seed in plan]


def measure(config: Any, out: Path, shares: Iterable[Sequence[Any]]) -> None:
    """Make and measure these vectors of the run, and no others: what one of several `weightsteer.runtime.workers`
    does."""
    every = labs(RunConfig.checked(config, "worker"), out)
    known = {lab.name: lab for lab in [*every, *baselines_of(every)]}
    for vector, seed in shares:
        _leg(known[vector], _rows(known[vector]), seed)


def joined_report(rows: Sequence[Path], out: Path, *, resamples: int = 10_000) -> Path:
    """One report over the rows of several runs: Parquet files as `weightsteer.sweep` returns them, or report folders.

    Raises:
        WeightsteerError: a file is missing or not what ``sweep`` returns.
    """
    import polars

    from weightsteer.experiments.sweep.page import write_report

    files = [path / "rows.parquet" if path.is_dir() else path for path in rows]
    if missing := [str(path) for path in files if not path.is_file()]:
        raise WeightsteerError(f"no rows at {', '.join(missing)}. `weightsteer replicate` leaves them in its report.")
    shown, files = files, [fixed(path) for path in files]
    try:
        tidy = polars.concat([polars.read_parquet(path) for path in files])
    except polars.exceptions.PolarsError as error:
        raise WeightsteerError(f"the rows do not fit together: {error}") from error
    run = {
        "versions": versions(),
        "rows": {str(path): file_digest(file) for path, file in zip(shown, files, strict=True)},
    }
    return write_report(out, tidy, run=run, resamples=resamples)


def _rows(lab: Lab) -> dict[str, Artifact]:
    """The rows of every evaluation of a lab, by its name."""
    if not lab.evals:
        raise WeightsteerError(
            f"the behaviour {lab.behavior.name!r} names no evaluations: add some to its file, or give --evals."
        )
    if lab.config.data and len(lab.evals) != 1:
        raise WeightsteerError(
            f"--data gives rows for one evaluation, but {', '.join(lab.evals)} are run: "
            f"name one with --evals, or write --evals {lab.evals[0]}=FILE."
        )
    return dict(stages.items(lab, asked) for asked in lab.evals)


def _legs(
    every: Sequence[Lab], rows: Mapping[str, dict[str, Artifact]], config: RunConfig, out: Path, workers: int
) -> list[Leg]:
    """All vectors of a run, measured: those of earlier runs first, the others by the workers or here."""
    plan = {Share(lab.name, seed): lab for lab in every for seed in lab.seeds}
    if len(plan) == 1 or (every[0].alone and workers == 1):
        return [_leg(lab, rows[lab.name], share.seed) for share, lab in plan.items()]
    known = {share: leg for share, lab in plan.items() if (leg := _finished(lab, rows[lab.name], share.seed))}
    for share in known:
        print(f"{share.vector}, seed {share.seed}: kept from before", file=sys.stderr)
    missing = [share for share in plan if share not in known]
    if workers > 1 and len(missing) > 1:
        # seeds vary fastest: workers begin with different pairs, and do not wait for each other's
        work(f"{__name__}:measure", config, out, missing, workers)
        made = {share: _finished(plan[share], rows[share.vector], share.seed) for share in missing}
        known |= {share: leg for share, leg in made.items() if leg}
    return [known.get(share) or _leg(lab, rows[lab.name], share.seed) for share, lab in plan.items()]


def _finished(lab: Lab, rows: Mapping[str, Artifact], seed: int) -> Leg | None:
    """The vector of this seed with all that was measured of it, or None when something of it is still to be made."""
    try:
        with lab.store.looking():
            return _leg(lab, rows, seed)
    except Unmade:
        return None


def _leg(lab: Lab, rows: Mapping[str, Artifact], seed: int, file: Path | None = None) -> Leg:
    """One seed of a lab, made and measured; ``file`` takes the place of the vector."""
    beside, made = _made(lab, seed, file)
    sweeps = {name: measures.swept(lab, beside, found, name, seed) for name, found in rows.items()}
    leg = Leg(lab, seed, sweeps, **made)
    if lab.config.compare:
        calibration = matching.calibrated(lab, beside, seed)
        strengths = matching.strengths(lab, beside, calibration, seed)
        at = {name: matching.matched(lab, beside, strengths, found, name, seed) for name, found in rows.items()}
        damage, capability = measures.damaged(lab, beside, seed), measures.capable(lab, beside, seed)
        leg = replace(leg, strengths=strengths, matched=at, damage=damage, capability=capability)
    return replace(leg, samples=stages.samples(lab, leg.vector, seed)) if leg.vector else leg


def _made(lab: Lab, seed: int, file: Path | None = None) -> tuple[arms.Arms, dict[str, Any]]:
    """The interventions of one seed of a lab, and what they were made from under the names of a `Leg`."""
    if lab.baseline == "prompt":
        return arms.of_prompts(lab), {}
    if file is not None and lab.baseline is None:
        vector = stages.given_vector(lab, file, seed)
        return arms.of_vector(lab, vector, seed, {}, {}), {"vector": vector}
    data = stages.pairs(lab, seed)
    if lab.baseline == "activation":
        return arms.of_activations(lab, arms.activations(lab, data, seed)), {"pairs": data}
    positive, negative = branches = _branches(lab, data, seed)
    vector = stages.vector(lab, positive, negative, seed)
    nuisances = arms.nuisances(lab.lead, data, seed) if lab.config.compare and lab.config.control else {}
    made = {"pairs": data, "branches": branches, "vector": vector, "nuisances": nuisances}
    return arms.of_vector(lab, vector, seed, {"positive": positive, "negative": negative}, nuisances), made


def _branches(lab: Lab, data: Artifact, seed: int) -> tuple[Artifact, Artifact]:
    return stages.branch(lab, data, "positive", seed), stages.branch(lab, data, "negative", seed)
