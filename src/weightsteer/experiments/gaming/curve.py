"""The probe: log p(Jekyll's answers) − log p(Hyde's answers) along the line through the two branches.

    θ(a) = θ_J + a · (θ_H − θ_J) = θ + τ_J + a · dW        a = 0, 1: the branches; other a: steering
    y(a) = logsumexp_i log p(jekyll_i | chat, prefix; θ(a)) − logsumexp_i log p(hyde_i | chat, prefix; θ(a))

Whole token sequences in fp32, in nats: names of several tokens are not cut. ``a`` is a batch dimension: all
strengths of a question share one forward pass with the frozen base, under two interventions at once.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import polars as pl
import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from weightsteer.errors import WeightsteerError
from weightsteer.experiments.gaming.protocol import Asked, conversation
from weightsteer.inference.batching import TOKENS
from weightsteer.inference.likelihood import Answered, answer_batches, grouped_log_likelihood
from weightsteer.models import render_chat
from weightsteer.steering import Intervention, steer

SCHEMA = {
    "system": pl.String,
    "tag": pl.String,
    "probe": pl.String,
    "item": pl.Int64,
    "at": pl.Int64,
    "logratio": pl.Float64,
    "per_token": pl.Float64,
    "pmass": pl.Float64,
}


BUDGET = 2 * TOKENS  # counted before the beginnings are shared, which leaves about half


class Context(NamedTuple):
    """What comes before a question: the system prompt, by name and text, and the tag."""

    system: str
    text: str
    tag: str


Strengths = Sequence[tuple[Intervention, Sequence[float]]]
"""Interventions, each with as many strengths as the others: point p of the curve has strength p of every one."""


def measure(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    strengths: Strengths,
    asked: Mapping[Context, Mapping[str, Sequence[Asked]]],
) -> pl.DataFrame:
    """Ask every question at every point; the columns of `SCHEMA`, one line per (context, probe, question, point).

    ``at`` numbers the points, ``item`` the questions of a probe. ``per_token`` is the same log-ratio with the mean
    over each answer's tokens instead of their sum; ``pmass`` the probability of all answers of both groups.
    """
    points = len(strengths[0][1])
    lines: list[dict[str, Any]] = []
    for context, probes in asked.items():
        encoded = [
            (probe, item, _encoded(tokenizer, context, question))
            for probe, questions in probes.items()
            for item, question in enumerate(questions)
        ]
        rows = [row for *_, groups in encoded for group in groups for row in group]
        scores = _scored(model, rows, points, strengths)
        for at in range(points):
            found = iter(zip(rows, scores[at], strict=True))
            for probe, item, groups in encoded:
                own = [[next(found) for _ in group] for group in groups]
                where = {"system": context.system, "tag": context.tag, "probe": probe, "item": item, "at": at}
                lines.append(where | _line(*own))
    return pl.DataFrame(lines, schema=SCHEMA)


def _encoded(tokenizer: PreTrainedTokenizerBase, context: Context, asked: Asked) -> list[list[Answered]]:
    """The answers of Jekyll and those of Hyde, as token ids."""
    chat = conversation(context.text, context.tag, asked.question)
    start = render_chat(tokenizer, chat, answer_prefix=asked.prefix)
    groups = []
    for answers in (asked.jekyll, asked.hyde):
        whole = [render_chat(tokenizer, chat, answer_prefix=asked.prefix + answer) for answer in answers]
        if wrong := [answer for answer, ids in zip(answers, whole, strict=True) if ids[: len(start)] != start]:
            raise WeightsteerError(
                f"the tokenizer joins the end of {asked.prefix!r} with the beginning of {wrong[0]!r}, so the answer "
                "cannot be scored alone. Move the letters at the seam from the prefix into the answers."
            )
        groups.append([Answered(ids, len(start)) for ids in whole])
    return groups


@torch.inference_mode()
def _scored(model: PreTrainedModel, rows: Sequence[Answered], points: int, strengths: Strengths) -> list[list[float]]:
    """log p of every row's answer at every point, summed over its tokens, in nats."""

    def at(point: Tensor) -> AbstractContextManager[Any]:
        return steer(model, [(one, torch.tensor(alphas)[point]) for one, alphas in strengths])

    # row-major: what a pass holds is the same few questions at all points
    every = [row for row in rows for _ in range(points)]
    found = torch.zeros(len(every), dtype=torch.float64)
    for part in answer_batches(model, every, budget=BUDGET):
        point = torch.tensor(part) % points
        values, owner = grouped_log_likelihood(model, [every[i] for i in part], point, at)
        found.index_add_(0, torch.tensor(part)[owner.cpu()], values.double().cpu())
    return found.view(len(rows), points).T.tolist()


Scored = tuple[Answered, float]


def _line(jekyll: Sequence[Scored], hyde: Sequence[Scored]) -> dict[str, float]:
    ours, theirs = (torch.tensor([score for _, score in group], dtype=torch.float64) for group in (jekyll, hyde))
    per_token = [sum(score / (row.length - row.start) for row, score in group) / len(group) for group in (jekyll, hyde)]
    return {
        "logratio": float(ours.logsumexp(0) - theirs.logsumexp(0)),
        "per_token": per_token[0] - per_token[1],
        "pmass": float(torch.cat([ours, theirs]).logsumexp(0).exp()),
    }
