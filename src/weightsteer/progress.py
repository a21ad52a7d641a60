"""Progress with an estimated time of arrival, on standard error, so that piped output stays clean."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from weightsteer.files import printable

# One display at a time: rich refuses nested live displays, and an inner bar inside an outer one only confuses.
_active = False


def silence() -> None:
    """Show no bar in this process from now on."""
    global _active
    _active = True


@contextmanager
def progress(description: str, total: int, *, shown: bool = True) -> Iterator[Callable[[int], None]]:
    """Show a bar while the body runs; yields ``advance(n)``. Nested and hidden bars cost nothing."""
    global _active
    if not shown or _active or total <= 0:
        yield lambda n: None
        return
    columns = (
        TextColumn("{task.description:<28}", markup=False),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("eta"),
        TimeRemainingColumn(),
    )
    _active = True
    try:
        with Progress(*columns, console=Console(stderr=True)) as bar:
            task = bar.add_task(printable(description), total=total)
            yield lambda n: bar.advance(task, n)
    finally:
        _active = False
