"""Surgical Informedness: did the decisions that should change do so, and did the others stay?

Per row with ``y`` along the label: ``cho`` if y > 0 at α = 0, ``rej`` if y < 0. At +α ``fix`` of the rej rows and
``broke`` of the cho rows change side; at −α ``flip`` of the cho and ``counter`` of the rej. With m the mean answer mass

    forward  = 100 · (fix/rej − k broke/cho) · m²
    SI       = 100 · ½ [(fix/rej − k broke/cho) + (flip/cho − k counter/rej)] · min(m₊, m₋)²

No sign is exchanged after the fact: a reversed vector has a negative SI.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

K = 2.0
"""What one row that moves the wrong way costs, in rows that move the right way."""

FEW = 30
"""With fewer rows on one side a single row moves the SI by several points."""

WEAKNESSES = (
    "A vector that does nothing scores 0, more than most real vectors: read SI together with the effect.",
    "SI counts decisions. An effect on answers far from 0 nats changes none; the same effect near 0 changes many.",
    "The rarer side of the base model's decisions carries half of the score: with few rejected rows, each weighs much.",
    "Pure yes-bias usually scores far below 0 when the base model leans to Yes: high broke and counter with low fix "
    "indicate it.",
    "Rows at exactly 0 nats belong to no side and are left out; they are counted as ties.",
)
"""What to print with every SI."""


def surgical_informedness(
    fix: Any, broke: Any, flip: Any, counter: Any, *, rej: Any, cho: Any, pmass: Any = 1.0, k: float = K
) -> Any:
    """SI in [−100 k, 100]; see above. ``fix``, ``broke``, ``flip`` and ``counter`` are counts.

    ``pmass`` is the smaller mean answer mass of the two signs. Works on arrays; NaN where ``cho`` or ``rej`` is 0.
    """
    forward = one_sign(fix, broke, gaining=rej, losing=cho, k=k)
    reverse = one_sign(flip, counter, gaining=cho, losing=rej, k=k)
    return (forward + reverse) / 2 * np.square(pmass)


def one_sign(moved: Any, against: Any, *, gaining: Any, losing: Any, pmass: Any = 1.0, k: float = K) -> Any:
    """``100 · (moved/gaining − k against/losing) · pmass²``: SI of one strength, for what has no opposite one.

    At +α ``one_sign(fix, broke, gaining=rej, losing=cho)``, at −α ``one_sign(flip, counter, gaining=cho, losing=rej)``
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        return 100 * (np.divide(moved, gaining) - k * np.divide(against, losing)) * np.square(pmass)


def of_yes_bias(signed_before: Any, label: Any) -> float:
    """SI of answering Yes to every row at +α and No to every row at −α, from y along the label at α = 0.

    What pure yes-bias would score on these very rows: a number to compare an SI with, as the 0 of a no-op is.
    """
    cho, rej, yes = signed_before > 0, signed_before < 0, np.broadcast_to(label > 0, np.shape(signed_before))
    counts = ((rej & yes).sum(), (cho & ~yes).sum(), (cho & yes).sum(), (rej & ~yes).sum())
    return float(surgical_informedness(*counts, rej=rej.sum(), cho=cho.sum()))


def reading(line: Mapping[str, Any]) -> str | None:
    """What belongs to the SI of a line of ``summarize``: its references and what it rests on; None without SI."""
    if line["si"] is None or line["si"] != line["si"]:
        return None
    yes = f"{line['si_yes']:.0f}".replace("-", "−")
    parts = [f"a no-op scores 0 and pure yes-bias {yes}"]
    parts.append(f"{line['rej']} rows rejected and {line['cho']} chosen by the base model")
    if line["ties"]:
        parts.append(f"{line['ties']} ties left out")
    if (fewer := min(line["rej"], line["cho"])) < FEW:
        parts.append(f"one row of the rarer side is worth up to {50 * (1 + K) / fewer:.1f} points")
    return "; ".join(parts)
