"""What a verb is, and the knobs of a run that verbs share."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

DATA = ("model", "behavior", "seeds", "generator", "device", "dtype", "generation")
TRAIN = (*DATA, "adapter", "pairs", "training")
MEASURE = (
    *("alphas", "evals", "data", "limit", "control", "compare", "draws", "calibration", "prompts", "answer_tokens"),
    "resamples",
)


@dataclass(frozen=True)
class Verb:
    """One verb: what it does in a line, the knobs of a run it takes, its own flags, and what it calls."""

    summary: str
    example: str
    call: Callable[..., None]
    knobs: tuple[str, ...] = ()
    flags: dict[str, tuple[Any, Any, str]] | None = None
    """by name: type, default (``...``: required), help"""
    defaults: dict[str, Any] = field(default_factory=dict)
    """Of knobs that this verb has on when others have them off."""
