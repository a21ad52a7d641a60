"""The rules by which an audit names what a vector carries; nothing in them is fitted to rows.

1. An evaluation is **damaged** when the answer mass is lost (`weightsteer.stats.verdict`) in either arm and the base
   model had it. It is **unjudged** with NaN rows, one label or one cluster; and when mass is lost that the base model
   did not have: a model that spreads over many answers loses it as well by preferring another one, so that it tells
   nothing about the format. The others are judged.
2. What a vector does to an evaluation is tested once for discrimination and once for bias, on both arms together
   (`weightsteer.audit.arms`). These p values over the judged evaluations of one vector are one family (Benjamini and
   Hochberg at `LEVEL`): a vector that does nothing is named after something in one case of twenty, however many
   evaluations there are, and one that acts on all of them need not pay for their number. An effect under `NEGLIGIBLE`
   is not told from 0 either, however many rows there are: with enough of them everything has some effect. An arm is
   told from 0 when both arms together are and its own p value is below `LEVEL` too, on the same side. All this is about
   the training seeds and draws at hand: what a single random draw does is real, and another draw does not do it.
3. An evaluation shows **Yes-saying** when the bias is told from 0 and the discrimination is not told to be larger: its
   whole interval would have to lie farther from 0 than that of the bias. The doubt is the vector's to remove, because
   what says Yes as much as it shows the behaviour is not that behaviour. Where Yes is not one of the choices (the
   covariate ``yes`` is 0 throughout) a bias is a preference for the choice named first; it is no Yes-saying and does
   not count. Otherwise the evaluation **steers** when discrimination is told from 0 on the side of α, and is
   **reversed** on the other. It is **mixed** when no effect is told from 0 and the intervals of its two arms lie on
   opposite sides of 0 along α: both strengths do the same, whatever their sign. Else it shows **nothing**.
4. The vector is named after what most of its evaluations show, among those that show something: ``steers …``,
   ``reversed`` or ``Yes-saying``; ``mixed`` in a tie; ``nothing separable`` when none shows anything. It is ``format
   damage`` when more evaluations are damaged than show something.
5. A control does as well in an arm that steers as `weightsteer.audit.beside` says; it is named. Where it does so in
   every arm that steers, the label says so, unless it costs more than `DEAR` times as much: it has the strength of its
   vector, and what does as much for more is no equal of it. The evidence then gives the price.
6. A covariate that the shifts follow is named when the correlation is at least `STRONG` and told from 0 among all
   correlations of the vector (Benjamini and Hochberg); a nuisance vector when its cosine is.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from weightsteer.audit.words import Carries
from weightsteer.formatting import estimate, listed, number, share, signed
from weightsteer.stats.correction import LEVEL
from weightsteer.stats.verdict import PMASS_GATE, Verdict, side_of

NEGLIGIBLE = 0.1
"""Nats: this much changes the probability of an answer by 2.5 points at most."""

DEAR = 1.5
"""Times the side effect of the vector."""

STRONG = 0.5
"""A correlation or cosine of this size is named in the verdict."""

NAMED = {"lean": "the lean of the base model", "confidence": "the confidence of the base model"}
"""Covariates whose name alone would not be understood."""

SHOWN = ("steers", "reversed", "mixed", "yes_bias", "nothing", "damaged", "unjudged")
"""What an evaluation may show."""

UNJUDGED = (Verdict.UNDEFINED, Verdict.NOT_IDENTIFIABLE, Verdict.NO_INTERVAL, Verdict.FORMAT_DAMAGE)

Line = Mapping[str, Any]
"""A line of ``summarize`` with ``discrimination_adjusted`` and ``bias_adjusted``."""


def judged(line: Line) -> bool:
    """Whether the effects of a line mean anything."""
    return Verdict(line["verdict"]) not in UNJUDGED


def damaged(line: Line) -> bool:
    """Whether the answer mass is lost that the base model had."""
    return Verdict(line["verdict"]) is Verdict.FORMAT_DAMAGE and line["pmass"] - line["pmass_change"] >= PMASS_GATE


def side(line: Line, name: str) -> int:
    """+1 when an effect is told from 0 along the sign of α, −1 against it, 0 when it is not told from 0 (rule 2)."""
    if not line[f"{name}_adjusted"] < LEVEL or abs(line[name]) < NEGLIGIBLE:
        return 0
    return 1 if line[name] * line["alpha"] > 0 else -1


def mostly_behavior(line: Line) -> bool:
    """The whole interval of the discrimination is farther from 0 than that of the bias."""
    ends = {name: [abs(line[f"{name}_{end}"]) for end in ("low", "high")] for name in ("discrimination", "bias")}
    return min(ends["discrimination"]) > max(ends["bias"])


def shows(arms: Sequence[Line], both: Line, *, yes: bool = True) -> str:
    """What one evaluation shows: one of `SHOWN` (rules 1 and 3).

    Args:
        arms: the lines of its arms.
        both: that of both together.
        yes: it is one of the choices.
    """
    if any(damaged(line) for line in arms):
        return "damaged"
    if not all(judged(line) for line in arms):
        return "unjudged"
    moved = side(both, "discrimination")
    if yes and side(both, "bias") and not (moved and mostly_behavior(both)):
        return "yes_bias"
    if moved:
        return "steers" if moved > 0 else "reversed"
    return "mixed" if {side_of(line, "discrimination") * line["alpha"] for line in arms} == {1, -1} else "nothing"


def carries(found: Mapping[str, Sequence[str]]) -> Carries:
    """The verdict on a vector from its evaluations by what they show (rule 4)."""
    counts = {name: len(found[name]) for name in (Carries.STEERS, Carries.REVERSED, Carries.YES_BIAS, Carries.MIXED)}
    if len(found["damaged"]) > sum(counts.values()):
        return Carries.FORMAT_DAMAGE
    if not any(counts.values()):
        return Carries.NOT_SEPARABLE if found["nothing"] else Carries.NOT_JUDGED
    most = max(counts.values())
    first = [name for name, count in counts.items() if count == most]
    return first[0] if len(first) == 1 else Carries.MIXED


def evidence(
    found: Mapping[str, Sequence[str]], arms: Mapping[str, Sequence[Line]], both: Mapping[str, Line]
) -> list[str]:
    """A clause for each thing that evaluations show, with the numbers of the first of them."""
    told = []
    for shown, words, effect in (
        ("steers", "steers", "discrimination"),
        ("reversed", "reversed on", "discrimination"),
        ("mixed", "both ways on", "discrimination"),
        ("yes_bias", "yes-bias on", "bias"),
        ("nothing", "not separable on", "discrimination"),
        ("damaged", "answer format lost on", "pmass"),
        ("unjudged", "not judged on", None),
    ):
        if not found[shown]:
            continue
        first, *others = found[shown]
        numbers = f" ({_numbers(arms[first], both[first], effect)})" if effect else ""
        told.append(f"{words} {first}{numbers}" + (f", {listed(others)}" if others else ""))
    return told


_TURNED = {"": "", "_low": "_high", "_high": "_low"}
"""The interval of vector − control from that of control − vector."""


def dear(name: str, lines: Sequence[Line]) -> bool:
    """Whether a control costs more than its vector in one of these arms (rule 5)."""
    return any(line["price"] is not None and line["price"] > DEAR for line in lines if line["adapter"] == name)


def company(cells: Mapping[str, set[tuple[str, int]]], lines: Sequence[Line]) -> list[str]:
    """Controls that do as well, each with its difference on one evaluation (rule 5)."""
    told = []
    for name, held in sorted(cells.items()):
        line = next(line for line in lines if line["adapter"] == name and (line["eval"], line["sign"]) in held)
        price = f", at {line['price']:.1f} times the side effect" if dear(name, [line]) else ""
        if line["difference_high"] is not None and line["difference_high"] < 0:
            draws = f"{line['draws_as_good']} of {line['draws']} draws"
            told.append(f"the control {name} is as strong on {line['eval']} in {draws}{price}")
            continue
        turned = {f"of{end}": None if (v := line[f"difference{at}"]) is None else -v for end, at in _TURNED.items()}
        less = f"(difference {estimate(turned, 'of')}{price})"
        told.append(f"the control {name} is not distinguishably weaker on {line['eval']} {less}")
    return told


def followed(nuisances: Sequence[Line], cosines: Sequence[Line]) -> list[str]:
    """The strongest correlation and every cosine that is large: what else the shifts follow (rule 6)."""
    told = []
    strong = [
        line
        for line in nuisances
        if line["correlation"] is not None
        and abs(line["correlation"]) >= STRONG
        and line["correlation_adjusted"] is not None
        and line["correlation_adjusted"] < LEVEL
    ]
    if strong:
        line = max(strong, key=lambda line: abs(line["correlation"]))
        arm = "+α" if line["alpha"] > 0 else "−α"
        what = NAMED.get(line["covariate"], line["covariate"])
        told.append(f"shifts follow {what} on {line['eval']} (r {estimate(line, 'correlation')} at {arm})")
    near = [line for line in cosines if abs(line["cosine"]) >= STRONG]
    told += [f"cosine {number(line['cosine'])} with the nuisance vector {line['nuisance']}" for line in near]
    return told


def _numbers(arms: Sequence[Line], both: Line, effect: str) -> str:
    """The numbers behind a clause: per unit of the arms along α, or of the arm that lost most of the mass."""
    if effect == "pmass":
        worst = min(arms, key=lambda line: line["pmass"])
        return f"pmass {share(worst, effect)} at α = {signed(worst['strength'])}"
    told = f"{effect} {estimate(both, effect)}"
    if not side(both, effect):
        return f"{told}; effects under {both['mde']:.2f} nats would go unseen"
    if effect == "bias" and side(both, "discrimination"):
        told += f", discrimination {estimate(both, 'discrimination')}"
    return f"{told} along α = {'±' if len(arms) > 1 else ''}{_strengths(arms)}"


def _strengths(arms: Sequence[Line]) -> str:
    sizes = sorted({f"{abs(line['strength']):.3g}" for line in arms}, key=float)
    return " and ".join(sizes) if len(arms) > 1 else signed(float(f"{arms[0]['strength']:.3g}"))
