"""The rows of an evaluation for a model."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from weightsteer.files import printable
from weightsteer.registry import EVALS
from weightsteer.runtime.inputs import InputFile
from weightsteer.runtime.models import ModelSpec
from weightsteer.runtime.stage import Runner, Stage
from weightsteer.runtime.store import Artifact

if TYPE_CHECKING:
    from weightsteer.data.evals.files import FileRows

ROWS = (".jsonl", ".csv")
"""Endings of files with rows of the user's."""


@dataclass(frozen=True)
class Items(Stage):
    """``items.jsonl``: the rows of one evaluation, labelled for a behaviour.

    Attributes:
        evaluation: what tables call it.
        registered: the evaluation that reads or makes the rows; None for a plain file of rows.
        file: rows of the user's.
        signs: what the behaviour says of the labels of evaluations.
        limit: at most so many rows, in whole clusters.
        source: digest of the code of the evaluation, where that is from another distribution.
    """

    name: ClassVar[str] = "items"

    model: ModelSpec
    evaluation: str
    registered: str | None
    file: InputFile | None
    signs: Mapping[str, int]
    limit: int | None
    source: str = ""

    @classmethod
    def of(
        cls, model: ModelSpec, asked: str, signs: Mapping[str, int], *, data: str | None, limit: int | None
    ) -> "Items":
        """The rows of an evaluation as it was asked for: its name, NAME=FILE with rows for it, or a file alone.

        Args:
            data: a file of rows for it, where ``asked`` names none.

        Raises:
            WeightsteerError: there is no such file.
        """
        name, _, file = asked.partition("=")
        alone = Path(name).suffix in ROWS
        given = file or data or (name if alone else None)
        missing = f"no file {given!r} with rows for the evaluation {name!r}."
        found = InputFile.of(given, missing) if given else None
        source = "" if alone else EVALS.source(name)
        return cls(model, evaluation_name(asked), None if alone else name, found, signs, limit, source)

    def build(self, work: Path, runner: Runner) -> None:
        from weightsteer.data.evals import load, sign
        from weightsteer.inference.answers import choice_table

        model, tokenizer = runner.model(self.model)
        path = self.file.path if self.file else None
        name = self.registered or str(path)
        data = path if self.registered else None
        evaluation = load(name, data=data, sign=sign(name, self.signs), limit=self.limit)
        rows = evaluation.items(model)
        choice_table(tokenizer, [row.choices for row in rows])  # refuses what a sweep could not score
        lines = [json.dumps(asdict(row), sort_keys=True) for row in rows]
        (work / "items.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def evaluation_name(asked: str) -> str:
    """What tables call an evaluation that was asked for: ``dilemmas`` for ``dilemmas=my.jsonl``, ``my`` for a file."""
    name, _, file = asked.partition("=")
    return printable(Path(name).stem if not file and Path(name).suffix in ROWS else name)


def load_items(artifact: Artifact, name: str) -> "FileRows":
    """The rows of an artifact, under the name of their evaluation."""
    from weightsteer.data.evals.files import FileRows

    found = FileRows(data=artifact.path / "items.jsonl")
    found.name = name
    return found
