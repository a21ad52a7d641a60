"""Sampling answers: a batched loop whose result for one prompt does not depend on what else is in the batch.

The sampler is spelled out here, without ``generate``, for three reasons: nothing but the settings below
shapes the distribution (a ``generation_config`` may carry a repetition penalty that nobody asked for), every
row has random numbers of its own, and the samples of one prompt share its prefill.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from transformers import DynamicCache, PreTrainedModel, PreTrainedTokenizerBase

from weightsteer.errors import WeightsteerError
from weightsteer.models import family

POCKET_TOKENS, GENERAL_TOKENS, THINKING_TOKENS = 24, 256, 2048


@dataclass(frozen=True)
class Sampling:
    """How a token is drawn: logits / temperature, the ``top_k`` likeliest (0: all), the nucleus ``top_p``.

    ``temperature=0`` takes the likeliest token. There is no minimum length: an answer ends where the model
    ends it.
    """

    temperature: float
    top_p: float
    top_k: int
    max_new_tokens: int

    def __post_init__(self) -> None:
        for name, fine, wanted in (
            ("temperature", self.temperature >= 0, "at least 0"),
            ("top_p", 0 < self.top_p <= 1, "above 0 and at most 1"),
            ("top_k", self.top_k >= 0, "at least 0 (0: no limit)"),
            ("max_new_tokens", self.max_new_tokens >= 1, "at least 1"),
        ):
            if not fine:
                raise WeightsteerError(f"{name} is {getattr(self, name)}; it must be {wanted}.")


def default_sampling(model: PreTrainedModel, *, thinking: bool = False) -> Sampling:
    """What makers of small chat models recommend; the embedded models are sampled as they are."""
    if family(model) == "pocket":
        return Sampling(temperature=1.0, top_p=1.0, top_k=0, max_new_tokens=POCKET_TOKENS)
    if thinking:
        return Sampling(temperature=0.6, top_p=0.95, top_k=20, max_new_tokens=THINKING_TOKENS)
    return Sampling(temperature=0.7, top_p=0.8, top_k=20, max_new_tokens=GENERAL_TOKENS)


def stop_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The ids that end an answer: those of the generation config and the tokenizer's own, sorted.

    Raises:
        WeightsteerError: neither names one, so no answer would ever end.
    """
    configured = getattr(model.generation_config, "eos_token_id", None)
    if configured is None:
        configured = model.config.get_text_config().eos_token_id
    ids = {configured} if isinstance(configured, int) else set(configured or ())
    if tokenizer.eos_token_id is not None:
        ids.add(tokenizer.eos_token_id)
    if not ids:
        raise WeightsteerError(
            "neither the generation config nor the tokenizer names an end-of-sequence token, so no answer "
            "would ever end. "
            "Set `eos_token` in the tokenizer's configuration."
        )
    return sorted(ids)


def turn_end(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> int:
    """The stop id with which the chat template closes the assistant's turn (not always the ``eos_token``)."""
    stops = stop_ids(model, tokenizer)
    chat = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hello"}]
    behind = str(tokenizer.apply_chat_template(chat, tokenize=False)).rpartition("Hello")[2]
    closing = [token for token in tokenizer(behind, add_special_tokens=False)["input_ids"] if token in stops]
    if closing:
        return int(closing[0])
    return int(tokenizer.eos_token_id) if tokenizer.eos_token_id is not None else stops[0]


def uniforms(key: Sequence[int], length: int) -> np.ndarray:
    """The first ``length`` uniform numbers in [0, 1) of the stream ``key``; a longer draw starts alike."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(list(key)))).random(length)


def choose(logits: torch.Tensor, u: torch.Tensor, sampling: Sampling) -> torch.Tensor:
    """Draw one token per row by inverting its cumulative distribution in the order of the vocabulary.

    Two rows with the same ``u`` draw the same token as far as their distributions agree: that is how the two branches
    share their randomness.

    Args:
        logits: (b, vocabulary), raw.
        u: (b,) uniform numbers, float64.

    Returns:
        (b,) token ids.
    """
    if sampling.temperature == 0:
        return logits.argmax(-1)
    vocabulary = logits.shape[-1]
    width = min(sampling.top_k or vocabulary, vocabulary)
    tokens = None
    logits = logits.double()
    if width < vocabulary or sampling.top_p < 1:
        logits, tokens = logits.topk(width, dim=-1)
    probability = (logits / sampling.temperature).softmax(-1)
    if tokens is not None:
        # a token belongs to the nucleus when the mass in front of it is below top_p: the likeliest always does
        in_front = probability.cumsum(-1) - probability
        probability = probability.masked_fill(in_front >= sampling.top_p, 0.0)
        tokens, order = tokens.sort(dim=-1)
        probability = probability.gather(-1, order)
    cumulative = probability.cumsum(-1)
    target = u[:, None] * cumulative[:, -1:]
    # the first place at which the cumulative mass exceeds the target; its own mass is then above 0
    place = torch.searchsorted(cumulative, target, right=True).clamp(max=cumulative.shape[-1] - 1)
    return (tokens.gather(-1, place) if tokens is not None else place).squeeze(-1)


@torch.inference_mode()
def sample(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    owners: Sequence[int],
    numbers: np.ndarray,
    sampling: Sampling,
    stops: Sequence[int],
) -> list[list[int]]:
    """Sample one answer per row; row i continues ``prompts[owners[i]]``.

    Args:
        prompts: distinct prompts as token ids; they share one left-padded prefill.
        owners: n indices into ``prompts``, ascending.
        numbers: (n, max_new_tokens) uniform numbers, one stream per row.
        stops: the ids that end an answer.

    Returns:
        n lists of token ids; a list that the model ended itself ends with a stop id.
    """
    device = model.device
    longest = max(map(len, prompts))
    ids = torch.full((len(prompts), longest), stops[0], dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, longest - len(prompt) :] = torch.tensor(list(prompt))
        mask[row, longest - len(prompt) :] = 1
    cache = DynamicCache(config=model.config)
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    logits = _forward(model, ids, mask, positions, cache)

    owner = torch.tensor(list(owners), device=device)
    cache.batch_select_indices(owner)
    logits, mask, position = logits[owner], mask.to(device)[owner], positions[:, -1].to(device)[owner]
    u = torch.from_numpy(np.ascontiguousarray(numbers)).to(device)
    stop = torch.tensor(list(stops), device=device)
    drawn = torch.full((len(owners), sampling.max_new_tokens), -1, dtype=torch.long, device=device)
    rows = torch.arange(len(owners), device=device)
    ended = torch.zeros(len(owners), dtype=torch.bool, device=device)
    for step in range(sampling.max_new_tokens):
        token = choose(logits, u[rows, step], sampling)
        drawn[rows, step] = torch.where(ended, -1, token)
        ended |= torch.isin(token, stop)
        running = int((~ended).sum())
        if running == 0 or step + 1 == sampling.max_new_tokens:
            break
        if 2 * running <= len(rows):
            alive = (~ended).nonzero().squeeze(-1)
            cache.batch_select_indices(alive)
            rows, ended, token, mask, position = (t[alive] for t in (rows, ended, token, mask, position))
        mask = torch.cat([mask, mask.new_ones(len(rows), 1)], dim=-1)
        position = position + 1
        logits = _forward(model, token[:, None], mask, position[:, None], cache)
    return [[token for token in row if token >= 0] for row in drawn.tolist()]


def _forward(
    model: PreTrainedModel,
    ids: torch.Tensor,
    mask: torch.Tensor,
    positions: torch.Tensor,
    cache: DynamicCache,
) -> torch.Tensor:
    """Logits (b, vocabulary) of the last position, fp32; the cache grows in place."""
    device = model.device
    # rows of equal length need no mask, and attention without one is faster
    padded = not bool(mask.all())
    out = model(
        input_ids=ids.to(device),
        attention_mask=mask.to(device) if padded else None,
        position_ids=positions.to(device),
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    )
    return out.logits[:, -1].float()
