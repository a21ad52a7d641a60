"""What verdicts are called: in a cell, in a sentence, and with the numbers that they rest on."""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any, Literal, NamedTuple

from weightsteer.formatting import estimate, listed, number, share
from weightsteer.stats.compare import METRICS
from weightsteer.stats.verdict import Difference, Verdict

Tone = Literal["good", "mixed", "bad", "plain"]


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


class Carries(StrEnum):
    """What most evaluations of a vector show (`weightsteer.audit.rules`, rule 4)."""

    STEERS = "steers"
    REVERSED = "reversed"
    YES_BIAS = "yes_bias"
    MIXED = "mixed"
    NOT_SEPARABLE = "not_separable"
    FORMAT_DAMAGE = "format_damage"
    NOT_JUDGED = "not_judged"


_CARRIES: Mapping[Carries, tuple[str, Tone]] = {
    Carries.STEERS: ("steers {}", "good"),
    Carries.REVERSED: ("reversed", "bad"),
    Carries.YES_BIAS: ("yes-bias", "mixed"),
    Carries.MIXED: ("mixed", "mixed"),
    Carries.NOT_SEPARABLE: ("not separable", "plain"),
    Carries.FORMAT_DAMAGE: ("format damage", "bad"),
    Carries.NOT_JUDGED: ("not judged", "plain"),
}


def of(line: Mapping[str, Any]) -> Words:
    """The words for the verdict of a line of ``summarize``."""
    return WORDS[Verdict(line["verdict"])]


def carried(line: Mapping[str, Any]) -> tuple[str, Tone]:
    """What a line of `weightsteer.audit.Audit.vectors` says of its vector, and the colour of that.

    A vector that controls match everywhere is named with them.
    """
    words, tone = _CARRIES[Carries(line["verdict"])]
    words = words.format(line["behavior"])
    if matching := line["matched_by"]:
        return f"{words}, but {listed(matching)} {'does' if len(matching) == 1 else 'do'} as well", "mixed"
    return words, tone


def explained(line: Mapping[str, Any]) -> str:
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
        return f"{words}: {bias}; {discrimination}"
    if found is Verdict.NOT_SEPARABLE:
        return f"{words}: {discrimination}; effects under {line['mde']:.2f} nats would go unseen ({_units(line)})"
    biased = line["bias_low"] > 0 or line["bias_high"] < 0
    return f"{words}: {discrimination}" + (f"; {bias}" if biased else "")


def difference(line: Mapping[str, Any]) -> str:
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


def chips(line: Mapping[str, Any]) -> tuple[str, Tone]:
    """The words for the verdict of a line of ``compare``, and their colour."""
    return DIFFERENCES[Difference(line["verdict"])]


def named(verdicts: Mapping[Verdict, Sequence[str]]) -> str:
    """``steers a and b and moves only the yes-bias on c``: evaluations by their verdict, as one clause."""
    return listed([WORDS[found].phrase.format(listed(evals)) for found, evals in verdicts.items()])


def _units(line: Mapping[str, Any]) -> str:
    return f"{line['clusters']} clusters" + (f", {line['seeds']} seeds" if line["seeds"] > 1 else "")
