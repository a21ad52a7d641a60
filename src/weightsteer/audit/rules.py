"""The rules by which an audit decides what a vector carries; none of them is fitted to rows.

1. An evaluation is **damaged** when, at either sign of the strength, the answer mass is lost
   (`weightsteer.stats.verdict`) that the base model had. It is **unjudged** with NaN rows, one label or one cluster;
   and when mass is lost that the base model did not have: a model that spreads over many answers also loses it by
   preferring another one, which says nothing about the format. The others are judged.
2. What a vector does to an evaluation is tested once for discrimination and once for bias, at both signs together
   (`weightsteer.audit.signs`). The p value is the larger one of two: of the interval over rows and training seeds (does
   the effect generalise to other rows?), and of the null of random directions, where it is known (does a random vector
   with the same norms do as much?). These p values over the judged evaluations of one vector are one family (Benjamini
   and Hochberg at `LEVEL`): a vector that does nothing is named after something in one case of twenty, however many
   evaluations there are, and one that acts on all of them need not pay for their number. An effect under the smallest
   effect of interest is not distinguished from 0 either: with enough rows everything has some effect. The effect at one
   sign is distinguishable from 0 when that at both signs together is and its own p value is below `LEVEL` too, on the
   same side.
3. An evaluation shows **yes-bias** when the bias is distinguishable from 0 and the discrimination is not clearly
   larger: its whole interval would have to lie farther from 0 than that of the bias. The burden of proof is on the
   vector, because what raises Yes as much as it shows the behaviour is not that behaviour. Where Yes is not one of the
   choices (the covariate ``yes`` is 0 throughout) a bias is a preference for the choice named first; it is no yes-bias
   and does not count. Otherwise the evaluation **steers** when discrimination is distinguishable from 0 on the side of
   α, and is **reversed** on the other. It is **mixed** when no effect is, and the intervals at the two signs lie on
   opposite sides of 0 along α: both strengths do the same, whatever their sign. Else it shows **nothing**.
4. The verdict on the vector is what most of its evaluations show, among those that show something: ``steers``,
   ``reversed`` or ``yes_bias``; ``mixed`` in a tie; ``not_separable`` when none shows anything. It is
   ``format_damage`` when more evaluations are damaged than show something.
5. A control that does as well as the vector at a sign that steers (`weightsteer.audit.control_comparison`) is named in
   the evidence. A control that does so wherever the vector steers is part of the verdict, unless its side effect is
   more than `COST_RATIO` times that of the vector: it has the same strength, and what does as much at a higher cost is
   no match. The evidence then gives the ratio.
6. A covariate that the shifts follow is named when the correlation is at least `STRONG` and distinguishable from 0
   among all correlations of the vector (Benjamini and Hochberg); a nuisance vector when its cosine is.
"""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any

from weightsteer.stats.correction import LEVEL
from weightsteer.stats.verdict import Verdict, farther_from_zero, lost_mass, side_of

COST_RATIO = 1.5
"""A control with a side effect above so many times that of its vector is no match for it."""

STRONG = 0.5
"""A correlation or cosine of this size is named."""

UNJUDGED = (Verdict.UNDEFINED, Verdict.NOT_IDENTIFIABLE, Verdict.NO_INTERVAL)

Line = Mapping[str, Any]
"""A line of ``summarize`` with ``discrimination_adjusted``, ``bias_adjusted`` and ``smallest``, the smallest effect of
interest (nats)."""


class Shows(StrEnum):
    """What one evaluation shows (rules 1 and 3)."""

    STEERS = "steers"
    REVERSED = "reversed"
    MIXED = "mixed"
    YES_BIAS = "yes_bias"
    NOTHING = "nothing"
    DAMAGED = "damaged"
    UNJUDGED = "unjudged"


class Carries(StrEnum):
    """What most evaluations of a vector show (rule 4)."""

    STEERS = "steers"
    REVERSED = "reversed"
    YES_BIAS = "yes_bias"
    MIXED = "mixed"
    NOT_SEPARABLE = "not_separable"
    FORMAT_DAMAGE = "format_damage"
    NOT_JUDGED = "not_judged"


def judged(line: Line) -> bool:
    """Whether the effects of a line mean anything."""
    return Verdict(line["verdict"]) not in UNJUDGED and not lost_mass(line)


def damaged(line: Line) -> bool:
    """Whether the answer mass is lost that the base model had."""
    return Verdict(line["verdict"]) is Verdict.FORMAT_DAMAGE


def side(line: Line, name: str) -> int:
    """+1 for an effect distinguishable from 0 along the sign of α, −1 for one against it, else 0 (rule 2)."""
    if not line[f"{name}_adjusted"] < LEVEL or abs(line[name]) < line["smallest"]:
        return 0
    return 1 if line[name] * line["alpha"] > 0 else -1


def shows(lines: Sequence[Line], both: Line, *, yes: bool = True) -> Shows:
    """What one evaluation shows (rules 1 and 3).

    Args:
        lines: those of its strengths, one for each sign.
        both: that of both signs together.
        yes: whether Yes is one of the choices.
    """
    if any(damaged(line) for line in lines):
        return Shows.DAMAGED
    if not all(judged(line) for line in lines):
        return Shows.UNJUDGED
    moved = side(both, "discrimination")
    if yes and side(both, "bias") and not (moved and farther_from_zero(both, "discrimination", "bias")):
        return Shows.YES_BIAS
    if moved:
        return Shows.STEERS if moved > 0 else Shows.REVERSED
    opposite = {side_of(line, "discrimination") * line["alpha"] for line in lines} == {1, -1}
    return Shows.MIXED if opposite else Shows.NOTHING


def carries(found: Mapping[Shows, Sequence[str]]) -> Carries:
    """The verdict on a vector from its evaluations by what they show (rule 4)."""
    effects = (Shows.STEERS, Shows.REVERSED, Shows.YES_BIAS, Shows.MIXED)
    counts = {Carries(shown): len(found[shown]) for shown in effects}
    if len(found[Shows.DAMAGED]) > sum(counts.values()):
        return Carries.FORMAT_DAMAGE
    if not any(counts.values()):
        return Carries.NOT_SEPARABLE if found[Shows.NOTHING] else Carries.NOT_JUDGED
    most = max(counts.values())
    first = [name for name, count in counts.items() if count == most]
    return first[0] if len(first) == 1 else Carries.MIXED


def costs_more(name: str, lines: Sequence[Line]) -> bool:
    """Whether a control costs more than its vector in one of these lines of the control comparison (rule 5)."""
    ratios = [line["cost_ratio"] for line in lines if line["adapter"] == name]
    return any(ratio is not None and ratio > COST_RATIO for ratio in ratios)


def strong(line: Line) -> bool:
    """Whether the shifts follow the covariate of a line of `weightsteer.audit.nuisances` (rule 6)."""
    if line["correlation"] is None or line["correlation_adjusted"] is None:
        return False
    return bool(abs(line["correlation"]) >= STRONG and line["correlation_adjusted"] < LEVEL)
