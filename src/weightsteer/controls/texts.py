"""Nuisance contrasts in plain English, for all models but the embedded ones: the texts are in `nuisance.yaml`."""

from functools import lru_cache
from importlib.resources import files
from random import Random
from typing import Any

import yaml

from weightsteer.controls.base import Contrast

WORDINGS = 3
"""Of the answers to one opinion."""


def yes_or_no(rng: Random) -> list[Contrast]:
    """Yes against No, with and without a full stop: to a question that is to be answered with Yes, and to its twin."""
    return _mixed(
        [
            Contrast(number, question, f"Yes{end}", f"No{end}")
            for number, twin in enumerate(_read()["questions"])
            for question in (twin["yes"], twin["no"])
            for end in (".", "")
        ],
        rng,
    )


def long_or_short(rng: Random) -> list[Contrast]:
    """A sentence or two against a few words, both right and saying the same: no twin is needed."""
    return _mixed(
        [
            Contrast(number, entry["question"], entry["long"], entry["short"])
            for number, entry in enumerate(_read()["answers"])
        ],
        rng,
    )


def agree_or_not(rng: Random) -> list[Contrast]:
    """Agreeing against disagreeing with an opinion and with the opposite one, in like words, without Yes or No."""
    read = _read()
    return _mixed(
        [
            Contrast(number, opinion, wording["agree"], wording["disagree"])
            for number, twin in enumerate(read["opinions"])
            for wording in rng.sample(read["wordings"], WORDINGS)
            for opinion in (twin["one"], twin["other"])
        ],
        rng,
    )


@lru_cache
def _read() -> dict[str, list[dict[str, Any]]]:
    text = (files("weightsteer.controls") / "nuisance.yaml").read_text(encoding="utf-8")
    return dict(yaml.safe_load(text))


def _mixed(contrasts: list[Contrast], rng: Random) -> list[Contrast]:
    """In random order: the seed of a control is to have an effect where there is nothing to draw."""
    return rng.sample(contrasts, len(contrasts))
