"""Contrastive pairs: the same question put to a persona of either pole, topics × personas × samples.

The shape (20 × 5 × 10) is the published one: Chen et al., arXiv 2507.21509; Fierro & Roger, arXiv 2511.05408.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from weightsteer.data.behaviors import Behavior
from weightsteer.errors import WeightsteerError
from weightsteer.files import read_piece, write_piece
from weightsteer.inference.batching import TOKENS, batches, context_length
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
_Cell = tuple[int, int, int]
# Rows sampled together: each a prompt and the number of its sample. Those of one prompt are neighbours.
_Chunk = list[tuple[_Prompt, int]]


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
    token_budget: int = 2 * TOKENS,
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
        token_budget: rows × (prompt + answer) tokens of one batch: a matter of memory, of which keys and values take
            less than a pass over as many tokens.

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

    answers: dict[_Cell, dict[str, list[int]]] = {}
    with progress(f"pairs: {behavior.name}", 2 * topics * personas * samples, shown=shown) as advance:
        for number, chunk in enumerate(chunks):
            # the name carries the plan: what another model, seed or grid left behind is never read
            stored = workdir / f"chunk-{plan}-{number:05d}.json" if workdir is not None else None
            drawn = _read(stored) if stored is not None else None
            if drawn is None:
                drawn = _draw(model, chunk, sampling, stops, seed)
                if stored is not None:
                    _write(stored, drawn)
            for (prompt, index), ids in zip(chunk, drawn, strict=True):
                answers.setdefault((prompt.topic, prompt.persona, index), {})[prompt.side] = ids
            advance(len(drawn))

    return _frame(tokenizer, behavior, answers, stops).with_columns(
        thinking=pl.lit(thinking), generator=pl.lit(model_name(model)), seed=pl.lit(seed)
    )


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
    context = context_length(model)
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
    rows = [(prompt, number) for prompt in ordered for number in range(samples)]
    plan = batches([len(prompt.ids) + sampling.max_new_tokens for prompt, _ in rows], token_budget)
    return [[rows[index] for index in batch] for batch in plan]


def _draw(model: PreTrainedModel, chunk: _Chunk, sampling: Sampling, stops: list[int], seed: int) -> list[list[int]]:
    prompts = list(dict.fromkeys(prompt for prompt, _ in chunk))
    owner = {prompt: index for index, prompt in enumerate(prompts)}
    owners = [owner[prompt] for prompt, _ in chunk]
    numbers = [uniforms((seed, p.topic, p.persona, index), sampling.max_new_tokens) for p, index in chunk]
    return sample(model, [prompt.ids for prompt in prompts], owners, np.stack(numbers), sampling, stops)


def _frame(
    tokenizer: PreTrainedTokenizerBase,
    behavior: Behavior,
    answers: Mapping[_Cell, Mapping[str, list[int]]],
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
    grid = [[[p.side, p.topic, p.persona, p.ids, index] for p, index in chunk] for chunk in chunks]
    content = json.dumps([weight_hash(model), str(model.dtype), asdict(sampling), stops, seed, grid])
    return hashlib.blake2b(content.encode(), digest_size=8).hexdigest()


def _read(path: Path) -> list[list[int]] | None:
    # not there, or not what was written (a disk that lost it): sampled again
    if (content := read_piece(path)) is None:
        return None
    drawn: list[list[int]] = json.loads(content)
    return drawn


def _write(path: Path, drawn: list[list[int]]) -> None:
    write_piece(path, json.dumps(drawn).encode())
