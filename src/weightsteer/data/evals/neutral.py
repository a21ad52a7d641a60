"""Neutral texts: what a vector should leave alone. Damage is measured on them.

Real models: questions and answers of our own about plain matters (how bread rises, what a valley is), none of them
about honesty, flattery, character or opinion; or a file of the user's. The embedded models: sums, weekdays, opposites
and repeated words of their world, on which no persona bears.

A user's file is JSONL or CSV with ``text`` and, for an answer in a chat, ``prompt`` or ``messages``; ``item`` and
``cluster`` may be given. A ``.txt`` file is split at line ends, one document per line of at least 20 words; a line like
``= Title =`` (as in WikiText) begins a new cluster.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path

from transformers import PreTrainedModel

from weightsteer.data.evals.base import shipped, user_turn
from weightsteer.data.evals.files import messages_of, read_records
from weightsteer.errors import WeightsteerError
from weightsteer.models import family

LEAST_WORDS = 20
_TITLE = re.compile(r"\s*=\s[^=].*[^=]\s=\s*")


@dataclass(frozen=True)
class Text:
    """A text whose likelihood is read.

    Attributes:
        item: identifier, unique among the texts.
        text: what is read token by token.
        messages: the conversation it answers; empty for a document, which answers nothing.
        cluster: texts that belong together share it; the item when empty.
    """

    item: str
    text: str
    messages: tuple[dict[str, str], ...] = field(default=())
    cluster: str = ""

    def __post_init__(self) -> None:
        if not self.text.strip():
            raise WeightsteerError(f"text {self.item!r} is empty.")
        if not self.cluster:
            object.__setattr__(self, "cluster", self.item)


def neutral_texts(model: PreTrainedModel, data: str | Path | None = None) -> list[Text]:
    """The neutral texts for a model, or those of a file.

    Raises:
        WeightsteerError: the file cannot be read, or a field is missing or malformed.
    """
    if data is not None:
        return read_texts(Path(data))
    if family(model) == "pocket":
        from weightsteer.pocket.items import neutral_documents

        return [Text(row["item"], row["answer"], tuple(row["messages"]), row["cluster"]) for row in neutral_documents()]
    return [
        Text(f"neutral-{number:03d}", entry["text"], user_turn(entry["prompt"]))
        for number, entry in enumerate(shipped("neutral"))
    ]


def read_texts(path: Path) -> list[Text]:
    """The texts of a JSONL, CSV or plain text file."""
    if path.suffix == ".txt":
        return _lines(path)
    texts = []
    for record in read_records(path):
        item = record.text("item") if record.get("item") is not None else f"line-{record.line}"
        chat = record.get("prompt") is not None or record.get("messages") is not None
        texts.append(
            Text(
                item,
                record.text("text"),
                messages_of(record) if chat else (),
                record.text("cluster") if record.get("cluster") is not None else item,
            )
        )
    return texts


def _lines(path: Path) -> list[Text]:
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise WeightsteerError(f"{path} cannot be read as UTF-8 text: {error}.") from error
    titled = any(_TITLE.fullmatch(line) for line in lines)
    texts = []
    cluster = "start"
    for number, line in enumerate(lines, 1):
        if _TITLE.fullmatch(line):
            cluster = f"line-{number}"
        elif len(line.split()) >= LEAST_WORDS:
            texts.append(Text(f"line-{number}", line.strip(), cluster=cluster if titled else ""))
    if not texts:
        raise WeightsteerError(f"{path} has no line of at least {LEAST_WORDS} words.")
    return texts
