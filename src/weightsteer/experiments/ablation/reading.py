"""What a table of ablations says, in words; nothing in the rules is fitted to rows.

1. A layer, module or subspace **suffices** when, at every strength at which the whole vector has an effect, it alone,
   at the norm of the whole vector, retains at least half of the effect (the lower end of the interval), and more than
   random directions in the same place at the same norm retain (the intervals do not overlap). Without both of these
   lines nothing is said. It suffices *as it is* when its own norm is enough as well.
2. It is **needed** when, at every such strength, at most half of the effect is retained without it (the upper end).
   What has nine tenths of ‖dW‖² is not named: it is nearly the whole vector.
3. It **can go** when, at every such strength, nine tenths are retained without it (the lower end).
4. Norms: what directions alone and norms alone retain; random directions are no component of the vector.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import polars as pl

from weightsteer.analysis.ablation import WHOLE
from weightsteer.analysis.plans.norms import DIRECTION, MAGNITUDE, PERMUTED
from weightsteer.formatting import estimate, signed

HALF, MOST = 0.5, 0.9
NEARLY_ALL = 0.9
"""Of ‖dW‖²: what has so much of it is nearly the whole vector, and naming it would say nothing."""
SHOWN = 2

Line = Mapping[str, Any]


class Verdict(NamedTuple):
    """One layer, module or subspace, by the rules above. ``suffices`` is None where its controls are missing."""

    family: str
    component: str
    suffices: bool | None
    alone: bool
    needed: bool
    spare: bool
    energy: float | None
    lines: dict[str, Line]

    @property
    def note(self) -> str:
        """Why its numbers are not a finding, where they are not."""
        return next((str(line["note"]) for line in self.lines.values() if line["note"]), "")


def ratio(line: Line, name: str = "retained") -> str:
    """``0.89 [0.87, 0.91]``; a dash where the whole vector's own effect may be 0."""
    if line[name] is None or line[name] != line[name]:
        return "–"
    written = f"{line[name]:.2f}"
    if line[f"{name}_low"] is not None:
        written += f" [{line[f'{name}_low']:.2f}, {line[f'{name}_high']:.2f}]"
    return written.replace("-", "−")


def strengths_of(lines: pl.DataFrame) -> list[float]:
    """The strengths at which the interval of the effect of the whole vector excludes 0, the largest first."""
    whole = lines.filter(pl.col("key") == WHOLE, pl.col("effect_low") * pl.col("effect_high") > 0)
    return whole["alpha"].sort(descending=True).to_list()


def versions(lines: Iterable[Line]) -> dict[tuple[str, str], dict[float, dict[str, Line]]]:
    """Lines by (family, component), strength and version: keep, matched, random, drop, whole."""
    found: dict[tuple[str, str], dict[float, dict[str, Line]]] = {}
    for line in lines:
        name = "random" if line["control"] else "matched" if line["matched"] else line["how"]
        found.setdefault((line["family"], line["component"]), {}).setdefault(line["alpha"], {})[name] = line
    return found


def verdicts(lines: pl.DataFrame) -> list[Verdict]:
    """The verdict of every layer, module and subspace of one vector on one evaluation, in the order of the table."""
    strengths = strengths_of(lines)
    found = []
    for (family, component), by_alpha in versions(lines.iter_rows(named=True)).items():
        cells = [by_alpha[alpha] for alpha in strengths if alpha in by_alpha]
        if cells and cells[0].get("drop", {}).get("of"):
            continue  # what remains of a crop: its effect is that of the crop, not of the vector without the component
        if not cells or not ({"keep", "drop"} & set(cells[0])):
            continue
        found.append(
            Verdict(
                family,
                component,
                _suffices(cells),
                all(_over(cell.get("keep"), HALF) for cell in cells),
                all(_under(cell.get("drop"), HALF) for cell in cells),
                all(_over(cell.get("drop"), MOST) for cell in cells),
                cells[0].get("keep", {}).get("energy"),
                dict(cells[0]),
            )
        )
    return found


def sentences(lines: pl.DataFrame) -> list[str]:
    """The summary of one vector on one evaluation."""
    whole = {line["alpha"]: line for line in lines.filter(pl.col("key") == WHOLE).iter_rows(named=True)}
    said = [
        "The whole vector moves "
        + lines["eval"][0]
        + " by "
        + ", ".join(
            f"{estimate(line, 'effect')} nats at α = {signed(alpha)}" for alpha, line in sorted(whole.items())[::-1]
        )
        + "."
    ]
    strengths = strengths_of(lines)
    if not strengths:
        return [*said, "Every interval includes 0, so shares of the effect are not defined."]
    if len(strengths) < len(whole):
        listed = ", ".join(signed(alpha) for alpha in strengths)
        said.append(
            f"The following holds at α = {listed}; at other strengths the effect is not distinguishable from 0."
        )
    at = lines.filter(pl.col("alpha") == strengths[0])
    said += _norms(at)
    found = [one for one in verdicts(lines) if one.family != "single modules" and not one.note]
    found = [one for one in found if (one.energy or 0.0) < NEARLY_ALL]
    enough = [one for one in found if one.suffices]
    said += [_sufficient(one) for one in _smallest([one for one in enough if one.alone])]
    said += [_sufficient(one) for one in _smallest([one for one in enough if not one.alone])]
    said += [_necessary(one) for one in _needed(found)[:SHOWN]]
    if not any(one.suffices for one in found) and any(one.suffices is not None for one in found):
        said.append("No layer, module or subspace that was measured suffices by itself.")
    return said


def most_aligned(lines: pl.DataFrame) -> str:
    """An alignment table in words: the subspace with the largest share relative to random ones, and those below."""
    whole = lines.filter(pl.col("by") == "all", pl.col("warning").is_null())
    whole = whole.group_by("basis", "side", maintain_order=True).agg(pl.mean("share", "expected", "low", "high"))
    above = whole.filter(pl.col("share") > pl.col("high")).sort(pl.col("share") / pl.col("expected"), descending=True)
    below = whole.filter(pl.col("share") < pl.col("low")).sort("share")
    said = "No subspace contains more of the vector than random subspaces do."
    if above.height:
        first = above.row(0, named=True)
        said = (
            f"{above.height} of {whole.height} subspaces contain more of ‖dW‖² than random subspaces do. The ratio is "
            f"largest for {first['basis']} on the {first['side']} side: {first['share']:.0%}, compared with "
            f"{first['expected']:.0%} in random subspaces."
        )
    if below.height:
        named = ", ".join(f"{line['basis']} ({line['side']})" for line in below.head(3).iter_rows(named=True))
        said += f" Less than random: {named}."
    return said


def _norms(lines: pl.DataFrame) -> list[str]:
    every = lines.filter(pl.col("family") == "norms").iter_rows(named=True)
    retained = {line["component"]: ratio(line) for line in every}
    if not {DIRECTION, MAGNITUDE} <= retained.keys():
        return []
    permuted = f"; with its layers permuted it retains {retained[PERMUTED]}" if PERMUTED in retained else ""
    return [
        f"Its directions with equal norms retain {retained[DIRECTION]} of the effect; its norms with random directions "
        f"retain {retained[MAGNITUDE]}{permuted}."
    ]


def _sufficient(one: Verdict) -> str:
    energy = "" if one.energy is None else f" ({one.energy:.0%} of ‖dW‖²)"
    word = "Sufficient" if one.alone else "Sufficient at full norm"
    return (
        f"{word}: {one.component}{energy}. Alone it retains {ratio(one.lines['keep'])} of the effect, and at the norm "
        f"of the whole vector {ratio(one.lines['matched'])}; random directions in its place retain "
        f"{ratio(one.lines['random'])}."
    )


def _necessary(one: Verdict) -> str:
    return f"Needed: {one.component}. Without it, {ratio(one.lines['drop'])} of the effect is retained."


def _smallest(found: Sequence[Verdict]) -> list[Verdict]:
    """Of what suffices, those with the least energy: whatever contains them suffices too."""
    return sorted(found, key=lambda one: (one.energy is None, one.energy))[:SHOWN]


def _needed(found: Sequence[Verdict]) -> list[Verdict]:
    return sorted(
        (one for one in found if one.needed),
        key=lambda one: (one.lines["drop"]["energy"] is None, -(one.lines["drop"]["energy"] or 0.0)),
    )


def _suffices(cells: Sequence[Mapping[str, Line]]) -> bool | None:
    if not all({"matched", "random"} <= set(cell) for cell in cells):
        return None
    return all(
        _over(cell["matched"], HALF)
        and cell["random"]["retained_high"] is not None
        and cell["random"]["retained_high"] < cell["matched"]["retained_low"]
        for cell in cells
    )


def _over(line: Line | None, share: float) -> bool:
    return line is not None and line["retained_low"] is not None and line["retained_low"] >= share


def _under(line: Line | None, share: float) -> bool:
    return line is not None and line["retained_high"] is not None and line["retained_high"] <= share
