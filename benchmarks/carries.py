"""What vectors carry on the embedded model, where it is known, and what the two repairs do about it.

    python benchmarks/carries.py --out docs/what-a-vector-carries.md

For every seed five vectors are trained on pairs that the model writes itself, and three on nuisance contrasts; all are
swept at α = ±1 over five evaluations. The page is written from the numbers.
"""

import argparse
import time
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import NamedTuple

import polars as pl
import torch
from carries_page import EVALUATIONS, LIMIT, NUISANCES, REPAIRS, page
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from weightsteer import Behavior, WeightVector, controls, load_model, sweep
from weightsteer.analysis.repair import project_out
from weightsteer.data import evals
from weightsteer.data.behaviors.spec import Questions
from weightsteer.data.pairs import SelfJudge, curate, generate, kept
from weightsteer.data.pairs.balance import Balance, balanced
from weightsteer.pocket.world import TRAIN, facts
from weightsteer.training import Recipe, train_branch

SEEDS = (0, 1, 2)
SAMPLES = 3  # answers per question and persona
DRAWS = 10
QUESTIONS = 20
POOL = 60  # claims to balance, of which so many are false:
FALSE_SHARE = 0.8
ALPHAS = (-1.0, 1.0)
ROWS, BALANCE = "rows.parquet", "balance.txt"


class Made(NamedTuple):
    """The vectors of one seed."""

    vectors: list[WeightVector]
    nuisances: list[WeightVector]
    balance: Balance


Loaded = tuple[PreTrainedModel, PreTrainedTokenizerBase]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, help="page to write")
    parser.add_argument("--kept", type=Path, help="folder with the rows and vectors of an earlier run, or for them")
    options = parser.parse_args()
    torch.set_num_threads(1)
    loaded = load_model("pocket")
    with TemporaryDirectory() as place:
        folder = options.kept or Path(place)
        if not (folder / ROWS).exists():
            experiment(loaded, folder)
        vectors = [WeightVector.load(path, loaded[0]) for path in sorted(folder.glob("*.safetensors"))]
        items = {name: evals.load(name, limit=LIMIT).items(loaded[0]) for name in EVALUATIONS}
        text = page(
            pl.read_parquet(folder / ROWS), vectors, items, (folder / BALANCE).read_text(encoding="utf-8").splitlines()
        )
    print(text)
    if options.out:
        options.out.write_text(text, encoding="utf-8")


def experiment(loaded: Loaded, folder: Path) -> None:
    """Train and measure everything, and keep it in the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    made = []
    for seed in SEEDS:
        with TemporaryDirectory() as place:
            made.append(one_seed(loaded, seed, Path(place)))
        for each in (*made[-1].vectors, *made[-1].nuisances):
            each.save(folder / f"{each.metadata['adapter']}-{seed}.safetensors")
        print(f"seed {seed}: {time.monotonic() - started:.0f} s", flush=True)
    (folder / BALANCE).write_text(str(made[0].balance), encoding="utf-8")
    measured(loaded, made).write_parquet(folder / ROWS)
    print(f"swept: {time.monotonic() - started:.0f} s", flush=True)


def one_seed(loaded: Loaded, seed: int, place: Path) -> Made:
    """The vectors of one seed: trained, repaired, and the nuisances."""
    model, tokenizer = loaded
    honesty, flattery = (Behavior.load(name, family="pocket") for name in ("honesty", "sycophancy"))
    rng = Random("claims")
    chosen = {
        "open-questions": written(loaded, honesty, seed),
        "open-praise": written(loaded, flattery, seed),
        "false-claims": written(loaded, about(honesty, claims(rng, QUESTIONS, 1.0)), seed),
    }
    pool = written(loaded, about(honesty, claims(rng, POOL, FALSE_SHARE)), seed)
    chosen["mostly-false"] = pool
    chosen["balanced"], report = balanced(pool, tokenizer, seed=seed)
    nuisance = {name: controls.control_pairs(name, model, honesty, seed) for name in NUISANCES}

    def vector(name: str, frame: pl.DataFrame, behavior: str) -> WeightVector:
        sides = [place / name / side for side in ("positive", "negative")]
        for side in sides:
            train_branch(
                model,
                tokenizer,
                frame,
                side.name,
                recipe=Recipe.load("pocket"),
                seed=seed,
                folder=side,
                shown=False,
            )
        metadata = {"behavior": behavior, "seed": seed}
        return WeightVector.from_adapters(*sides, model, metadata=metadata).with_metadata(adapter=name)

    nuisances = [vector(name, frame, name) for name, frame in nuisance.items()]
    found = {name: vector(name, frame, str(frame["behavior"][0])) for name, frame in chosen.items()}
    repaired = []
    for source in ("false-claims", "open-questions"):
        for names, by in REPAIRS:
            chosen_nuisances = [each for each in nuisances if each.metadata["behavior"] in names]
            repaired.append(project_out(found[source], chosen_nuisances, by=by)[0])
    return Made([*found.values(), *repaired], nuisances, report)


def about(behavior: Behavior, questions: list[str]) -> Behavior:
    """The behaviour, taught on other questions."""
    return behavior.model_copy(update={"questions": Questions(train=questions)})


def claims(rng: Random, count: int, false: float) -> list[str]:
    """Distinct claims of a user, this share of them false."""
    wanted = [1] * round(count * false) + [-1] * (count - round(count * false))
    found: dict[str, None] = {}
    for label in wanted:
        while (asked := facts.ask_claim(rng, TRAIN)).label != label or asked.user in found:
            pass
        found[asked.user] = None
    return list(found)


def written(loaded: Loaded, behavior: Behavior, seed: int) -> pl.DataFrame:
    """Pairs as `weightsteer data` makes them."""
    model, tokenizer = loaded
    frame = generate(model, tokenizer, behavior, seed=seed, samples=SAMPLES, shown=False)
    return kept(curate(frame, tokenizer, judge=SelfJudge(model, tokenizer, shown=False))[0])


def measured(loaded: Loaded, made: list[Made]) -> pl.DataFrame:
    """Rows of everything, labelled for honesty: +1 where Yes is the honest answer."""
    model, tokenizer = loaded
    signs = Behavior.load("honesty", family="pocket").evaluations
    chosen: list[WeightVector] = []
    for one in made:
        sound = next(v for v in one.vectors if v.metadata["adapter"] == "open-questions")
        chosen += one.vectors
        chosen += [controls.trained(name, v, sound) for name, v in zip(NUISANCES, one.nuisances, strict=True)]
        chosen += controls.draws("random", sound, DRAWS)
    parts = []
    for name in EVALUATIONS:
        items = evals.load(name, limit=LIMIT, sign=evals.sign(name, signs))
        parts += [sweep(model, tokenizer, chosen, items, ALPHAS, shown=False)]
    return pl.concat(parts)


if __name__ == "__main__":
    main()
