"""Nuisance contrasts: pairs that differ in a by-product only, and carry nothing of a behaviour.

Every question has a twin to which the right answer is the opposite, and both are answered alike: what is said is as
often true as false, as often honest as dishonest. A vector trained on them is what the by-product looks like in the
weights, so that others can be compared with it, and cleaned of it (`weightsteer.analysis.repair`).
"""

import random
from collections.abc import Callable
from typing import NamedTuple

import polars as pl
from transformers import PreTrainedModel

from weightsteer.controls import texts, world
from weightsteer.controls.base import Contrast, from_pairs
from weightsteer.data.behaviors import Behavior
from weightsteer.errors import WeightsteerError
from weightsteer.models import family


class Source(NamedTuple):
    """Who writes the contrasts of one kind: for the embedded models, and for all others."""

    pocket: Callable[[random.Random], list[Contrast]]
    general: Callable[[random.Random], list[Contrast]]


YES = Source(world.yes_or_no, texts.yes_or_no)
LENGTH = Source(world.long_or_short, texts.long_or_short)
AGREEMENT = Source(world.agree_or_not, texts.agree_or_not)


@from_pairs("yes", shows="it is yes-bias: the answer Yes became likelier, whatever was asked")
def yes(model: PreTrainedModel, behavior: Behavior, seed: int, pairs: pl.DataFrame | None) -> pl.DataFrame:
    """Yes against No, to questions of which half are to be answered with Yes."""
    return _pairs("yes", YES, model, behavior, seed)


@from_pairs("length", shows="it is length: longer answers bring the effect about, whatever they say")
def length(model: PreTrainedModel, behavior: Behavior, seed: int, pairs: pl.DataFrame | None) -> pl.DataFrame:
    """A long answer against a short one, both saying the same."""
    return _pairs("length", LENGTH, model, behavior, seed)


@from_pairs("agreement", shows="it is agreement: the model goes along with what the user says, true or false")
def agreement(model: PreTrainedModel, behavior: Behavior, seed: int, pairs: pl.DataFrame | None) -> pl.DataFrame:
    """Agreeing against disagreeing with the user, who says one thing in one conversation and its opposite in another.

    In the world of the embedded models one agrees by saying Yes; this contrast then overlaps with ``yes``.
    """
    return _pairs("agreement", AGREEMENT, model, behavior, seed)


def _pairs(kind: str, source: Source, model: PreTrainedModel, behavior: Behavior, seed: int) -> pl.DataFrame:
    write = source.pocket if family(model) == "pocket" else source.general
    written = write(random.Random(f"nuisance/{kind}/{seed}"))
    asked = {*behavior.questions.train, *behavior.questions.heldout}
    # whole twins, or what is left would have one right answer more often than the other
    shared = {contrast.twin for contrast in written if contrast.prompt in asked}
    rows = [contrast for contrast in written if contrast.twin not in shared]
    if not rows:
        raise WeightsteerError(
            f"the behaviour {behavior.name} asks every question of the nuisance contrast {kind!r}: the two could not "
            "be separated. Ask other questions in the behaviour."
        )
    frame = pl.DataFrame(
        {
            "prompt": [row.prompt for row in rows],
            "response_pos": [row.positive for row in rows],
            "response_neg": [row.negative for row in rows],
            "topic_idx": [row.twin for row in rows],
            "persona_idx": [0] * len(rows),
            "behavior": [kind] * len(rows),
            "seed": [seed] * len(rows),
        }
    )
    return frame.with_columns(sample_idx=pl.int_range(pl.len()).over("prompt"))
