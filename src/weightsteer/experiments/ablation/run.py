"""From a configuration to the page: the vectors, their bases, the plans, and one table over all of them."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from weightsteer.errors import WeightsteerError, same_name
from weightsteer.experiments.ablation.stages import Bench, Options, alignment, measured, other_vector, page
from weightsteer.experiments.sweep import stages
from weightsteer.experiments.sweep.config import RunConfig
from weightsteer.experiments.sweep.lab import Lab
from weightsteer.experiments.sweep.replicate import labs
from weightsteer.runtime.store import Artifact, file_digest, safe_name, versions

BASES = ("activation-pca", "activation-pca@input", "activation-pca@both", "persona-contrast", "residual-write")
"""What is projected on when no bases are named."""

ALIGNED = (
    *("activation-pca@both", "activation-pca-block", "persona-contrast@both", "task-difference@both"),
    *("residual-write", "residual-read@input", "readout", "readout-weak", "weights-top@both", "weights-weak@both"),
    *("suppressed", "amplified", "write-not-read"),
)
"""What alignment is told for when no bases are named."""


def ablate(
    config: RunConfig,
    out: Path,
    options: Options,
    plans: Sequence[str],
    *,
    vector: Path | None = None,
    others: Sequence[Path] = (),
) -> Artifact:
    """Measure the plans for every vector of the configuration, or for one of a file, and write the page.

    Args:
        plans: names of plans, or ``all``.
        vector: a file to take apart instead of the vectors that the configuration makes.
        others: files of vectors to be compared with, for the plan ``shared``.

    Raises:
        WeightsteerError: an unknown plan, a mistake in the configuration or its files.
    """
    every = labs(_single(config), out)
    wanted = _plans(plans)
    benches = _benches(every, _needs_pairs(options.bases) if {"projection"} & set(wanted) else False, vector, others)
    several = any(bench.others for bench in benches)
    if "shared" in wanted and not several:
        if "all" not in plans:
            raise WeightsteerError(
                "the plan shared compares vectors of one base, and there is only one: give others with --others "
                "FILE.safetensors, or run several seeds or adapter families."
            )
        wanted.remove("shared")
        every[0].tell(f"{'':<10} plan shared left out: there is one vector, and it shares with others")
    found: dict[str, list[Artifact]] = {}
    for bench in benches:
        made = [measured(bench, plan, options) for plan in ("whole", *wanted)]
        found.setdefault(bench.lab.name, []).extend(made)
    return _page(every, benches, found, {}, config, options, f"where-{'-'.join(plans)}")


def subspace(
    config: RunConfig, out: Path, options: Options, *, vector: Path | None = None, others: Sequence[Path] = ()
) -> Artifact:
    """The alignment of every vector with the bases, on a page.

    Raises:
        WeightsteerError: an unknown basis, a mistake in the configuration or its files.
    """
    every = labs(_single(config), out)
    benches = _benches(every, _needs_pairs(options.bases), vector, others)
    found: dict[str, list[Artifact]] = {}
    for bench in benches:
        found.setdefault(bench.lab.name, []).append(alignment(bench, options))
    return _page(every, benches, {}, found, config, options, "subspace")


def _single(config: RunConfig) -> RunConfig:
    """Without the arms of a comparison: only vectors are taken apart."""
    return config.model_copy(update={"compare": False})


def _plans(plans: Sequence[str]) -> list[str]:
    from weightsteer.analysis.plans import get, names

    if "all" in plans:
        return names()
    for name in plans:
        get(name)
    return list(dict.fromkeys(plans))


def _needs_pairs(names: Sequence[str]) -> bool:
    from weightsteer.analysis.bases import kinds

    known = kinds()
    single = [one.strip() for name in names for one in name.partition("@")[0].split("&")]
    return any("pairs" in known[name].needs for name in single if name in known)


def _benches(every: Sequence[Lab], needs_pairs: bool, vector: Path | None, others: Sequence[Path]) -> list[Bench]:
    if vector is not None and len(every) > 1:
        raise WeightsteerError("one vector is of one behaviour and one adapter family: name one of each.")
    if same := same_name((str(path), path.stem) for path in others):
        raise WeightsteerError(
            "--others: {first} and {second} would both be compared as {name!r}, and one would be lost: give each once, "
            "in a file that has a name of its own.".format(**same)
        )
    rows = {lab.name: dict(stages.items(lab, asked) for asked in lab.evals[: _most(lab)]) for lab in every}
    made: list[tuple[Lab, int, Artifact]] = []
    for lab in every:
        if vector is not None:
            made.append((lab, lab.seeds[0], stages.given_vector(lab, vector, lab.seeds[0])))
            continue
        for seed in lab.seeds:
            data = stages.pairs(lab, seed)
            positive, negative = (stages.branch(lab, data, side, seed) for side in ("positive", "negative"))
            made.append((lab, seed, stages.vector(lab, positive, negative, seed)))
    given = {path.stem: other_vector(every[0], path) for path in others}
    benches = []
    for lab, seed, artifact in made:
        beside = {
            f"{other.adapter}, seed {its}": its_vector
            for other, its, its_vector in made
            if other.behavior.name == lab.behavior.name and its_vector.digest != artifact.digest
        }
        pairs = stages.pairs(lab, seed) if needs_pairs else None
        benches.append(Bench(lab, seed, artifact, pairs, rows[lab.name], beside | given))
    return benches


def _most(lab: Lab) -> int | None:
    """The first evaluation of a behaviour is its own axis; others are measured when they are asked for."""
    return None if lab.config.evals else 1


def _page(
    every: Sequence[Lab],
    benches: Sequence[Bench],
    measurements: dict[str, list[Artifact]],
    alignments: dict[str, list[Artifact]],
    config: RunConfig,
    options: Options,
    name: str,
) -> Artifact:
    first = every[0]
    run: dict[str, Any] = {
        "config": config.model_copy(update={"seeds": first.seeds}).model_dump(mode="json"),
        "options": asdict(options),
        "versions": versions(),
        "model": asdict(first.identity),
        "behaviors": {lab.behavior.name: lab.behavior.digest for lab in every},
        "vectors": [
            {
                "behavior": bench.lab.behavior.name,
                "adapter": bench.lab.adapter,
                "seed": bench.seed,
                "vector": bench.vector.digest,
                "file": file_digest(bench.vector.path / "vector.safetensors"),
            }
            for bench in benches
        ],
    }
    joined = [
        "+".join(dict.fromkeys(safe_name(part) for part in parts))
        for parts in ([lab.behavior.name for lab in every], [lab.adapter for lab in every])
    ]
    home = Path(safe_name(first.identity.name), *joined, safe_name(name))
    return page(first, measurements, alignments, run, config.resamples, home)
