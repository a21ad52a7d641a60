"""What an evaluation is: labelled two-choice rows, grouped into clusters, under a name."""

import hashlib
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, TypeVar

import yaml
from transformers import PreTrainedModel

from weightsteer.errors import WeightsteerError
from weightsteer.registry import EVALS, Registry

YES_NO = ("Yes", "No")


@dataclass(frozen=True)
class Item:
    """One row: a conversation that ends where the model names one of two choices.

    Attributes:
        item: identifier, unique within its evaluation.
        cluster: rows that belong together (two actions of one dilemma) share it; intervals resample clusters.
        label: +1 when the first choice shows the behaviour, -1 when the second does.
        messages: the chat, e.g. ``({"role": "user", "content": "…"},)``.
        choices: two words, each a single token of the model.
        answer_prefix: the beginning of the model's answer; the choice is the next token.
        text: what a human reads in tables; the last message when empty.
        thinking_tokens: at most so many tokens of free thought before ``answer_prefix`` (the guided form, see
            `weightsteer.measure.guided`); 0: the model answers at once.
    """

    item: str
    cluster: str
    label: int
    messages: tuple[dict[str, str], ...]
    choices: tuple[str, str] = YES_NO
    answer_prefix: str = ""
    text: str = ""
    thinking_tokens: int = 0

    def __post_init__(self) -> None:
        if self.label not in (1, -1):
            raise WeightsteerError(
                f"row {self.item!r}: label must be 1 (the first choice shows the behaviour) or -1 (the "
                f"second does), not {self.label!r}."
            )
        if not self.messages:
            raise WeightsteerError(f"row {self.item!r} has no messages: give at least one user turn.")
        if self.thinking_tokens < 0:
            raise WeightsteerError(f"row {self.item!r}: thinking_tokens must not be negative ({self.thinking_tokens}).")
        if not self.text:
            object.__setattr__(self, "text", self.messages[-1]["content"])


def user_turn(text: str) -> tuple[dict[str, str], ...]:
    """A conversation of one user message."""
    return ({"role": "user", "content": text},)


def from_world(rows: Iterable[Mapping[str, Any]]) -> list[Item]:
    """Items from rows of the embedded models' world: item, cluster, label, user (the question) and text.

    Rows whose answer is not Yes or No also have choices and answer_prefix.
    """
    return [
        Item(
            item=row["item"],
            cluster=row["cluster"],
            label=row["label"],
            messages=user_turn(row["user"]),
            choices=row.get("choices", YES_NO),
            answer_prefix=row.get("answer_prefix", ""),
            text=row["text"],
        )
        for row in rows
    ]


class Published(NamedTuple):
    """The rows behind published tables of the same evaluation: what a run's own numbers are compared with.

    ``positives``: how many have label +1; None where that was not published. ``where``: the set, or the tables.
    """

    rows: int
    positives: int | None
    where: str

    def turned(self, sign: int) -> "Published":
        """The same rows with their labels times ``sign``, as a behaviour of opposite polarity has them."""
        if sign == 1 or self.positives is None:
            return self
        return self._replace(positives=self.rows - self.positives)

    def __str__(self) -> str:
        labels = "" if self.positives is None else f", {self.positives}:{self.rows - self.positives}"
        return f"{self.rows:,} rows{labels} ({self.where})"


class Evaluation(ABC):
    """A named set of rows for a model.

    Subclasses say in `rows` what the rows are; `items` applies the behaviour's sign and the limit.

    Attributes:
        axis: the evaluation whose sign in a behaviour holds for this one too (see `weightsteer.data.evals.sign`): the
            variants of an evaluation point the same way. Empty: its own name.
        balanced: whether the shipped and the published rows have both labels equally often. Where they do not,
            the behaviour and the yes-bias are separated less well, or (one label) not at all.
        published: the size of the published set of that name, for real models; None where none was published.

    Args:
        data: a file of the user's own, for evaluations that can read one.
        sign: +1 or -1, multiplies every label, so that the same rows serve a behaviour of opposite polarity.
        limit: at most so many rows, as a fixed pseudo-random choice of whole clusters; None for all.
    """

    name: str
    axis: str = ""
    balanced: bool = True
    published: ClassVar[Published | None] = None

    def __init__(self, *, data: Path | None = None, sign: int = 1, limit: int | None = None) -> None:
        if sign not in (1, -1):
            raise WeightsteerError(f"the sign of an evaluation must be 1 or -1, not {sign!r}.")
        if limit is not None and limit < 1:
            raise WeightsteerError(f"the limit of an evaluation must be at least 1 row, not {limit}.")
        self.data = data
        self.sign = sign
        self.limit = limit

    @abstractmethod
    def rows(self, model: PreTrainedModel) -> list[Item]:
        """All rows for this model, labelled for the behaviour the evaluation is written for."""

    def items(self, model: PreTrainedModel) -> list[Item]:
        """The rows to score, in a fixed order, with the sign applied to their labels.

        Raises:
            WeightsteerError: there is no row, or an identifier occurs twice.
        """
        rows = limited(self.rows(model), self.limit)
        check_items(rows, self.name)
        return rows if self.sign == 1 else [replace(row, label=-row.label) for row in rows]


def rows_of(evaluation: "Evaluation | Sequence[Item]", model: PreTrainedModel) -> tuple[str, list[Item]]:
    """The name and the rows of an evaluation; rows given as a list are checked, and named ``items``."""
    if isinstance(evaluation, Evaluation):
        return evaluation.name, evaluation.items(model)
    items = list(evaluation)
    check_items(items, "items")
    return "items", items


def check_items(items: Sequence[Item], name: str) -> None:
    """Refuse an empty evaluation and identifiers that occur twice (effects are paired by them)."""
    if not items:
        raise WeightsteerError(f"the evaluation {name!r} has no rows.")
    (identifier, times), *_ = Counter(item.item for item in items).most_common(1)
    if times > 1:
        raise WeightsteerError(
            f"the identifier {identifier!r} occurs {times} times in the evaluation {name!r}: give every row "
            "an `item` of its own."
        )


def label_balance(items: Iterable[Item]) -> dict[int, int]:
    """How many rows have label +1 and -1. With one of them at 0, the behaviour and the yes-bias are one number."""
    count = Counter(item.label for item in items)
    return {1: count[1], -1: count[-1]}


def limited(items: list[Item], limit: int | None) -> list[Item]:
    """At most ``limit`` rows (but at least one cluster): whole clusters, in the order of their hashed names.

    The choice does not follow the order of the file, whose head is rarely a fair sample, and a larger limit
    contains the smaller one.
    """
    if limit is None or len(items) <= limit:
        return items
    size = Counter(item.cluster for item in items)
    order = sorted(size, key=lambda cluster: hashlib.blake2b(cluster.encode(), digest_size=8).digest())
    kept: set[str] = set()
    rows = 0
    for cluster in order:
        if kept and rows + size[cluster] > limit:
            break
        kept.add(cluster)
        rows += size[cluster]
    return [item for item in items if item.cluster in kept]


registry: Registry[type[Evaluation]] = EVALS
Registered = TypeVar("Registered", bound=type[Evaluation])


def register(name: str) -> Callable[[Registered], Registered]:
    """Class decorator: makes an `Evaluation` available to `weightsteer.data.evals.load` under a name."""

    def add(evaluation: Registered) -> Registered:
        evaluation.name = name
        registry.add(name, evaluation, evaluation)
        return evaluation

    return add


def shipped(name: str) -> list[dict[str, Any]]:
    """The texts of one evaluation that come with the package: the entries of ``name.yaml`` in this folder."""
    return list(yaml.safe_load((files("weightsteer.data.evals") / f"{name}.yaml").read_text(encoding="utf-8")))
