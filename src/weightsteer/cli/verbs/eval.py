"""``weightsteer eval``: one vector, measured."""

from pathlib import Path
from typing import TYPE_CHECKING

from weightsteer.cli.shown import show
from weightsteer.cli.verb import MEASURE, TRAIN, Verb

if TYPE_CHECKING:
    from weightsteer.experiments.sweep.config import RunConfig


def _eval(config: "RunConfig", out: Path, vector: Path | None) -> None:
    from weightsteer.experiments.sweep.replicate import replicate

    report = replicate(config, out, vector=vector)
    show(report.path, report.place)


VERB = Verb(
    "measure a vector on held-out rows at several strengths",
    "weightsteer eval --vector vector.safetensors --evals dilemmas --alphas -1 0 1",
    _eval,
    (*TRAIN, *MEASURE),
    {"vector": (Path | None, None, "Vector to measure; made from the other flags when not given.")},
)
