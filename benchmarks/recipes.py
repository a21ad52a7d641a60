"""Choose the learning rate of every adapter family on the embedded model, by the loss on pairs held out.

    python benchmarks/recipes.py --out docs/recipes.md

Both branches of the honesty behaviour are trained at every rate of a grid (one seed); nothing is steered or evaluated.
The number of a rate is the lowest validation loss of a branch, averaged over the two branches. The rates of the preset
"pocket" are the best of their rows.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

import polars as pl
import torch

from weightsteer import load_model
from weightsteer.data.pairs import kept
from weightsteer.experiments.sweep.config import RunConfig
from weightsteer.experiments.sweep.replicate import pairs
from weightsteer.training import Recipe, train_branch

RATES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0, 3.0)
# family, settings beside the rate, and the first and last of the rates tried
GRID: list[tuple[str, dict[str, Any], float, float]] = [
    ("lora", {}, 1e-3, 3e-2),
    ("rslora", {}, 3e-4, 1e-2),
    ("dora", {}, 1e-3, 3e-2),
    ("pissa", {}, 1e-4, 3e-3),
    ("delora", {"delora_lambda": 1.0}, 3e-3, 1e-1),
    ("delora", {"delora_lambda": 4.0}, 3e-3, 1e-1),
    ("delora", {"delora_lambda": 15.0}, 1e-3, 3e-2),
    ("oft", {"block_size": 8}, 1e-3, 3e-2),
    ("boft", {"block_size": 8}, 1e-3, 3e-2),
    ("ia3", {}, 1e-2, 3e-1),
    ("bias", {}, 1e-1, 3.0),
    ("full", {}, 1e-4, 3e-3),
]
SEED = 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, help="page to write the table to")
    parser.add_argument("--families", nargs="*", help="only these")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as place:
        (made,) = pairs(RunConfig(seeds=(SEED,)), Path(place))
        frame = kept(pl.read_parquet(made.path / "pairs.parquet"))
        before = untrained(frame, Path(place))
        rows = [
            (family, settings, measured(frame, family, settings, first, last, Path(place)))
            for family, settings, first, last in GRID
            if not options.families or family in options.families
        ]
    text = table(rows)
    print(text)
    if options.out:
        reading = READING.format(tie=TIE, usual=USUAL)
        page = PAGE.format(before=before, table=text, reading=reading, chosen=chosen())
        options.out.write_text(page, encoding="utf-8")


def untrained(frame: pl.DataFrame, place: Path) -> float:
    """The validation loss of the model itself, mean over both branches."""
    model, tokenizer = load_model("pocket")
    recipe = Recipe.load("pocket", steps=1)
    records = [
        train_branch(model, tokenizer, frame, side, recipe=recipe, seed=SEED, folder=place / side, shown=False)
        for side in ("positive", "negative")
    ]
    return sum(record.losses[0].validation or 0.0 for record in records) / 2


def measured(
    frame: pl.DataFrame, family: str, settings: dict[str, Any], first: float, last: float, place: Path
) -> dict[float, float]:
    """By rate: the best validation loss, mean over both branches, in nats per answer token."""
    model, tokenizer = load_model("pocket")
    found = {}
    for rate in RATES:
        if not first <= rate <= last:
            continue
        recipe = Recipe.load("pocket", family, **{**settings, "lr": rate})
        losses = []
        for side in ("positive", "negative"):
            record = train_branch(
                model,
                tokenizer,
                frame,
                side,
                adapter=family,
                recipe=recipe,
                seed=SEED,
                folder=place / side,
                shown=False,
            )
            losses.append(min(line.validation for line in record.losses if line.step))
        found[rate] = sum(losses) / 2
        print(f"{family} {settings or ''} {rate:g}: {losses[0]:.4f} and {losses[1]:.4f}", flush=True)
    return found


def table(rows: list[tuple[str, dict[str, Any], dict[float, float]]]) -> str:
    """Markdown: a line for each family, a column for each rate, the best in bold."""
    lines = [
        "| family | " + " | ".join(f"{rate:g}" for rate in RATES) + " |",
        "|---|" + "--:|" * len(RATES),
    ]
    for family, settings, found in rows:
        best = min(found, key=found.__getitem__)
        cells = [
            "" if rate not in found else f"**{found[rate]:.4f}**" if rate == best else f"{found[rate]:.4f}"
            for rate in RATES
        ]
        name = ", ".join([family, *(f"{NAMES[key]} {value:g}" for key, value in settings.items())])
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def chosen() -> str:
    """Markdown: what the two presets use for each family now."""
    lines = ["| family | pocket | paper | where the paper rate comes from |", "|---|---|---|---|"]
    for family, reason in PAPER.items():
        recipes = [settings_of(Recipe.load(preset, family), family) for preset in ("pocket", "paper")]
        lines.append(f"| {family} | " + " | ".join([*recipes, reason]) + " |")
    return "\n".join(lines)


def settings_of(recipe: Recipe, family: str) -> str:
    settings = [f"{recipe.lr:g}"]
    if family in ("oft", "boft"):
        settings.append(f"{NAMES['block_size']} {recipe.block_size}")
    if family == "delora":
        settings.append(f"{NAMES['delora_lambda']} {recipe.delora_lambda:g}")
    return ", ".join(settings)


NAMES = {"delora_lambda": "λ", "block_size": "blocks of"}
PAPER = {
    "lora": "the published steering vectors (arXiv 2511.05408, table 1)",
    "rslora": "as LoRA: the same size of step is scaled by alpha/√r",
    "dora": "as LoRA, as its authors train it",
    "pissa": "as LoRA, as its authors train it",
    "delora": "its authors: 10 to 100 times LoRA's rate, from 1e-3 on, λ 10 to 15; B and A are normalised",
    "oft": "ten times LoRA's: no rate for vectors is published; blocks as PEFT sets them",
    "boft": "as OFT; blocks of the published comparison",
    "ia3": "its authors and PEFT: 3e-3 to 1e-2, for scales that start at 1",
    "bias": "published with the vectors (arXiv 2511.05408): 1e-4",
    "full": "the usual rate of full fine-tunes",
}
PAGE = """# Recipes of the adapter families

Families need different learning rates. At one rate for all (`--recipe fork`, 2e-4) IA3 hardly moves, so a comparison
measures which family the rate happens to fit. Each family therefore has settings of its own for the presets `pocket`
and `paper`, in its file under `src/weightsteer/adapters/`. Flags win over them: `--lr`, `--block-size`,
`--delora-lambda`, …

## How the settings of `pocket` were chosen

By the loss on pairs held out, and nothing else: no vector was made, and no evaluation was looked at. The command

```console
$ python benchmarks/recipes.py --out docs/recipes.md
```

writes this page. It trains both branches of the honesty behaviour on the embedded model (60 steps of 32 pairs, one
seed) at every rate of a grid. The numbers are the lowest validation losses, nats per answer token, averaged over the
two branches; the best of each row is bold. Before training the loss is {before:.4f}.

{table}

{reading}

## What the presets use

{chosen}

The rates of `paper` are for real models. Only those of LoRA and `bias` were published for steering vectors: sweep
`--lr` and compare the validation losses in `training.json` before you believe a comparison of families.
"""
READING = """Each family takes the best rate of its rows, unless another of the same row is as good to less than {tie:g}
nats: then the one nearest to the preset's {usual:g}. Differences as small as that change sign from seed to seed."""
TIE, USUAL = 0.002, 3e-3


if __name__ == "__main__":
    main()
