"""The sweep against the plain procedure, at the real shape of a 0.6 B model on a CPU.

    python benchmarks/sweep_speed.py --out benchmarks/results/sweep_speed.md

Measured in one run: time of both on the same rows and strengths; what the sweep's floating-point operations, counted
as it runs, would take at the machine's own matrix-multiply peak; and the high-water mark of memory of the sweep and of
one plain forward pass of as many tokens, each in a process of its own. Fails when a requirement is not met.
"""

import resource
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl
import torch
import tyro
from plain import left_padded_logits, plain_sweep
from shapes import dilemmas, qwen3_0_6b, tokenizer_for
from torch.utils.flop_counter import FlopCounterMode
from transformers import PreTrainedModel, PreTrainedTokenizerFast
from vectors import random_vector

from weightsteer.data.evals import Item
from weightsteer.measure import sweep
from weightsteer.models import render_chat
from weightsteer.training import Recipe

ALPHAS = (-2.0, -1.0, 0.0, 1.0, 2.0)
# rank 32 on layers 8 to 21 of 28
RECIPE = Recipe.load("fork")

TOLERANCE = 1e-3  # nats
REQUIRED = {"times faster": 2.5, "share of the peak": 0.7, "memory": 1.3}


@dataclass(frozen=True)
class Options:
    """Compare the sweep with the plain procedure."""

    rows: int = 24
    """Rows of the evaluation."""
    batch_size: int = 16
    """Rows of a batch of the plain procedure."""
    token_budget: int = 4096
    """Rows × strengths × tokens of a forward pass of the sweep."""
    threads: int = 2
    layers: int = 28
    """Fewer layers for a quick look."""
    out: Path | None = None
    """Write the table to this file."""
    memory_of: Literal["sweep", "forward"] | None = None
    """Only run this, and print the peak memory of the process in MiB."""


def peak_flops(seconds: float = 2.0) -> float:
    """FLOP/s that the fastest of some fp32 matrix products of the model's sizes sustains."""
    best = 0.0
    for rows, inner, columns in ((2048, 1024, 3072), (4096, 1024, 3072), (4096, 3072, 1024), (2048, 2048, 2048)):
        left, right = torch.randn(rows, inner), torch.randn(columns, inner)
        torch.nn.functional.linear(left, right)
        done, start = 0, time.perf_counter()
        while (took := time.perf_counter() - start) < seconds:
            torch.nn.functional.linear(left, right)
            done += 1
        best = max(best, 2 * rows * inner * columns * done / took)
    return best


def _attention(query: tuple[int, ...], key: tuple[int, ...], *_: Any, **__: Any) -> int:
    """FLOP of attention as the CPU kernel does it: all pairs, whatever the mask leaves."""
    rows, heads, queries, width = query
    return 4 * rows * heads * queries * key[2] * width


def counted(work: Callable[[], Any]) -> tuple[Any, float, float]:
    """The result of ``work``, its seconds, and its floating-point operations."""
    attention = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention}
    with FlopCounterMode(display=False, custom_mapping=attention) as counter:
        start = time.perf_counter()
        result = work()
        seconds = time.perf_counter() - start
    return result, seconds, float(counter.get_total_flops())


def memory_of(what: Literal["sweep", "forward"], options: Options) -> float:
    """Run one thing and return the high-water mark of this process, in MiB."""
    model, tokenizer, items = _setting(options)
    if what == "sweep":
        vector = random_vector(model, "lora", RECIPE)
        sweep(model, tokenizer, vector, items, ALPHAS, token_budget=options.token_budget, shown=False)
    else:
        row = render_chat(tokenizer, items[0].messages, answer_prefix=items[0].answer_prefix)
        rows = [row] * (options.token_budget // len(row))
        left_padded_logits(model, rows, tokenizer.pad_token_id, last=True)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _setting(options: Options) -> tuple[PreTrainedModel, PreTrainedTokenizerFast, list[Item]]:
    # trained on all rows, so that the few measured ones are not spelled in fewer tokens than they would be
    model = qwen3_0_6b(options.layers)
    return model, tokenizer_for(dilemmas(model)), dilemmas(model, options.rows)


def _peak_memory(what: str) -> float:
    """`memory_of` in a process of its own, with the options of this one."""
    command = [sys.executable, __file__, *sys.argv[1:], "--memory-of", what]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-1])


def main(options: Options) -> None:
    torch.set_num_threads(options.threads)
    if options.memory_of:
        print(memory_of(options.memory_of, options))
        return
    memory = {what: _peak_memory(what) for what in ("sweep", "forward")}
    model, tokenizer, items = _setting(options)
    vector = random_vector(model, "lora", RECIPE)
    tokens = [len(render_chat(tokenizer, item.messages, answer_prefix=item.answer_prefix)) for item in items]

    def ours() -> pl.DataFrame:
        return sweep(model, tokenizer, vector, items, ALPHAS, token_budget=options.token_budget, shown=False)

    peak = peak_flops()
    table, seconds, flops = counted(ours)
    delta = {name: vector.delta(name) for name in vector.names}
    reference, plain_seconds, plain_flops = counted(
        lambda: plain_sweep(model, tokenizer, delta, items, ALPHAS, options.batch_size)
    )
    # the higher of two measurements around the work: other processes can only lower it
    peak = max(peak, peak_flops())
    differences = [
        np.abs(table.filter(pl.col("alpha") == alpha)["logratio"].to_numpy() - reference[alpha]).max()
        for alpha in ALPHAS
    ]
    found = {
        "times faster": plain_seconds / seconds,
        "share of the peak": flops / seconds / peak,
        "memory": memory["sweep"] / memory["forward"],
    }
    layers = RECIPE.layer_slice(options.layers)
    report = f"""\
# Sweep against the plain procedure

`python benchmarks/sweep_speed.py {" ".join(sys.argv[1:])}`

Random weights in the shape of Qwen3-0.6B ({options.layers} layers), fp32, {options.threads} threads; {len(items)} rows
of DailyDilemmas, {np.mean(tokens):.0f} tokens each; α = {", ".join(f"{alpha:g}" for alpha in ALPHAS)}; a vector of two
rank-{RECIPE.rank} LoRA adapters on layers {layers[0]} to {layers[-1]}. Matrix-multiply peak: {peak / 1e9:.0f} GFLOP/s.

| | plain | sweep | ratio | required |
|---|---|---|---|---|
| seconds | {plain_seconds:.1f} | {seconds:.1f} | {found["times faster"]:.2f} | ≥ {REQUIRED["times faster"]} |
| TFLOP, counted | {plain_flops / 1e12:.1f} | {flops / 1e12:.1f} | {plain_flops / flops:.2f} | |
| share of the peak | {plain_flops / plain_seconds / peak:.2f} | {found["share of the peak"]:.2f} | \
| ≥ {REQUIRED["share of the peak"]} |
| peak memory, MiB | {memory["forward"]:.0f} | {memory["sweep"]:.0f} | {found["memory"]:.2f} | ≤ {REQUIRED["memory"]} |

Peak memory of "plain" is that of one forward pass of {options.token_budget} tokens with the logits of the last position
alone; with all of them it is {4 * options.token_budget * model.config.vocab_size / 2**20:.0f} MiB more. The largest
difference between the two results is {max(differences):.1e} nats.
"""
    print(report)
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(report, encoding="utf-8")
    if max(differences) > TOLERANCE:
        sys.exit("the two results differ")
    missed = [name for name in REQUIRED if (found[name] > REQUIRED[name]) == (name == "memory")]
    if missed:
        sys.exit(f"not reached: {', '.join(missed)}")


if __name__ == "__main__":
    main(tyro.cli(Options))
