"""What an intervention costs: token likelihood on neutral text, and the distance of its predictions from the base's.

For a text with tokens x₁ … x_T behind its prompt, p₀ the base model and p_α the steered one, in nats per token::

    nll              = −(1/T) Σ_t log p_α(x_t | x_<t)
    kl_base_steered  =  (1/T) Σ_t KL(p₀ ‖ p_α)(· | x_<t)
    kl_steered_base  =  (1/T) Σ_t KL(p_α ‖ p₀)(· | x_<t)

from raw logits over the whole vocabulary in fp32, no generation settings, no decoding: smooth in α. The texts are the
same at every strength, so nothing depends on what the steered model would have said.

All strengths of a text are rows of one forward pass, α = 0 among them: the base row is computed like the others, and
its KL is 0 by construction (`weightsteer.inference.distributions`).
"""

from collections.abc import Sequence
from typing import Any

import polars as pl
import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from weightsteer.data.evals.neutral import Text
from weightsteer.errors import WeightsteerError
from weightsteer.inference.batching import TOKENS, batches, check_length, enough_memory
from weightsteer.inference.distributions import TeacherForced, along_texts, divergence
from weightsteer.inference.forward import evaluating
from weightsteer.measure.rows import WHOSE, check_distinct, identity
from weightsteer.measure.strengths import is_prompt, rendered, strengths
from weightsteer.models import model_name
from weightsteer.progress import progress
from weightsteer.steering import Intervention

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
    token_budget: int = TOKENS,
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
    with evaluating(model), enough_memory(), progress("damage", len(chosen) * len(texts), shown=shown) as advance:
        for intervention, alphas in zip(chosen, own, strict=True):
            rows = [_encode(model, tokenizer, intervention, text, alphas) for text in texts]
            measured: list[Tensor] = [torch.empty(0)] * len(texts)
            for batch in batches([row.longest * len(alphas) for row in rows], token_budget):
                scores = _scores(model, intervention, [rows[index] for index in batch], alphas, other_base)
                for index, values in zip(batch, scores, strict=True):
                    measured[index] = values
                advance(len(batch))
            frames.append(_frame(model, intervention, texts, rows, alphas, measured))
    return pl.concat(frames)


def _encode(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    intervention: Intervention,
    text: Text,
    alphas: Sequence[float],
) -> TeacherForced:
    """One text as the model reads it; what is scored is the same tokens at every strength."""
    if text.messages:
        row = _answering(tokenizer, intervention, text, alphas)
    elif is_prompt(intervention):
        raise WeightsteerError(
            f"text {text.item!r} answers no prompt, so a prompt intervention cannot act on it: give texts with "
            "`prompt`."
        )
    else:
        # the first token has nothing before it unless the tokenizer puts a beginning-of-sequence token there
        ids = list(tokenizer(text.text)["input_ids"])
        row = TeacherForced((ids[:1],), ids[1:])
    if not row.text:
        raise WeightsteerError(f"text {text.item!r} has no token that could be predicted: give longer texts.")
    check_length(model, row.longest, f"text {text.item!r} has {row.longest} tokens", "split it")
    return row


def _answering(
    tokenizer: PreTrainedTokenizerBase, intervention: Intervention, text: Text, alphas: Sequence[float]
) -> TeacherForced:
    contexts, texts = [], []
    for alpha in alphas if is_prompt(intervention) else alphas[:1]:
        prompt = rendered(tokenizer, intervention, text.messages, alpha)
        whole = rendered(tokenizer, intervention, text.messages, alpha, answer_prefix=text.text)
        if whole[: len(prompt)] != prompt:
            raise WeightsteerError(
                f"text {text.item!r}: the tokenizer joins the end of the prompt with the beginning of the text, so "
                "its tokens cannot be separated from those of the prompt. Begin the text with a letter, without a "
                "space or a line break."
            )
        contexts.append(prompt)
        texts.append(whole[len(prompt) :])
    if any(own != texts[0] for own in texts):
        raise WeightsteerError(f"text {text.item!r} is split into other tokens behind another prompt.")
    return TeacherForced(tuple(contexts), texts[0])


def _scores(
    model: PreTrainedModel,
    intervention: Intervention,
    batch: Sequence[TeacherForced],
    alphas: Sequence[float],
    other_base: bool,
) -> Tensor:
    """Means over the tokens of each text (n, 3, k), fp64 on the CPU: NLL, KL(base ‖ steered), KL(steered ‖ base)."""
    k, zero = len(alphas), alphas.index(0.0)
    sums = torch.zeros(len(batch), 3, k, dtype=torch.float64, device=model.get_output_embeddings().weight.device)

    def add(first: int, logp: Tensor) -> None:
        for row, every, total in zip(batch, logp, sums, strict=True):
            tokens = row.text[first : first + every.shape[1]]
            if not tokens:  # a shorter text than the others
                continue
            own = every[:, : len(tokens)]
            total[0] -= own[:, range(len(tokens)), tokens].double().sum(-1)
            for index in range(k):  # one strength at a time: few matrices of the size of the vocabulary are enough
                total[1, index] += divergence(own[zero], own[index]).double().sum()
                total[2, index] += divergence(own[index], own[zero]).double().sum()

    along_texts(model, intervention, batch, alphas, add, other_base=other_base)
    return sums.cpu() / torch.tensor([len(row.text) for row in batch])[:, None, None]


def _frame(
    model: PreTrainedModel,
    intervention: Intervention,
    texts: Sequence[Text],
    rows: Sequence[TeacherForced],
    alphas: Sequence[float],
    measured: Sequence[Tensor],
) -> pl.DataFrame:
    constant: dict[str, Any] = {"model": model_name(model), "eval": "nll", **identity(intervention)}
    lines = [
        {
            **constant,
            "alpha": alpha,
            "item": text.item,
            "cluster": text.cluster,
            "tokens": len(row.text),
            **dict(zip(("nll", "kl_base_steered", "kl_steered_base"), scores[:, index].tolist(), strict=True)),
        }
        for index, alpha in enumerate(alphas)
        for text, row, scores in zip(texts, rows, measured, strict=True)
    ]
    return pl.DataFrame(lines, schema=SCHEMA)
