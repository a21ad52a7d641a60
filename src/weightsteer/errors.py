"""The one exception a user should ever see."""

from collections.abc import Iterable, Mapping
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


def same_name(given: Iterable[tuple[str, str]]) -> Mapping[str, str] | None:
    """The first two inputs that would go by one name, which is how one of them gets lost; None when all differ.

    ``given``: each input as it was given, with its name. The result formats a message: ``first``, ``second``, ``name``.

    >>> same_name([("a/rows.jsonl", "rows"), ("b/rows.jsonl", "rows")])
    {'first': 'a/rows.jsonl', 'second': 'b/rows.jsonl', 'name': 'rows'}
    """
    seen: dict[str, str] = {}
    for one, name in given:
        if name in seen:
            return {"first": seen[name], "second": one, "name": name}
        seen[name] = one
    return None
