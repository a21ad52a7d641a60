"""Read the residual stream: what the decoder blocks put out at the tokens of an answer.

Block l's output is ``hidden_states[l + 1]`` of the model (``hidden_states[0]`` is the embedding), and the last
entry of that list is already normalised. Here hooks on the blocks read the states themselves, so that
"layer l" means what block l puts out, for every l, and what a vector at layer l is added to.

Only the wanted tokens are kept, one state per row and layer; padding is on the right and unmasked, where a
causal model cannot see it.
"""

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

import polars as pl
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from weightsteer.activation.methods import Contrast
from weightsteer.errors import WeightsteerError, unknown
from weightsteer.inference.likelihood import FORWARD_TOKENS, Answered, answered, packed
from weightsteer.inference.sampling import turn_end
from weightsteer.models import decoder_layers
from weightsteer.progress import progress
from weightsteer.steering.claims import claimed

Place = Literal["answer", "last", "prompt"]
"""Which tokens are read: the mean over the answer, its last token, or the last token in front of it. The end of
sequence is never read: it is the same token on both sides."""


class Pairs(NamedTuple):
    """Encoded pairs; row i of both sides belongs to pair i. ``empty`` pairs without an answer were left out."""

    positive: list[Answered]
    negative: list[Answered]
    empty: int


class States(NamedTuple):
    """``values`` (layers, n, d) fp32: one state per layer and row; ``norms`` (layers, n): mean ‖h‖ of the tokens."""

    values: Tensor
    norms: Tensor


@dataclass(frozen=True)
class Captured:
    """The states of both sides of n pairs, by layer, and the mean norm of all tokens read at a layer."""

    contrasts: dict[int, Contrast]
    norms: dict[int, float]
    pairs: Pairs


def capture(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    pairs: pl.DataFrame,
    layers: Iterable[int],
    *,
    at: Place = "answer",
    personas: bool = True,
    shown: bool = True,
) -> Captured:
    """The states of both sides of contrastive pairs.

    Args:
        pairs: the frame that branches are trained on (prompt, response_pos, response_neg); rejected pairs are
            left out.
        layers: decoder layers, from 0.
        at: which tokens to read.
        personas: put each side's own system prompt (sys_prompt_pos, sys_prompt_neg) in front, as when the pair
            was made. Without, the sides differ in the text of their answers only.

    Raises:
        WeightsteerError: columns or layers that are not there, no pair with answers, or a place that cannot
            differ between the sides.
    """
    if at == "prompt" and not personas:
        raise WeightsteerError(
            "without personas both sides have the same prompt, so nothing differs in front of the answer. "
            "Read at 'answer' or 'last', or set personas=True."
        )
    wanted = _layers(model, layers)
    rows = encode(model, tokenizer, pairs, personas=personas)
    sides = read(model, [*rows.positive, *rows.negative], wanted, at=at, shown=shown)
    n = len(rows.positive)
    contrasts = {layer: Contrast(values[:n], values[n:]) for layer, values in zip(wanted, sides.values, strict=True)}
    norms = dict(zip(wanted, sides.norms.double().mean(1).tolist(), strict=True))
    return Captured(contrasts, norms, rows)


def encode(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, pairs: pl.DataFrame, *, personas: bool = False
) -> Pairs:
    """Both sides of the pairs, as token ids.

    Raises:
        WeightsteerError: a column is missing, or no pair has an answer on both sides.
    """
    check_columns(pairs, personas=personas)
    end = turn_end(model, tokenizer)
    known: dict[tuple[str, str, str, bool], Answered] = {}  # small models repeat themselves, and rendering takes time
    sides: dict[str, list[Answered]] = {"pos": [], "neg": []}
    for pair in pairs.iter_rows(named=True):
        for side, rows in sides.items():
            system = pair[f"sys_prompt_{side}"] if personas else ""
            key = (system, pair["prompt"], pair[f"response_{side}"], bool(pair.get("thinking", False)))
            if key not in known:
                chat = [{"role": "system", "content": system}] if system else []
                chat.append({"role": "user", "content": pair["prompt"]})
                known[key] = answered(tokenizer, chat, key[2], end, thinking=key[3])
            rows.append(known[key])
    # an answer without a token of its own has only its end of sequence
    full = [i for i, both in enumerate(zip(*sides.values(), strict=True)) if all(r.length - r.start > 1 for r in both)]
    if not full:
        raise WeightsteerError(
            f"none of the {len(pairs)} pairs has an answer on both sides. Generate pairs again, or look at their audit."
        )
    positive, negative = ([rows[i] for i in full] for rows in sides.values())
    return Pairs(positive, negative, len(pairs) - len(full))


def check_columns(pairs: pl.DataFrame, *, personas: bool) -> None:
    """Raise a `WeightsteerError` unless the frame has the columns that are read."""
    prompts = ["sys_prompt_pos", "sys_prompt_neg"] if personas else []
    needed = ["prompt", "response_pos", "response_neg", *prompts]
    if missing := [name for name in needed if name not in pairs.columns]:
        hint = " Set personas=False to read the answers without system prompts." if missing[0] in prompts else ""
        raise WeightsteerError(
            f"the pairs lack the columns {', '.join(missing)}; {', '.join(needed)} are needed.{hint}"
        )


@torch.inference_mode()
def read(
    model: PreTrainedModel,
    rows: Sequence[Answered],
    layers: Sequence[int],
    *,
    at: Place = "answer",
    token_budget: int = FORWARD_TOKENS,
    shown: bool = True,
) -> States:
    """One state per row and layer, averaged over the tokens of ``at``; equal rows are computed once."""
    places = [_places(row, at) for row in rows]
    first: dict[tuple[int, ...], int] = {}
    same = [first.setdefault((row.start, *row.ids), index) for index, row in enumerate(rows)]
    distinct = sorted(set(same))
    width = model.config.get_text_config().hidden_size
    values, norms = torch.empty(len(layers), len(rows), width), torch.empty(len(layers), len(rows))
    with progress("activations", len(distinct), shown=shown) as advance:
        # no logits are made, so the vocabulary does not limit a batch
        for batch in packed([rows[i] for i in distinct], vocabulary=1, budget=token_budget):
            chosen = [distinct[i] for i in batch]
            states = _read_batch(model, [rows[i] for i in chosen], [places[i] for i in chosen], layers)
            values[:, chosen], norms[:, chosen] = states
            advance(len(chosen))
    return States(values[:, same], norms[:, same])


def _read_batch(
    model: PreTrainedModel, batch: Sequence[Answered], places: Sequence[range], layers: Sequence[int]
) -> States:
    device = model.device
    ids = torch.zeros(len(batch), max(row.length for row in batch), dtype=torch.long)
    average = torch.zeros(len(batch), sum(map(len, places)))
    seen = 0
    for number, (row, where) in enumerate(zip(batch, places, strict=True)):
        ids[number, : row.length] = torch.tensor(row.ids)
        average[number, seen : seen + len(where)] = 1 / len(where)
        seen += len(where)
    owner = torch.tensor([number for number, where in enumerate(places) for _ in where], device=device)
    place = torch.tensor([position for where in places for position in where], device=device)
    found: dict[int, States] = {}

    def reader(layer: int) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            claim.check()
            hidden = output[0] if isinstance(output, tuple) else output
            tokens = hidden[owner.to(hidden.device), place.to(hidden.device)].float()
            mean = average.to(hidden.device)
            found[layer] = States((mean @ tokens).cpu(), (mean @ tokens.norm(dim=-1)).cpu())

        return hook

    blocks = decoder_layers(model)[1]
    with claimed(model) as claim, ExitStack() as stack:
        for layer in layers:
            stack.callback(blocks[layer].register_forward_hook(reader(layer)).remove)
        # the body alone: logits are not needed
        model.base_model(input_ids=ids.to(device), use_cache=False)
    states = [found[layer] for layer in layers]
    return States(torch.stack([s.values for s in states]), torch.stack([s.norms for s in states]))


def _places(row: Answered, at: Place) -> range:
    last = row.length - 2  # in front of the end of sequence
    if at == "answer":
        return range(row.start, last + 1)
    if at == "last":
        return range(last, last + 1)
    if at == "prompt":
        return range(row.start - 1, row.start)
    raise unknown("place", at, get_args(Place))


def _layers(model: PreTrainedModel, layers: Iterable[int]) -> list[int]:
    count = len(decoder_layers(model)[1])
    wanted = sorted(set(layers))
    if not wanted or wanted[0] < 0 or wanted[-1] >= count:
        raise WeightsteerError(f"the layers of this model are 0 to {count - 1}; {wanted or 'none'} were asked for.")
    return wanted
