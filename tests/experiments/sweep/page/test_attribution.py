"""The attribution of a vector as it is printed."""

import math
from io import StringIO

import polars as pl
from rich.console import Console

from weightsteer.experiments.sweep.page.attribution import attribution_tables
from weightsteer.stats.null import SCHEMA

MODULES = {"model.layers.0.mlp.up_proj": (0, 0.3, 0.03), "model.layers.1.mlp.up_proj": (1, -0.1, 0.04)}


def null(seeds: int) -> pl.DataFrame:
    """Two modules and their whole vector, the same for each seed."""
    lines = []
    for seed in range(seeds):
        whose = {"model": "pocket", "behavior": "honesty", "method": "weight", "adapter": "lora", "seed": seed}
        whose |= {"eval": "dilemmas", "effect": "discrimination"}
        lines.append(whose | {"slope": 0.2, "null_sd": 0.05, "z": 4.0, "largest": 2.0, "efficiency": 0.1})
        for name, (layer, slope, sd) in MODULES.items():
            lines.append(whose | {"module": name, "layer": layer, "slope": slope, "null_sd": sd, "largest": 1.0})
    return pl.DataFrame(lines, schema=SCHEMA)


def printed(frame: pl.DataFrame) -> list[list[str]]:
    console = Console(width=120, file=StringIO(), record=True)
    for each in attribution_tables(frame):
        console.print(each)
    return [line.split() for line in console.export_text().splitlines() if line.strip()]


def test_layers_and_kinds_of_modules_are_sums_of_their_modules():
    """What is printed must be a decomposition: modules of one kind lie in several layers, whose slopes add."""
    lines = {" ".join(line[:-5]): line[-5:] for line in printed(null(1))}
    assert lines["whole vector"] == ["+0.200", "0.050", "+4.0", "2.000", "0.100"]
    assert lines["layer 0"][:3] == ["+0.300", "0.030", "+10.0"]
    assert lines["layer 1"][:3] == ["−0.100", "0.040", "−2.5"]
    assert lines["mlp.up_proj"][:2] == ["+0.200", "0.050"]  # √(0.03² + 0.04²)


def test_several_seeds_are_a_mean_with_the_null_of_a_mean():
    """The mean of four random directions has half the spread of one; the slope stays what it is."""
    lines = {" ".join(line[:-5]): line[-5:] for line in printed(null(4))}
    assert lines["whole vector"][:3] == ["+0.200", f"{0.05 / math.sqrt(4):.3f}", "+8.0"]
