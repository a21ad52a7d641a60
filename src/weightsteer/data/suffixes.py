"""A pool of branching suffixes: questions, each with the beginning of an answer that was cut where it could go on in
several ways.

The file is a JSON list of ``{"cat", "user_msg", "suffix"}``: a category, the question, and the text. The published runs
used one such pool three times: its questions for the pairs, its suffixes as the beginning of the answer where the
direction of representation engineering was read, and the last tokens of its suffixes as the fixed text on which the KL
was calibrated.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import chain, zip_longest
from pathlib import Path
from typing import NamedTuple

import polars as pl

from weightsteer.data.behaviors import Behavior
from weightsteer.data.evals.base import user_turn
from weightsteer.data.evals.neutral import Text
from weightsteer.errors import WeightsteerError

CALIBRATED, AUDITED = 50, 100
"""How many suffixes a strength is found on, and how many others it is checked on, as published."""

FITTED = 50
"""How many suffixes a direction is read on, as published."""

_THOUGHTS = ("<think>", "</think>")


class Suffix(NamedTuple):
    """One entry of a pool: its place in the file (from 1), its category, the question, and the text cut at a branch."""

    number: int
    category: str
    question: str
    text: str


def read_suffixes(path: str | Path) -> list[Suffix]:
    """The entries of a pool that have a text, in the order of the file.

    Marks of a thought are taken out of the texts: the chat template of a thinking model sets its own.

    Raises:
        WeightsteerError: no such file, not JSON, or an entry that lacks a field (its number is named).
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise WeightsteerError(f"cannot read the pool of suffixes {path}: {error.strerror}.") from error
    except ValueError as error:
        raise WeightsteerError(f"{path} is not JSON: {error}.") from error
    if not isinstance(content, list):
        raise WeightsteerError(f'{path} must be a JSON list of {{"cat", "user_msg", "suffix"}}.')
    found = []
    for number, entry in enumerate(content, 1):
        fields = [entry.get(name) if isinstance(entry, dict) else None for name in ("cat", "user_msg", "suffix")]
        texts = [each for each in fields if isinstance(each, str)]
        if len(texts) < len(fields):
            raise WeightsteerError(f"{path}, entry {number}: `cat`, `user_msg` and `suffix` must be texts.")
        category, question, text = texts
        for mark in _THOUGHTS:
            text = text.replace(mark, "")
        if text.strip() and question.strip():
            found.append(Suffix(number, category, question.strip(), text.strip()))
    if not found:
        raise WeightsteerError(f"{path} has no entry with a question and a suffix.")
    return found


def asking(behavior: Behavior, suffixes: Iterable[Suffix]) -> Behavior:
    """The behaviour with the questions of a pool for training, in their order; its held-out questions stay."""
    heldout = set(behavior.questions.heldout)
    questions = [each for each in dict.fromkeys(one.question for one in suffixes) if each not in heldout]
    return behavior.model_copy(update={"questions": behavior.questions.model_copy(update={"train": questions})})


def suffix_pairs(behavior: Behavior, suffixes: Iterable[Suffix], count: int = FITTED) -> pl.DataFrame:
    """Pairs that differ in nothing but the first persona of either side: the question, and its suffix as the answer.

    For `weightsteer.training.activation.fit_activation` with ``at="last"``, which reads the last token of the suffix.
    """
    chosen = by_category(suffixes)[:count]
    personas = {
        "sys_prompt_pos": behavior.positive.personas[0],
        "sys_prompt_neg": behavior.negative.personas[0],
        "behavior": behavior.name,
    }
    return pl.DataFrame(
        [{"prompt": one.question, "response_pos": one.text, "response_neg": one.text, **personas} for one in chosen]
    )


def calibration_texts(suffixes: Sequence[Suffix]) -> tuple[list[Text], list[Text]]:
    """Texts to calibrate on and others to audit on, of all categories in turn and without a question in common.

    Raises:
        WeightsteerError: the pool has fewer than two questions.
    """
    once = {one.question: one for one in reversed(by_category(suffixes))}
    chosen = [one for one in by_category(suffixes) if once[one.question] is one]
    if len(chosen) < 2:
        raise WeightsteerError("a calibration needs at least two questions of the pool: one of them for the audit.")
    half = min(CALIBRATED, len(chosen) // 2)
    texts = [Text(f"suffix-{one.number:04d}", one.text, user_turn(one.question)) for one in chosen]
    return texts[:half], texts[half : half + AUDITED]


def by_category(suffixes: Iterable[Suffix]) -> list[Suffix]:
    """The same entries, one of each category in turn."""
    groups: dict[str, list[Suffix]] = defaultdict(list)
    for one in suffixes:
        groups[one.category].append(one)
    return [one for one in chain.from_iterable(zip_longest(*groups.values())) if one is not None]
