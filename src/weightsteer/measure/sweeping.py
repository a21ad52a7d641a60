"""sweep(): every intervention at every strength over the rows of an evaluation, as one table."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeGuard

import numpy as np
import polars as pl
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from weightsteer.data.evals.base import Evaluation, Item, check_items
from weightsteer.errors import WeightsteerError
from weightsteer.inference.answers import answer_logits, shares_prefixes
from weightsteer.inference.choices import Scores, choice_table, score_choices
from weightsteer.inference.packing import Pack, pack
from weightsteer.measure.rows import Scored, check_base, check_distinct, check_same_rows, frame
from weightsteer.models import model_name, render_chat
from weightsteer.progress import progress
from weightsteer.steering import Intervention

# at most so many logits at once (fp32: 128 MiB), whatever the token budget: vocabularies are large
MAX_LOGITS = 2**25

# a pack that would be padding for more than the rest of this share begins a batch of its own
LEAST_FILLED = 0.8


class Prompt(Intervention, Protocol):
    """An intervention that changes what is said to the model instead of the model."""

    def messages(
        self, messages: list[dict[str, str]], alpha: float, tokenizer: PreTrainedTokenizerBase
    ) -> list[dict[str, str]]:
        """The conversation as this prompt puts it at one strength."""


def sweep(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    interventions: Intervention | Sequence[Intervention],
    evaluation: Evaluation | Sequence[Item],
    alphas: Sequence[float],
    *,
    token_budget: int = 8192,
    share_prefixes: bool = True,
    other_base: bool = False,
    shown: bool = True,
) -> pl.DataFrame:
    """Score every row of an evaluation under every intervention at every strength.

    An intervention acts on all positions of a row alike. One that has ``messages`` is a `Prompt`: at α ≠ 0 its
    messages are put to the unsteered model. One that has ``alphas`` is defined at these strengths alone, and is
    swept at those of them that are asked for.

    Args:
        interventions: one or several; all see identical rows, and each brings its own α = 0, whose numbers are
            computed once and are the same for all.
        evaluation: an `Evaluation`, or its rows.
        alphas: K strengths; 0 is added when missing, because effects are paired against it.
        token_budget: rows × K × tokens of one forward pass. Halved and tried again when memory runs out.
        share_prefixes: compute what rows have in common at their beginning once, where the architecture allows it.
        other_base: steer a model with other weights than those the interventions were made on, as in `steer`.
        shown: show progress.

    Returns:
        One line per (intervention, α, row), in this order: `model, behavior, method, adapter, seed, alpha,
        eval, item, cluster, label, logratio, pmass, low_pmass`; logratio in nats, unsigned by the label. NaN
        logits at α ≠ 0 stay NaN.

    Raises:
        WeightsteerError: strengths that are not finite or occur twice, interventions or rows that cannot be
            told apart in the result, a row longer than the model reads, choices that are not single tokens,
            NaN logits of the unsteered model.
    """
    chosen = list(interventions) if isinstance(interventions, Sequence) else [interventions]
    strengths = _strengths(alphas)
    check_distinct(chosen)
    if isinstance(evaluation, Evaluation):
        name, items = evaluation.name, evaluation.items(model)
    else:
        name, items = "items", list(evaluation)
        check_items(items, name)
    if guided := next((item.item for item in items if item.thinking_tokens), None):
        raise WeightsteerError(
            f"row {guided!r} asks for a thought before its answer: score it with weightsteer.measure.guided.guided()."
        )
    # prompts last: an intervention on the model computes the base along with its own strengths, at less cost
    order = sorted(range(len(chosen)), key=lambda at: _is_prompt(chosen[at]))
    own = {at: _own_strengths(chosen[at], strengths) for at in order}
    passes = sum(len(values) for values in own.values()) - len(chosen) + 1

    was_training = model.training
    model.eval()
    try:
        with torch.no_grad(), progress(f"sweep {name}", passes * len(items), shown=shown) as advance:
            scorer = _Scorer(model, tokenizer, items, token_budget, share_prefixes, other_base, advance)
            columns = {at: scorer.columns(chosen[at], own[at]) for at in order}
    finally:
        model.train(was_training)
    frames = [frame(model_name(model), chosen[at], name, items, columns[at]) for at in range(len(chosen))]
    table = pl.concat(frames)
    check_same_rows(table)
    return table


def _strengths(alphas: Sequence[float]) -> list[float]:
    """The strengths in ascending order, 0 among them."""
    values = [float(alpha) for alpha in alphas]
    if not all(np.isfinite(values)):
        raise WeightsteerError(f"strengths must be finite numbers, not {values}.")
    if len(set(values)) < len(values):
        raise WeightsteerError(f"a strength occurs twice in {values}: give each once.")
    # + 0.0 turns -0.0 into 0.0
    return sorted({value + 0.0 for value in values} | {0.0})


def _own_strengths(intervention: Intervention, strengths: list[float]) -> list[float]:
    """Those at which the intervention is defined, and 0."""
    defined = getattr(intervention, "alphas", None)
    return [alpha for alpha in strengths if defined is None or alpha == 0 or alpha in defined]


def _is_prompt(intervention: Intervention) -> TypeGuard[Prompt]:
    return hasattr(intervention, "messages")


@dataclass(frozen=True)
class _Rows:
    """Encoded rows: token ids, and the tokens that spell each row's choices (n, 2, m)."""

    ids: list[list[int]]
    choices: torch.Tensor


@dataclass
class _Scorer:
    """Scores one list of rows under one intervention after the other; holds what they have in common."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    items: list[Item]
    token_budget: int
    share_prefixes: bool
    other_base: bool
    advance: Callable[[int], None]

    def __post_init__(self) -> None:
        self.rows = _encode(self.model, self.tokenizer, self.items)
        self.base: Scored | None = None

    def columns(self, intervention: Intervention, strengths: list[float]) -> dict[float, Scored]:
        """The scores of all rows at each strength."""
        steered = [alpha for alpha in strengths if alpha != 0]
        if _is_prompt(intervention):
            found = {alpha: self._scores(None, self._prompted(intervention, alpha), [0.0])[0.0] for alpha in steered}
            if self.base is None:
                self.base = self._scores(None, self.rows, [0.0])[0.0]
        else:
            found = self._scores(intervention, self.rows, steered if self.base else strengths)
            self.base = self.base or found[0.0]
        check_base(self.base, self.items)
        return {**found, 0.0: self.base}

    def _prompted(self, prompt: Prompt, alpha: float) -> _Rows:
        """The rows as this prompt puts them at one strength."""
        said = [prompt.messages(list(item.messages), alpha, self.tokenizer) for item in self.items]
        changed = [replace(item, messages=tuple(own)) for item, own in zip(self.items, said, strict=True)]
        return _encode(self.model, self.tokenizer, changed)

    def _scores(self, intervention: Intervention | None, rows: _Rows, strengths: list[float]) -> dict[float, Scored]:
        """The scores of encoded rows, batch by batch."""
        columns = {alpha: Scored.empty(len(rows.ids)) for alpha in strengths}
        if not strengths:
            return columns
        k = len(strengths)
        alphas = torch.tensor(strengths, dtype=torch.float32, device=self.model.device)
        pending = self._batches(rows, range(len(rows.ids)), k)
        while pending:
            batch, *rest = pending
            held = [row for one in batch for row in one.rows]
            scores = self._try(intervention, batch, rows.choices[held], alphas)
            if scores is None:
                # also for the interventions still to come
                self.token_budget = len(batch) * k * max(len(one.ids) for one in batch) // 2
                torch.cuda.empty_cache()
                pending = self._batches(rows, [row for left in pending for one in left for row in one.rows], k)
                continue
            for field in ("logratio", "pmass", "low_pmass"):
                values = getattr(scores, field).view(len(held), k).cpu().numpy()
                for at, alpha in enumerate(strengths):
                    getattr(columns[alpha], field)[held] = values[:, at]
            pending = rest
            self.advance(len(held) * k)
        return columns

    def _try(
        self, intervention: Intervention | None, batch: list[Pack], choices: torch.Tensor, alphas: torch.Tensor
    ) -> Scores | None:
        """The scores of a batch, (rows · k,); None when memory runs out and the batch can be made smaller."""
        try:
            logits = answer_logits(self.model, intervention, batch, alphas, other_base=self.other_base)
            return score_choices(logits.flatten(0, 1), choices.repeat_interleave(len(alphas), 0))
        except torch.OutOfMemoryError as error:
            if len(choices) > 1:
                return None
            raise WeightsteerError(
                f"out of memory on a single row of {len(batch[0].ids)} tokens at {len(alphas)} strengths: use fewer "
                "strengths, a smaller dtype, or a larger device."
            ) from error

    def _batches(self, rows: _Rows, wanted: Sequence[int], k: int) -> list[list[Pack]]:
        """Packs of similar lengths within the budget of tokens and of logits, the longest first.

        If memory runs out, it does so at once.
        """
        shares = self.share_prefixes and shares_prefixes(self.model, max(map(len, rows.ids)))
        # In a layer of width d a token takes about 24·d² FLOP in the matrices and a (query, key) pair 4·d, so that
        # 6·d pairs cost a token; masked attention is slower than matrices, so the best packs are found at about d.
        worth = self.model.config.get_text_config().hidden_size if shares else 0
        answers = max(1, MAX_LOGITS // (k * self.model.get_output_embeddings().weight.shape[0]))
        packs = pack(rows.ids, wanted, worth, max_tokens=self.token_budget // k, max_rows=answers)
        packs.sort(key=lambda one: (-len(one.ids), one.rows))
        batches: list[list[Pack]] = []
        for one in packs:
            grown = [*batches[-1], one] if batches else [one]
            longest = len(grown[0].ids)
            if (
                batches
                and len(grown) * k * longest <= self.token_budget
                and len(grown) * max(len(other.rows) for other in grown) <= answers
                and len(one.ids) > LEAST_FILLED * longest
            ):
                batches[-1] = grown
            else:
                batches.append([one])
        return batches


def _encode(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, items: Sequence[Item]) -> _Rows:
    longest = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    ids = [render_chat(tokenizer, item.messages, answer_prefix=item.answer_prefix) for item in items]
    for item, row in zip(items, ids, strict=True):
        if longest is not None and len(row) > longest:
            raise WeightsteerError(
                f"row {item.item!r} has {len(row)} tokens, but {model_name(model)} reads at most {longest}: "
                "shorten or remove it (cutting it would cut the question or the beginning of the answer)."
            )
    return _Rows(ids, choice_table(tokenizer, [item.choices for item in items]).to(model.device))
