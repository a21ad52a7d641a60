"""The sweep engine: an intervention at many strengths over the rows of an evaluation, α as a batch dimension.

A row is rendered once. Its hidden states below the first steered layer do not depend on α, so they are
computed once and then repeated for the K strengths; above, one forward pass carries every (row, α) pair, each
with its own α. Only the answer position is multiplied with the output embedding. Rows are sorted by length
and packed to a token budget; padding is on the right, after the answer position, where a causal model cannot
see it, so no attention mask is needed and the fast causal kernels stay in use.

The result equals the plain way (merge W + α·dW in fp32, one full forward per row and α) up to rounding.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from weightsteer.errors import WeightsteerError
from weightsteer.evals.base import Evaluation, Item, check_items
from weightsteer.models import decoder_layers, model_name, render_chat
from weightsteer.progress import progress
from weightsteer.scoring import choice_table, score_choices
from weightsteer.steering import Intervention, first_layer, steer

# at most so many logits at once (fp32: 256 MiB), whatever the token budget: vocabularies are large
MAX_LOGITS = 2**26

SCHEMA = {
    "model": pl.String,
    "behavior": pl.String,
    "method": pl.String,
    "adapter": pl.String,
    "seed": pl.Int64,
    "alpha": pl.Float64,
    "eval": pl.String,
    "item": pl.String,
    "cluster": pl.String,
    "label": pl.Int64,
    "logratio": pl.Float64,
    "pmass": pl.Float64,
    "low_pmass": pl.Boolean,
}


def sweep(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    interventions: Intervention | Sequence[Intervention],
    evaluation: Evaluation | Sequence[Item],
    alphas: Sequence[float],
    *,
    token_budget: int = 8192,
    shown: bool = True,
) -> pl.DataFrame:
    """Score every row of an evaluation under every intervention at every strength.

    Args:
        interventions: one or several; all see identical rows, and each brings its own α = 0.
        evaluation: an `Evaluation`, or its rows.
        alphas: K strengths; 0 is added when missing, because effects are paired against it.
        token_budget: rows × K × tokens of one forward pass. Halved and tried again when memory runs out.
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
    _check_distinct(chosen)
    if isinstance(evaluation, Evaluation):
        name, items = evaluation.name, evaluation.items(model)
    else:
        name, items = "items", list(evaluation)
        check_items(items, name)
    rows = _encode(model, tokenizer, items)

    was_training = model.training
    model.eval()
    try:
        with torch.no_grad(), progress(f"sweep {name}", len(chosen) * len(items), shown=shown) as advance:
            frames = []
            for intervention in chosen:
                scored = _Scored.empty(len(items), len(strengths))
                for part in _score_batches(model, intervention, rows, strengths, token_budget, scored):
                    advance(part)
                _check_base(scored.logratio[:, strengths.index(0.0)], items)
                frames.append(_frame(model, intervention, name, items, strengths, scored))
    finally:
        model.train(was_training)
    return pl.concat(frames)


def _strengths(alphas: Sequence[float]) -> list[float]:
    """The strengths in ascending order, 0 among them."""
    values = [float(alpha) for alpha in alphas]
    if not all(np.isfinite(values)):
        raise WeightsteerError(f"strengths must be finite numbers, not {values}.")
    if len(set(values)) < len(values):
        raise WeightsteerError(f"a strength occurs twice in {values}: give each once.")
    # + 0.0 turns -0.0 into 0.0
    return sorted({value + 0.0 for value in values} | {0.0})


def _identity(intervention: Intervention) -> dict[str, Any]:
    """The columns that tell one intervention's lines from another's."""
    metadata = intervention.metadata
    return {
        "behavior": metadata.get("behavior"),
        "method": intervention.method,
        "adapter": metadata.get("adapter"),
        "seed": metadata.get("seed"),
    }


def _check_distinct(interventions: list[Intervention]) -> None:
    if not interventions:
        raise WeightsteerError("nothing to sweep: give at least one intervention.")
    seen: list[dict[str, Any]] = []
    for intervention in interventions:
        identity = _identity(intervention)
        if identity in seen:
            raise WeightsteerError(
                f"two interventions cannot be told apart in the result: both are {identity}. Set `behavior`, "
                "`adapter` or `seed` in the metadata of one of them."
            )
        seen.append(identity)


def _check_base(logratio: np.ndarray, items: list[Item]) -> None:
    if np.isnan(logratio).any():
        item = items[int(np.flatnonzero(np.isnan(logratio))[0])].item
        raise WeightsteerError(
            f"row {item!r} has NaN logits at α = 0. Either the model overflows in its dtype (load it with "
            "dtype='float32' or 'bfloat16'), or the intervention itself holds NaN or infinite numbers."
        )


@dataclass(frozen=True)
class _Rows:
    """Encoded rows: token ids, and the tokens that spell each row's choices (n, 2, m)."""

    ids: list[list[int]]
    choices: torch.Tensor


def _encode(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, items: list[Item]) -> _Rows:
    longest = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    ids = [render_chat(tokenizer, item.messages, answer_prefix=item.answer_prefix) for item in items]
    for item, row in zip(items, ids, strict=True):
        if longest is not None and len(row) > longest:
            raise WeightsteerError(
                f"row {item.item!r} has {len(row)} tokens, but {model_name(model)} reads at most {longest}: "
                "shorten or remove it (cutting it would cut the question or the beginning of the answer)."
            )
    return _Rows(ids, choice_table(tokenizer, [item.choices for item in items]).to(model.device))


@dataclass(frozen=True)
class _Scored:
    """Scores of n rows at k strengths, each (n, k)."""

    logratio: np.ndarray
    pmass: np.ndarray
    low_pmass: np.ndarray

    @classmethod
    def empty(cls, n: int, k: int) -> "_Scored":
        return cls(np.empty((n, k)), np.empty((n, k)), np.empty((n, k), dtype=bool))


def _score_batches(
    model: PreTrainedModel,
    intervention: Intervention,
    rows: _Rows,
    strengths: list[float],
    token_budget: int,
    scored: _Scored,
) -> Iterator[int]:
    """Fill in the scores batch by batch; yields the number of rows done."""
    k = len(strengths)
    alphas = torch.tensor(strengths, dtype=torch.float32, device=model.device)
    vocabulary = model.get_output_embeddings().weight.shape[0]
    # the longest first: if memory runs out, it does so at once
    pending = sorted(range(len(rows.ids)), key=lambda row: -len(rows.ids[row]))
    while pending:
        tokens = len(rows.ids[pending[0]])
        n = max(1, min(token_budget // (k * tokens), MAX_LOGITS // (k * vocabulary)))
        batch, rest = pending[:n], pending[n:]
        try:
            logits = _answer_logits(model, intervention, [rows.ids[row] for row in batch], alphas)
            result = score_choices(logits, rows.choices[batch].repeat_interleave(k, 0))
        except torch.OutOfMemoryError as error:
            if len(batch) == 1:
                raise WeightsteerError(
                    f"out of memory on a single row of {tokens} tokens at {k} strengths: use fewer "
                    "strengths, a smaller dtype, or a larger device."
                ) from error
            token_budget = len(batch) * k * tokens // 2
            torch.cuda.empty_cache()
            continue
        for name in ("logratio", "pmass", "low_pmass"):
            getattr(scored, name)[batch] = getattr(result, name).view(len(batch), k).cpu().numpy()
        pending = rest
        yield len(batch)


def _answer_logits(
    model: PreTrainedModel, intervention: Intervention, ids: list[list[int]], alphas: torch.Tensor
) -> torch.Tensor:
    """Logits at each row's last token for every strength: (n·k, vocabulary), a row's strengths together."""
    n, k = len(ids), len(alphas)
    tokens = max(map(len, ids))
    # padded with the row's own last token: after the answer position nothing matters, but some models warn of
    # the official padding token
    batch = torch.tensor([row + row[-1:] * (tokens - len(row)) for row in ids], device=model.device)
    last = torch.tensor([len(row) - 1 for row in ids], device=model.device).repeat_interleave(k)
    first = _first_own_layer(model, intervention)
    if first == 0:
        batch = batch.repeat_interleave(k, 0)
    with (
        _repeated_from(model, first, n, k),
        _only_answer_positions(model, last),
        steer(model, intervention, alphas.repeat(n)),
    ):
        return model(input_ids=batch, use_cache=False).logits[:, 0]


def _first_own_layer(model: PreTrainedModel, intervention: Intervention) -> int:
    """The first decoder layer that has to see every strength; 0 when rows must be repeated at the input.

    That is so when something outside the layers is steered (it may run before them), and in architectures
    whose layers hand states past each other, where repeating the hidden states alone is not enough.
    """
    config = model.config.get_text_config()
    if getattr(config, "num_kv_shared_layers", 0) or getattr(config, "altup_num_inputs", 0):
        return 0
    return first_layer(model, intervention)


@contextmanager
def _repeated_from(model: PreTrainedModel, first: int, n: int, k: int) -> Iterator[None]:
    """Repeat the hidden states (n, t, d) to (n·k, t, d) on their way into layer ``first``.

    The model prepares masks and position embeddings for n rows, so every later layer gets those repeated as
    well where they are per row; those shared by all rows have a batch dimension of 1 and broadcast.
    """
    if first == 0 or k == 1:
        yield
        return
    _, layers = decoder_layers(model)

    def repeat(value: Any, tokens: int) -> Any:
        if isinstance(value, torch.Tensor):
            per_row = n > 1 and value.ndim > 1 and value.shape[0] == n and tokens in value.shape[1:]
            return value.repeat_interleave(k, 0) if per_row else value
        if isinstance(value, tuple):
            return tuple(repeat(part, tokens) for part in value)
        return value

    def before(layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        hidden, *others = args
        tokens = hidden.shape[1]
        if layer is layers[first]:
            hidden = hidden.repeat_interleave(k, 0)
        others = [repeat(value, tokens) for value in others]
        return (hidden, *others), {name: repeat(value, tokens) for name, value in kwargs.items()}

    handles: list[Any] = []
    try:
        for layer in layers[first:]:
            handles.append(layer.register_forward_pre_hook(before, with_kwargs=True))
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _only_answer_positions(model: PreTrainedModel, last: torch.Tensor) -> Iterator[None]:
    """Let the output embedding see one position per row: (b, t, d) → (b, 1, d). ``last`` is (b,)."""

    def before(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        hidden, *others = args
        return (hidden[torch.arange(len(last), device=hidden.device), last].unsqueeze(1), *others)

    handle = model.get_output_embeddings().register_forward_pre_hook(before)
    try:
        yield
    finally:
        handle.remove()


def _frame(
    model: PreTrainedModel,
    intervention: Intervention,
    name: str,
    items: list[Item],
    strengths: list[float],
    scored: _Scored,
) -> pl.DataFrame:
    n, k = len(items), len(strengths)
    columns: dict[str, Any] = {
        "alpha": np.repeat(strengths, n),
        "item": [item.item for item in items] * k,
        "cluster": [item.cluster for item in items] * k,
        "label": [item.label for item in items] * k,
        "logratio": scored.logratio.T.ravel(),
        "pmass": scored.pmass.T.ravel(),
        "low_pmass": scored.low_pmass.T.ravel(),
    }
    constant = {"model": model_name(model), "eval": name, **_identity(intervention)}
    frame = pl.DataFrame(columns).with_columns(
        pl.lit(value, dtype=SCHEMA[key]).alias(key) for key, value in constant.items()
    )
    return frame.select(pl.col(key).cast(dtype) for key, dtype in SCHEMA.items())
