"""``weightsteer sweep``: the comparison."""

from pathlib import Path
from typing import TYPE_CHECKING

from weightsteer.cli.shown import show
from weightsteer.cli.verb import MEASURE, TRAIN, Verb

if TYPE_CHECKING:
    from weightsteer.experiments.sweep.config import RunConfig


def _sweep(config: "RunConfig", out: Path, workers: int | None) -> None:
    from weightsteer.experiments.sweep.replicate import replicate

    report = replicate(config, out, workers=workers)
    show(report.path, report.place)


VERB = Verb(
    "behaviours × adapter families × seeds against activation vectors, prompts and controls, in one report",
    "weightsteer sweep --behavior honesty --adapters all --seeds 0 1 2",
    _sweep,
    (*TRAIN, *MEASURE),
    {"workers": (int | None, None, "Processes at work; one per core on an embedded model, else one.")},
    {"compare": True},
)
