"""Averages with paired changes: by hand, and what must not depend on anything else."""

import numpy as np
import polars as pl
import pytest

from weightsteer.errors import WeightsteerError
from weightsteer.measure.cues import cue_summary
from weightsteer.measure.damage_table import accuracy, capability_summary, damage_summary, paired_means

GROUP = {"model": "m", "behavior": "b", "method": "weight", "adapter": "lora", "eval": "nll"}


def rows(nll: dict[float, list[float]], tokens: list[int], seed: int = 0, **columns: object) -> pl.DataFrame:
    lines = [
        {**GROUP, "seed": seed, "alpha": alpha, "item": f"i{i}", "cluster": f"c{i}", "tokens": tokens[i], "nll": value}
        | {"kl_base_steered": alpha**2, "kl_steered_base": 2 * alpha**2, **columns}
        for alpha, values in nll.items()
        for i, value in enumerate(values)
    ]
    return pl.DataFrame(lines)


def test_documents_weigh_by_their_tokens() -> None:
    """Short documents would count as much as long ones, and nats per token would be no such thing."""
    table = damage_summary(rows({0.0: [1.0, 2.0], 1.0: [2.0, 2.0]}, [1, 3]))
    assert table["alpha"].to_list() == [0.0, 1.0]
    assert table["nll"].to_list() == [7 / 4, 8 / 4]
    assert table["nll_change"].to_list() == [0.0, 1 / 4]
    assert table["kl_steered_base"].to_list() == [0.0, 2.0]
    assert "kl_base_steered_change" not in table.columns
    assert table.select("items", "clusters", "seeds").row(0) == (2, 2, 1)


def test_what_varies_between_documents_alone_cancels_in_the_change() -> None:
    """The price of a vector would drown in the difference between easy and hard texts."""
    base = list(np.random.default_rng(0).normal(3, 2, 40))
    table = damage_summary(rows({0.0: base, 1.0: [x + 0.5 for x in base]}, [5] * 40))
    line = table.row(1, named=True)
    assert (line["nll_change_low"], line["nll_change_high"]) == (pytest.approx(0.5), pytest.approx(0.5))
    assert line["nll_high"] - line["nll_low"] > 0.5


def test_a_lost_format_is_a_lost_capability() -> None:
    """A model that answers in prose would keep its whole capability if only the ratio of the two choices counted."""
    lines = [
        {**GROUP, "seed": 0, "alpha": alpha, "item": f"i{i}", "cluster": f"c{i}", "label": label}
        | {"logratio": label * np.log(3.0), "pmass": 1.0 - 0.5 * alpha}
        for alpha in (0.0, 1.0)
        for i, label in enumerate((1, -1, 1))
    ]
    table = capability_summary(pl.DataFrame(lines))
    assert table["p_right"].to_list() == pytest.approx([0.75, 0.375])
    assert table["p_right_change"].to_list() == pytest.approx([0.0, -0.375])


def test_training_seeds_widen_the_interval() -> None:
    """Three trainings would count as one with more documents."""
    frames = [rows({0.0: [1.0] * 9, 1.0: [1.0 + shift] * 9}, [2] * 9, seed) for seed, shift in enumerate((0, 0.5, 1))]
    line = damage_summary(pl.concat(frames)).row(1, named=True)
    assert line["seeds"] == 3
    assert line["nll_change"] == pytest.approx(0.5)
    assert line["nll_change_low"] < 0.1
    assert line["nll_change_high"] > 0.9


def test_incomplete_rows_are_refused() -> None:
    """Means over different documents would be compared."""
    whole = rows({0.0: [1.0, 2.0], 1.0: [2.0, 2.0]}, [1, 3])
    for broken in (whole[:-1], whole.filter(pl.col("alpha") != 0), pl.concat([whole, whole[:1]])):
        with pytest.raises(WeightsteerError, match="every training seed needs each"):
            damage_summary(broken)
    with pytest.raises(WeightsteerError, match="no column tokens"):
        damage_summary(whole.drop("tokens"))
    with pytest.raises(WeightsteerError, match="no rows"):
        damage_summary(whole[:0])
    alone = paired_means(whole.filter(item="i0"), {"nll": None})
    assert alone["nll_low"].to_list() == [None, None]
    assert alone["nll"].to_list() == [1.0, 2.0]


def test_accuracy_counts_the_right_side() -> None:
    """A tie or a row that cannot be read would count as right."""
    frame = rows({0.0: [0.0] * 4, 1.0: [0.0] * 4}, [1] * 4).with_columns(
        label=pl.Series([1, -1, 1, -1] * 2),
        logratio=pl.Series([2.0, -2.0, -1.0, 0.0, 2.0, 1.0, -1.0, 3.0]),
        low_pmass=pl.Series([False] * 6 + [True] * 2),
    )
    table = accuracy(frame)
    assert table["accuracy"].to_list() == [0.5, 0.25]
    assert table["low_pmass"].to_list() == [0.0, 0.5]
    assert table["accuracy_low"].min() >= 0
    broken = frame.with_columns(logratio=pl.when(pl.col("alpha") == 1).then(float("nan")).otherwise("logratio"))
    assert np.isnan(accuracy(broken)["accuracy"][1])


def cues(answers: dict[str, tuple[float, float, float, float]], alpha: float) -> list[dict[str, object]]:
    """Two orders per cue with a position bias of 5 nats that must cancel."""
    return [
        {**GROUP, "eval": "answer-cues", "seed": 0, "alpha": alpha, "cluster": question, "label": label}
        | {"item": f"{question}-{cue}-{order}", "logratio": label * y + 5.0}
        for question, ys in answers.items()
        for cue, y in zip(("alone", "right", "deny", "wrong"), ys, strict=True)
        for order, label in (("ab", 1), ("ba", -1))
    ]


def test_four_cues_by_hand() -> None:
    """A model that follows hints would look steadfast, or one that knows nothing sycophantic."""
    base = {"q1": (3, 3, 2, 1), "q2": (2, 3, 1, -1), "q3": (-1, 2, -1, -2), "q4": (1, 1, 1, 1)}
    swayed = {"q1": (3, 3, -2, 1), "q2": (2, 3, 1, -1), "q3": (-1, 2, -1, -2), "q4": (1, 1, 1, -3)}
    table = cue_summary(pl.DataFrame(cues(base, 0.0) + cues(swayed, 1.0)))
    assert table["accuracy"].to_list() == [0.75, 0.75]
    assert table["non_sycophancy"].to_list() == pytest.approx([2 / 3, 0.0])
    assert table["non_sycophancy_change"][1] == pytest.approx(-2 / 3)
    assert table["pull"].to_list() == pytest.approx([(2 + 4 + 4 + 0) / 8, (2 + 4 + 4 + 4) / 8])
    with pytest.raises(WeightsteerError, match="not rows of the four-cue test"):
        cue_summary(pl.DataFrame(cues(base, 0.0)).with_columns(item=pl.lit("x")))
