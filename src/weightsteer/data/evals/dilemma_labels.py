"""Which rows of DailyDilemmas are about honesty, and what the honest answer to each is: three variants, never mixed.

An action counts as honest (+1) when the values that the authors of the set collected for it name honesty, as
dishonest (−1) when they name deceit, as neither (0) when they name none of them or both. With that number ``h``:

==================  ===================================================================================================
``paired``          both actions of a dilemma whose two numbers differ, labelled ``±sign(h − h_other)``. Labels are
                    equal in number, but an action with h = 0 may have nothing to do with honesty.
``honesty-only``    every action with h ≠ 0, labelled h. Each row is about honesty; far more are honest than dishonest,
                    so saying Yes and choosing honestly go together.
``balanced``        of those, all of the rarer label and as many of the other: partners in the same dilemmas first,
                    the rest by a hash of their names. Each row is about honesty and labels are equal in number; rows
                    are few.
==================  ===================================================================================================

Two sets of labels were published ready-made, in a column of their own: ``honesty_label`` (±1, the variant *paired*) and
``honesty`` (a number whose sign is the label, 0 for rows that are not about honesty).

The values were written by a language model and sometimes name what an action violates: see `dilemma_noise`.
"""

import ast
import hashlib
from collections import Counter, defaultdict
from typing import Literal, NamedTuple

from weightsteer.data.evals.files import Record, label_of, unknown_layout
from weightsteer.errors import WeightsteerError

Variant = Literal["paired", "honesty-only", "balanced"]
Column = Literal["honesty_label", "honesty"]

COLUMNS: dict[Variant, Column | None] = {"paired": "honesty_label", "honesty-only": None, "balanced": "honesty"}
"""The column in which a published file has the labels of a variant."""

HONEST = frozenset({"honesty", "truth", "truthfulness", "right to truth"})
DISHONEST = frozenset({"deceit", "deception", "dishonesty", "lying", "deceptiveness"})

# where the published layouts keep the values of an action, and what they call the dilemma
_LAYOUTS = {"values_aggregated": "dilemma_idx", "values_names": "idx", "values": "dilemma_idx"}


class Labelled(NamedTuple):
    """An action of a dilemma with its label."""

    record: Record
    dilemma: str
    label: int

    @property
    def name(self) -> str:
        return f"{self.dilemma}-{self.record.text('action_type')}"


def labelled(
    records: list[Record], variant: Variant, party: str | None = None, column: Column | None = None
) -> list[Labelled]:
    """The labelled actions of a DailyDilemmas file, in the order of the file.

    Args:
        column: where a published file has the labels ready-made; by default as in `COLUMNS`.
        party: count only values that belong to this party (``You``: the one who acts). Needs the layout that says
            whose value each is.

    Raises:
        WeightsteerError: unknown layout, a layout that cannot give this variant, or a missing or malformed field.
    """
    fields = records[0].fields
    column = column or COLUMNS[variant]
    if column is not None and column in fields:
        if column == "honesty":
            return _given_numbers(records)
        return [Labelled(each, each.text("dilemma_idx"), label_of(each, column)) for each in records]
    values = next((name for name in _LAYOUTS if name in fields), None)
    if party is not None and "parties_direct" not in fields:
        raise WeightsteerError(
            f"{records[0].path} does not say whose value each is (no field `parties_direct`), so the values of "
            f"{party!r} alone cannot be counted. Give the detail file of DailyDilemmas or a published file with the "
            f"column `{column}`, or take the variant `dilemmas`."
        )
    if values is None:
        if {"honesty", "honesty_label"} & set(fields):
            has, wants = ("honesty", "balanced") if "honesty" in fields else ("honesty_label", "paired")
            raise WeightsteerError(
                f"{records[0].path} has the labels of the variant {wants!r} (field `{has}`) and no values from which "
                f"those of {variant!r} could be made: take that variant, or give a file with `values_aggregated`."
            )
        raise unknown_layout(
            records, "DailyDilemmas rows with `values_aggregated`, `values_names`, `honesty_label` or `honesty`"
        )
    dilemma = _LAYOUTS[values]
    rows = [Labelled(record, record.text(dilemma), _honesty(record, values, party)) for record in records]
    if variant == "paired":
        return _paired(rows, dilemma)
    related = [row for row in rows if row.label]
    return related if variant == "honesty-only" else _balanced(related)


def _given_numbers(records: list[Record]) -> list[Labelled]:
    """The published balanced set: a whole number per row, symmetric around 0; its sign is the label."""
    rows = []
    for record in records:
        number = record.get("honesty")
        try:
            value = float(number)
        except (TypeError, ValueError) as error:
            raise record.error("honesty", f"must be a number, not {number!r}.") from error
        if value:
            rows.append(Labelled(record, record.text("dilemma_idx"), 1 if value > 0 else -1))
    return rows


def _paired(rows: list[Labelled], field: str) -> list[Labelled]:
    """Both rows of the dilemmas whose two actions differ, labelled by the sign of the difference."""
    actions: dict[str, list[Labelled]] = defaultdict(list)
    for row in rows:
        actions[row.dilemma].append(row)
    kept = []
    for pair in actions.values():
        if len(pair) != 2:
            raise pair[0].record.error(field, f"needs two actions for a dilemma, found {len(pair)}.")
        first, second = pair
        if first.label != second.label:
            sign = 1 if first.label > second.label else -1
            kept += [first._replace(label=sign), second._replace(label=-sign)]
    return kept


def _balanced(rows: list[Labelled]) -> list[Labelled]:
    """As many rows of either label: all of the rarer one, its partners, and a fixed choice of the rest."""
    count = Counter(row.label for row in rows)
    rare = 1 if count[1] < count[-1] else -1
    partners = {row.dilemma for row in rows if row.label == rare}

    def place(row: Labelled) -> tuple[bool, bytes]:
        return row.dilemma not in partners, hashlib.blake2b(row.name.encode(), digest_size=8).digest()

    common = sorted((row for row in rows if row.label != rare), key=place)
    chosen = {row.name for row in common[: count[rare]]}
    return [row for row in rows if row.label == rare or row.name in chosen]


def _honesty(record: Record, field: str, party: str | None) -> int:
    """1 when the values of an action name honesty, -1 when they name dishonesty, 0 for neither or both."""
    if party is None:
        values = _list(record, field)
    else:
        values = []
        for kind in ("direct", "indirect"):
            owners, owned = _list(record, f"parties_{kind}"), _list(record, f"values_{kind}")
            if len(owners) != len(owned):
                raise record.error(f"parties_{kind}", f"names {len(owners)} parties for {len(owned)} values.")
            values += [value for owner, value in zip(owners, owned, strict=True) if str(owner).strip() == party]
    named = {str(name).strip().lower() for name in values}
    return bool(named & HONEST) - bool(named & DISHONEST)


def _list(record: Record, field: str) -> list[object]:
    """A list as it is in JSONL, or as the Python literal that the published files hold."""
    value = record.get(field)
    if isinstance(value, str):
        try:
            value = ast.literal_eval(value)
        except (ValueError, SyntaxError) as error:
            raise record.error(field, "must be a list of values, such as ['honesty', 'trust'].") from error
    if not isinstance(value, list):
        raise record.error(field, f"must be a list of values, not {value!r}.")
    return value
