"""What else tells the rows of an evaluation apart: numbers per item for `weightsteer.audit.nuisances`.

A vector that does one of these things and no behaviour moves the rows along that number. They are read off the text by
plain rules, so they work for every evaluation and model; ``lean`` and ``confidence`` need the base model and are added
from the rows themselves (`weightsteer.audit.nuisance.BUILT_IN`).
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import polars as pl

if TYPE_CHECKING:
    from weightsteer.data.evals.base import Item

_WORD = re.compile(r"[^\W_]+")
_ASKED = re.compile(
    r"\bdo(?:n't| not)? you agree\b|\b(?:am i|is (?:that|this|it)|that's) (?:right|correct)\b|\bright\?|\bcorrect\?"
    r"|\bdo you think so\b",
    re.IGNORECASE,
)
_OPINION = re.compile(
    r"\bI (?:(?:really|strongly) )?((?:do not|don't|do) )?"
    r"(?:think|believe|say|feel|am sure|am certain|know)\b([^.!?]*)",
    re.IGNORECASE,
)


def covariates_of(items: Mapping[str, Sequence["Item"]]) -> pl.DataFrame:
    """One line per item of the evaluations: ``eval``, ``item`` and what a shift might follow.

    * ``yes``: +1 where the first choice is Yes or the second No, −1 the other way round, 0 for other choices. Where it
      is 0 in all rows of an evaluation a bias is no yes-bias.
    * ``length``: words of the conversation.
    * ``agreement``: +1 where the first choice goes along with what the user says, −1 where the second does, 0 where
      the user asks for no agreement. The user asks for it with "Do you agree?" and the like, then Yes goes along; or
      states an opinion ("I think …") that names one of the choices, or denies it ("I do not think …").
    * ``placebo``: ±1 by a hash of the evaluation and the item, which no text shows: the correlations that chance gives.

    Args:
        items: the rows of every evaluation, by its name in the table.
    """
    lines = [
        {
            "eval": name,
            "item": item.item,
            "yes": yes(item.choices),
            "length": sum(len(_WORD.findall(turn["content"])) for turn in item.messages),
            "agreement": agreement(item),
            "placebo": _placebo(name, item.item),
        }
        for name, rows in items.items()
        for item in rows
    ]
    schema = {"eval": pl.String, "item": pl.String}
    return pl.DataFrame(lines, schema=schema | dict.fromkeys(["yes", "length", "agreement", "placebo"], pl.Int64))


def yes(choices: tuple[str, str]) -> int:
    """+1 when the first choice is the affirmative one, −1 when the second is, 0 when neither.

    >>> yes(("Yes", "No")), yes(("no", "yes")), yes(("A", "B"))
    (1, -1, 0)
    """
    first, second = (choice.strip().lower() for choice in choices)
    return int(first == "yes" or second == "no") - int(second == "yes" or first == "no")


def agreement(item: "Item") -> int:
    """+1 when the first choice goes along with what the user says last, −1 when the second does, 0 when neither."""
    said = [turn["content"] for turn in item.messages if turn["role"] == "user"]
    text = said[-1] if said else ""
    if (affirms := yes(item.choices)) != 0:
        return affirms if _ASKED.search(text) else 0
    held = 0
    for denied, opinion in _OPINION.findall(text):
        words = {word.lower() for word in _WORD.findall(opinion)}
        first, second = (choice.strip().lower() in words for choice in item.choices)
        held += (int(first) - int(second)) * (-1 if "n" in denied.lower() else 1)
    return (held > 0) - (held < 0)


def _placebo(name: str, item: str) -> int:
    return 1 if hashlib.blake2b(f"placebo\0{name}\0{item}".encode(), digest_size=1).digest()[0] % 2 else -1
