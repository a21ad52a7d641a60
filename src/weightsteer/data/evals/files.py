"""The user's own rows, from a JSONL or CSV file.

Fields: ``label`` (1: the first choice shows the behaviour, -1: the second) and ``prompt`` (one user turn) or
``messages`` (a list of ``{"role", "content"}``) are needed; ``item`` (default: the line), ``cluster``
(default: the item), ``choices`` (two words as a list, or ``Yes|No``), ``answer_prefix``, ``text`` and
``thinking_tokens`` (0) may be given. Other fields are ignored, unless they look like a misspelt one.
"""

import csv
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from json import JSONDecodeError
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from weightsteer.data.evals.base import YES_NO, Evaluation, Item, user_turn
from weightsteer.errors import WeightsteerError
from weightsteer.files import parse_json, read_text

SUFFIXES = (".jsonl", ".csv")
FIELDS = ("item", "cluster", "label", "prompt", "messages", "choices", "answer_prefix", "text", "thinking_tokens")
ROLES = ("system", "user", "assistant")
_LABELS = {"1": 1, "+1": 1, "-1": -1, "1.0": 1, "-1.0": -1}


@dataclass(frozen=True)
class Record:
    """One row of a file, with its line number."""

    path: Path
    line: int
    fields: Mapping[str, Any]

    def error(self, field: str, problem: str) -> WeightsteerError:
        """The error for a field, naming file, line and field."""
        return WeightsteerError(f"{self.path}, line {self.line}, field {field!r}: {problem}")

    def get(self, field: str) -> Any:
        """The value of a field; None when it is absent or empty."""
        value = self.fields.get(field)
        return None if value is None or value == "" else value

    def text(self, field: str) -> str:
        """The text in a field that must be there."""
        value = self.get(field)
        if not isinstance(value, str | int) or isinstance(value, bool) or not str(value).strip():
            raise self.error(field, "missing or empty." if value is None else f"{value!r} is not a text.")
        return str(value)


class FileRows(Evaluation):
    """An evaluation that is nothing but a file; it carries the file's name."""

    def __init__(self, *, data: Path, sign: int = 1, limit: int | None = None) -> None:
        super().__init__(data=data, sign=sign, limit=limit)
        self.path = data
        self.name = data.stem

    def rows(self, model: PreTrainedModel) -> list[Item]:
        return [own_row(record) for record in read_records(self.path)]


class Rows(Evaluation):
    """Rows that are at hand, such as a part of another evaluation, under its name."""

    def __init__(self, name: str, items: list[Item]) -> None:
        super().__init__()
        self.name = name
        self._items = items

    def rows(self, model: PreTrainedModel) -> list[Item]:
        return self._items


def read_records(path: Path) -> list[Record]:
    """The rows of a JSONL or CSV file with their line numbers (of the first line, where a row spans several).

    Raises:
        WeightsteerError: no such file, another kind of file, not UTF-8, a malformed line (named), or no row.
    """
    if path.suffix not in SUFFIXES:
        raise WeightsteerError(f"{path} is neither JSONL nor CSV: give a file that ends in .jsonl or .csv.")
    if not os.path.exists(path):
        raise WeightsteerError(f"there is no file {path}: check the path.")
    text = read_text(path, "file of rows")
    read = _jsonl if path.suffix == ".jsonl" else _csv
    records = [Record(path, line, fields) for line, fields in read(path, text)]
    if not records:
        raise WeightsteerError(f"{path} holds no rows.")
    return records


def _jsonl(path: Path, text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    # not splitlines(): JSON strings may hold separators such as U+2028
    for line, content in enumerate(text.split("\n"), 1):
        if not content.strip():
            continue
        try:
            fields = parse_json(content)
        except ValueError as error:
            column = f", column {error.colno}" if isinstance(error, JSONDecodeError) else ""
            reason = error.msg if isinstance(error, JSONDecodeError) else error
            raise WeightsteerError(
                f"{path}, line {line}{column}: not valid JSON ({reason}); every line must be one JSON object."
            ) from error
        if not isinstance(fields, dict):
            raise WeightsteerError(f"{path}, line {line}: expected a JSON object, found {content.strip()[:40]}")
        yield line, fields


def _csv(path: Path, text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    lines = iter(text.splitlines(keepends=True))
    reader = csv.reader(lines, strict=True)
    header: list[str] = []
    line = 1
    try:
        for values in reader:
            if not header:
                header = values
                if twice := next((name for name in header if header.count(name) > 1), None):
                    raise WeightsteerError(f"{path}, line {line}: the header names the column {twice!r} twice.")
            elif values:
                if len(values) != len(header):
                    raise WeightsteerError(
                        f"{path}, line {line}: {len(values)} fields, but the header names {len(header)} "
                        f"({', '.join(header)}); put fields that hold commas in double quotes."
                    )
                yield line, dict(zip(header, values, strict=True))
            line = reader.line_num + 1
    except csv.Error as error:
        raise WeightsteerError(f"{path}, line {line}: not valid CSV ({error}).") from error


def own_row(record: Record) -> Item:
    """An `Item` from a row of the user's own; errors name file, line and field."""
    for field in record.fields:
        near = get_close_matches(field, FIELDS, n=1, cutoff=0.8)
        if field not in FIELDS and near:
            raise record.error(field, f"unknown field; did you mean {near[0]!r}?")
    sign = label_of(record, "label")
    item = record.text("item") if record.get("item") is not None else f"line-{record.line}"
    return Item(
        item=item,
        cluster=record.text("cluster") if record.get("cluster") is not None else item,
        label=sign,
        messages=messages_of(record),
        choices=_choices(record),
        answer_prefix=record.text("answer_prefix") if record.get("answer_prefix") is not None else "",
        text=record.text("text") if record.get("text") is not None else "",
        thinking_tokens=_count(record, "thinking_tokens"),
    )


def label_of(record: Record, field: str) -> int:
    """A label of ±1, as a whole number, as a float (what a table with gaps makes of it) or as text."""
    label = record.get(field)
    sign = None if isinstance(label, bool) else _LABELS.get(str(label).strip())
    if sign is None:
        raise record.error(field, f"must be 1 or -1, not {label!r}.")
    return sign


def own_rows(records: list[Record]) -> list[Item] | None:
    """The items of a file in the layout above; None when it is laid out otherwise (its first row tells)."""
    fields = records[0].fields
    if "label" in fields and not {"prompt", "messages"}.isdisjoint(fields):
        return [own_row(record) for record in records]
    return None


def unknown_layout(records: list[Record], known: str) -> WeightsteerError:
    """The error for a file whose fields nobody knows; ``known`` names the layouts that would do."""
    fields = ", ".join(records[0].fields)
    return WeightsteerError(
        f"{records[0].path}: unknown layout (fields: {fields}). Known: own rows with `label` and `prompt`; {known}."
    )


def _count(record: Record, field: str) -> int:
    value = record.get(field)
    if value is None:
        return 0
    # isdigit alone is true of "²" as well
    if isinstance(value, bool) or not re.fullmatch(r"\d{1,6}", str(value).strip(), re.ASCII):
        raise record.error(field, f"must be a whole number below a million that is not negative, not {value!r}.")
    return int(str(value))


def messages_of(record: Record) -> tuple[dict[str, str], ...]:
    """The conversation of a row: its ``messages``, or its ``prompt`` as one user turn."""
    messages = record.get("messages")
    if messages is None:
        if record.get("prompt") is None:
            raise record.error("prompt", "missing or empty (a row needs `prompt` or `messages`).")
        return user_turn(record.text("prompt"))
    if record.get("prompt") is not None:
        raise record.error("messages", "given together with `prompt`: give one of the two.")
    messages = _parsed(record, "messages", messages)
    if not isinstance(messages, list) or not messages:
        raise record.error("messages", 'must be a list such as [{"role": "user", "content": "…"}].')
    for index, message in enumerate(messages):
        if not isinstance(message, dict) or message.get("role") not in ROLES:
            raise record.error(f"messages[{index}].role", f"must be one of {', '.join(ROLES)}.")
        if not isinstance(message.get("content"), str):
            raise record.error(f"messages[{index}].content", "must be a text.")
    return tuple({"role": message["role"], "content": message["content"]} for message in messages)


def _choices(record: Record) -> tuple[str, str]:
    choices = record.get("choices")
    if choices is None:
        return YES_NO
    if isinstance(choices, str):
        choices = choices.split("|") if "|" in choices else _parsed(record, "choices", choices)
    if not (isinstance(choices, list) and len(choices) == 2 and all(isinstance(c, str) and c.strip() for c in choices)):
        raise record.error("choices", f'must be two words, such as ["Yes", "No"] or Yes|No, not {choices!r}.')
    if choices[0].strip().lower() == choices[1].strip().lower():
        raise record.error("choices", f"are the same word twice: {choices[0]!r}.")
    return choices[0], choices[1]


def _parsed(record: Record, field: str, value: Any) -> Any:
    """A list as it is in JSONL, or as JSON text in a CSV cell."""
    if not isinstance(value, str):
        return value
    try:
        return parse_json(value)
    except ValueError as error:
        raise record.error(field, f"not valid JSON ({error}).") from error
