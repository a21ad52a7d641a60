"""Numbers as they are written for reading."""

from collections.abc import Mapping, Sequence
from typing import Any


def number(value: float | None, digits: int = 2) -> str:
    """A signed number with a true minus sign; ``–`` for what does not apply."""
    if value is None:
        return "–"
    if value != value:
        return "NaN"
    text = f"{value:+.{digits}f}"
    return (text[1:] if float(text) == 0 else text).replace("-", "−")


def signed(alpha: float) -> str:
    """A strength: ``+1``, ``−0.5``, ``0``."""
    return f"{alpha:+g}".replace("-", "−") if alpha else "0"


def estimate(line: Mapping[str, Any], name: str) -> str:
    """``+3.12 [2.70, 3.44]``: an effect with its 95% interval, when there is one; one digit less from ten on."""
    value, low, high = line[name], line[f"{name}_low"], line[f"{name}_high"]
    ends = [end for end in (low, high) if end is not None and end == end]
    digits = 1 if any(abs(each) >= 10 for each in (value or 0.0, *ends)) else 2
    text = number(value, digits)
    if len(ends) < 2:
        return text
    low, high = (number(end, digits).removeprefix("+") for end in ends)
    return f"{text} [{low}, {high}]"


def share(line: Mapping[str, Any], name: str) -> str:
    """``0.41 [0.38, 0.44]``: like ``estimate`` without signs, and without an interval that rounds to its point."""
    text = estimate(line, name).removeprefix("+")
    point, _, interval = text.partition(" ")
    return point if interval == f"[{point}, {point}]" else text


def listed(names: Sequence[str]) -> str:
    """``a, b and c``."""
    return ", ".join(names[:-1]) + " and " + names[-1] if len(names) > 1 else "".join(names)
