"""``compare``: which of two interventions does more over identical rows, if the difference is distinguishable from 0.

For methods a and b at chosen strengths, both paired with α = 0 on the same items::

    difference = s (effect of a  −  effect of b),     s = the sign of the strength

so that "more" is more of what the strength asks for, at both signs. Clusters of items are resampled together for a and
b; training seeds are paired when both have the same ones, and vary on their own when not.
"""

from collections.abc import Iterator, Mapping
from itertools import combinations
from typing import Any

import polars as pl

from weightsteer.errors import WeightsteerError, unknown
from weightsteer.stats.bootstrap import Array, Bootstrap, interval
from weightsteer.stats.correction import LEVEL, holm
from weightsteer.stats.effects import resampled
from weightsteer.stats.grid import Grid
from weightsteer.stats.pairing import paired
from weightsteer.stats.spread import Spread
from weightsteer.stats.strengths import select
from weightsteer.stats.table import agreement
from weightsteer.stats.verdict import Difference

METRICS = {
    "discrimination": "nats",
    "bias": "nats",
    "pmass_change": "of probability",
    "si": "points",
    "si_forward": "points",
}
"""What can be compared, with its unit. The last two rest on +α alone, and are not oriented."""

ORIENTED = ("discrimination", "bias")

TABLE = ["model", "behavior", "eval"]
ARM = ["method", "adapter"]
SCHEMA = {
    **dict.fromkeys([*TABLE, *ARM, "reference_method", "reference_adapter", "metric"], pl.String),
    **dict.fromkeys(["sign", "n", "clusters", "seeds", "reference_seeds", "family"], pl.Int64),
    "paired_seeds": pl.Boolean,
    **dict.fromkeys(
        [
            "alpha",
            "reference_alpha",
            *(f"{prefix}effect{end}" for prefix in ("", "reference_") for end in ("", "_low", "_high")),
            *(f"{name}{end}" for name in ("difference", "retained") for end in ("", "_low", "_high")),
            *("p", "holm", "mde", "sign_agreement", "base_gap"),
        ],
        pl.Float64,
    ),
    "reason": pl.String,
    "verdict": pl.String,
}


def compare(
    rows: pl.DataFrame,
    at: pl.DataFrame,
    *,
    reference: tuple[str, str | None] | None = None,
    metric: str = "discrimination",
    resamples: int = 10_000,
    seed: int = 0,
) -> pl.DataFrame:
    """Paired differences between interventions at the strengths ``at``, corrected for their number.

    With a ``reference`` the comparisons are planned: who differs from it, on this evaluation, at this sign? Each such
    question is a family of Holm's correction by itself. Without one every pair is compared, and the family is all
    comparisons of the call.

    Args:
        rows: of a sweep in which all interventions of a behaviour answered the same items.
        at: the strengths, see `weightsteer.stats.strengths.select`: fixed ones or a calibration.
        reference: ``(method, adapter)`` that all others are compared with; by default every pair is compared.
        metric: one of `METRICS`.

    Returns:
        One line per pair, evaluation and sign: the two interventions and their mean ``alpha``; ``effect`` and
        ``reference_effect`` with their 95% bootstrap intervals; ``difference`` with its 95% interval (Student's, on
        the bootstrap's variance, so that it excludes 0 exactly when ``p`` < 0.05); ``p`` and, corrected, ``holm``;
        ``mde``: the smallest difference found with 80% power at the level of its family, of ``family`` comparisons;
        ``retained``, the ratio effect / reference_effect with Fieller's interval (null where the reference's own effect
        may be 0, by which nothing can be divided); ``sign_agreement``: the share of paired seeds with the commoner
        sign; ``base_gap``: the largest difference (nats) of the two at α = 0, which is rounding alone if both had the
        same base and prompts; and a ``verdict``. Arms without a usable strength come last: no numbers, the ``reason``.

    Raises:
        WeightsteerError: the interventions did not answer the same items, there are fewer than two, or see ``select``.
    """
    if metric not in METRICS:
        raise unknown("metric", metric, METRICS)
    selection = select(rows, at)
    lines: list[dict[str, Any]] = []
    draws = Bootstrap(resamples, seed)
    if selection.rows.height:
        known = paired(selection.rows)
        for part in known.sort([*TABLE, *ARM], nulls_last=True).partition_by(TABLE, maintain_order=True):
            check_same_items(part)
            lines += _table(part, metric, reference, draws)
    if not lines and selection.excluded.is_empty():
        asked = f" with {_named(*reference)}" if reference else ""
        raise WeightsteerError(
            f"there is nothing to compare{asked}: give strengths of two interventions that were swept."
        )
    families: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for line in lines:
        families.setdefault(tuple(line[name] for name in [*TABLE, "sign"]) if reference else (), []).append(line)
    for family in families.values():
        adjusted = holm([line["p"] for line in family])
        tested = sum(each is not None and each == each for each in adjusted)
        for line, corrected in zip(family, adjusted, strict=True):
            spread = line.pop("spread")
            line["holm"], line["family"] = corrected, tested
            line["mde"] = spread.detectable((1, -1), LEVEL / tested) if spread and tested else None
            line["verdict"] = _verdict(line)
    lines += [
        {**line, "metric": metric, "verdict": Difference.NOT_COMPARED}
        for line in selection.excluded.iter_rows(named=True)
    ]
    return pl.DataFrame(lines, schema=SCHEMA)


def check_same_items(part: pl.DataFrame) -> None:
    """Refuse interventions that answered different items, or the same under another label or cluster."""
    asked = {
        (method, adapter): set(group.select("item", "label", "cluster").unique().iter_rows())
        for (method, adapter), group in part.group_by(ARM, maintain_order=True)
    }
    (first, items), *others = asked.items()
    for name, own in others:
        if differing := items ^ own:
            some = ", ".join(sorted({str(item) for item, _, _ in differing})[:3])
            raise WeightsteerError(
                f"{_named(*first)} and {_named(*name)} were not scored on the same rows of {part['eval'][0]}: "
                f"{len({item for item, _, _ in differing})} items differ (in text, label or cluster), for example "
                f"{some}. Sweep them over one version of the evaluation."
            )


def _table(
    part: pl.DataFrame, metric: str, reference: tuple[str, str | None] | None, draws: Bootstrap
) -> Iterator[dict[str, Any]]:
    """Every comparison within one evaluation."""
    groups = {(g["method"][0], g["adapter"][0]): g for g in part.partition_by(ARM, maintain_order=True)}
    if reference is None:
        pairs = list(combinations(groups, 2))
    else:
        pairs = [(name, reference) for name in groups if name != reference] if reference in groups else []
    wanted = {name for pair in pairs for name in pair}
    signs = {name: _signs(group, metric, draws) for name, group in groups.items() if name in wanted}
    constant = part.select(TABLE).row(0, named=True)
    for sign in (1, -1):
        for one, other in pairs:
            if sign in signs[one] and sign in signs[other]:
                yield {
                    **constant,
                    "metric": metric,
                    "sign": sign,
                    **_line(one, other, signs[one][sign], signs[other][sign], draws),
                }


def _signs(group: pl.DataFrame, metric: str, draws: Bootstrap) -> dict[int, dict[str, Any]]:
    """Both signs of one intervention: values per draw and seed, and what goes with them."""
    grid = Grid.build(group)
    series = resampled(grid, draws)[metric]
    clusters = int(grid.cluster.max()) + 1
    found: dict[int, dict[str, Any]] = {}
    for sign in (1, -1):
        place = [k for k, alpha in enumerate(grid.alphas) if alpha == sign]
        if not place or (metric not in ORIENTED and metric != "pmass_change" and sign < 0):
            continue
        values: Array = series[:, :, place[0]] * (sign if metric in ORIENTED else 1)
        found[sign] = {
            "values": values,
            "clusters": clusters,
            "n": grid.label.size,
            "seeds": group.select(pl.col("draw").fill_null(0), "seed").unique().sort("draw", "seed").rows(),
            "alpha": float(group.filter(pl.col("alpha") == sign)["strength"].mean()),  # type: ignore[arg-type]
            "base": grid.y[:, grid.zero].mean(0),
        }
    return found


def _line(
    one: tuple[str, str | None],
    other: tuple[str, str | None],
    mine: Mapping[str, Any],
    theirs: Mapping[str, Any],
    draws: Bootstrap,
) -> dict[str, Any]:
    a, b = mine["values"], theirs["values"]
    clusters = mine["clusters"]
    same = mine["seeds"] == theirs["seeds"]
    effect, other_effect = float(a[0].mean()), float(b[0].mean())
    line: dict[str, Any] = {
        **dict(zip(ARM, one, strict=True)),
        **{f"reference_{key}": value for key, value in zip(ARM, other, strict=True)},
        "n": mine["n"],
        "clusters": clusters,
        "seeds": len(mine["seeds"]),
        "reference_seeds": len(theirs["seeds"]),
        "paired_seeds": same,
        "alpha": mine["alpha"],
        "reference_alpha": theirs["alpha"],
        "effect": effect,
        "reference_effect": other_effect,
        "difference": effect - other_effect,
        "retained": effect / other_effect if other_effect else None,
        "p": None,
        "spread": None,
        "sign_agreement": agreement(a[0] - b[0]) if same else None,
        "base_gap": float(abs(mine["base"] - theirs["base"]).max()),
    }
    if clusters < 2:
        return line
    for name, values in (("effect", a), ("reference_effect", b)):
        line[f"{name}_low"], line[f"{name}_high"] = interval(draws.pooled(values, clusters))
    spread = Spread.of([a, b], clusters, same_seeds=same)
    half = spread.halfwidth((1, -1))
    line["p"] = spread.p(line["difference"], (1, -1))
    line["difference_low"], line["difference_high"] = line["difference"] - half, line["difference"] + half
    line["spread"] = spread
    bounds = spread.ratio(effect, other_effect)
    covers = not (line["reference_effect_low"] > 0 or line["reference_effect_high"] < 0)
    if bounds is None or covers:
        line["retained"] = None
    else:
        line["retained_low"], line["retained_high"] = bounds
    return line


def _verdict(line: Mapping[str, Any]) -> Difference:
    if line["difference"] != line["difference"]:
        return Difference.UNDEFINED
    if line["p"] is None:
        return Difference.NO_INTERVAL
    if line["holm"] >= LEVEL:
        return Difference.NOT_SEPARABLE
    return Difference.MORE if line["difference"] > 0 else Difference.LESS


def _named(method: str, adapter: str | None) -> str:
    return f"{method} {adapter}" if adapter else method
