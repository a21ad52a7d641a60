"""What verdicts are called: in a cell, in a sentence, and with the numbers that they rest on."""

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from weightsteer.audit.rules import STRONG, Carries, Line, Shows, costs_more, side, strong
from weightsteer.formatting import estimate, listed, number, share, signed
from weightsteer.stats.compare import METRICS
from weightsteer.stats.verdict import Difference, Verdict, distinguishable

Tone = Literal["good", "mixed", "bad", "plain"]

OUTSIDE = 1.96
"""Standard deviations of the null beyond which an effect is one in twenty."""


class Words(NamedTuple):
    """How a verdict is written.

    Attributes:
        label: in a cell.
        phrase: in a sentence about one or several evaluations, which take the place of ``{}``.
        tone: its colour.
    """

    label: str
    phrase: str
    tone: Tone


WORDS: Mapping[Verdict, Words] = {
    Verdict.BASE: Words("", "", "plain"),
    Verdict.STEERS: Words("steers", "steers {}", "good"),
    Verdict.STEERS_WITH_MORE_BIAS: Words("steers, more yes-bias", "steers {}, and moves the yes-bias more", "mixed"),
    Verdict.REVERSED: Words("reversed", "steers {} in the reverse direction", "bad"),
    Verdict.REVERSED_WITH_MORE_BIAS: Words(
        "reversed, more yes-bias", "steers {} in the reverse direction, and moves the yes-bias more", "bad"
    ),
    Verdict.YES_BIAS: Words("yes-bias only", "moves only the yes-bias on {}", "mixed"),
    Verdict.NEGLIGIBLE: Words("negligible", "has a negligible effect on {}", "plain"),
    Verdict.NOT_SEPARABLE: Words("not separable", "has no distinguishable effect on {}", "plain"),
    Verdict.FORMAT_DAMAGE: Words("format damage", "damages the answer format of {}", "bad"),
    Verdict.NOT_IDENTIFIABLE: Words("one label only", "cannot be judged on {} (one label only)", "plain"),
    Verdict.NO_INTERVAL: Words("one cluster", "has no interval on {} (one cluster)", "plain"),
    Verdict.UNDEFINED: Words("NaN rows", "gives NaN on {}", "bad"),
}

DIFFERENCES: Mapping[Difference, tuple[str, Tone]] = {
    Difference.MORE: ("more", "good"),
    Difference.LESS: ("less", "bad"),
    Difference.NOT_SEPARABLE: ("not separable", "plain"),
    Difference.NO_INTERVAL: ("one cluster", "plain"),
    Difference.UNDEFINED: ("NaN rows", "bad"),
    Difference.NOT_COMPARED: ("not compared", "plain"),
}


_CARRIES: Mapping[Carries, tuple[str, Tone]] = {
    Carries.STEERS: ("steers {}", "good"),
    Carries.REVERSED: ("reversed", "bad"),
    Carries.YES_BIAS: ("yes-bias", "mixed"),
    Carries.MIXED: ("mixed", "mixed"),
    Carries.NOT_SEPARABLE: ("not separable", "plain"),
    Carries.FORMAT_DAMAGE: ("format damage", "bad"),
    Carries.NOT_JUDGED: ("not judged", "plain"),
}


def of(line: Line) -> Words:
    """The words for the verdict of a line of ``summarize``."""
    return WORDS[Verdict(line["verdict"])]


def carried(line: Line) -> tuple[str, Tone]:
    """What a line of `weightsteer.audit.Audit.vectors` says of its vector, and the colour of that.

    A vector that controls match everywhere is named with them.
    """
    words, tone = _CARRIES[Carries(line["verdict"])]
    words = words.format(line["behavior"])
    if matching := line["matched_by"]:
        return f"{words}, but {listed(matching)} {'does' if len(matching) == 1 else 'do'} as well", "mixed"
    return words, tone


def explained(line: Line) -> str:
    """The verdict of a line of ``summarize`` with the numbers that it rests on."""
    found, words = Verdict(line["verdict"]), of(line).label
    if found in (Verdict.BASE, Verdict.NOT_IDENTIFIABLE, Verdict.UNDEFINED):
        rows = {
            Verdict.BASE: "base",
            Verdict.NOT_IDENTIFIABLE: f"{words}: all {line['n']} rows; behaviour and yes-bias are one",
            Verdict.UNDEFINED: f"{words}: {line['nan']} of {line['n'] * line['seeds']}",
        }
        return rows[found]
    discrimination, bias = f"discrimination {estimate(line, 'discrimination')}", f"bias {estimate(line, 'bias')}"
    if found is Verdict.NO_INTERVAL:
        return f"{words}: {discrimination}"
    if found is Verdict.FORMAT_DAMAGE:
        return f"{words}: pmass {share(line, 'pmass')}; {discrimination}"
    if found is Verdict.YES_BIAS:
        return f"{words}: {bias}{_in_sd(line, 'bias_')}; {discrimination}"
    if found is Verdict.NOT_SEPARABLE:
        unseen = f"effects under {_unseen(line):.2f} nats would go unseen ({_units(line)})"
        return f"{words}: {discrimination}{_in_sd(line)}; {unseen}"
    biased = distinguishable(line, "bias")
    return f"{words}: {discrimination}{_in_sd(line)}" + (f"; {bias}" if biased else "")


def difference(line: Line) -> str:
    """The verdict of a line of ``compare`` with the numbers that it rests on."""
    found = Difference(line["verdict"])
    words, _ = DIFFERENCES[found]
    if found is Difference.NOT_COMPARED:
        return f"{words}: {line['reason']}"
    if found is Difference.UNDEFINED:
        return words
    metric = METRICS[line["metric"]]
    digits = 1 if metric == "points" else 2
    if found is Difference.NO_INTERVAL:
        return f"{words}: difference {number(line['difference'], digits)}"
    size = f"{estimate(line, 'difference')} {metric}"
    other = " ".join(filter(None, (line["reference_method"], line["reference_adapter"])))
    if found is Difference.NOT_SEPARABLE:
        unseen = f"differences under {line['mde']:.{digits}f} {metric} would go unseen ({_units(line)})"
        return f"{words}: {size} from {other}; {unseen}"
    return f"{words}: {size} than {other} (Holm p {'< 0.001' if line['holm'] < 0.001 else format(line['holm'], '.3f')})"


def chips(line: Line) -> tuple[str, Tone]:
    """The words for the verdict of a line of ``compare``, and their colour."""
    return DIFFERENCES[Difference(line["verdict"])]


def named(verdicts: Mapping[Verdict, Sequence[str]]) -> str:
    """``steers a and b and moves only the yes-bias on c``: evaluations by their verdict, as one clause."""
    return listed([WORDS[found].phrase.format(listed(evals)) for found, evals in verdicts.items()])


def _in_sd(line: Line, prefix: str = "") -> str:
    """`` (z 17.6)``: an effect in standard deviations of the null of random directions, where one is known."""
    z = line.get(f"{prefix}z")
    return "" if z is None else f" (z {number(z, 1)})"


def _unseen(line: Line) -> float:
    """The smallest discrimination that would be found with 80% power over rows, and at all over random directions."""
    sd = line.get("null_sd")
    return float(line["mde"] if sd is None else max(line["mde"], OUTSIDE * sd))


def _units(line: Line) -> str:
    return f"{line['clusters']} clusters" + (f", {line['seeds']} seeds" if line["seeds"] > 1 else "")


COVARIATES = {"lean": "the lean of the base model", "confidence": "the confidence of the base model"}
"""Covariates whose name alone would not be understood."""

_SHOWS: Mapping[Shows, tuple[str, str | None]] = {
    Shows.STEERS: ("steers", "discrimination"),
    Shows.REVERSED: ("reversed on", "discrimination"),
    Shows.MIXED: ("both ways on", "discrimination"),
    Shows.YES_BIAS: ("yes-bias on", "bias"),
    Shows.NOTHING: ("not separable on", "discrimination"),
    Shows.DAMAGED: ("answer format damaged on", "pmass"),
    Shows.UNJUDGED: ("not judged on", None),
}
"""What evaluations show, and the column with the evidence."""


def shown(
    found: Mapping[Shows, Sequence[str]], lines: Mapping[str, Sequence[Line]], both: Mapping[str, Line]
) -> list[str]:
    """A clause for each thing that evaluations show, with the numbers of the first of them.

    Args:
        found: evaluations by what they show.
        lines: by evaluation those of its strengths, one for each sign.
        both: by evaluation that of both signs together.
    """
    clauses = []
    for shows, (words, effect) in _SHOWS.items():
        if not found[shows]:
            continue
        first, *others = found[shows]
        numbers = f" ({_numbers(lines[first], both[first], effect)})" if effect else ""
        clauses.append(f"{words} {first}{numbers}" + (f", {listed(others)}" if others else ""))
    return clauses


def matching_controls(cells: Mapping[str, set[tuple[str, int]]], lines: Sequence[Line]) -> list[str]:
    """A clause for each control that does as well, with its difference on one evaluation.

    Args:
        cells: by control the evaluations and signs at which it does as well.
        lines: of the control comparison.
    """
    clauses = []
    for name, held in sorted(cells.items()):
        line = next(line for line in lines if line["adapter"] == name and (line["eval"], line["sign"]) in held)
        cost = f", at {line['cost_ratio']:.1f} times the side effect" if costs_more(name, [line]) else ""
        if line["difference_high"] is not None and line["difference_high"] < 0:
            draws = f"{line['draws_as_good']} of {line['draws']} draws"
            clauses.append(f"the control {name} does as much on {line['eval']} in {draws}{cost}")
            continue
        # the interval of vector − control from that of control − vector
        turned = {"of": "difference", "of_low": "difference_high", "of_high": "difference_low"}
        ends = {end: None if line[column] is None else -line[column] for end, column in turned.items()}
        size = f"(difference {estimate(ends, 'of')}{cost})"
        clauses.append(f"the control {name} is not distinguishably weaker on {line['eval']} {size}")
    return clauses


def followed(nuisances: Sequence[Line], cosines: Sequence[Line]) -> list[str]:
    """A clause for the strongest correlation and one for every cosine that is large: what else the shifts follow."""
    clauses = []
    if found := [line for line in nuisances if strong(line)]:
        line = max(found, key=lambda line: abs(line["correlation"]))
        sign = "+α" if line["alpha"] > 0 else "−α"
        what = COVARIATES.get(line["covariate"], line["covariate"])
        clauses.append(f"shifts follow {what} on {line['eval']} (r {estimate(line, 'correlation')} at {sign})")
    near = [line for line in cosines if abs(line["cosine"]) >= STRONG]
    clauses += [f"cosine {number(line['cosine'])} with the nuisance vector {line['nuisance']}" for line in near]
    return clauses


def _numbers(lines: Sequence[Line], both: Line, effect: str) -> str:
    """The numbers behind a clause: per unit of the strengths along α, or of the sign that lost most of the mass."""
    if effect == "pmass":
        worst = min(lines, key=lambda line: line["pmass"])
        return f"pmass {share(worst, effect)} at α = {signed(worst['strength'])}"
    size = f"{effect} {estimate(both, effect)}"
    if not side(both, effect):
        return f"{size}; effects under {both['mde']:.2f} nats would go unseen"
    if effect == "bias" and side(both, "discrimination"):
        size += f", discrimination {estimate(both, 'discrimination')}"
    return f"{size} along α = {'±' if len(lines) > 1 else ''}{_strengths(lines)}"


def _strengths(lines: Sequence[Line]) -> str:
    sizes = sorted({f"{abs(line['strength']):.3g}" for line in lines}, key=float)
    return " and ".join(sizes) if len(lines) > 1 else signed(float(f"{lines[0]['strength']:.3g}"))
