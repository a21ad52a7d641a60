"""Contrastive pairs: the same question put to a persona of either pole, topics × personas × samples.

The shape (20 × 5 × 10) is the published one: Chen et al., arXiv 2507.21509; Fierro & Roger, arXiv 2511.05408.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from weightsteer.data.behaviors import Behavior
from weightsteer.errors import WeightsteerError
from weightsteer.inference.sampling import Sampling, default_sampling, sample, stop_ids, uniforms
from weightsteer.models import model_name, render_chat, weight_hash
from weightsteer.progress import progress

SIDES = ("pos", "neg")


@dataclass(frozen=True)
class _Prompt:
    side: str
    topic: int
    persona: int
    ids: tuple[int, ...]


# (topic, persona, sample)
_Place = tuple[int, int, int]
# Rows sampled together: prompts and, for each, a block of its samples.
_Chunk = list[tuple[_Prompt, range]]


def _rows(chunk: _Chunk) -> Iterator[tuple[int, _Prompt, int]]:
    """(index of the prompt in the chunk, prompt, sample) for every row of a chunk, in order."""
    for index, (prompt, block) in enumerate(chunk):
        for number in block:
            yield index, prompt, number


def messages(system: str, question: str) -> list[dict[str, str]]:
    return [{"role": "system", "content": system}, {"role": "user", "content": question}]


def generate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    behavior: Behavior,
    *,
    topics: int | None = None,
    personas: int | None = None,
    samples: int = 10,
    temperature: float | None = None,
    top_p: float | None = None,
    top_k: int | None = None,
    max_new_tokens: int | None = None,
    seed: int = 0,
    thinking: bool = False,
    token_budget: int = 16_384,
    workdir: Path | None = None,
    shown: bool = True,
) -> pl.DataFrame:
    """Sample both branches of every (topic, persona, sample).

    The random numbers of a row are named by (seed, topic, persona, sample) and shared by its two branches, so
    a smaller grid is a part of the larger one, whatever the batches were. With ``workdir`` finished batches
    are kept there, and a second call with the same arguments goes on behind them with the same bytes.

    Args:
        topics, personas: how many of the behaviour's training questions and personas; all of them by default.
        samples: answers per (topic, persona) and branch.
        temperature, top_p, top_k, max_new_tokens: see :class:`Sampling`; None: :func:`default_sampling`.
        thinking: let a thinking model think; its answer then contains the closed thinking block.
        token_budget: rows × (prompt + answer) tokens of one batch: a matter of memory.

    Returns:
        One line per (topic, persona, sample), in this order: prompt, response_pos, response_neg,
        sys_prompt_pos, sys_prompt_neg, topic_idx, persona_idx, sample_idx, behavior, prompt_set (its digest),
        tokens_pos, tokens_neg (without the end of sequence), eos_pos, eos_neg, thinking, generator, seed.

    Raises:
        WeightsteerError: a grid larger than the behaviour provides, or longer than the model's context.
    """
    topics = _size("topics", topics, len(behavior.questions.train))
    personas = _size("personas", personas, len(behavior.positive.personas))
    _size("samples", samples, None)
    if seed < 0:
        raise WeightsteerError(f"the seed is {seed}; it must be at least 0.")
    asked = {"temperature": temperature, "top_p": top_p, "top_k": top_k, "max_new_tokens": max_new_tokens}
    given: dict[str, Any] = {name: value for name, value in asked.items() if value is not None}
    sampling = replace(default_sampling(model, thinking=thinking), **given)

    prompts = [
        _Prompt(
            side,
            topic,
            persona,
            tuple(render_chat(tokenizer, messages(system, behavior.questions.train[topic]), thinking=thinking)),
        )
        for side, pole in zip(SIDES, (behavior.positive, behavior.negative), strict=True)
        for persona, system in enumerate(pole.personas[:personas])
        for topic in range(topics)
    ]
    _fits(model, prompts, sampling)
    chunks = _chunks(prompts, samples, sampling, token_budget)
    stops = stop_ids(model, tokenizer)
    plan = ""
    if workdir is not None:
        workdir.mkdir(parents=True, exist_ok=True)
        plan = _plan(model, chunks, sampling, stops, seed)

    answers: dict[_Place, dict[str, list[int]]] = {}
    with progress(f"pairs: {behavior.name}", 2 * topics * personas * samples, shown=shown) as advance:
        for number, chunk in enumerate(chunks):
            # the name carries the plan: what another model, seed or grid left behind is never read
            kept = workdir / f"chunk-{plan}-{number:05d}.json" if workdir is not None else None
            drawn = _read(kept) if kept is not None else None
            if drawn is None:
                drawn = _draw(model, chunk, sampling, stops, seed)
                if kept is not None:
                    _write(kept, drawn)
            for (_, prompt, index), ids in zip(_rows(chunk), drawn, strict=True):
                answers.setdefault((prompt.topic, prompt.persona, index), {})[prompt.side] = ids
            advance(len(drawn))

    told = {"thinking": thinking, "generator": model_name(model), "seed": seed}
    return _frame(tokenizer, behavior, answers, stops).with_columns(**{k: pl.lit(v) for k, v in told.items()})


def _size(name: str, asked: int | None, available: int | None) -> int:
    if asked is None and available is not None:
        return available
    if asked is None or asked < 1:
        raise WeightsteerError(f"{name} is {asked}; at least 1 is needed.")
    if available is not None and asked > available:
        # clamping in silence would give a smaller data set under the name of the larger one
        raise WeightsteerError(
            f"{asked} {name} were asked for and the behaviour has {available}. Ask for fewer, or add some to "
            "a copy of its YAML file."
        )
    return asked


def _fits(model: PreTrainedModel, prompts: Sequence[_Prompt], sampling: Sampling) -> None:
    context = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    longest = max(len(prompt.ids) for prompt in prompts)
    if context is not None and longest + sampling.max_new_tokens > context:
        raise WeightsteerError(
            f"the longest prompt has {longest} tokens and {sampling.max_new_tokens} new ones are allowed, "
            f"but the context of {model_name(model)} is {context}. "
            f"Lower max_new_tokens to {context - longest}."
        )


def _chunks(prompts: Sequence[_Prompt], samples: int, sampling: Sampling, token_budget: int) -> list[_Chunk]:
    """Pack the full grid, longest prompts first. A function of the grid alone: so is a resumed run's."""
    ordered = sorted(prompts, key=lambda p: (-len(p.ids), p.topic, p.persona, p.side))
    chunks: list[_Chunk] = []
    room = 0
    for prompt in ordered:
        start = 0
        while start < samples:
            if room == 0:
                # the first prompt of a chunk is its longest: all its rows are padded to that length
                chunks.append([])
                room = max(1, token_budget // (len(prompt.ids) + sampling.max_new_tokens))
            block = range(start, min(samples, start + room))
            chunks[-1].append((prompt, block))
            room -= len(block)
            start = block.stop
    return chunks


def _draw(model: PreTrainedModel, chunk: _Chunk, sampling: Sampling, stops: list[int], seed: int) -> list[list[int]]:
    owners, numbers = [], []
    for owner, prompt, index in _rows(chunk):
        owners.append(owner)
        numbers.append(uniforms((seed, prompt.topic, prompt.persona, index), sampling.max_new_tokens))
    return sample(model, [prompt.ids for prompt, _ in chunk], owners, np.stack(numbers), sampling, stops)


def _frame(
    tokenizer: PreTrainedTokenizerBase,
    behavior: Behavior,
    answers: Mapping[_Place, Mapping[str, list[int]]],
    stops: Sequence[int],
) -> pl.DataFrame:
    prompt_set = behavior.digest
    rows = []
    for (topic, persona, index), drawn in sorted(answers.items()):
        texts, ended = {}, {}
        for side, ids in drawn.items():
            ended[side] = bool(ids) and ids[-1] in stops
            texts[side] = ids[:-1] if ended[side] else ids
        rows.append(
            {
                "prompt": behavior.questions.train[topic],
                "response_pos": _text(tokenizer, texts["pos"]),
                "response_neg": _text(tokenizer, texts["neg"]),
                "sys_prompt_pos": behavior.positive.personas[persona],
                "sys_prompt_neg": behavior.negative.personas[persona],
                "topic_idx": topic,
                "persona_idx": persona,
                "sample_idx": index,
                "behavior": behavior.name,
                "prompt_set": prompt_set,
                "tokens_pos": len(texts["pos"]),
                "tokens_neg": len(texts["neg"]),
                "eos_pos": ended["pos"],
                "eos_neg": ended["neg"],
            }
        )
    return pl.DataFrame(rows)


def _text(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> str:
    return str(tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)).strip()


def _plan(model: PreTrainedModel, chunks: Sequence[_Chunk], sampling: Sampling, stops: list[int], seed: int) -> str:
    """A name for everything the drawn ids depend on."""
    grid = [[[p.side, p.topic, p.persona, p.ids, b.start, b.stop] for p, b in chunk] for chunk in chunks]
    content = json.dumps([weight_hash(model), str(model.dtype), asdict(sampling), stops, seed, grid])
    return hashlib.blake2b(content.encode(), digest_size=8).hexdigest()


def _read(path: Path) -> list[list[int]] | None:
    try:
        drawn: list[list[int]] = json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        # not there, or not what was written (a disk that lost it): sampled again
        return None
    return drawn


def _write(path: Path, drawn: list[list[int]]) -> None:
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(drawn))
    os.replace(partial, path)
