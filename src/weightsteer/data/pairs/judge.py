"""Judges: does each side of a pair show its own pole?"""

from typing import Protocol

import polars as pl
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from weightsteer.data.pairs.grid import messages
from weightsteer.inference.likelihood import Answered, answer_logprobs, answered
from weightsteer.inference.sampling import turn_end


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
        end = turn_end(self.model, self.tokenizer)
        # a small model repeats itself: each distinct (persona, question, answer) is scored once
        wanted: dict[tuple[str, str, str, bool], int] = {}
        rows: list[Answered] = []
        places: list[list[int]] = []
        for pair in pairs.iter_rows(named=True):
            own: list[int] = []
            for side, other in (("pos", "neg"), ("neg", "pos")):
                for persona in (side, other):
                    system = pair[f"sys_prompt_{persona}"]
                    key = (system, pair["prompt"], pair[f"response_{side}"], pair["thinking"])
                    if key not in wanted:
                        wanted[key] = len(rows)
                        chat = messages(system, pair["prompt"])
                        rows.append(answered(self.tokenizer, chat, key[2], end, thinking=key[3]))
                    own.append(wanted[key])
            places.append(own)
        scores = answer_logprobs(self.model, rows, title="pairs: judging", shown=self.shown)
        return pl.DataFrame(
            {
                "judge_pos": [scores[p[0]] - scores[p[1]] - self.margin for p in places],
                "judge_neg": [scores[p[2]] - scores[p[3]] - self.margin for p in places],
            },
            schema={"judge_pos": pl.Float64, "judge_neg": pl.Float64},
        )
