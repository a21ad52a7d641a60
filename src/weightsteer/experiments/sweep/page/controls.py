"""Controls compared with the vectors they belong to: is something that should have no effect as strong?"""

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from weightsteer.audit.rules import COST_RATIO
from weightsteer.experiments.sweep.page.evidence import Evidence
from weightsteer.formatting import estimate
from weightsteer.report.cells import key, p_value, sign_label
from weightsteer.report.charts import Series

_VECTOR = ["model", "behavior", "reference_method", "reference_adapter"]


def control_tables(evidence: Evidence, shown: Sequence[Series]) -> list[dict[str, Any]]:
    """For each vector its controls, evaluation by evaluation and sign by sign, with the vector's own effect."""
    if evidence.audit is None or evidence.audit.controls.is_empty():
        return []
    tables = []
    for part in evidence.audit.controls.partition_by(_VECTOR, maintain_order=True):
        names = evidence.evaluations(str(part["behavior"][0]), part["eval"].unique().to_list())
        lines = [
            {**_line(line), "first": place == 0}
            for name in names
            for sign in (1, -1)
            for place, line in enumerate(part.filter(eval=name, sign=sign).sort("adapter").to_dicts())
        ]
        vector = next(one for one in shown if (one.method, one.adapter) == part.select(_VECTOR[2:]).row(0))
        tables.append(
            {
                **key(vector, shown),
                "model": part["model"][0],
                "behavior": part["behavior"][0],
                "lines": lines,
                "tested": sum(line["works"] for line in lines),
                "as_good": [line for line in lines if line["as_good"]],
                "seeds": part["reference_seeds"].max(),
                "order": shown.index(vector),
            }
        )
    return sorted(tables, key=lambda table: (table["model"], table["behavior"], table["order"]))


def without_strength(evidence: Evidence) -> list[str]:
    """Controls that are missing from the tables because they have no usable strength, with the reason."""
    if evidence.audit is None:
        return []
    gone = evidence.audit.excluded.filter(pl.col("method") == "control").sort(
        "adapter", "sign", descending=[False, True]
    )
    return [f"{line['adapter']} at {sign_label(line['sign'])} ({line['reason']})" for line in gone.to_dicts()]


def meanings(tables: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """What each kind of control in the tables would show if it were as strong as the vector."""
    from weightsteer.controls import kinds  # with torch, which a report over finished rows can do without

    known = kinds()
    named = sorted({line["kind"] for table in tables for line in table["lines"]} & set(known))
    return [(name, known[name].shows) for name in named]


def _line(line: Mapping[str, Any]) -> dict[str, Any]:
    """One control at one sign. It is only tested where the vector has an effect, in the intended direction."""
    kind = str(line["adapter"]).removeprefix(f"{line['reference_adapter']}-")
    works = line["reference_effect_low"] is not None and line["reference_effect_low"] > 0
    return {
        "name": kind,
        "kind": line["control"],
        "eval": line["eval"],
        "sign": sign_label(line["sign"]),
        "n": line["n"],
        "seeds": line["seeds"],
        "effect": estimate(line, "effect"),
        "vector": estimate(line, "reference_effect"),
        "difference": estimate(line, "difference"),
        "holm": p_value(line["holm"]),
        "mde": "–" if line["mde"] is None else f"{line['mde']:.2f}",
        "draws": "–" if line["draws"] is None else f"{line['draws_as_good']} of {line['draws']}",
        "cost": "–" if line["cost"] is None else f"{line['cost']:.2f}",
        "costly": line["cost_ratio"] is not None and line["cost_ratio"] > COST_RATIO,
        "works": works,
        "as_good": works and bool(line["as_good"]),
    }
