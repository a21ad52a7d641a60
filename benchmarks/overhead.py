"""What steering without merging costs, for every adapter family: the time of a steered forward pass over an unsteered.

    python benchmarks/overhead.py --out benchmarks/results/overhead.md

On layers of Qwen3-0.6B's shape (random weights, no embedding of the whole vocabulary) and on the embedded model, with
every linear module steered that the family adapts, and a strength per row. The ratio is that of a steered layer: a
vector on half of the layers costs half as much more. Once a strength is chosen, merging it costs nothing per pass.
"""

import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro
from shapes import qwen3_0_6b
from torch import Tensor
from transformers import PreTrainedModel
from vectors import random_vector

from weightsteer import WeightVector, adapters, load_model, steer
from weightsteer.errors import WeightsteerError
from weightsteer.training import Recipe


@dataclass(frozen=True)
class Options:
    """Time steered against unsteered forward passes."""

    rows: int = 8
    tokens: int = 128
    repeats: int = 5
    """Of each measurement; the medians are compared."""
    out: Path | None = None
    """Write the table to this file."""


@torch.no_grad()
def seconds(model: PreTrainedModel, ids: Tensor) -> float:
    """Processor time of one pass (one thread), so that what else runs on the machine does not count."""
    start = time.process_time()
    model(input_ids=ids, use_cache=False, logits_to_keep=1)
    return time.process_time() - start


def overhead(model: PreTrainedModel, vector: WeightVector, ids: Tensor, repeats: int) -> float:
    """Time of a steered pass over that of an unsteered one, measured in turns."""
    alphas = torch.linspace(-1, 1, len(ids))
    with steer(model, vector, alphas):
        seconds(model, ids)  # casts what it keeps
    steered, unsteered = [], []
    for _ in range(repeats):
        unsteered.append(seconds(model, ids))
        with steer(model, vector, alphas):
            steered.append(seconds(model, ids))
    return float(np.median(steered) / np.median(unsteered))


def settings(family: str, preset: str) -> Recipe:
    """The family's own settings of the preset, in all layers."""
    return Recipe.load(preset, family, layers=(0.0, 1.0))


def main(options: Options) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    models = {
        "Qwen3-0.6B shape": (qwen3_0_6b(layers=2, vocabulary=1000), "fork"),
        "pocket": (load_model("pocket", device="cpu")[0], "pocket"),
    }
    lines = []
    for family in adapters.families():
        cells = []
        for model, preset in models.values():
            ids = torch.randint(5, model.config.vocab_size, (options.rows, options.tokens))
            try:
                vector = random_vector(model, family, settings(family, preset))
                cells.append(f"{overhead(model, vector, ids, options.repeats):.2f}")
            except WeightsteerError as error:
                cells.append(f"– ({str(error).splitlines()[0]})")
        lines.append(f"| {family} | {' | '.join(cells)} |")
        print(lines[-1], flush=True)
    report = f"""\
# Cost of steering without merging

`python benchmarks/overhead.py {" ".join(sys.argv[1:])}`

Time of a steered forward pass over that of an unsteered one: {options.rows} rows of {options.tokens} tokens, a strength
per row, fp32, one thread; all layers steered, each family with the settings of the preset `fork` (left) or `pocket`
(right). The vector is the difference of two branches.

| family | {" | ".join(models)} |
|---|---|---|
{chr(10).join(lines)}
"""
    print(report)
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(report, encoding="utf-8")


if __name__ == "__main__":
    main(tyro.cli(Options))
