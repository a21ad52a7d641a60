"""The page of the ablations of a vector: complete, offline, and no claim without its control."""

import re
from functools import cache

import polars as pl
import pytest
from sweeps import some_items
from tiny import tiny
from vectors import made

from weightsteer.analysis import bases, plans
from weightsteer.analysis.ablation import measure
from weightsteer.analysis.overlap import alignment
from weightsteer.data.evals.base import Evaluation
from weightsteer.data.evals.neutral import Text
from weightsteer.experiments.ablation.page import write_ablations

RUN = {"model": {"name": "tiny"}, "config": {"seed": 0}}


class Rows(Evaluation):
    name = "rows"

    def rows(self, model):
        return some_items(8)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    model, v = made(folder / "lora", layers=[1, 2], targets=("q_proj", "o_proj", "up_proj", "down_proj"))
    v = v.with_metadata(behavior="kindness", adapter="lora")
    found = cache(lambda name, side, rank: bases.make(name, model, rank=rank, side=side, vector=v))
    given = plans.PlanInput(v, model, found, ("residual-write",), ranks=(2, 4), draws=2)
    listed = list(plans.whole(given))
    for plan in ("norms", "modules", "projection"):
        listed += [one for one in plans.ablations(plan, given) if one.family != "modules" or "MLP" in one.component]
    measured = measure(given, listed, tiny("qwen3")[1], [Rows()], [Text("one", "the river is long")], [-1.0, 0.0, 1.0])
    aligned = alignment(v, found, ("residual-write@both", "own"), 4).with_columns(seed=pl.lit(0))
    write_ablations(folder, {"kindness, lora": measured}, {"kindness, lora": aligned}, run=RUN, resamples=200)
    return folder


def test_the_page_has_maps_curves_and_both_published_tables(page):
    """A section that silently vanishes would be missed by nobody but the reader."""
    text = (page / "report.html").read_text()
    for expected in (
        "Layer by module",
        "Over rank",
        "Norms or directions",
        "Projection diagnostic",
        "Residual-write",
        "Norm-matched",
        "Mean shift along the label",
        "magnitude only",
        "layer-permuted",
        "Alignment: kindness, lora",
        "by construction",
        "Components of dW that carry kindness",
    ):
        assert expected in text, expected
    names = {path.name for path in (page / "charts").iterdir()}
    assert {"modules-kindness--lora-rows.svg", "rank-kindness--lora-rows.png"} <= names


def test_the_page_needs_no_network_and_no_script(page):
    """It is mailed around and opened years later."""
    text = (page / "report.html").read_text()
    assert "<script" not in text
    assert not re.findall(r'(?:src|href)="(?!#|https://arxiv\.org)[^"]*"', text)
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(ids) == len(set(ids))


def test_the_table_is_beside_the_page_with_every_column(page):
    """What the page rounds is read from here."""
    lines = pl.read_csv(page / "table.csv")
    needed = {
        "family",
        "component",
        "how",
        "rank",
        "energy",
        "effect_low",
        "retained_high",
        "damage",
        "n",
        "clusters",
        "seeds",
    }
    assert needed <= set(lines.columns)
    assert lines.height == pl.read_parquet(page / "table.parquet").height
    text = (page / "report.html").read_text()
    assert f"{lines.height} lines" in text


def test_the_same_measurement_gives_the_same_page(page, tmp_path):
    """Otherwise a report could not be checked against its inputs."""
    first = (page / "alignment.csv").read_bytes()
    frame = pl.read_csv(page / "alignment.csv", infer_schema_length=None)
    again = {"kindness, lora": frame.drop("vector").with_columns(pl.col("warning").cast(pl.String))}
    write_ablations(tmp_path, {}, again, run=RUN)
    assert (tmp_path / "alignment.csv").read_bytes() == first
    text = (tmp_path / "report.html").read_text()
    assert "Kindness in the subspaces of its model" in text
    assert "No subspace contains more" in text or "contain more of ‖dW‖²" in text
