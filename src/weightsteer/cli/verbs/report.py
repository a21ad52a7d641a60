"""``weightsteer report``: joined reports."""

from pathlib import Path

from weightsteer.cli.shown import show
from weightsteer.cli.verb import Verb


def _report(rows: tuple[Path, ...], out: Path, resamples: int) -> None:
    from weightsteer.experiments.sweep.replicate import joined_report

    show(joined_report(rows, out, resamples=resamples).parent)


VERB = Verb(
    "one report over the rows of several runs",
    "weightsteer report --rows out/pocket/honesty/lora/report mine.parquet --out joined",
    _report,
    (),
    {
        "rows": (tuple[Path, ...], ..., "Report folders, or Parquet files of rows."),
        "out": (Path, Path("report"), "Folder to write."),
        "resamples": (int, 10_000, "Bootstrap resamples behind each interval."),
    },
)
