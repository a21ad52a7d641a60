"""What a sweep costs on the embedded model, where the overhead per batch counts more than the arithmetic.

    python benchmarks/pocket_overhead.py --out benchmarks/results/pocket_overhead.md

Seven families, five strengths, 500 rows: one sweep for each family, as `weightsteer sweep --adapters all` runs them.
Fails when all together take 30 seconds or more.
"""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tyro
from transformers import PreTrainedModel
from vectors import random_vector

from weightsteer import load_model, sweep
from weightsteer.data.evals import Item, load
from weightsteer.inference.answers import choice_table
from weightsteer.models import render_chat
from weightsteer.training import Recipe

FAMILIES = ("lora", "dora", "pissa", "delora", "oft", "boft", "ia3")
ALPHAS = (-2.0, -1.0, 0.0, 1.0, 2.0)
EVALUATIONS = ("dilemmas", "sycophancy")
LIMIT = 30.0  # seconds


@dataclass(frozen=True)
class Options:
    """Time sweeps of every family on the embedded model."""

    rows: int = 500
    out: Path | None = None
    """Write the table to this file."""


def rows_of(model: PreTrainedModel, count: int) -> list[Item]:
    """So many rows of the embedded model's evaluations; their rows under other names when there are not enough."""
    rows = [item for name in EVALUATIONS for item in load(name).items(model)]
    return [
        Item(f"{at}-{item.item}", f"{at}-{item.cluster}", item.label, item.messages, item.choices, item.answer_prefix)
        for at, item in enumerate((rows * (count // len(rows) + 1))[:count])
    ]


def seconds(work: Callable[[], Any]) -> float:
    """Processor time, so that what else runs on the machine does not count; one thread, so that it is wall time."""
    start = time.process_time()
    work()
    return time.process_time() - start


def main(options: Options) -> None:
    torch.set_num_threads(1)
    model, tokenizer = load_model("pocket", device="cpu")
    items = rows_of(model, options.rows)
    distinct = len({item.messages[-1]["content"] for item in items})
    encoding = seconds(
        lambda: (
            [render_chat(tokenizer, item.messages, answer_prefix=item.answer_prefix) for item in items],
            choice_table(tokenizer, [item.choices for item in items]),
        )
    )
    lines, total = [], 0.0
    for family in FAMILIES:
        vector = random_vector(model, family, Recipe.load("pocket", family))
        took = seconds(lambda vector=vector: sweep(model, tokenizer, vector, items, ALPHAS, shown=False))
        alone = seconds(
            lambda vector=vector: sweep(model, tokenizer, vector, items, ALPHAS, share_prefixes=False, shown=False)
        )
        total += took
        lines.append(f"| {family} | {took:.2f} | {alone:.2f} |")
    report = f"""\
# Sweeps on the embedded model

`python benchmarks/pocket_overhead.py {" ".join(sys.argv[1:])}`

{len(items)} rows ({distinct} different ones), {len(ALPHAS)} strengths, one thread. Rendering and encoding the rows is
{encoding:.2f} s of each line.

| family | seconds | without shared beginnings |
|---|---|---|
{chr(10).join(lines)}
| all | {total:.1f} | (required: < {LIMIT:g}) |
"""
    print(report)
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(report, encoding="utf-8")
    if total >= LIMIT:
        sys.exit("not reached")


if __name__ == "__main__":
    main(tyro.cli(Options))
