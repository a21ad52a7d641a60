"""What a calibration measures: values per token of every prompt and strength, a meter per kind of budget and text."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from weightsteer.data.evals.base import Item
from weightsteer.data.evals.capability import P_RIGHT
from weightsteer.data.evals.neutral import Text
from weightsteer.errors import WeightsteerError
from weightsteer.inference.batching import batches, check_length
from weightsteer.inference.distributions import Start, TeacherForced, along_continuations, along_texts, divergence
from weightsteer.inference.sampling import greedy, stop_ids
from weightsteer.measure import sweep
from weightsteer.measure.calibrate.definition import BudgetKind, Direction, Source
from weightsteer.measure.calibrate.divergence import kl_along_continuations, kl_along_texts
from weightsteer.measure.damage import damage
from weightsteer.measure.strengths import is_prompt, rendered
from weightsteer.models import render_chat
from weightsteer.stats.bootstrap import Array
from weightsteer.steering import Intervention

NOISE_PROMPTS = 4
GLANCE = 8  # tokens of a continuation
_Asked = TypeVar("_Asked", contravariant=True)


class Meter(Protocol[_Asked]):
    """Measures an intervention."""

    def tokens(
        self, intervention: Intervention, prompts: Sequence[_Asked], alphas: Sequence[float]
    ) -> dict[float, list[Array]]:
        """Values per token (t,) of every prompt, by strength; of the row of a task, its one value (1,)."""

    def coarse(
        self, intervention: Intervention, prompts: Sequence[_Asked], alphas: Sequence[float]
    ) -> dict[float, list[Array]]:
        """Nearly the same at less cost, to tell where to look. It never becomes a result."""

    def noise(self, intervention: Intervention, prompts: Sequence[_Asked], alpha: float) -> list[Array]:
        """What the same measurement makes of α = 0: its row in a batch in which α is steered, against the base model by
        itself, one text at a time, without hooks and cache. What is left is rounding."""


def meter_of(
    kind: BudgetKind,
    text: Source,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    direction: Direction,
    tokens: int,
    token_budget: int,
    other_base: bool,
    ahead: Sequence[Any],
) -> Meter[Any]:
    """The meter of a kind of budget; ``text``, ``direction`` and ``tokens`` have a meaning for ``kl`` alone.

    ``ahead``: all prompts that will be asked for.
    """
    if kind == "kl" and text == "base":
        return BaseText(model, tokenizer, direction, tokens, token_budget, other_base, ahead)
    if kind == "kl" and text == "given":
        return GivenText(model, tokenizer, direction, tokens, token_budget, other_base)
    if kind == "kl":
        return SteeredText(model, tokenizer, direction, tokens, token_budget, other_base)
    written = WrittenText if kind == "nll" else RightChoice
    return written(model, tokenizer, token_budget, other_base)


@dataclass
class BaseText:
    """KL along the base model's own greedy continuations: the same text at every strength, so smooth in α."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    direction: Direction
    length: int
    token_budget: int
    other_base: bool
    ahead: Sequence[Text] = ()
    """Prompts that will be asked for. They are written together: a step of decoding costs the same for many."""
    texts: dict[str, list[int]] = field(default_factory=dict)

    def write(self, prompts: Sequence[Text]) -> None:
        """Let the base model answer the prompts that have no continuation yet, in batches of like length."""
        if all(text.item in self.texts for text in prompts):
            return
        contexts = {
            text.item: context(self.model, self.tokenizer, None, text, 0.0, self.length)
            for text in (*prompts, *self.ahead)
        }
        left = [item for item in contexts if item not in self.texts]
        stops = stop_ids(self.model, self.tokenizer)
        for batch in batches([len(contexts[item]) + self.length for item in left], self.token_budget):
            some = [left[index] for index in batch]
            written = greedy(self.model, [contexts[item] for item in some], self.length, stops)
            self.texts.update(zip(some, written, strict=True))

    def rows(self, intervention: Intervention, prompts: Sequence[Text], alphas: Sequence[float]) -> list[TeacherForced]:
        self.write(prompts)
        asked = [0.0, *alphas] if is_prompt(intervention) else [0.0]
        return [
            TeacherForced(
                tuple(context(self.model, self.tokenizer, intervention, text, alpha, self.length) for alpha in asked),
                self.texts[text.item],
            )
            for text in prompts
        ]

    def tokens(
        self, intervention: Intervention, prompts: Sequence[Text], alphas: Sequence[float]
    ) -> dict[float, list[Array]]:
        return self._along(intervention, self.rows(intervention, prompts, alphas), alphas)

    def coarse(
        self, intervention: Intervention, prompts: Sequence[Text], alphas: Sequence[float]
    ) -> dict[float, list[Array]]:
        rows = self.rows(intervention, prompts, alphas)
        return self._along(intervention, [replace(row, text=row.text[:GLANCE]) for row in rows], alphas)

    def _along(
        self, intervention: Intervention, rows: Sequence[TeacherForced], alphas: Sequence[float]
    ) -> dict[float, list[Array]]:
        return kl_along_texts(
            self.model,
            intervention,
            rows,
            alphas,
            self.direction,
            token_budget=self.token_budget,
            other_base=self.other_base,
        )

    def noise(self, intervention: Intervention, prompts: Sequence[Text], alpha: float) -> list[Array]:
        rows = self.rows(intervention, prompts[:NOISE_PROMPTS], [alpha])
        seen: list[Tensor] = []
        along_texts(
            self.model,
            intervention,
            rows,
            [0.0, alpha],
            lambda _, logp: seen.append(logp[:, 0].clone()),
            other_base=self.other_base,
        )
        return _against_plain(self.model, [(row.contexts[0], row.text) for row in rows], torch.cat(seen, 1))


@dataclass
class GivenText(BaseText):
    """KL along the last tokens of the texts that the prompts bring; what stands before them belongs to the context."""

    heads: dict[str, list[int]] = field(default_factory=dict)

    def write(self, prompts: Sequence[Text]) -> None:
        for text in prompts:
            if text.item in self.texts:
                continue
            before = context(self.model, self.tokenizer, None, text, 0.0, 0)
            ids = render_chat(self.tokenizer, text.messages, answer_prefix=text.text)[len(before) :]
            takes = f"text {text.item!r} takes {len(before) + len(ids)} tokens with its prompt"
            check_length(self.model, len(before) + len(ids), takes, "shorten it")
            self.heads[text.item], self.texts[text.item] = ids[: -self.length], ids[-self.length :]

    def rows(self, intervention: Intervention, prompts: Sequence[Text], alphas: Sequence[float]) -> list[TeacherForced]:
        plain = super().rows(intervention, prompts, alphas)
        return [
            replace(row, contexts=tuple([*each, *self.heads[text.item]] for each in row.contexts))
            for row, text in zip(plain, prompts, strict=True)
        ]


@dataclass
class SteeredText:
    """KL along the steered model's own greedy continuations, as published: another text at every strength."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    direction: Direction
    length: int
    token_budget: int
    other_base: bool
    unsteered: BaseText | None = None

    def starts(self, intervention: Intervention, prompts: Sequence[Text], alphas: Sequence[float]) -> list[Start]:
        starts = []
        for text in prompts:
            base = context(self.model, self.tokenizer, None, text, 0.0, self.length)
            for alpha in alphas:
                own = context(self.model, self.tokenizer, intervention, text, alpha, self.length)
                starts.append(Start(base, own, alpha))
        return starts

    def tokens(
        self, intervention: Intervention, prompts: Sequence[Text], alphas: Sequence[float]
    ) -> dict[float, list[Array]]:
        values = kl_along_continuations(
            self.model,
            intervention,
            self.starts(intervention, prompts, alphas),
            self.direction,
            tokens=self.length,
            stops=stop_ids(self.model, self.tokenizer),
            token_budget=self.token_budget,
            other_base=self.other_base,
        )
        return {alpha: values[index :: len(alphas)] for index, alpha in enumerate(alphas)}

    def coarse(
        self, intervention: Intervention, prompts: Sequence[Text], alphas: Sequence[float]
    ) -> dict[float, list[Array]]:
        # along what the base model says: a text per prompt instead of one per strength, and nothing to decode
        if self.unsteered is None:
            settings = (self.direction, min(self.length, GLANCE), self.token_budget, self.other_base)
            self.unsteered = BaseText(self.model, self.tokenizer, *settings)
        return self.unsteered.tokens(intervention, prompts, alphas)

    def noise(self, intervention: Intervention, prompts: Sequence[Text], alpha: float) -> list[Array]:
        starts = self.starts(intervention, prompts[:NOISE_PROMPTS], [alpha])
        seen: list[Tensor] = []
        texts = along_continuations(
            self.model,
            intervention,
            starts,
            self.length,
            stop_ids(self.model, self.tokenizer),
            lambda logp: seen.append(logp[:, 0].clone()),
            other_base=self.other_base,
        )
        pairs = [(start.base, text) for start, text in zip(starts, texts, strict=True)]
        return _against_plain(self.model, pairs, torch.stack(seen, 1))


@dataclass
class WrittenText:
    """Rise of the NLL per token of texts as they were written, by `weightsteer.measure.damage`."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    token_budget: int
    other_base: bool

    def tokens(
        self, intervention: Intervention, prompts: Sequence[Text], alphas: Sequence[float]
    ) -> dict[float, list[Array]]:
        means = self._nll(intervention, prompts, alphas, self.token_budget)
        # every token of a text carries the mean of the text: the pooled mean is the same
        return {
            alpha: [
                np.full(count, mean - base) for (mean, count), (base, _) in zip(means[alpha], means[0.0], strict=True)
            ]
            for alpha in alphas
        }

    coarse = tokens

    def noise(self, intervention: Intervention, prompts: Sequence[Text], alpha: float) -> list[Array]:
        some = prompts[:NOISE_PROMPTS]
        batched = self._nll(intervention, some, [alpha], self.token_budget)[0.0]
        # a budget of one token is one text at a time, and nothing is hooked at α = 0
        alone = self._nll(intervention, some, [], 1)[0.0]
        return [np.full(count, abs(mean - base)) for (mean, count), (base, _) in zip(batched, alone, strict=True)]

    def _nll(
        self, intervention: Intervention, prompts: Sequence[Text], alphas: Sequence[float], token_budget: int
    ) -> dict[float, list[tuple[float, int]]]:
        """Mean NLL and number of tokens of every text, by strength, 0 among them."""
        table = damage(
            self.model,
            self.tokenizer,
            intervention,
            prompts,
            alphas,
            token_budget=token_budget,
            other_base=self.other_base,
            shown=False,
        )
        means: dict[float, list[tuple[float, int]]] = {}
        for alpha, mean, count in table.select("alpha", "nll", "tokens").iter_rows():
            means.setdefault(alpha, []).append((mean, count))
        return means


@dataclass
class RightChoice:
    """Loss of the probability of the right choice in the rows of a task, by `weightsteer.sweep`."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    token_budget: int
    other_base: bool

    def tokens(
        self, intervention: Intervention, prompts: Sequence[Item], alphas: Sequence[float]
    ) -> dict[float, list[Array]]:
        right = self._right(intervention, prompts, alphas, self.token_budget)
        return {alpha: [np.array([lost]) for lost in right[0.0] - right[alpha]] for alpha in alphas}

    coarse = tokens

    def noise(self, intervention: Intervention, prompts: Sequence[Item], alpha: float) -> list[Array]:
        some = prompts[:NOISE_PROMPTS]
        batched = self._right(intervention, some, [alpha], self.token_budget)[0.0]
        alone = np.concatenate([self._right(intervention, [row], [], 1)[0.0] for row in some])
        return [np.array([off]) for off in np.abs(batched - alone)]

    def _right(
        self, intervention: Intervention, rows: Sequence[Item], alphas: Sequence[float], token_budget: int
    ) -> dict[float, Array]:
        """The probability of the right choice in every row (n,), by strength, 0 among them."""
        table = sweep(
            self.model,
            self.tokenizer,
            intervention,
            rows,
            alphas,
            token_budget=token_budget,
            other_base=self.other_base,
            shown=False,
        )
        parts = table.select("alpha", right=P_RIGHT).partition_by("alpha", as_dict=True)
        return {alpha: part["right"].to_numpy() for (alpha,), part in parts.items()}


def context(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    intervention: Intervention | None,
    text: Text,
    alpha: float,
    length: int,
) -> list[int]:
    """What comes before the continuation of a prompt at one strength.

    Raises:
        WeightsteerError: the text answers no prompt, or the prompt leaves no tokens for the continuation.
    """
    if not text.messages:
        raise WeightsteerError(
            f"text {text.item!r} answers no prompt, so no model can continue it: give texts with `prompt`, or "
            "budget_kind='nll'."
        )
    ids = (
        render_chat(tokenizer, text.messages)
        if intervention is None
        else rendered(tokenizer, intervention, text.messages, alpha)
    )
    takes = f"prompt {text.item!r} takes {len(ids) + length} tokens with its continuation of {length}"
    check_length(model, len(ids) + length, takes, "shorten it, or give fewer tokens")
    return ids


def _against_plain(model: PreTrainedModel, texts: Sequence[tuple[list[int], list[int]]], logp: Tensor) -> list[Array]:
    """|KL| per token from the plain model, one text at a time, to log-probabilities (n, t, vocabulary).

    The exact value is at least 0, but rounding alone may have either sign.
    """
    values = []
    for (before, text), own in zip(texts, logp, strict=True):
        ids = torch.tensor([[*before, *text]], device=model.device)
        logits = model(input_ids=ids, use_cache=False, logits_to_keep=len(text) + 1).logits[0, :-1]
        plain = logits.float().log_softmax(-1)
        values.append(divergence(plain, own[: len(text)]).abs().double().cpu().numpy())
    return values
