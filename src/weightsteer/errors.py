"""The one exception a user should ever see."""

from collections.abc import Iterable
from difflib import get_close_matches


class WeightsteerError(Exception):
    """A mistake in the input, or a machine that cannot go on.

    The message names the cause and the next step. The command line prints it without a traceback and exits with 2.
    """


def unknown(kind: str, name: str, options: Iterable[str]) -> WeightsteerError:
    """The error for a name nobody knows: suggests the nearest one and lists the rest.

    >>> print(unknown("adapter", "lroa", ["lora", "dora"]))
    unknown adapter 'lroa'; did you mean 'lora'? Known: dora, lora
    """
    known = sorted(options)
    close = get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"; did you mean {close[0]!r}?" if close else "."
    return WeightsteerError(f"unknown {kind} {name!r}{hint} Known: {', '.join(known) or 'none'}")
