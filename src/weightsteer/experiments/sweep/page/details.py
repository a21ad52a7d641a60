"""What the report tells in words: rows that flipped, texts at several strengths, the audit of the pairs, limits."""

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from weightsteer.formatting import number, signed
from weightsteer.stats import changed_side
from weightsteer.stats.verdict import Verdict

SHOWN_WANTED, SHOWN_OTHER = 3, 2  # rows of each label
LONGEST = 700  # characters of a generated text that are shown


def flipped(known: pl.DataFrame, alpha: float, texts: Mapping[str, str], name: str) -> dict[str, Any]:
    """Decisions that changed sign between α = 0 and ``alpha``, counted over all seeds, and a few of them.

    Shown are, of each label, the items that flipped in the most seeds, then by the largest mean change; first those
    that went the way of the strength, which is towards the behaviour at a positive one.
    """
    at = known.filter(pl.col("alpha") == alpha)
    changed = changed_side(at)
    items = (
        changed.group_by("item", "label", "toward")
        .agg(pl.len().alias("seeds"), pl.mean("before", "logratio"))
        .sort(-pl.col("seeds").cast(pl.Int64), -(pl.col("logratio") - pl.col("before")).abs(), "item")
    )
    wanted = pl.col("toward") == (alpha > 0)
    chosen = [
        items.filter(way, pl.col("label") == sign).head(shown)
        for way, shown in ((wanted, SHOWN_WANTED), (~wanted, SHOWN_OTHER))
        for sign in (1, -1)
    ]
    seeds = at["seed"].n_unique()
    return {
        "name": name,
        "alpha": alpha,
        "rows": at.height,
        "toward": int(changed["toward"].sum()),
        "away": changed.height - int(changed["toward"].sum()),
        "seeds": seeds,
        "changed": items.height,
        "shown": [
            {
                "text": texts.get(row["item"], row["item"]),
                "toward": row["toward"],
                "label": "+1" if row["label"] > 0 else "−1",
                "before": number(row["before"]),
                "after": number(row["logratio"]),
                "seeds": f"{row['seeds']} of {seeds}" if seeds > 1 else None,
            }
            for part in chosen
            for row in part.iter_rows(named=True)
        ],
    }


def sample_grids(samples: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Texts by prompt and vector: a column for each strength, a line for each seed."""
    grids = []
    for prompt, vector in dict.fromkeys((str(s["prompt"]), str(s.get("vector", ""))) for s in samples):
        mine = [s for s in samples if s["prompt"] == prompt and str(s.get("vector", "")) == vector]
        alphas = sorted({float(sample["alpha"]) + 0.0 for sample in mine})
        seeds = sorted({sample["seed"] for sample in mine})
        found = {(sample["seed"], float(sample["alpha"])): str(sample["text"]) for sample in mine}
        lines = [(seed, [_cut(found.get((seed, alpha))) for alpha in alphas]) for seed in seeds]
        grids.append({"prompt": prompt, "vector": vector, "alphas": alphas, "lines": lines})
    return grids


def audit_table(audit: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The audit as rows of measures and columns of seeds; warnings apart."""
    if not audit:
        return None
    many = all(isinstance(value, Mapping) for value in audit.values())
    named = {str(name): value for name, value in audit.items()} if many else {"": audit}
    flat = {name: _flat({k: v for k, v in one.items() if k != "warnings"}) for name, one in named.items()}
    measures = list(dict.fromkeys(measure for one in flat.values() for measure in one))
    return {
        "columns": list(flat),
        "rows": [(measure, [one.get(measure, "–") for one in flat.values()]) for measure in measures],
        "warnings": [
            f"{name}: {text}" if name else text for name, one in named.items() for text in one.get("warnings") or []
        ],
    }


def limits(summary: pl.DataFrame) -> list[str]:
    """What this run cannot show, from its own shape."""
    found = []
    tested = summary.filter(pl.col("alpha") != 0, pl.col("discrimination_low").is_not_null())
    if tested.height:
        known = tested["z"].is_not_null().all()
        found.append(
            f"The intervals of the {tested.height} effects hold at 95% each and are not corrected for their number. "
            "Against random directions the two effects on all evaluations of one intervention at one strength are."
            if known
            else f"Each of the {tested.height} verdicts stands at 95% for itself and none is corrected for the others: "
            f"without any effect about {max(1, round(tested.height * 0.05))} would exclude 0."
        )
    seeds = int(summary["seeds"].max())  # type: ignore[arg-type]
    if seeds == 1:
        found.append("One training seed: the intervals speak for other rows, not for another training of the vector.")
    elif seeds < 5:
        found.append(
            f"{seeds} training seeds: their spread is a rough guess, and Student's factor widens the intervals "
            "for it. Where the seeds agree, their own intervals are narrower than the pooled one."
        )
    unknown = tested.filter(pl.col("method") != "control", pl.col("z").is_null())
    if unknown.height and not (summary["method"] == "control").any():
        found.append(
            "No control was swept, and no null of random directions is known: "
            "how much of the effect any vector of this size has is unknown."
        )
    uneven = summary.filter((pl.col("positives") * 2 - pl.col("n")).abs() * 5 > pl.col("n")).unique("eval").sort("eval")
    found += [
        f"{line['eval']} has {line['positives']} rows of label +1 and {line['n'] - line['positives']} of −1: both "
        "weigh the same in the effects, so the rarer one carries the uncertainty. SI counts rows: it feels it."
        for line in uneven.iter_rows(named=True)
    ]
    gone = summary.filter(pl.col("nan") > 0)
    found += [
        f"{line['nan']} rows of {line['eval']} are NaN at α = {signed(line['alpha'])}: "
        "that strength has no effect sizes."
        for line in gone.iter_rows(named=True)
    ]
    damaged = [line for line in summary.iter_rows(named=True) if Verdict(line["verdict"]) is Verdict.FORMAT_DAMAGE]
    if damaged:
        found.append(
            "Where the answer mass falls below 0.9 the log-ratio compares two answers that the model would rarely give."
        )
    return found


def _cut(text: str | None) -> str | None:
    if text is None or len(text) <= LONGEST:
        return text
    return text[:LONGEST].rstrip() + " …"


def _flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested measures under one name each; sides of a pair share a line, numbered entries become a range."""
    out: dict[str, str] = {}
    sides = value.get("positive"), value.get("negative")
    if all(isinstance(side, Mapping) for side in sides):
        plus, minus = (_flat(side) for side in sides)  # type: ignore[arg-type]
        out = {f"{measure}, positive | negative": f"{plus[measure]} | {minus.get(measure, '–')}" for measure in plus}
        value = {key: inner for key, inner in value.items() if key not in ("positive", "negative")}
    found: dict[str, str] = {}
    for key, inner in value.items():
        name = f"{prefix}{str(key).replace('_', ' ')}"
        if isinstance(inner, Mapping) and inner and all(str(k).isdigit() for k in inner):
            found[name] = _range(list(inner.values()))
        elif isinstance(inner, Mapping):
            found |= _flat(inner, f"{name}: ")
        else:
            found[name] = _plain(inner)
    return found | out


def _range(values: Sequence[Any]) -> str:
    """``8 to 50 (20 entries)``."""
    if all(isinstance(value, int | float) for value in values):
        return f"{_plain(min(values))} to {_plain(max(values))} ({len(values)} entries)"
    return f"{len(values)} entries"


def _plain(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.3g}".replace("-", "−")
    if isinstance(value, list | tuple):
        return ", ".join(_plain(each) for each in value) or "none"
    return str(value)
