"""What an intervention costs: token likelihood on neutral text, and the distance of its predictions from the base's.

For a text with tokens x₁ … x_T behind its prompt, p₀ the base model and p_α the steered one, in nats per token::

    nll              = −(1/T) Σ_t log p_α(x_t | x_<t)
    kl_base_steered  =  (1/T) Σ_t KL(p₀ ‖ p_α)(· | x_<t)
    kl_steered_base  =  (1/T) Σ_t KL(p_α ‖ p₀)(· | x_<t)

from raw logits over the whole vocabulary in fp32, no generation settings, no decoding: smooth in α. The texts are the
same at every strength, so nothing depends on what the steered model would have said.

All strengths of a text are rows of one forward pass, α = 0 among them: the base row is computed like the others, and
its KL is 0 by construction. The decoder runs once per batch; its last hidden states are then turned into logits a few
positions at a time, so memory does not grow with texts × strengths × vocabulary.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import polars as pl
import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from weightsteer.data.evals.neutral import Text
from weightsteer.errors import WeightsteerError
from weightsteer.inference.readout import enough_memory, rendered, right_padded, strengths
from weightsteer.measure.rows import WHOSE, check_distinct, identity
from weightsteer.models import model_name
from weightsteer.progress import progress
from weightsteer.steering import Intervention, steer

MAX_LOGITS = 2**26  # entries of one logit matrix: 256 MiB in fp32

SCHEMA = {
    **WHOSE,
    "alpha": pl.Float64,
    "eval": pl.String,
    "item": pl.String,
    "cluster": pl.String,
    "tokens": pl.Int64,
    "nll": pl.Float64,
    "kl_base_steered": pl.Float64,
    "kl_steered_base": pl.Float64,
}


def damage(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    interventions: Intervention | Sequence[Intervention],
    texts: Sequence[Text],
    alphas: Sequence[float],
    *,
    token_budget: int = 8192,
    other_base: bool = False,
    shown: bool = True,
) -> pl.DataFrame:
    """Token NLL and KL to the base of every text under every intervention at every strength.

    Args:
        texts: see `weightsteer.data.evals.neutral.neutral_texts`.
        alphas: strengths; 0 is added when missing, because the base is what the others are compared with.
        token_budget: texts × strengths × tokens of one forward pass.
        other_base: steer a model with other weights than those the interventions were made on, as in `steer`.
        shown: show progress.

    Returns:
        One line per (intervention, α, text): `model, behavior, method, adapter, seed, alpha, eval` ("nll"), `item,
        cluster, tokens, nll, kl_base_steered, kl_steered_base`; the last three are means per token, in nats.
        `weightsteer.measure.damage_table.damage_summary` averages them with intervals.

    Raises:
        WeightsteerError: no text, identifiers that occur twice, strengths that are not finite or occur twice, a text
            longer than the model reads, a prompt intervention on texts that answer no prompt, or a tokenizer that
            joins prompt and text.
    """
    chosen = list(interventions) if isinstance(interventions, Sequence) else [interventions]
    check_distinct(chosen)
    own = [strengths(intervention, alphas) for intervention in chosen]
    names = [text.item for text in texts]
    if not names or len(set(names)) < len(names):
        raise WeightsteerError("give at least one text, and every text an item of its own.")
    frames = []
    was_training = model.training
    model.eval()
    try:
        with (
            torch.no_grad(),
            enough_memory(),
            progress("damage", len(chosen) * len(texts), shown=shown) as advance,
        ):
            for intervention, asked in zip(chosen, own, strict=True):
                rows = [_encode(model, tokenizer, intervention, text, asked) for text in texts]
                measured: list[dict[str, Any]] = [{} for _ in texts]
                for batch in _batches(rows, token_budget):
                    scores = _scores(model, intervention, [rows[number] for number in batch], asked, other_base)
                    for place, number in enumerate(batch):
                        measured[number] = {name: values[place].tolist() for name, values in scores.items()}
                    advance(len(batch))
                frames.append(_frame(model, intervention, texts, rows, asked, measured))
    finally:
        model.train(was_training)
    return pl.concat(frames)


@dataclass(frozen=True)
class _Row:
    """One text as the model reads it at each strength: token ids, and where the text begins in them."""

    ids: list[list[int]]
    starts: list[int]

    @property
    def longest(self) -> int:
        return max(map(len, self.ids))

    @property
    def scored(self) -> int:
        """Tokens of the text that have something before them: the same number at every strength."""
        return len(self.ids[0]) - self.starts[0]


def _encode(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    intervention: Intervention,
    text: Text,
    asked: Sequence[float],
) -> _Row:
    if text.messages:
        row = _chat(tokenizer, intervention, text, asked)
    elif hasattr(intervention, "messages"):
        raise WeightsteerError(
            f"text {text.item!r} answers no prompt, so a prompt intervention cannot act on it: give texts with "
            "`prompt`."
        )
    else:
        # the first token has nothing before it unless the tokenizer puts a beginning-of-sequence token there
        ids = list(tokenizer(text.text)["input_ids"])
        row = _Row([ids] * len(asked), [1] * len(asked))
    if row.scored < 1:
        raise WeightsteerError(f"text {text.item!r} has no token that could be predicted: give longer texts.")
    most = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if most is not None and row.longest > most:
        raise WeightsteerError(
            f"text {text.item!r} has {row.longest} tokens, but {model_name(model)} reads at most {most}: split it."
        )
    return row


def _chat(tokenizer: PreTrainedTokenizerBase, intervention: Intervention, text: Text, asked: Sequence[float]) -> _Row:
    ids, starts = [], []
    for alpha in asked if hasattr(intervention, "messages") else asked[:1]:
        prompt = rendered(tokenizer, intervention, text.messages, alpha)
        whole = rendered(tokenizer, intervention, text.messages, alpha, answer_prefix=text.text)
        if whole[: len(prompt)] != prompt:
            raise WeightsteerError(
                f"text {text.item!r}: the tokenizer joins the end of the prompt with the beginning of the text, so "
                "its tokens cannot be told apart. Begin the text with a letter, without a space or a line break."
            )
        ids.append(whole)
        starts.append(len(prompt))
    if len({len(whole) - start for whole, start in zip(ids, starts, strict=True)}) > 1:
        raise WeightsteerError(f"text {text.item!r} is split into other tokens behind another prompt.")
    times = len(asked) // len(ids)
    return _Row(ids * times, starts * times)


def _batches(rows: Sequence[_Row], token_budget: int) -> Iterator[list[int]]:
    """Texts of like length together, the longest first, all strengths of a text in one batch."""
    batch: list[int] = []
    for number in sorted(range(len(rows)), key=lambda number: -rows[number].longest):
        if batch and (len(batch) + 1) * rows[batch[0]].longest * len(rows[number].ids) > token_budget:
            yield batch
            batch = []
        batch.append(number)
    if batch:
        yield batch


def _scores(
    model: PreTrainedModel,
    intervention: Intervention,
    batch: Sequence[_Row],
    asked: Sequence[float],
    other_base: bool,
) -> dict[str, Tensor]:
    """Means over the tokens of each text, (n, k) fp64 on the CPU."""
    n, k, zero = len(batch), len(asked), asked.index(0.0)
    device = model.device
    ids = right_padded([row for text in batch for row in text.ids], device)
    starts = torch.tensor([start for text in batch for start in text.starts], device=device)[:, None]
    lengths = torch.tensor([text.scored for text in batch], device=device).repeat_interleave(k)[:, None]
    vocabulary = model.get_output_embeddings().weight.shape[0]
    longest = max(text.scored for text in batch)
    step = min(longest, max(1, MAX_LOGITS // (n * k * vocabulary)))
    sums = {name: torch.zeros(n, k, dtype=torch.float64) for name in ("nll", "kl_base_steered", "kl_steered_base")}
    with steer(model, intervention, list(asked) * n, other_base=other_base):
        body = model.base_model(input_ids=ids, use_cache=False)
        hidden = body.last_hidden_state
        rows = torch.arange(n * k, device=hidden.device)[:, None]
        for first in range(0, longest, step):
            # position t predicts token t + 1; beyond the end of a text the first position stands in, and counts 0
            offsets = torch.arange(first, first + step, device=device)[None]
            counts = offsets < lengths
            targets = starts + offsets.where(counts, torch.zeros_like(offsets))
            with body_gives(model, body, hidden[rows, (targets - 1).to(hidden.device)]):
                logits = model(input_ids=ids[:, :1].expand(-1, step), use_cache=False).logits
            logp = logits.float().log_softmax(-1)
            weight = counts.to(logp.device).view(n, k, step)
            picked = ids.gather(1, targets).to(logp.device)
            nll = -logp.gather(-1, picked[..., None])[..., 0].view(n, k, step)
            sums["nll"] += (nll * weight).double().sum(-1).cpu()
            logp = logp.view(n, k, step, -1)
            base = logp[:, zero]
            for place in range(k):  # one strength at a time: three matrices of the size of the vocabulary are enough
                steered = logp[:, place]
                for name, p, q in (("kl_base_steered", base, steered), ("kl_steered_base", steered, base)):
                    kl = (p.exp() * (p - q)).sum(-1) * weight[:, place]
                    sums[name][:, place] += kl.double().sum(-1).cpu()
    tokens = torch.tensor([[text.scored] for text in batch])
    return {name: total / tokens for name, total in sums.items()}


@contextmanager
def body_gives(model: PreTrainedModel, output: Any, hidden: Tensor) -> Iterator[None]:
    """Let the decoder answer with ``hidden`` (b, c, d) without running, so that the model only computes its head.

    What the architecture does to its logits (soft caps, scales) thus stays in its own hands.
    """
    body = model.base_model
    own = body.__dict__.get("forward")
    answer = type(output)(**{**output, "last_hidden_state": hidden})
    body.forward = lambda *args, **kwargs: answer
    try:
        yield
    finally:
        if own is None:
            del body.forward
        else:
            body.forward = own


def _frame(
    model: PreTrainedModel,
    intervention: Intervention,
    texts: Sequence[Text],
    rows: Sequence[_Row],
    asked: Sequence[float],
    measured: Sequence[dict[str, Any]],
) -> pl.DataFrame:
    constant = {"model": model_name(model), "eval": "nll", **identity(intervention)}
    lines = [
        {
            **constant,
            "alpha": alpha,
            "item": text.item,
            "cluster": text.cluster,
            "tokens": row.scored,
            **{name: values[place] for name, values in scores.items()},
        }
        for place, alpha in enumerate(asked)
        for text, row, scores in zip(texts, rows, measured, strict=True)
    ]
    return pl.DataFrame(lines, schema=SCHEMA)
