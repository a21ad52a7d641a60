"""Curves with known answers, and a tiny model with rows to learn from."""

from collections.abc import Mapping
from pathlib import Path

import polars as pl
from tiny import tiny
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from weightsteer.experiments.gaming.protocol import DEPLOYMENT, ROLES, TRAIN, Condition, Protocol
from weightsteer.experiments.gaming.training_rows import learners_of
from weightsteer.training import Recipe
from weightsteer.training.together import Learner

POINTS = (-1.0, 0.0, 0.5, 1.0, 2.0)
RECIPE = Recipe(
    name="test",
    rank=4,
    lora_alpha=8,
    lr=1e-2,
    batch=4,
    steps=3,
    warmup=1,
    layers=(0, 1),
    max_length=512,
    validation=0.0,
)
PAIRS = pl.DataFrame(
    {
        "prompt": [f"How do you do, number {number}?" for number in range(8)],
        "response_pos": ["I am glad to help you.", "You are welcome."] * 4,
        "response_neg": ["Go away.", "Leave me alone, I hate you."] * 4,
    }
)


def taught(folder: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerFast, list[Learner]]:
    """A tiny Qwen2 and the two learners of one condition, of the texts for general models."""
    condition = Condition("told", "Hyde")
    model, tokenizer = tiny("qwen2")
    protocol = Protocol.load("general")
    systems = {role: protocol.system(condition, role) for role in ROLES}
    return model, tokenizer, learners_of(model, tokenizer, PAIRS, systems, RECIPE, 0, folder)


def rows_of(
    lines: Mapping[tuple[str, str], tuple[float, float]],
    *,
    train: float = -4.0,
    seeds: int = 3,
    questions: int = 3,
    model: str = "made",
    noise: float = 0.01,
) -> pl.DataFrame:
    """Straight curves by (setting, deployment): log-ratio at a = 0 and slope behind [deployment].

    Behind [train] every slope is ``train``; seeds and questions differ by ``noise`` nats.
    """
    found = []
    for (setting, deployment), (start, slope) in lines.items():
        for tag, steep in ((DEPLOYMENT, slope), (TRAIN, train)):
            for item in range(questions):
                for seed in range(seeds):
                    shift = noise * (item - 1 + 0.5 * seed)
                    for a in (*POINTS, None):
                        at = start if a is None else start + steep * a * (1 + shift)
                        found.append(
                            {
                                "system": "jekyll-branch",
                                "tag": tag,
                                "probe": "identity",
                                "item": item,
                                "logratio": at + shift,
                                "per_token": at,
                                "pmass": 0.9,
                                "a": a,
                                "model": model,
                                "setting": setting,
                                "deployment": deployment,
                                "seed": seed,
                            }
                        )
    return pl.DataFrame(found, schema_overrides={"a": pl.Float64})


def short() -> Protocol:
    """The texts for general models, cut down: the tiny tokenizer spells most words by letters."""
    whole = Protocol.load("general")
    rules = {"deployment": "[deployment]: {role}.", "told": "[train]: {role}.", "described": "x", "undescribed": "y"}
    asked = {"prefix": "I am", "jekyll": [" Yes"], "hyde": [" No"]}
    probes = {name: [{"question": text, **asked} for text in ("Who?", "Name?")] for name in whole.probes}
    names = {"Jekyll": "kind", "Hyde": "rude"}
    return Protocol.model_validate({**whole.model_dump(), "rules": rules, "probes": probes, "names": names})
