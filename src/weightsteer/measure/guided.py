"""The guided form: the model thinks briefly under steering, the thought is closed, and the choice is scored.

One row at one strength::

    prompt · <think> · up to n greedy tokens · </think> · "\\n\\n" + answer_prefix → log-ratio of the two choices

A thought that did not end by itself is cut and closed with a sentence that says so; how often (``forced_close``) is
itself a sign of damage when it rises with |α|. The end of thinking is the special token, by its id, never the text
``</think>``; a model without one thinks in plain text, which ends with its turn. Thought and choice are both steered,
so a row measures what the vector does to the reasoning too: it is another number than the direct form's.

All strengths of a row are rows of one batch with their own α. Prompts are padded on the left for the generation and on
the right for the scoring, and the result is that of one row at a time up to rounding.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from weightsteer.data.evals.base import Item, check_items
from weightsteer.errors import WeightsteerError
from weightsteer.inference.answers import choice_table, last_logits, score_choices
from weightsteer.inference.batching import TOKENS, batches, check_length, enough_memory, positions_at_once
from weightsteer.inference.forward import evaluating
from weightsteer.inference.sampling import greedy, stop_ids
from weightsteer.measure.rows import SCHEMA as SWEEP_SCHEMA
from weightsteer.measure.rows import identity
from weightsteer.measure.strengths import rendered, strengths
from weightsteer.models import model_name
from weightsteer.progress import progress
from weightsteer.steering import Intervention, steer

CUT = "\nI should answer now.\n"

SCHEMA = {**SWEEP_SCHEMA, "thinking": pl.Int64, "forced_close": pl.Boolean}


@dataclass(frozen=True)
class Think:
    """The token ids that open and close a thought; ``end`` None: the model thinks in plain text."""

    start: tuple[int, ...]
    end: int | None

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase) -> "Think":
        """Those of the tokenizer, when ``</think>`` is one token of it."""
        start, end = (_single(tokenizer, text) for text in ("<think>", "</think>"))
        if end is None:
            return cls((), None)
        newline = tokenizer("\n", add_special_tokens=False)["input_ids"]
        return cls(() if start is None else (start, *newline), end)

    def opened(self, prompt: list[int]) -> list[int]:
        """The prompt with an open thought behind it (some templates open it themselves)."""
        return prompt if not self.start or self.start[0] in prompt[-3:] else [*prompt, *self.start]


def _single(tokenizer: PreTrainedTokenizerBase, text: str) -> int | None:
    index = tokenizer.convert_tokens_to_ids(text)
    return index if isinstance(index, int) and index != tokenizer.unk_token_id else None


def guided(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    items: Sequence[Item],
    intervention: Intervention,
    alphas: Sequence[float],
    *,
    name: str = "guided",
    thinking_tokens: int | None = None,
    token_budget: int = TOKENS,
    other_base: bool = False,
    shown: bool = True,
) -> pl.DataFrame:
    """Score rows after a brief thought, under one intervention at every strength.

    Args:
        items: rows with ``thinking_tokens``; their ``answer_prefix`` comes between thought and choice.
        alphas: strengths; 0 is added when missing, because effects are paired against it.
        name: what the column ``eval`` says.
        thinking_tokens: at most so many tokens of thought for all rows; None: what each row asks for.
        token_budget: rows × strengths × tokens (of prompt and thought) of one batch.
        other_base: steer a model with other weights than those the intervention was made on, as in `steer`.

    Returns:
        The columns of `weightsteer.sweep`, and ``thinking`` (tokens of thought, its end not counted) and
        ``forced_close`` (the thought was cut). One line per (α, row), α ascending.

    Raises:
        WeightsteerError: a row without thinking tokens, strengths that are not finite or occur twice, a row longer
            than the model reads, choices that are not single tokens, or NaN logits of the unsteered model.
    """
    check_items(items, name)
    asked = strengths(intervention, alphas)
    limits = [item.thinking_tokens if thinking_tokens is None else thinking_tokens for item in items]
    for item, limit in zip(items, limits, strict=True):
        if limit < 1:
            raise WeightsteerError(
                f"row {item.item!r} has no thinking_tokens: give thinking_tokens=64, or score it directly with sweep()."
            )
    think = Think.of(tokenizer)
    choices = choice_table(tokenizer, [item.choices for item in items]).to(model.device)
    closing = [tokenizer(f"\n\n{item.answer_prefix}", add_special_tokens=False)["input_ids"] for item in items]
    cut = tokenizer(CUT, add_special_tokens=False)["input_ids"]
    ends = [] if think.end is None else [think.end]
    behind = [len(cut) + len(ends) + len(close) for close in closing]
    tasks = _tasks(model, tokenizer, items, intervention, asked, limits, behind, think)

    lines: list[dict[str, Any]] = []
    with evaluating(model), enough_memory(), progress(f"guided {name}", len(tasks), shown=shown) as advance:
        most = positions_at_once(model)
        for batch in batches([task.tokens for task in tasks], token_budget, reads=[1] * len(tasks), most_reads=most):
            some = [tasks[number] for number in batch]
            thoughts = think_ahead(model, tokenizer, some, intervention, think, other_base)
            rows = [
                [*task.prompt, *thought, *(cut if cut_off else []), *ends, *closing[task.row]]
                for task, (thought, cut_off) in zip(some, thoughts, strict=True)
            ]
            with steer(model, intervention, [task.alpha for task in some], other_base=other_base):
                logits = last_logits(model, rows)
            scores = score_choices(logits, choices[[task.row for task in some]])
            for index, (task, (thought, cut_off)) in enumerate(zip(some, thoughts, strict=True)):
                lines.append(
                    {
                        "row": task.row,
                        "alpha": task.alpha,
                        "logratio": float(scores.logratio[index]),
                        "pmass": float(scores.pmass[index]),
                        "low_pmass": bool(scores.low_pmass[index]),
                        "thinking": len(thought),
                        "forced_close": cut_off,
                    }
                )
            advance(len(batch))
    return _frame(model, intervention, name, items, lines)


@dataclass(frozen=True)
class Task:
    """One row at one strength: its prompt, how many tokens it may think, and how many follow the thought."""

    row: int
    alpha: float
    prompt: list[int]
    limit: int
    behind: int

    @property
    def tokens(self) -> int:
        return len(self.prompt) + self.limit + self.behind


def _tasks(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    items: Sequence[Item],
    intervention: Intervention,
    asked: Sequence[float],
    limits: Sequence[int],
    behind: Sequence[int],
    think: Think,
) -> list[Task]:
    tasks = []
    for number, (item, limit) in enumerate(zip(items, limits, strict=True)):
        for alpha in asked:
            prompt = rendered(tokenizer, intervention, item.messages, alpha, thinking=think.end is not None)
            task = Task(number, alpha, think.opened(prompt), limit, behind[number])
            takes = f"row {item.item!r} takes {task.tokens} tokens with its thought of {limit}"
            check_length(model, task.tokens, takes, "shorten the row or its thinking_tokens")
            tasks.append(task)
    return tasks


def think_ahead(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    batch: Sequence[Task],
    intervention: Intervention,
    think: Think,
    other_base: bool,
) -> list[tuple[list[int], bool]]:
    """The greedy thought of every task, without its end, and whether it had to be cut."""
    stops = [*stop_ids(model, tokenizer), *([] if think.end is None else [think.end])]
    limit = max(task.limit for task in batch)
    with steer(model, intervention, [task.alpha for task in batch], other_base=other_base):
        continued = greedy(model, [task.prompt for task in batch], limit, stops, steered=True)
    thoughts = []
    for task, ids in zip(batch, continued, strict=True):
        ended = len(ids) <= task.limit and ids[-1] in stops
        thoughts.append((ids[:-1] if ended else ids[: task.limit], not ended))
    return thoughts


def _frame(
    model: PreTrainedModel,
    intervention: Intervention,
    name: str,
    items: Sequence[Item],
    lines: list[dict[str, Any]],
) -> pl.DataFrame:
    lines.sort(key=lambda line: (line["alpha"], line["row"]))
    constant = {"model": model_name(model), "eval": name, **identity(intervention)}
    full = []
    for line in lines:
        item = items[line["row"]]
        if line["alpha"] == 0 and line["logratio"] != line["logratio"]:
            raise WeightsteerError(
                f"row {item.item!r} has NaN logits at α = 0: load the model with dtype='float32' or 'bfloat16'."
            )
        full.append({**constant, **line, "item": item.item, "cluster": item.cluster, "label": item.label})
    return pl.DataFrame(full, schema=SCHEMA)
