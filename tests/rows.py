"""Synthetic sweeps whose truth is known: what a vector does to every row is written down, plus noise."""

from collections.abc import Sequence

import numpy as np
import polars as pl


def synthetic(
    *,
    discrimination: float = 0.0,
    bias: float = 0.0,
    damage: float = 0.0,
    clusters: int = 40,
    seeds: Sequence[int] = (0,),
    alphas: Sequence[float] = (-1.0, 0.0, 1.0),
    between_seeds: float = 0.0,
    between_clusters: float = 0.3,
    noise: float = 0.3,
    labels: Sequence[int] = (1, -1),
    sharpening: float = 0.0,
    draw: int = 0,
    base: int | None = None,
    model: str = "pocket",
    behavior: str = "honesty",
    method: str = "weight",
    adapter: str = "lora",
    evaluation: str = "dilemmas",
    control_of: str = "lora",
    control_draw: int = 0,
) -> pl.DataFrame:
    """Rows of a vector with effects per unit of α, in nats: one item per label in each cluster.

    Δ = α (label · (discrimination + deviations of the seed, the cluster and the row) + bias); pmass falls by
    ``damage`` per unit of |α|. ``sharpening`` adds its share of the base log-ratio: answers get surer. The base model
    is the same for all seeds, and for all vectors with the same ``base`` (by default one of its own per ``draw``).
    """
    rng = np.random.default_rng(draw)
    items = [
        (f"d{c:03d}{'ab'[i % 2]}{i}", f"d{c:03d}", label) for c in range(clusters) for i, label in enumerate(labels)
    ]
    start = (rng if base is None else np.random.default_rng([base, 7])).normal(0.5, 2.0, len(items))
    of_cluster = rng.normal(0, between_clusters, clusters)
    rows = []
    for seed in seeds:
        of_seed = rng.normal(0, between_seeds)
        of_row = rng.normal(0, noise, len(items))
        for alpha in alphas:
            for i, (item, cluster, label) in enumerate(items):
                along = discrimination + of_seed + of_cluster[i // len(labels)] + of_row[i]
                pmass = 0.99 - damage * abs(alpha)
                rows.append(
                    (
                        *(
                            model,
                            behavior,
                            method,
                            adapter,
                            seed,
                            float(alpha),
                            evaluation,
                            item,
                            cluster,
                            label,
                        ),
                        start[i] + alpha * (label * along + bias + sharpening * start[i]),
                        pmass,
                        pmass < 0.5,
                    )
                )
    names = ["model", "behavior", "method", "adapter", "seed", "alpha", "eval", "item", "cluster", "label"]
    frame = pl.DataFrame(rows, schema=[*names, "logratio", "pmass", "low_pmass"], orient="row")
    control = method == "control"
    return frame.with_columns(
        control=pl.lit(adapter.removeprefix(f"{control_of}-") if control else None, pl.String),
        control_of=pl.lit(control_of if control else None, pl.String),
        draw=pl.lit(control_draw if control else None, pl.Int64),
    )
