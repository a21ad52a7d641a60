"""The whole lab: data → branches → curves, comparison, signals → report, over arms, seeds and sizes.

A chain of stages in a common store: what is finished is not made again, and an interrupted run goes on where it was.
"""

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from weightsteer.errors import WeightsteerError, same_name
from weightsteer.experiments.gaming import reporting, stages
from weightsteer.experiments.gaming.bench import Bench
from weightsteer.experiments.gaming.config import GamingConfig
from weightsteer.experiments.gaming.legs import Leg
from weightsteer.experiments.gaming.protocol import Cell
from weightsteer.runtime.store import Artifact, Store, Unmade
from weightsteer.runtime.workers import work


class Share(NamedTuple):
    """One arm of one seed on one model: what a worker makes without the others."""

    model: str
    seed: int
    cell: Cell
    detector: bool
    """trained and audited only, to have more runs for the detector"""


def gaming(config: GamingConfig, out: Path, *, workers: int = 1) -> Artifact:
    """Run all of it and return the report's artifact.

    Args:
        out: the output folder; finished stages found there are used.
        workers: processes that share the arms and seeds; they change nothing but the duration.

    Raises:
        WeightsteerError: a mistake in the configuration, a full disk, a folder that is not writable.
    """
    store = Store(out)
    benches = {name: Bench(config, store, name) for name in config.models}
    if same := same_name((asked, bench.identity.name) for asked, bench in benches.items()):
        raise WeightsteerError(
            "the models {first} and {second} of the ladder are both named {name!r}, and one would be lost: rename one "
            "of the folders.".format(**same)
        )
    for bench in benches.values():
        _ = bench.recipe  # a mistake in it should not cost minutes
    every = shares(config)
    missing = [share for share in every if finished(benches[share.model], share) is None]
    if len(missing) < len(every):
        print(f"{len(every) - len(missing)} of {len(every)} arms kept from before", file=sys.stderr)
    if workers > 1 and len(missing) > 1:
        for model, seed in sorted({(share.model, share.seed) for share in missing}):
            stages.data(benches[model], seed)  # here and once: workers would wait for each other
        work(f"{__name__}:measure", config, out, missing, workers)
    return reporting.report(config, list(benches.values()), [make(benches[share.model], share) for share in every])


def shares(config: GamingConfig) -> list[Share]:
    """All arms of all seeds, the smallest model first; the further runs for the detector on the first model alone."""
    every = [
        Share(model, seed, cell, False) for model in config.models for seed in config.seeds for cell in config.cells
    ]
    further = range(max(config.seeds) + 1, max(config.seeds) + 1 + config.detector)
    wanted = [cell for cell in config.cells if cell.setting != "told-other"]
    return every + [Share(config.models[0], seed, cell, True) for seed in further for cell in wanted]


def make(bench: Bench, share: Share) -> Leg:
    """Train and probe one arm of one seed."""
    seed, cell = share.seed, share.cell
    answers = stages.data(bench, seed)
    trained = stages.branches(bench, answers, cell, seed)
    audited = stages.signals(bench, trained, cell, seed)
    if share.detector:
        return Leg(bench, seed, cell, trained, audited)
    curve = stages.curve(bench, trained, cell, seed)
    compared = None
    if bench.config.comparison and cell.setting != "told-other":
        compared = stages.comparison(bench, answers, trained, cell, seed)
    return Leg(bench, seed, cell, trained, audited, curve, compared)


def finished(bench: Bench, share: Share) -> Leg | None:
    """The share when nothing of it is still to be made, else None."""
    try:
        with bench.store.looking():
            return make(bench, share)
    except Unmade:
        return None


def measure(config: Any, out: Path, shares: Iterable[Sequence[Any]]) -> None:
    """Make these shares and no others: what one of several `weightsteer.runtime.workers` does."""
    known, store = GamingConfig.checked(config), Store(out)
    benches: dict[str, Bench] = {}
    for model, seed, cell, detector in shares:
        bench = benches.setdefault(model, Bench(known, store, model))
        make(bench, Share(model, seed, Cell(*cell), detector))
