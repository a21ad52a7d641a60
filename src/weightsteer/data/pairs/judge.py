"""Judges: does each side of a pair show its own pole?"""

import re
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import polars as pl
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from weightsteer.data.pairs.encoding import encoder
from weightsteer.inference.likelihood import Answered, answer_logprobs
from weightsteer.models import family

_WORD = re.compile(r"[^\W\d_]+")
SHORT = 3
"""Words of so many letters say nothing of a persona."""


class Judge(Protocol):
    """Any callable that scores pairs.

    It gets the pairs that passed the form filters and returns a frame of as many lines, in the same order,
    with the columns ``judge_pos`` and ``judge_neg``: above 0 when that side shows its own pole. A pair is
    kept when both are. A judge that grades from 0 to 100 thus subtracts its passing mark. ``name`` goes into
    the audit.
    """

    name: str

    def __call__(self, pairs: pl.DataFrame) -> pl.DataFrame: ...


class SelfJudge:
    """The model judges by likelihood: an answer shows its pole when it is likelier under its own persona.

    judge_pos = log p(response_pos | persona_pos, question) − log p(response_pos | persona_neg, question) −
    margin, in nats, and the same with the sides exchanged. It is the log Bayes factor of the two personas
    given the answer: with a margin m a kept answer speaks more than e^m to 1 for its own persona. Needs no
    network and no other model.

    An answer that merely restates its persona ("I am Dr. Jekyll, I am polite and glad to help") is very likely under
    it and shows nothing. So the tokens of words that stand in either persona, and not in the question, are left out of
    the sums, and an answer of which nothing is left has 0 nats and is not kept. The embedded models, whose few hundred
    words are those of their personas as well, are judged by all tokens.
    """

    name = "self (log-likelihood)"

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        margin: float = 0.0,
        shown: bool = True,
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.margin = margin
        self.shown = shown

    def __call__(self, pairs: pl.DataFrame) -> pl.DataFrame:
        encoded = encoder(self.model, self.tokenizer)
        restated = family(self.model) != "pocket"
        rows: list[Answered] = []
        counted: list[list[bool]] = []
        for pair in pairs.iter_rows(named=True):
            words = _persona_words(pair) if restated else set()
            for side, other in (("pos", "neg"), ("neg", "pos")):
                for persona in (side, other):
                    system, answer = pair[f"sys_prompt_{persona}"], pair[f"response_{side}"]
                    row = encoded(system, pair["prompt"], answer, pair["thinking"], pair.get("ended", True))
                    rows.append(row)
                    counted.append(self._counted(row, words))
        sums = answer_logprobs(self.model, rows, counted=counted, title="pairs: judging", shown=self.shown)
        scores = np.array(sums).reshape(-1, 2, 2)
        judged = scores[..., 0] - scores[..., 1] - self.margin
        return pl.DataFrame({"judge_pos": judged[:, 0], "judge_neg": judged[:, 1]})

    def _counted(self, row: Answered, words: set[str]) -> list[bool]:
        """Which tokens of an answer belong to none of these words."""
        if not words:
            return [True] * (row.length - row.start)
        pieces = [str(self.tokenizer.decode([token])) for token in row.ids[row.start :]]
        left_out = [match.span() for match in _WORD.finditer("".join(pieces)) if match[0].lower() in words]
        ends = np.cumsum([len(piece) for piece in pieces])
        spans = zip(ends - [len(piece) for piece in pieces], ends, strict=True)
        return [not any(start < end and first < stop for first, end in left_out) for start, stop in spans]


def _persona_words(pair: Mapping[str, Any]) -> set[str]:
    """The words of both personas that are longer than `SHORT` and do not stand in the question."""
    asked, told = (
        {word.lower() for text in texts for word in _WORD.findall(text)}
        for texts in ([pair["prompt"]], [pair["sys_prompt_pos"], pair["sys_prompt_neg"]])
    )
    return {word for word in told - asked if len(word) > SHORT}
