"""How the metadata of several artifacts become those of one, and how a base model is called in a message."""

from collections.abc import Iterable, Mapping
from typing import Any


def common(values: Iterable[str]) -> str:
    """The one value, or all distinct ones joined.

    >>> common(["honesty", "honesty"]), common(["honesty", "candour"])
    ('honesty', 'candour + honesty')
    """
    return " + ".join(sorted({part for value in values for part in value.split(" + ")}))


def described(base: Mapping[str, Any]) -> str:
    """A base model for a message: its name and the beginning of its weight hash."""
    return f"{base.get('name') or 'an unnamed model'} (weights {str(base.get('hash') or 'unknown')[:12]})"
