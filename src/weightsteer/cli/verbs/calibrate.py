"""``weightsteer calibrate``: strengths of equal side effects."""

from pathlib import Path
from typing import TYPE_CHECKING

from weightsteer.cli.verb import TRAIN, Verb

if TYPE_CHECKING:
    from weightsteer.experiments.sweep.config import RunConfig


def _calibrate(config: "RunConfig", out: Path, vector: Path | None, baselines: bool) -> None:
    import polars
    from rich.console import Console

    from weightsteer.experiments.sweep.page.strengths import calibration_table
    from weightsteer.experiments.sweep.replicate import calibrations

    found = calibrations(config, out, vector=vector, baselines=baselines)
    table = polars.concat([polars.read_parquet(each.path / "calibration.parquet") for each in found])
    Console(width=None if Console().is_terminal else 120).print(calibration_table(table))
    for each in found:
        print(each.place / "calibration.parquet")


VERB = Verb(
    "the strengths at which vectors, activation vectors and prompts have equal side effects",
    "weightsteer calibrate --behavior honesty --seed 0 --budget 0.5",
    _calibrate,
    (*TRAIN, "calibration"),
    {
        "vector": (Path | None, None, "Vector to calibrate; made from the other flags when not given."),
        "baselines": (bool, True, "Also activation vectors and prompts."),
    },
)
