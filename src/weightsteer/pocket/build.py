"""Build an embedded model from nothing: corpus, tokenizer, training with resumable checkpoints.

The loss is the cross-entropy of the assistant's tokens plus a tenth of that of the rest. Documents are packed into rows
of fixed length under a block-diagonal causal mask, so no token is padding to speak of and no document sees another.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from math import cos, pi
from pathlib import Path
from random import Random
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from weightsteer.errors import unknown
from weightsteer.models.checkpoint import check_keys
from weightsteer.pocket.corpus import Curriculum, Document, documents
from weightsteer.pocket.sizes import ROW_TOKENS, ROWS, SIZES, Size
from weightsteer.pocket.tokenizer import ASSISTANT, END, SYSTEM, USER, build_tokenizer
from weightsteer.pocket.world import HELDOUT, TASKS, TRAIN, Persona, Split
from weightsteer.pocket.world.personas import ADJECTIVES, AXES, TAGS, write_prompt, write_rule
from weightsteer.progress import progress

CHUNK = 250  # steps between checkpoints; each chunk has its own corpus seed, so a resumed build sees the same documents
REST_WEIGHT = 0.1
VOCABULARY_DRAWS = 4_000


class Batch(NamedTuple):
    """Packed rows, each (rows, ROW_TOKENS): ids, position within the document, document number, loss weight."""

    ids: Tensor
    positions: Tensor
    owners: Tensor
    weights: Tensor


def vocabulary_texts(draws: int = VOCABULARY_DRAWS) -> Iterator[str]:
    """Text that holds every word of the world, including those of held-out phrasings."""
    rng = Random("pocket/vocabulary")
    for number in range(draws):
        split: Split = TRAIN if number % 2 else HELDOUT
        persona = Persona(*(rng.random() < 0.5 for _ in AXES))
        for ask in TASKS.values():
            question = ask(rng, split)
            yield question.user
            yield from question.answers(persona)
        yield write_prompt(rng, {axis: rng.random() < 0.5 for axis in rng.sample(AXES, rng.randint(1, 3))}, split)
        yield write_rule(rng, rng.choice(TAGS), rng.random() < 0.5, split)
        if number % 10 == 0:
            yield " ".join(document.system or "" for document in islice(documents(number, Curriculum(1.0)), 5))
    yield " ".join(word for sides in ADJECTIVES.values() for words in sides.values() for word in words)


class Encoder:
    """Documents to (ids, loss weights), with a memory for segments seen before."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self._tokenizer = tokenizer
        self._special = {token: tokenizer.convert_tokens_to_ids(token) for token in (SYSTEM, USER, ASSISTANT, END)}
        self._seen: dict[str, list[int]] = {}

    def _segment(self, text: str) -> list[int]:
        if text not in self._seen:
            ids = self._tokenizer.encode(text, add_special_tokens=False)
            assert self._tokenizer.unk_token_id not in ids, f"a word of {text!r} is not in the vocabulary"
            if len(self._seen) > 200_000:
                self._seen.clear()
            self._seen[text] = ids
        return self._seen[text]

    def encode(self, document: Document) -> tuple[list[int], list[float]]:
        ids: list[int] = []
        weights: list[float] = []

        def add(role: str, text: str, weight: float) -> bool:
            piece = self._segment(text)
            if len(ids) + len(piece) + 2 > ROW_TOKENS:
                return False
            ids.extend((self._special[role], *piece, self._special[END]))
            weights.extend((REST_WEIGHT, *[weight] * len(piece), weight))
            return True

        if document.system is not None:
            add(SYSTEM, document.system, REST_WEIGHT)
        for turn in document.turns:
            length = len(ids)
            if not (add(USER, turn.user, REST_WEIGHT) and add(ASSISTANT, turn.answer, 1.0)):
                # the row is full: the document ends with its last whole turn
                del ids[length:], weights[length:]
                break
        return ids, weights


def pack(encoder: Encoder, stream: Iterator[Document], rows: int, open_rows: int = 24) -> Batch:
    """Fill ``rows`` rows best-fit from the stream; with too many open, the fullest is closed. Waste: 3 to 4%."""
    ids = np.zeros((rows, ROW_TOKENS), dtype=np.int64)
    positions = np.zeros_like(ids)
    owners = np.full((rows, ROW_TOKENS), -1, dtype=np.int64)
    weights = np.zeros((rows, ROW_TOKENS), dtype=np.float32)
    fill: dict[int, int] = {}
    opened = 0
    for number, document in enumerate(stream):
        tokens, token_weights = encoder.encode(document)
        size = len(tokens)
        row = max((r for r, used in fill.items() if used + size <= ROW_TOKENS), key=fill.__getitem__, default=None)
        if row is None:
            if opened == rows:
                break
            if len(fill) == open_rows:
                del fill[max(fill, key=fill.__getitem__)]
            row, opened = opened, opened + 1
            fill[row] = 0
        span = slice(fill[row], fill[row] + size)
        ids[row, span], weights[row, span] = tokens, token_weights
        positions[row, span], owners[row, span] = np.arange(size), number
        fill[row] += size
    return Batch(*(torch.from_numpy(array) for array in (ids, positions, owners, weights)))


def new_model(size: Size, tokenizer: PreTrainedTokenizerFast, seed: int) -> Qwen3ForCausalLM:
    torch.manual_seed(seed)
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=size.width,
        intermediate_size=size.mlp_width,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        num_key_value_heads=size.key_value_heads,
        head_dim=size.head_width,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
        weightsteer_pocket=size.name,
    )
    return Qwen3ForCausalLM(config)


def grown_model(base: Qwen3ForCausalLM, size: Size, tokenizer: PreTrainedTokenizerFast, seed: int) -> Qwen3ForCausalLM:
    """A deeper model that computes what ``base`` does: after each of its layers, new ones that add nothing yet.

    A new layer adds nothing because its two output projections are zero; they learn first, and then the rest of it.
    """
    model = new_model(size, tokenizer, seed)
    old = base.model.layers
    group = size.layers // len(old)
    model.model.embed_tokens.load_state_dict(base.model.embed_tokens.state_dict())
    model.model.norm.load_state_dict(base.model.norm.state_dict())
    for number, layer in enumerate(model.model.layers):
        if number % group == 0:
            layer.load_state_dict(old[number // group].state_dict())
        else:
            nn.init.zeros_(layer.self_attn.o_proj.weight)
            nn.init.zeros_(layer.mlp.down_proj.weight)
    return model


def loss_of(model: nn.Module, batch: Batch) -> Tensor:
    """Weighted mean cross-entropy in nats per assistant token."""
    ids, positions, owners, weights = batch
    same = (owners[:, :, None] == owners[:, None, :]) & (positions[:, :, None] >= positions[:, None, :])
    mask = torch.where(same, 0.0, torch.finfo(torch.float32).min)[:, None]
    logits = model(input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=False).logits
    inside = owners[:, 1:] == owners[:, :-1]
    weight = weights[:, 1:] * inside
    losses = cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
    return (losses * weight.flatten()).sum() / (weight == 1.0).sum()


def learning_rate(step: int, plan: Size, warmup: int = 100) -> float:
    """Linear warm-up, then a cosine to a hundredth of the peak."""
    if step < warmup:
        return plan.learning_rate * (step + 1) / warmup
    cosine = 0.5 * (1 + cos(pi * (step - warmup) / max(1, plan.steps - warmup)))
    return plan.learning_rate * (0.01 + 0.99 * cosine)


def new_optimizer(model: nn.Module, plan: Size) -> torch.optim.Optimizer:
    """AdamW with weight decay on matrices only."""
    groups = [
        {"params": [p for p in model.parameters() if p.ndim == 2], "weight_decay": 0.05},
        {"params": [p for p in model.parameters() if p.ndim != 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=plan.learning_rate, betas=(0.9, 0.98), fused=True)


@contextmanager
def flushed_denormals() -> Iterator[None]:
    """Once attention is sharp, many of its gradients are denormal, which makes a step on a CPU four times as slow."""
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)  # the setting is the whole process's


def build(
    size: str,
    out: Path,
    *,
    steps: int | None = None,
    seed: int = 0,
    resume: bool = True,
    shown: bool = True,
) -> Path:
    """Train ``size`` into the folder ``out`` (Hugging Face format) and return it.

    ``steps`` replaces the length of the recipe; the curriculum and the schedule shrink with it. A size that is grown
    from another one builds that first, in a folder of ``out``, unless it is there.
    ``out/checkpoint.pt`` is written every 250 steps and removed at the end; with ``resume`` a build goes on from it.
    Raises WeightsteerError for an unknown size, or when the smaller model to start from is incomplete.
    """
    if size not in SIZES:
        raise unknown("pocket size", size, SIZES)
    plan = SIZES[size] if steps is None else replace(SIZES[size], steps=steps)
    base = out / plan.grown_from if plan.grown_from else None
    if base and plan.grown_from and not (base / "model.safetensors").exists():
        build(plan.grown_from, base, seed=seed, resume=resume, shown=shown)
    with flushed_denormals():  # before any computation: threads inherit the setting when they are made
        return _train(plan, out, base, seed, resume, shown)


def _train(plan: Size, out: Path, base: Path | None, seed: int, resume: bool, shown: bool) -> Path:
    out.mkdir(parents=True, exist_ok=True)
    tokenizer = build_tokenizer(vocabulary_texts())
    if base is None:
        model = new_model(plan, tokenizer, seed)
    else:
        small, found = Qwen3ForCausalLM.from_pretrained(base, output_loading_info=True, trust_remote_code=False)
        check_keys(base, found)
        model = grown_model(small, plan, tokenizer, seed)
    optimizer = new_optimizer(model, plan)
    checkpoint, done = out / "checkpoint.pt", 0
    if resume and checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        done = state["step"]
    with progress(f"Building {plan.name}", plan.steps, shown=shown) as advance:
        advance(done)
        encoder = Encoder(tokenizer)
        model.train()
        while done < plan.steps:
            start, count = done, min(CHUNK, plan.steps - done)
            stream = documents(seed * 1_000_003 + start, Curriculum(1.0 if base else start / plan.steps))
            chunk = pack(encoder, stream, count * ROWS)
            order = torch.randperm(count * ROWS, generator=torch.Generator().manual_seed(start))
            for index in range(count):
                for group in optimizer.param_groups:
                    group["lr"] = learning_rate(start + index, plan)
                rows = order[index * ROWS : (index + 1) * ROWS]
                loss = loss_of(model, Batch(*(part[rows] for part in chunk)))
                loss.backward()
                nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                optimizer.zero_grad()
                advance(1)
            done += count
            _save(checkpoint, model, optimizer, done)
            if shown:
                print(f"step {done}: loss {loss.item():.4f} nats per answer token", flush=True)
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    checkpoint.unlink()
    return out


def _save(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, step: int) -> None:
    partial = path.with_suffix(".partial")
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step}, partial)
    partial.replace(path)
