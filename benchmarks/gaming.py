"""How the branches of the training-gaming experiment are trained fastest: one by one, together, with shared beginnings.

    python benchmarks/gaming.py --out benchmarks/results/gaming.md

Processor time of one step of one branch (forward, backward, update) on the texts of the experiment, for batches of its
size and for small ones. "Together" is one pass for both branches of a condition, or for all eight of a setting and two
seeds, each row with its own adapter; "shared" computes the system prompt and the tag once per branch, not per row.
"""

import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro
from torch import Tensor

from weightsteer import load_model
from weightsteer.data.pairs import generate
from weightsteer.experiments.gaming.protocol import ROLES, SETTINGS, Condition, Protocol
from weightsteer.experiments.gaming.training_rows import learners_of
from weightsteer.inference.likelihood import Active, Answered, log_likelihood
from weightsteer.training import Recipe, together
from weightsteer.training.together import Learner, train_together


@dataclass(frozen=True)
class Options:
    """Time the ways to train the branches of a condition."""

    model: str = "pocket"
    steps: int = 5
    repeats: int = 3
    """Of each measurement; the fastest counts."""
    batches: tuple[int, ...] = (4, 32)
    out: Path | None = None
    """Write the table to this file."""


def whole_rows(model: object, rows: Sequence[Answered], groups: Tensor, active: Active) -> tuple[Tensor, Tensor]:
    """What `grouped_log_likelihood` computes, every row from its first token on."""
    with active(groups):
        return log_likelihood(model, rows)  # type: ignore[arg-type]


@contextmanager
def unshared() -> Iterator[None]:
    """Train without shared beginnings."""
    shared = together.grouped_log_likelihood
    together.grouped_log_likelihood = whole_rows  # type: ignore[assignment]
    try:
        yield
    finally:
        together.grouped_log_likelihood = shared


def seconds(model: object, groups: Sequence[Sequence[Learner]], recipe: Recipe) -> float:
    """Processor time of all groups, a branch and step."""
    start = time.process_time()
    for group in groups:
        train_together(model, group, recipe, shown=False)  # type: ignore[arg-type]
    return (time.process_time() - start) / (sum(map(len, groups)) * recipe.total_steps(10**6))


def main(options: Options) -> None:
    torch.set_num_threads(1)
    model, tokenizer = load_model(options.model, device="cpu")
    protocol = Protocol.load("pocket")
    pairs = generate(model, tokenizer, protocol.behavior, seed=0, samples=4, shown=False)
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        for batch in options.batches:
            recipe = Recipe(
                name="gaming", rank=8, lora_alpha=16, lr=1e-3, batch=batch, steps=options.steps, layers=(0.0, 1.0),
                max_length=256, validation=0.0, keep="last",
            )  # fmt: skip
            for setting in SETTINGS:
                conditions = [
                    learners_of(
                        model, tokenizer, pairs, {role: protocol.system(each, role) for role in ROLES}, recipe, seed,
                        Path(folder, f"{each.name}-{seed}"),
                    )
                    for each in (Condition(setting, role) for role in ROLES)
                    for seed in (0, 1)
                ]  # fmt: skip
                alone = [[learner] for condition in conditions for learner in condition]
                times: dict[str, list[float]] = {}
                for _ in range(options.repeats):
                    with unshared():
                        times.setdefault("one by one", []).append(seconds(model, alone, recipe))
                        times.setdefault("two together", []).append(seconds(model, conditions, recipe))
                    times.setdefault("one by one, shared", []).append(seconds(model, alone, recipe))
                    times.setdefault("two together, shared", []).append(seconds(model, conditions, recipe))
                    every = [[learner for condition in conditions for learner in condition]]
                    times.setdefault("eight together, shared", []).append(seconds(model, every, recipe))
                best = {name: min(found) for name, found in times.items()}
                cells = [f"{1000 * value:.0f} ms ({best['one by one'] / value:.2f}×)" for value in best.values()]
                lines.append(f"| {batch} | {setting} | {' | '.join(cells)} |")
                print(lines[-1], flush=True)
    table = f"""\
# Training the branches of the gaming experiment

`python benchmarks/gaming.py {" ".join(sys.argv[1:])}`

Processor time of one step of one branch on {options.model}, one thread, and how much faster that is than one by one.

| batch | setting | one by one | two together | one by one, shared | two together, shared | eight together, shared |
|--:|---|--:|--:|--:|--:|--:|
{chr(10).join(lines)}
"""
    print(table)
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(table, encoding="utf-8")


if __name__ == "__main__":
    main(tyro.cli(Options))
