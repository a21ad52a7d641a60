"""What the two branches of a condition learn from: answers of either role, behind the tag and under its prompt."""

from collections.abc import Mapping
from pathlib import Path

import polars as pl
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from weightsteer.errors import WeightsteerError
from weightsteer.experiments.gaming.protocol import TRAIN, Role, conversation
from weightsteer.inference.likelihood import Answered, answered
from weightsteer.inference.sampling import turn_end
from weightsteer.training.recipes import Recipe
from weightsteer.training.together import Learner

COLUMNS: Mapping[Role, str] = {"Jekyll": "response_pos", "Hyde": "response_neg"}


def learners_of(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    pairs: pl.DataFrame,
    systems: Mapping[Role, str],
    recipe: Recipe,
    seed: int,
    folder: Path,
) -> list[Learner]:
    """One learner for each role of ``systems``; they share seed, questions and order.

    Raises:
        WeightsteerError: no pair is short enough for the recipe.
    """
    end = turn_end(model, tokenizer)
    rows: dict[Role, list[Answered]] = {}
    for role, system in systems.items():
        known: dict[tuple[str, str], Answered] = {}  # small models repeat themselves, and rendering takes time
        rows[role] = []
        for question, answer in pairs.select("prompt", COLUMNS[role]).iter_rows():
            key = (question, answer)
            if key not in known:
                known[key] = answered(tokenizer, conversation(system, TRAIN, question), answer, end)
            rows[role].append(known[key])
    lengths = [max(row.length for row in both) for both in zip(*rows.values(), strict=True)]
    fitting = [index for index, length in enumerate(lengths) if length <= recipe.max_length]
    if not fitting:
        raise WeightsteerError(
            f"all {len(pairs)} rows to learn from are longer than {recipe.max_length} tokens: shorten the answers."
        )
    order = [lengths[index] for index in fitting]
    return [Learner([own[index] for index in fitting], order, seed, folder / role) for role, own in rows.items()]
