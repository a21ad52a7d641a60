"""What a run prints at its end: the table, and where the report lies."""

from pathlib import Path


def show(folder: Path, place: Path | None = None) -> None:
    """The summary of a report folder as a table, and the path of the page.

    Args:
        folder: the report itself: a link to it may lead to the report of another run by now.
        place: where people find it, when that is another path.
    """
    import polars
    from rich.console import Console

    from weightsteer.audit import headline_strengths
    from weightsteer.report import summary_table

    console = Console()
    if not console.is_terminal:  # a file or a pipe has no width of its own
        console = Console(width=100)
    summary = polars.read_csv(folder / "summary.csv", infer_schema_length=None)
    vectors = summary.filter(polars.col("method") != "control")
    several = vectors["adapter"].n_unique() > 1
    if several:  # to be compared at a glance; the rest is in the report
        summary = vectors.filter(polars.col("alpha").is_in(headline_strengths(summary)))
    console.print(summary_table(summary))
    if several:
        print("All strengths, the controls, and the sizes of the vectors beside their effects:")
    print((place or folder) / "report.html")
