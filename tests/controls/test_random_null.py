"""The null of random directions, against drawn ones, its own gradient, and its parts."""

import math

import polars as pl
import pytest
import torch
from sweeps import some_items
from tiny import tiny
from vectors import vector_of

import weightsteer as ws
from weightsteer.activation import ActivationVector
from weightsteer.controls import draws
from weightsteer.controls.random_null import random_null
from weightsteer.data.evals import Item, user_turn
from weightsteer.inference.gradients import NoGradient
from weightsteer.stats.null import SCHEMA


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    model, tokenizer = tiny("qwen3", layers=2)
    return model, tokenizer, vector_of(model, tmp_path_factory.mktemp("lora"))


def whole(null: pl.DataFrame) -> pl.DataFrame:
    return null.filter(pl.col("module").is_null())


def test_it_is_the_spread_of_drawn_directions(made):
    """The one claim on which verdicts rest. 200 draws: the ratio of the two is known to 5%."""
    model, tokenizer, vector = made
    items, alpha = some_items(12), 1e-3
    drawn = draws("random", vector, 200)
    rows = ws.sweep(model, tokenizer, drawn, items, [alpha], shown=False)
    found = ws.summarize(rows, by_seed=True, resamples=1).filter(alpha=alpha)
    null = whole(random_null(model, tokenizer, vector, items, shown=False))
    for effect in ("discrimination", "bias"):
        spread = math.sqrt((found[effect] ** 2).mean()) / alpha
        assert spread == pytest.approx(null.filter(effect=effect)["null_sd"].item(), rel=0.2)


def test_slope_is_the_derivative_of_the_effect(made):
    """Against effects that the sweep measures, which knows nothing of gradients."""
    model, tokenizer, vector = made
    items, alpha = some_items(12), 1e-3
    rows = ws.sweep(model, tokenizer, vector, items, [-alpha, alpha], shown=False)
    summary = ws.summarize(rows, resamples=1)
    null = whole(random_null(model, tokenizer, vector, items, shown=False))
    for effect in ("discrimination", "bias"):
        up, down = (summary.filter(alpha=each)[effect].item() for each in (alpha, -alpha))
        assert (up - down) / (2 * alpha) == pytest.approx(
            null.filter(effect=effect)["slope"].item(), rel=0.02, abs=1e-3
        )


def test_modules_add_up_to_the_vector(made):
    """Attribution is a decomposition: slopes and variances of the modules are those of the whole."""
    model, tokenizer, vector = made
    null = random_null(model, tokenizer, vector, some_items(), shown=False)
    assert dict(null.schema) == SCHEMA
    for effect in ("discrimination", "bias"):
        own = null.filter(pl.col("effect") == effect, pl.col("module").is_not_null())
        total = whole(null).filter(effect=effect).row(0, named=True)
        assert own["module"].to_list() == vector.names
        assert set(own["layer"]) == {0, 1}
        assert own["slope"].sum() == pytest.approx(total["slope"])
        assert own["largest"].sum() == pytest.approx(total["largest"])
        assert math.sqrt((own["null_sd"] ** 2).sum()) == pytest.approx(total["null_sd"])
        assert total["z"] == pytest.approx(total["slope"] / total["null_sd"])
        assert abs(total["efficiency"]) < 1


def test_little_memory_gives_the_same_numbers(made):
    """Module by module where the gradients of all do not fit."""
    model, tokenizer, vector = made
    once = random_null(model, tokenizer, vector, some_items(), shown=False)
    streamed = random_null(model, tokenizer, vector, some_items(), memory=1, shown=False)
    for name in ("slope", "null_sd", "largest"):
        assert streamed[name].to_list() == pytest.approx(once[name].to_list(), rel=1e-4, abs=1e-6)


def test_several_vectors_at_once_are_each_its_own(made):
    """They share one gradient, and nothing else; a direction in the residual stream among them."""
    model, tokenizer, vector = made
    half = (0.5 * vector).with_metadata(adapter="half")
    width = model.config.hidden_size
    steering = ActivationVector(
        {"model.layers.1": torch.ones(width)}, {"adapter": "ones", "base": vector.metadata["base"]}
    )
    null = whole(random_null(model, tokenizer, [vector, half, steering], some_items(), shown=False))
    one, two, three = (null.filter(adapter=each).sort("effect") for each in ("lora", "half", "ones"))
    assert two["slope"].to_list() == pytest.approx((one["slope"] / 2).to_list(), rel=1e-5)
    assert two["z"].to_list() == pytest.approx(one["z"].to_list(), rel=1e-5)
    assert three["null_sd"].to_list() == pytest.approx((three["largest"] / math.sqrt(width)).to_list(), rel=1e-5)


def test_without_two_labels_there_is_nothing_and_thoughts_have_no_gradient(made):
    """Neither effect exists on one label alone; a sampled thought is no function of the weights."""
    model, tokenizer, vector = made
    one = [item for item in some_items() if item.label == 1]
    assert random_null(model, tokenizer, vector, one, shown=False).is_empty()
    thinking = Item("t", "t", 1, user_turn("Is it so?"), thinking_tokens=4)
    with pytest.raises(NoGradient, match="null_of_draws"):
        random_null(model, tokenizer, vector, [thinking], shown=False)
