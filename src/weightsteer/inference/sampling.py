"""Sampling and greedy decoding: batched loops whose result for a prompt does not depend on what else is in the batch.

The loop is spelled out here, without ``generate``, for three reasons: nothing but the settings below
shapes the distribution (a ``generation_config`` may carry a repetition penalty that nobody asked for), every
row has random numbers of its own, and the samples of one prompt share its prefill.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from transformers import DynamicCache, PreTrainedModel, PreTrainedTokenizerBase

from weightsteer.errors import WeightsteerError
from weightsteer.inference.batching import left_padded
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
    # the first index at which the cumulative mass exceeds the target; its own mass is then above 0
    index = torch.searchsorted(cumulative, target, right=True).clamp(max=cumulative.shape[-1] - 1)
    return (tokens.gather(-1, index) if tokens is not None else index).squeeze(-1)


class Decoding:
    """Rows that are continued token by token: their keys and values, and the position of each.

    Prompts are padded on the left. Rows of one length need no mask, and attention without one is faster.
    """

    def __init__(self, model: PreTrainedModel, prompts: Sequence[Sequence[int]]) -> None:
        """Read the prompts; ``logits`` (b, vocabulary), fp32, are then those of their next tokens."""
        self.model = model
        self.cache = DynamicCache(config=model.config)
        ids, self.mask = left_padded(prompts, model.device)
        self.positions = (self.mask.cumsum(-1) - 1).clamp(min=0)
        self.logits = self._forward(ids)

    def select(self, rows: torch.Tensor) -> None:
        """Go on with these rows (n,); one may occur several times."""
        self.cache.batch_select_indices(rows)
        self.logits, self.mask, self.positions = self.logits[rows], self.mask[rows], self.positions[rows]

    def append(self, tokens: torch.Tensor) -> None:
        """Put one token (b,) behind each row; ``logits`` are then those of the next ones."""
        self.mask = torch.cat([self.mask, self.mask.new_ones(len(self.mask), 1)], dim=-1)
        self.positions = self.positions[:, -1:] + 1
        self.logits = self._forward(tokens[:, None])

    def _forward(self, ids: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.model(
            input_ids=ids,
            attention_mask=None if bool(self.mask.all()) else self.mask,
            position_ids=self.positions,
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits
        return logits[:, -1].float()


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
    u = torch.from_numpy(np.ascontiguousarray(numbers)).to(model.device)

    def draw(logits: torch.Tensor, rows: torch.Tensor, step: int) -> torch.Tensor:
        return choose(logits, u[rows, step], sampling)

    return _continued(model, prompts, owners, draw, sampling.max_new_tokens, stops, drop_ended=True)


@torch.inference_mode()
def greedy(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    stops: Sequence[int],
    *,
    steered: bool = False,
) -> list[list[int]]:
    """The likeliest continuation of every prompt, its stop id included; nothing but the logits chooses.

    Args:
        steered: the model is steered with one strength per row, so all rows stay in the batch until the last has ended.
    """

    def likeliest(logits: torch.Tensor, rows: torch.Tensor, step: int) -> torch.Tensor:
        return logits.argmax(-1)

    return _continued(model, prompts, range(len(prompts)), likeliest, max_new_tokens, stops, drop_ended=not steered)


def _continued(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    owners: Sequence[int],
    next_tokens: Callable[[torch.Tensor, torch.Tensor, int], torch.Tensor],
    max_new_tokens: int,
    stops: Sequence[int],
    *,
    drop_ended: bool,
) -> list[list[int]]:
    """Continue each row with ``next_tokens(logits, rows, step)`` until it ends; rows that share a prompt, its prefill.

    Args:
        drop_ended: shrink the batch when half of its rows have ended.
    """
    device = model.device
    decoding = Decoding(model, prompts)
    if list(owners) != list(range(len(prompts))):
        decoding.select(torch.tensor(list(owners), device=device))
    stop = torch.tensor(list(stops), device=device)
    drawn = torch.full((len(owners), max_new_tokens), -1, dtype=torch.long, device=device)
    rows = torch.arange(len(owners), device=device)
    ended = torch.zeros(len(owners), dtype=torch.bool, device=device)
    for step in range(max_new_tokens):
        token = next_tokens(decoding.logits, rows, step)
        drawn[rows, step] = torch.where(ended, -1, token)
        ended |= torch.isin(token, stop)
        running = int((~ended).sum())
        if running == 0 or step + 1 == max_new_tokens:
            break
        if drop_ended and 2 * running <= len(rows):
            alive = (~ended).nonzero().squeeze(-1)
            decoding.select(alive)
            rows, ended, token = rows[alive], ended[alive], token[alive]
        decoding.append(token)
    return [[token for token in row if token >= 0] for row in drawn.tolist()]
