"""Judges: does each side of a pair show its own pole?"""

from typing import Protocol

import numpy as np
import polars as pl
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from weightsteer.data.pairs.encoding import encoder
from weightsteer.inference.likelihood import answer_logprobs


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
        rows = [
            encoded(pair[f"sys_prompt_{persona}"], pair["prompt"], pair[f"response_{side}"], pair["thinking"])
            for pair in pairs.iter_rows(named=True)
            for side, other in (("pos", "neg"), ("neg", "pos"))
            for persona in (side, other)
        ]
        scores = np.array(answer_logprobs(self.model, rows, title="pairs: judging", shown=self.shown)).reshape(-1, 2, 2)
        judged = scores[..., 0] - scores[..., 1] - self.margin
        return pl.DataFrame({"judge_pos": judged[:, 0], "judge_neg": judged[:, 1]})
