"""The rules by which an audit names what a vector carries; nothing in them is fitted to rows.

1. An evaluation is **damaged** when the answer mass is lost (`weightsteer.stats.verdict`) in either arm. It is
   **unjudged** with NaN rows, one label or one cluster. The others are judged.
2. All p values of discrimination and bias over the judged evaluations and arms of one vector are one family (Benjamini
   and Hochberg at `LEVEL`): a vector that does nothing is named after something in one case of twenty, however many
   evaluations there are, and one that acts on all of them need not pay for their number.
3. An evaluation shows **Yes-saying** when in some arm the bias is told from 0 and either its whole interval lies
   farther from 0 than that of the discrimination, or no discrimination is told from 0 in any arm. Otherwise it
   **steers** when discrimination is told from 0 on the side of α in some arm and against it in none, is **reversed**
   the other way round, and **mixed** when both occur. Else it shows **nothing**.
4. The vector is named after what most of its evaluations show, among those that show something: ``steers …``,
   ``reversed`` or ``Yes-saying``; ``mixed`` in a tie; ``nothing separable`` when none shows anything. It is ``format
   damage`` when more evaluations are damaged than show something.
5. A control does as well in an arm that steers when the 95% interval of the paired difference (vector − control) holds
   0 or lies below it; it is named. Where it does so in every arm that steers, the label says so.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from weightsteer.audit.headline import listed
from weightsteer.stats.correction import LEVEL
from weightsteer.stats.verdict import label, mostly_bias
from weightsteer.stats.words import estimate, number, share, signed

STRONG = 0.5
"""A correlation or cosine of this size is named in the verdict."""

SHOWN = ("steers", "reversed", "mixed", "yes_saying", "nothing", "damaged", "unjudged")
"""What an evaluation may show."""

UNJUDGED = ("undefined", "not identifiable", "no interval")

Line = Mapping[str, Any]
"""A line of ``summarize`` with ``discrimination_adjusted`` and ``bias_adjusted``."""


def judged(line: Line) -> bool:
    """Whether the effects of a line mean anything."""
    return label(line) not in (*UNJUDGED, "format damage")


def side(line: Line, name: str) -> int:
    """+1 when an effect is told from 0 along the sign of α, −1 against it, 0 when it is not told from 0."""
    if not line[f"{name}_adjusted"] < LEVEL:
        return 0
    return 1 if line[name] * line["alpha"] > 0 else -1


def shows(lines: Sequence[Line]) -> str:
    """What one evaluation shows over its arms: one of `SHOWN` (rules 1 and 3)."""
    if any(label(line) == "format damage" for line in lines):
        return "damaged"
    if not all(judged(line) for line in lines):
        return "unjudged"
    sides = {side(line, "discrimination") for line in lines} - {0}
    biased = [line for line in lines if side(line, "bias")]
    if biased and (not sides or any(mostly_bias(line) for line in biased)):
        return "yes_saying"
    if len(sides) == 2:
        return "mixed"
    return "nothing" if not sides else "steers" if sides == {1} else "reversed"


def name_of(found: Mapping[str, Sequence[str]], behavior: str) -> str:
    """The label of a vector from its evaluations by what they show (rule 4)."""
    words = {"steers": f"steers {behavior}", "reversed": "reversed", "yes_saying": "Yes-saying"}
    counts = {name: len(found[name]) for name in (*words, "mixed")}
    if len(found["damaged"]) > sum(counts.values()):
        return "format damage"
    if not any(counts.values()):
        return "nothing separable" if found["nothing"] else "not judged"
    most = max(counts.values())
    first = [name for name, count in counts.items() if count == most]
    return words.get(first[0], "mixed") if len(first) == 1 else "mixed"


def evidence(found: Mapping[str, Sequence[str]], by_eval: Mapping[str, Sequence[Line]]) -> list[str]:
    """A clause for each thing that evaluations show, with the numbers of the first of them."""
    told = []
    for shown, words, effect in (
        ("steers", "steers", "discrimination"),
        ("reversed", "reversed on", "discrimination"),
        ("mixed", "both ways on", "discrimination"),
        ("yes_saying", "Yes-saying on", "bias"),
        ("nothing", "not separable on", "discrimination"),
        ("damaged", "answer format lost on", "pmass"),
        ("unjudged", "not judged on", None),
    ):
        if not found[shown]:
            continue
        line = _telling(by_eval[found[shown][0]], effect)
        numbers = f" ({_number(line, effect)} at α = {signed(line['strength'])})" if effect else ""
        first, *others = found[shown]
        told.append(f"{words} {first}{numbers}" + (f", {listed(others)}" if others else ""))
    return told


def company(cells: Mapping[str, set[tuple[str, int]]], lines: Sequence[Line]) -> list[str]:
    """Controls that do as well, each with its difference on one evaluation (rule 5)."""
    told = []
    for name, held in sorted(cells.items()):
        line = next(line for line in lines if line["adapter"] == name and (line["eval"], line["sign"]) in held)
        low, high = (number(-line[f"difference_{end}"]).removeprefix("+") for end in ("high", "low"))
        told.append(
            f"the control {name} cannot be told to do less on {line['eval']} "
            f"(difference {number(-line['difference'])} [{low}, {high}])"
        )
    return told


def followed(nuisances: Sequence[Line], cosines: Sequence[Line]) -> list[str]:
    """The strongest correlation and cosine, where they are large: what else the shifts follow."""
    told = []
    strong = [
        line
        for line in nuisances
        if line["correlation"] is not None
        and abs(line["correlation"]) >= STRONG
        and line["correlation_low"] is not None
        and line["correlation_low"] * line["correlation_high"] > 0
    ]
    if strong:
        line = max(strong, key=lambda line: abs(line["correlation"]))
        told.append(f"shifts follow {line['covariate']} on {line['eval']} (r {estimate(line, 'correlation')})")
    near = [line for line in cosines if abs(line["cosine"]) >= STRONG]
    told += [f"cosine {number(line['cosine'])} with the nuisance vector {line['nuisance']}" for line in near]
    return told


def _number(line: Line, effect: str) -> str:
    if effect == "pmass":
        return f"pmass {share(line, effect)}"
    told = f"{effect} {estimate(line, effect)}"
    return told if side(line, effect) else f"{told}, effects under {line['mde']:.2f} nats would go unseen,"


def _telling(lines: Sequence[Line], effect: str | None) -> Line:
    """The arm with the clearest effect: the smallest p, or the most mass lost."""
    if effect == "pmass":
        return min(lines, key=lambda line: line["pmass"])
    if effect is None:
        return lines[0]
    return min(lines, key=lambda line: line[f"{effect}_adjusted"])
