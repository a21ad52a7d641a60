"""sweep(): every intervention at every strength over the rows of an evaluation, as one table."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import polars as pl
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from weightsteer.data.evals.base import Evaluation, Item, rows_of
from weightsteer.errors import WeightsteerError
from weightsteer.inference.answers import Scores, answer_logits, choice_table, score_choices
from weightsteer.inference.batching import TOKENS, batches, check_length, positions_at_once
from weightsteer.inference.forward import evaluating
from weightsteer.inference.prefixes import Pack, pack, shares_prefixes
from weightsteer.measure.rows import Scored, check_base, check_distinct, check_same_rows, frame
from weightsteer.measure.strengths import is_prompt, rendered, strengths
from weightsteer.models import model_name
from weightsteer.progress import progress
from weightsteer.steering import Intervention

# a pack that would be padding for more than the rest of this share begins a batch of its own
LEAST_FILLED = 0.8


def sweep(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    interventions: Intervention | Sequence[Intervention],
    evaluation: Evaluation | Sequence[Item],
    alphas: Sequence[float],
    *,
    token_budget: int = TOKENS,
    share_prefixes: bool = True,
    other_base: bool = False,
    shown: bool = True,
) -> pl.DataFrame:
    """Score every row of an evaluation under every intervention at every strength.

    An intervention acts on all positions of a row alike. One that has ``messages`` is a prompt: at α ≠ 0 its
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
            distinguished in the result, a row longer than the model reads, choices that are not single tokens,
            NaN logits of the unsteered model.
    """
    chosen = list(interventions) if isinstance(interventions, Sequence) else [interventions]
    check_distinct(chosen)
    asked = [strengths(intervention, alphas) for intervention in chosen]
    name, items = rows_of(evaluation, model)
    if guided := next((item.item for item in items if item.thinking_tokens), None):
        raise WeightsteerError(
            f"row {guided!r} asks for a thought before its answer: score it with weightsteer.measure.guided.guided()."
        )
    # prompts last: an intervention on the model computes the base along with its own strengths, at less cost
    order = sorted(range(len(chosen)), key=lambda at: is_prompt(chosen[at]))
    passes = sum(map(len, asked)) - len(chosen) + 1
    with evaluating(model), progress(f"sweep {name}", passes * len(items), shown=shown) as advance:
        scorer = _Scorer(model, tokenizer, items, token_budget, share_prefixes, other_base, advance)
        columns = {at: scorer.columns(chosen[at], asked[at]) for at in order}
    frames = [frame(model_name(model), chosen[at], name, items, columns[at]) for at in range(len(chosen))]
    table = pl.concat(frames)
    check_same_rows(table)
    return table


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
        self.base: Scored | None = None
        self.choices = choice_table(self.tokenizer, [item.choices for item in self.items]).to(self.model.device)

    def columns(self, intervention: Intervention, alphas: list[float]) -> dict[float, Scored]:
        """The scores of all rows at each strength."""
        steered = [alpha for alpha in alphas if alpha != 0]
        if is_prompt(intervention):
            found = {alpha: self._scores(None, self._encode(intervention, alpha), [0.0])[0.0] for alpha in steered}
            if self.base is None:
                self.base = self._scores(None, self._encode(intervention, 0.0), [0.0])[0.0]
        else:
            found = self._scores(intervention, self._encode(intervention, 0.0), steered if self.base else alphas)
            self.base = self.base or found[0.0]
        check_base(self.base, self.items)
        return {**found, 0.0: self.base}

    def _encode(self, intervention: Intervention, alpha: float) -> list[list[int]]:
        """Token ids of the rows as they are put to the model at one strength."""
        rows = [
            rendered(self.tokenizer, intervention, item.messages, alpha, answer_prefix=item.answer_prefix)
            for item in self.items
        ]
        for item, row in zip(self.items, rows, strict=True):
            advice = "shorten or remove it (cutting it would cut the question or the beginning of the answer)"
            check_length(self.model, len(row), f"row {item.item!r} has {len(row)} tokens", advice)
        return rows

    def _scores(
        self, intervention: Intervention | None, rows: list[list[int]], alphas: list[float]
    ) -> dict[float, Scored]:
        """The scores of encoded rows, batch by batch."""
        columns = {alpha: Scored.empty(len(rows)) for alpha in alphas}
        if not alphas:
            return columns
        k = len(alphas)
        strengths = torch.tensor(alphas, dtype=torch.float32, device=self.model.device)
        pending = self._batches(rows, range(len(rows)), k)
        while pending:
            batch, *rest = pending
            held = [row for one in batch for row in one.rows]
            scores = self._try(intervention, batch, self.choices[held], strengths)
            if scores is None:
                # also for the interventions still to come
                self.token_budget = len(batch) * k * max(len(one.ids) for one in batch) // 2
                torch.cuda.empty_cache()
                pending = self._batches(rows, [row for left in pending for one in left for row in one.rows], k)
                continue
            for field in ("logratio", "pmass", "low_pmass"):
                values = getattr(scores, field).view(len(held), k).cpu().numpy()
                for at, alpha in enumerate(alphas):
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

    def _batches(self, rows: list[list[int]], wanted: Sequence[int], k: int) -> list[list[Pack]]:
        """Packs of similar lengths within the limits of tokens and of logits, the longest first."""
        shares = self.share_prefixes and shares_prefixes(self.model, max(map(len, rows)))
        # In a layer of width d a token takes about 24·d² FLOP in the matrices and a (query, key) pair 4·d, so that
        # 6·d pairs cost a token; masked attention is slower than matrices, so the best packs are found at about d.
        worth = self.model.config.get_text_config().hidden_size if shares else 0
        most = positions_at_once(self.model, k)
        packs = pack(rows, wanted, worth, max_tokens=self.token_budget // k, max_rows=most)
        packs.sort(key=lambda one: one.rows)
        lengths, reads = [k * len(one.ids) for one in packs], [len(one.rows) for one in packs]
        plan = batches(lengths, self.token_budget, reads=reads, most_reads=most, least_filled=LEAST_FILLED)
        return [[packs[index] for index in batch] for batch in plan]
