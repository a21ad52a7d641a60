"""What commands print: tables that fit a terminal or a file, and the path of the report of a run."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from weightsteer.files import printable

if TYPE_CHECKING:
    import polars

    from weightsteer.runtime.store import Stored


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]], numbers: Sequence[str] = ()) -> None:
    """Print a table; the columns named in ``numbers`` are aligned to the right."""
    from weightsteer.report import console

    console.terminal().print(console.table(columns, rows, numbers=numbers, title=title))


def say(content: object) -> None:
    """Print a text that may hold names or answers of others, line by line."""
    print(printable(str(content), lines=True))


def report(folder: Path, place: Path | None = None) -> None:
    """The summary of a report as a table, and the path of its page.

    Args:
        folder: the report itself: a link to it may lead to the report of another run by now.
        place: where people find it, when that is another path.
    """
    import polars

    from weightsteer.report.console import summary_table, terminal
    from weightsteer.stats import headline_strengths

    summary = polars.read_csv(folder / "summary.csv", infer_schema_length=None)
    vectors = summary.filter(polars.col("method") != "control")
    several = vectors["adapter"].n_unique() > 1
    if several:  # a short table; the rest is in the report
        summary = vectors.filter(polars.col("alpha").is_in(headline_strengths(summary["alpha"])))
    terminal().print(summary_table(summary))
    _published(folder, summary)
    if several:
        print("All strengths, the controls, and the norms of the vectors next to their effects:")
    say((place or folder) / "report.html")


def _published(folder: Path, summary: "polars.DataFrame") -> None:
    """What published tables print besides: sets of one label, the four cues, and how large the sets are."""
    import json

    import polars

    from weightsteer.report import published
    from weightsteer.report.console import terminal

    if shifts := published.shift_table(summary):
        terminal().print(shifts)
    if (cues := folder / "cues.csv").is_file():
        terminal().print(published.cue_table(polars.read_csv(cues, infer_schema_length=None)))
    for line in published.sizes(json.loads((folder / "run.json").read_text(encoding="utf-8"))):
        print(line)


def size(count: int) -> str:
    """A number of bytes for reading."""
    from rich.filesize import decimal

    return decimal(count)


def stored(entries: Sequence["Stored"], title: str) -> None:
    """Artifacts with their size and what they were made from, and what they take up together."""
    if entries:
        rows = [
            (one.stage, one.state, size(one.bytes), one.made_from, str((one.links or (one.path,))[0]))
            for one in entries
        ]
        table(title, ("stage", "state", "size", "made from", "path"), rows, numbers=("size",))
    count = f"{len(entries)} artifact{'' if len(entries) == 1 else 's'}"
    print(f"{title}: {count}, {size(sum(one.bytes for one in entries))}")
