"""Parts measured over identical rows: the table, its intervals, and a measurement that was interrupted."""

from functools import cache, partial

import polars as pl
import pytest
from adapters_of import random_adapter
from sweeps import some_items
from tiny import tiny
from vectors import made

from weightsteer.analysis import ablation, plans
from weightsteer.analysis.ablation import SCHEMA, WHOLE, Measured, energy_share, measure, table
from weightsteer.analysis.plans import Ablation, PlanInput, coordinates
from weightsteer.data.evals.base import Evaluation
from weightsteer.data.evals.neutral import Text
from weightsteer.errors import WeightsteerError
from weightsteer.experiments.ablation.reading import sentences, verdicts, versions
from weightsteer.measure import sweep
from weightsteer.stats import summarize
from weightsteer.vector import WeightVector

ALPHAS = [-1.0, 0.0, 1.0]
TEXTS = [Text("one", "the river is long and the bread is old"), Text("two", "tell the truth about rivers and stones")]


class Rows(Evaluation):
    name = "rows"

    def rows(self, model):
        return some_items(8)


def no_basis(name, side, rank):
    raise AssertionError("no basis is needed")


@cache
def scene(folder, seed=0):
    model, v = made(folder)
    v = v.with_metadata(seed=seed, behavior="test")
    given = PlanInput(v, model, no_basis, draws=2)
    listed = [*plans.whole(given), *(part for part in plans.ablations("layers", given) if "layer 1" in part.part)]
    return model, v, given, listed


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("ablation")


@cache
def found(folder):
    _, _, given, listed = scene(folder)
    return measure(given, listed, tiny("qwen3")[1], [Rows()], TEXTS, ALPHAS)


def test_the_table_has_one_line_per_part_and_strength_over_the_same_rows(folder):
    """One table for everything: a part on other rows, or twice, would be compared with something else."""
    *_, listed = scene(folder)
    lines = table(found(folder), resamples=200)
    assert lines.schema == pl.Schema(SCHEMA)
    assert lines.height == 2 * len({part.key for part in listed})
    assert lines["n"].unique().to_list() == [8]
    assert lines["clusters"].unique().to_list() == [4]
    whole = lines.filter(pl.col("key") == WHOLE)
    assert whole["retained"].to_list() == [1.0, 1.0]
    assert whole["energy"].to_list() == pytest.approx([1.0, 1.0])
    assert lines.filter(control=True)["draws"].unique().to_list() == [2]
    assert lines["damage"].null_count() == 0


def test_effects_are_those_of_summarize_with_their_own_sign(folder):
    """The comparison counts effects along the sign of the strength; a reader of the table expects the effect itself."""
    measured = found(folder)
    lines = table(measured, resamples=200)
    theirs = summarize(measured.rows, resamples=200).select("adapter", "alpha", "discrimination")
    both = lines.join(theirs, left_on=["key", "alpha"], right_on=["adapter", "alpha"])
    assert both.height == lines.height
    assert (both["effect"] - both["discrimination"]).abs().max() < 1e-9
    assert both.filter(pl.col("effect_low") > pl.col("effect")).is_empty()
    kept = both.filter(part="layer 1", how="keep", matched=False, alpha=-1.0).row(0, named=True)
    whole = both.filter(pl.col("key") == WHOLE, pl.col("alpha") == -1.0).row(0, named=True)
    if kept["retained"] is not None:
        assert kept["retained"] == pytest.approx(kept["effect"] / whole["effect"])


def test_energy_shares_of_complementary_parts_add_to_one(folder):
    """They are shares of ‖dW‖²: otherwise a map of them is no map of the vector."""
    _, v, _, listed = scene(folder)
    shares = [energy_share(v, part.vector) for part in listed if part.part == "layer 1" and not part.matched]
    assert len(shares) == 2
    assert sum(shares) == pytest.approx(1.0)


def test_an_interrupted_measurement_goes_on_where_it_was(folder, tmp_path, monkeypatch):
    """Hundreds of parts take minutes; what was swept must not be swept again, and must be the same."""
    _, _, given, listed = scene(folder)
    monkeypatch.setattr(ablation, "CHUNK", 3)
    swept = []

    def breaking(model, tokenizer, chosen, *rest, **options):
        if len(swept) == 2:
            raise KeyboardInterrupt
        swept.append(len(chosen))
        return sweep(model, tokenizer, chosen, *rest, **options)

    again = partial(measure, given, listed, tiny("qwen3")[1], [Rows()], TEXTS, ALPHAS, kept=tmp_path)
    monkeypatch.setattr(ablation, "sweep", breaking)
    with pytest.raises(KeyboardInterrupt):
        again()
    monkeypatch.setattr(ablation, "sweep", lambda *a, **k: swept.append(len(a[2])) or sweep(*a, **k))
    done = again()
    assert sum(swept) == len(listed)
    assert done.parts.equals(found(folder).parts)
    # the base is computed with the first vector of a chunk
    columns = ["adapter", "seed", "draw", "alpha", "item"]
    both = done.rows.sort(columns).join(
        found(folder).rows, on=columns, suffix="_whole", validate="1:1", nulls_equal=True
    )
    assert (both["logratio"] - both["logratio_whole"]).abs().max() < 1e-4


def test_what_cannot_be_made_is_skipped_with_its_reason(folder):
    """A vector that knows no branches must not end an analysis of hundreds of parts."""
    _, v, given, listed = scene(folder)

    def impossible():
        raise WeightsteerError("it has no such part.")

    zero = v - v
    broken = [Ablation("norms", "none", "keep", impossible), Ablation("norms", "zero", "keep", lambda: zero)]
    done = measure(given, [listed[0], *broken], tiny("qwen3")[1], [Rows()], TEXTS, ALPHAS)
    assert [key for key, _ in done.skipped] == ["norms/none/keep", "norms/zero/keep"]
    assert "no such part" in done.skipped[0][1]
    assert done.parts["key"].to_list() == [WHOLE]


def test_draws_of_several_training_seeds_are_told_apart(folder):
    """Ten draws of one training are not ten trainings: the table must count both."""
    one = found(folder)
    shift = {name: getattr(one, name).with_columns(seed=pl.col("seed") + 1) for name in ("rows", "damage", "parts")}
    lines = table(Measured.joined([one, Measured(**shift)]), resamples=200)
    assert set(one.rows.select("seed", "draw").rows()) == {(0, None), (0, 0), (0, 1)}
    assert lines["seeds"].unique().to_list() == [2]
    assert set(lines.filter(control=True)["draws"]) == {2}
    assert set(lines.filter(control=False)["draws"]) == {1}


def test_a_path_is_swept_like_a_part(tmp_path):
    """A curve through the rotations has other weights at each strength, and stands in the same table."""
    model, tokenizer = tiny("qwen3", layers=2)
    folders = [random_adapter("oft", model, tmp_path / str(seed), seed, std=0.3) for seed in (1, 2)]
    v = WeightVector.from_adapters(*folders, model)
    given = PlanInput(v, model, no_basis, alphas=(-1.0, 1.0), draws=2)
    path = plans.Ablation("coordinates", "path", "whole", lambda: coordinates.path(v, given.alphas))
    done = measure(given, [next(plans.whole(given)), path], tokenizer, [Rows()], TEXTS, ALPHAS)
    lines = table(done, resamples=200).filter(part="path")
    assert lines["alpha"].to_list() == [-1.0, 1.0]
    assert lines["energy"].null_count() == 2


def test_nothing_is_said_to_suffice_without_its_control(folder):
    """A crop of a vector that keeps its effect proves nothing while a random push of that size might do the same."""
    lines = table(found(folder), resamples=200).with_columns(
        pl.lit(1.0).alias("effect"), effect_low=pl.lit(0.9), effect_high=pl.lit(1.1)
    )
    ideal = pl.when(pl.col("control")).then(0.0).otherwise(1.0)
    lines = lines.with_columns(retained=ideal, retained_low=ideal - 0.1, retained_high=ideal + 0.1)
    assert len(versions(lines)) == 2
    said = {one.part: one for one in verdicts(lines)}
    assert said["layer 1"].suffices
    assert any(sentence.startswith("Sufficient: layer 1") for sentence in sentences(lines))
    for missing in (pl.col("control"), pl.col("matched") & ~pl.col("control")):
        fewer = lines.filter(~missing | (pl.col("family") == "whole"))
        assert {one.part: one for one in verdicts(fewer)}["layer 1"].suffices is None
        assert not any(sentence.startswith("Sufficient") for sentence in sentences(fewer))


def test_a_table_without_the_whole_vector_is_refused(folder):
    """Retained effects need what they are retained of."""
    measured = found(folder)
    with pytest.raises(WeightsteerError, match="whole vector"):
        table(Measured(measured.rows.filter(pl.col("adapter") != WHOLE), measured.damage, measured.parts))
