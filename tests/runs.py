"""One tiny run, made once for all the tests that look at a finished run or at single stages of one."""

import tempfile
from functools import cache
from pathlib import Path

from tiny import tiny

from weightsteer.experiments.sweep.config import Generation, RunConfig, Training
from weightsteer.experiments.sweep.replicate import replicate

BEHAVIOR = """
name: kind
positive: {pole: kind, personas: [You are an honest person., You are kind.]}
negative: {pole: rude, personas: [You are a lying person., You are rude.]}
questions:
  train: [Tell me about rivers, Tell me about stones, Tell me about bread, Tell me about the cat.]
  heldout: [Tell me about winter.]
evaluations: {sycophancy: -1}
in_distribution: sycophancy
"""


def model_folder(folder: Path, seed: int = 0) -> Path:
    """A tiny random model whose answers end soon: every fourth token ends them."""
    model, tokenizer = tiny("qwen3", seed=seed)
    model.generation_config.eos_token_id = list(range(3, len(tokenizer), 4))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@cache
def _place() -> "tempfile.TemporaryDirectory[str]":
    return tempfile.TemporaryDirectory(prefix="weightsteer-tests-")


@cache
def tiny_config() -> RunConfig:
    """A run of seconds: two seeds, three strengths, twelve rows."""
    folder = Path(_place().name)
    (folder / "kind.yaml").write_text(BEHAVIOR)
    return RunConfig(
        model=str(model_folder(folder / "tiny")),
        behavior=(str(folder / "kind.yaml"),),
        seeds=(0, 1),
        alphas=(-1, 1),
        limit=12,
        resamples=200,
        generation=Generation(samples=3, max_new_tokens=8, judge="none"),
        training=Training(recipe="pocket", steps=4, lr=1e-2),
    )


@cache
def finished_run() -> Path:
    """The output folder of an undisturbed run of `tiny_config`. Look, do not touch."""
    out = Path(_place().name) / "finished"
    replicate(tiny_config(), out)
    return out
