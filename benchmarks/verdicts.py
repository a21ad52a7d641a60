"""False alarms and power of verdicts on the embedded model: writes docs/verdicts.md.

    python benchmarks/verdicts.py --out out --page docs/verdicts.md

Random vectors with the norms of three trained honesty vectors (one per training seed) are swept over two evaluations:
each one by itself, and in triples, one per seed. Planted vectors are random ones turned towards the gradient until
their slope is a given number of null standard deviations. Sweeps are kept in ``--out`` and not repeated.
"""

import argparse
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import polars as pl
import torch

import weightsteer as ws
from weightsteer import WeightVector
from weightsteer.controls.base import generator_seed
from weightsteer.data.evals import Item
from weightsteer.experiments.sweep.config import RunConfig
from weightsteer.experiments.sweep.replicate import difference
from weightsteer.inference.answers import choice_table
from weightsteer.inference.gradients import WEIGHT, logratio_gradients
from weightsteer.measure.strengths import rendered
from weightsteer.stats.null import EFFECTS
from weightsteer.terms import Sum
from weightsteer.terms.dense import Dense

EVALUATIONS = ("dilemmas", "sycophancy")
ALPHAS = (-2.0, -1.0, -0.5, 0.5, 1.0, 2.0)
CHECKED = 24  # draws swept at every strength, against the first-order prediction
PLANTED, EACH = (3, 5, 10), 20
SCALES = (0.025, 0.05, 0.1, 0.2, 0.5, 1.0)
RESAMPLES = 1000
QUIET = ("not_separable", "negligible")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("out"))
    parser.add_argument("--page", type=Path, default=Path("docs/verdicts.md"))
    parser.add_argument("--vectors", type=int, default=200)
    args = parser.parse_args()
    kept = args.out / "verdicts"
    kept.mkdir(parents=True, exist_ok=True)
    made = difference(RunConfig(model="pocket", seeds=(0, 1, 2)), args.out)
    model, tokenizer = ws.load_model("pocket")
    vectors = [WeightVector.load(artifact.path / "vector.safetensors", model) for artifact in made]
    items = {name: ws.evals.load(name).items(model) for name in EVALUATIONS}

    def swept(
        name: str, make: Callable[[], Sequence[WeightVector]], alphas: Sequence[float]
    ) -> tuple[pl.DataFrame, pl.DataFrame]:
        """Rows, which are kept, and null of some vectors on both evaluations."""
        made, rows, nulls = make(), [], []
        for evaluation in EVALUATIONS:
            file = kept / f"{name}-{evaluation}-rows.parquet"
            if not file.exists():
                ws.sweep(model, tokenizer, made, ws.evals.load(evaluation), alphas).write_parquet(file)
            rows.append(pl.read_parquet(file))
            null = ws.random_null(model, tokenizer, made, ws.evals.load(evaluation))
            nulls.append(null.filter(pl.col("module").is_null()))
        return pl.concat(rows), pl.concat(nulls)

    def judged(name: str, make: Callable[[], Sequence[WeightVector]], alphas: Sequence[float]) -> pl.DataFrame:
        rows, null = swept(name, make, alphas)
        return ws.summarize(rows, null=null, by_seed=True, resamples=RESAMPLES)

    linear = judged("linear", lambda: ws.controls.draws("random", vectors[0], CHECKED), ALPHAS)
    found = [
        swept(f"random-{seed}", lambda vector=vector: ws.controls.draws("random", vector, args.vectors), (-1.0, 1.0))
        for seed, vector in enumerate(vectors)
    ]
    rows, nulls = (pl.concat(each) for each in zip(*found, strict=True))
    tables = {
        "linear": linearity(linear),
        "alarms": alarms(rows, nulls),
        "planted": planted_table(
            {
                size: judged(
                    f"planted-{size}",
                    lambda size=size: planted(model, tokenizer, vectors[0], items["dilemmas"], size),
                    (1.0,),
                )
                for size in PLANTED
            }
        ),
        "scaled": scaled_table(
            judged(
                "scaled", lambda: [(s * vectors[0]).with_metadata(adapter=f"lora × {s:g}") for s in SCALES], (-1.0, 1.0)
            )
        ),
    }
    args.page.write_text(PAGE.format(vectors=args.vectors, checked=CHECKED, each=EACH, **tables), encoding="utf-8")


def linearity(summary: pl.DataFrame) -> str:
    """Root mean square of the effects of swept draws over the predicted standard deviation, at each strength."""
    lines = [
        "| evaluation | effect | " + " | ".join(f"α = {a:+g}" for a in ALPHAS) + " | predicted at α = ±1 |",
        "|---" * (len(ALPHAS) + 3) + "|",
    ]
    for evaluation in EVALUATIONS:
        for effect, prefix in EFFECTS.items():
            cells = []
            for alpha in ALPHAS:
                at = summary.filter(pl.col("eval") == evaluation, pl.col("alpha") == alpha)
                cells.append(f"{math.sqrt((at[f'{prefix}z'] ** 2).mean()):.2f}")
            sd = summary.filter(pl.col("eval") == evaluation, pl.col("alpha") == 1.0)[f"{prefix}null_sd"].mean()
            lines.append(f"| {evaluation} | {effect} | {' | '.join(cells)} | {sd:.4f} |")
    return "\n".join(lines)


def alarms(rows: pl.DataFrame, nulls: pl.DataFrame) -> str:
    """How many random vectors get another name, with and without the null, alone and in triples of seeds."""
    name = (pl.col("adapter") + pl.format("-{}", "draw")).alias("adapter")
    lines = [
        "| random vectors | judged by | named anything | steers | reversed | yes-bias | format damage |",
        "|---|---|---|---|---|---|---|",
    ]
    seeds = {f"of training seed {seed} alone": pl.col("seed") == seed for seed in range(3)}
    for title, chosen in {**seeds, "triples, one of each seed": pl.lit(True)}.items():
        own, null = (
            frame.filter(chosen).with_columns(name).with_columns(draw=pl.lit(None, pl.Int64)) for frame in (rows, nulls)
        )
        for judged, given, smallest in (
            ("intervals alone", None, 0.0),
            ("intervals and smallest effect", None, 0.1),
            ("intervals, null and smallest effect", null, 0.1),
        ):
            summary = ws.summarize(own, null=given, smallest=smallest, resamples=RESAMPLES).filter(pl.col("alpha") != 0)
            named = summary.filter(~pl.col("verdict").is_in(QUIET))
            total = summary["adapter"].n_unique()
            cells = [f"{named['adapter'].n_unique()} of {total}"]
            for start in ("steers", "reversed", "yes_bias", "format_damage"):
                cells.append(str(named.filter(pl.col("verdict").str.starts_with(start))["adapter"].n_unique()))
            lines.append(f"| {title} | {judged} | {' | '.join(cells)} |")
    return "\n".join(lines)


def planted(model, tokenizer, vector: WeightVector, items: Sequence[Item], size: float) -> list[WeightVector]:
    """Random vectors with the norms of ``vector``, turned towards the gradient of the discrimination on dilemmas."""
    rows = [rendered(tokenizer, vector, item.messages, 0.0, answer_prefix=item.answer_prefix) for item in items]
    choices = choice_table(tokenizer, [item.choices for item in items])
    positives = sum(item.label > 0 for item in items)
    weights = [item.label / 2 / (positives if item.label > 0 else len(items) - positives) for item in items]
    gradient = logratio_gradients(model, rows, choices, weights, [(name, WEIGHT) for name in vector.names])
    norms = {name: float(vector.delta(name).double().norm()) for name in vector.names}
    sizes = {name: float(gradient[name, WEIGHT].double().norm()) for name in vector.names}
    sd = math.sqrt(sum((sizes[name] * norms[name]) ** 2 / gradient[name, WEIGHT].numel() for name in vector.names))
    share = size * sd / sum(sizes[name] * norms[name] for name in vector.names)
    made = []
    for draw in range(EACH):
        terms = {}
        for at, name in enumerate(vector.names):
            generator = torch.Generator().manual_seed(generator_seed(1000 * draw + at, 0))
            random = torch.randn(gradient[name, WEIGHT].shape, generator=generator)
            random *= norms[name] / random.norm()
            turned = math.sqrt(1 - share**2) * random + share * norms[name] / sizes[name] * gradient[name, WEIGHT]
            terms[name] = Sum(tuple(turned.shape), [(1.0, Dense(turned))])
        made.append(WeightVector(terms, {**vector.metadata, "adapter": f"planted-{draw}"}))
    return made


def planted_table(found: dict[int, pl.DataFrame]) -> str:
    lines = ["| planted slope | mean effect at α = 1 (nats) | mean z | “steers” on dilemmas |", "|---|---|---|---|"]
    for size, summary in found.items():
        at = summary.filter(pl.col("eval") == "dilemmas", pl.col("alpha") == 1.0)
        steers = at["verdict"].str.starts_with("steers").sum()
        lines.append(
            f"| {size} sd | {at['discrimination'].mean():+.2f} | {at['z'].mean():.1f} | {steers} of {at.height} |"
        )
    return "\n".join(lines)


def scaled_table(summary: pl.DataFrame) -> str:
    lines = ["| vector | evaluation | α | discrimination | z | verdict |", "|---|---|---|---|---|---|"]
    for line in summary.filter(pl.col("alpha") != 0).iter_rows(named=True):
        numbers = (
            f"{line['discrimination']:+.2f} [{line['discrimination_low']:+.2f}, {line['discrimination_high']:+.2f}]"
        )
        verdict = line["verdict"].replace("_", " ")
        lines.append(
            f"| {line['adapter']} | {line['eval']} | {line['alpha']:+g} | {numbers} | {line['z']:.1f} | {verdict} |"
        )
    return "\n".join(lines)


PAGE = """# How often verdicts are wrong

A verdict needs three things: an interval over rows that excludes 0, an effect outside the null of random directions,
and the smallest effect of interest (0.1 nats by default). This page measures how often verdicts are wrong on `pocket`.
`python benchmarks/verdicts.py` writes it.

## The null of random directions

For dW uniformly random with the given norm of each tensor, an effect has to first order mean 0 and the standard
deviation |α| √(Σ ‖g‖² ‖dW‖² / numel), with g the gradient of the effect (`weightsteer.random_null`). The table
compares it with {checked} swept draws with the norms of the LoRA honesty vector: the root mean square of their effects,
in units of the prediction. A ratio of 1 is a perfect prediction; chance allows 0.71 to 1.28 with {checked} draws (95%).

{linear}

## False alarms

Random vectors with the norms of three trained honesty vectors, over two evaluations at α = ±1. A vector is a false
alarm when any of its four lines is called something other than “not separable” or “negligible”.

{alarms}

The null is known to first order in α. Its p values come from Student’s t with 8 degrees of freedom, as if it had been
estimated from so many draws; that number was chosen on the vectors of seed 0, so the rows of seeds 1 and 2 and of the
triples are the ones that count.

The interval over rows alone fails because it answers another question: the effect of one random vector on other rows of
the same kind is real. Over several training seeds it also spans the seeds, which differ at random here, and fails less
often; a vector that is compared with its own random twins needs the null all the same.

## Power

Random vectors turned towards the gradient of the discrimination on `dilemmas` until their slope has the given number of
null standard deviations, {each} of each size:

{planted}

The trained honesty vector, scaled down. The labels of `sycophancy` say which answer is sycophantic, so “reversed” is
what an honesty vector should do there:

{scaled}
"""


if __name__ == "__main__":
    main()
