"""``weightsteer replicate``: everything for one adapter family."""

from pathlib import Path
from typing import TYPE_CHECKING

from weightsteer.cli.shown import show
from weightsteer.cli.verb import MEASURE, TRAIN, Verb

if TYPE_CHECKING:
    from weightsteer.experiments.sweep.config import RunConfig


def _replicate(config: "RunConfig", out: Path) -> None:
    from weightsteer.experiments.sweep.replicate import replicate

    report = replicate(config, out)
    show(report.path, report.place)


VERB = Verb(
    "all of it: pairs, training, difference, sweep, report",
    "weightsteer replicate --model pocket --behavior honesty --seeds 0 1 2",
    _replicate,
    (*TRAIN, *MEASURE),
)
