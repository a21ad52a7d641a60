"""The table a sweep returns, the prompts in it, and what is refused."""

import math
from collections.abc import Callable
from typing import Any

import polars as pl
import pytest
import torch
from sweeps import ALPHAS, SCORES, TOLERANCE, Says, Shift, assert_same, hooks, some_items, twins
from tiny import tiny
from torch import Tensor, nn

from weightsteer import measure as engine
from weightsteer.data.evals import Item, load, user_turn
from weightsteer.errors import WeightsteerError
from weightsteer.inference.prefixes import Pack
from weightsteer.measure import sweep, sweeping
from weightsteer.measure.rows import check_same_rows


def test_frame_has_one_line_per_intervention_strength_and_row() -> None:
    """Everything downstream reads these columns, in this order and with these types."""
    model, tokenizer = tiny("qwen3")
    items = some_items(4)
    several = [
        Shift(["model.layers.1"], seed=3, adapter="lora"),
        Shift(["model.layers.2"], seed=4, adapter="lora"),
    ]
    rows = sweep(model, tokenizer, several, items, [1.0, -1.0], shown=False)
    assert dict(rows.schema) == engine.SCHEMA
    assert len(rows) == 2 * 3 * 4
    assert rows.select("seed", "alpha", "item").is_unique().all()
    assert rows["item"].to_list() == [item.item for item in items] * 6
    assert rows["seed"].to_list() == [3] * 12 + [4] * 12
    assert rows["alpha"].to_list() == ([-1.0] * 4 + [0.0] * 4 + [1.0] * 4) * 2
    one = rows.row(1, named=True)
    assert (one["model"], one["behavior"], one["method"]) == ("tiny-qwen3", "test", "activation")
    assert (one["adapter"], one["eval"], one["cluster"], one["label"]) == ("lora", "items", "pair-0", 1)
    base = rows.filter(pl.col("alpha") == 0.0)
    assert base["logratio"].to_list()[:4] == base["logratio"].to_list()[4:]

    nameless = Shift(["model.layers.1"])
    nameless.metadata = {}
    rows = sweep(model, tokenizer, nameless, items, [1.0], shown=False)
    assert dict(rows.schema) == engine.SCHEMA
    assert rows.select("behavior", "adapter", "seed").null_count().row(0) == (8, 8, 8)


def test_an_evaluation_gives_its_name_and_signed_labels() -> None:
    """Rows of a behaviour of opposite polarity would be counted the wrong way round."""
    model, tokenizer = tiny("qwen3")
    for sign in (1, -1):
        evaluation = load("sycophancy", sign=sign, limit=4)
        rows = sweep(model, tokenizer, Shift(["model.layers.1"]), evaluation, [1.0], shown=False)
        assert rows["eval"].unique().to_list() == ["sycophancy"]
        false = rows.filter(pl.col("item").str.ends_with("-false"))
        assert set(false["label"]) == {sign}


def test_low_mass_is_flagged_and_mass_is_a_probability() -> None:
    """A model that answers something else than the choices would pass for one that answers them."""
    model, tokenizer = tiny("qwen3")
    items = some_items(6)
    elsewhere = Shift(["lm_head"])
    elsewhere.direction = nn.functional.one_hot(torch.tensor(5), model.config.vocab_size).float()
    rows = sweep(model, tokenizer, elsewhere, items, [0.0, 20.0], shown=False)
    assert rows["pmass"].is_between(0.0, 1.0 + 1e-6).all()
    assert not rows.filter(pl.col("alpha") == 0.0)["low_pmass"].any()
    assert rows.filter(pl.col("alpha") == 20.0)["low_pmass"].all()
    assert rows.filter(pl.col("alpha") == 20.0)["pmass"].max() < 1e-3
    # adding to another token's logit moves mass, not the ratio
    plain_rows, moved = (rows.filter(pl.col("alpha") == alpha)["logratio"] for alpha in (0.0, 20.0))
    assert (plain_rows - moved).abs().max() < TOLERANCE


@pytest.mark.parametrize("alphas", [[1.0, 1.0], [0.0, -0.0], [math.nan], [1.0, math.inf]])
def test_strengths_that_make_no_sense_are_refused(alphas: list[float]) -> None:
    """A strength that occurs twice would count its rows twice; NaN would poison the summary."""
    model, tokenizer = tiny("qwen3")
    with pytest.raises(WeightsteerError, match="strength"):
        sweep(model, tokenizer, Shift(["model.layers.1"]), some_items(2), alphas, shown=False)


def test_interventions_that_look_alike_are_refused() -> None:
    """Two vectors under one name would be averaged as if they were one."""
    model, tokenizer = tiny("qwen3")
    twins = [Shift(["model.layers.1"]), Shift(["model.layers.2"])]
    with pytest.raises(WeightsteerError, match="cannot be distinguished"):
        sweep(model, tokenizer, twins, some_items(2), [1.0], shown=False)
    with pytest.raises(WeightsteerError, match="at least one intervention"):
        sweep(model, tokenizer, [], some_items(2), [1.0], shown=False)


def test_a_row_too_long_for_the_model_is_named() -> None:
    """Cutting it would cut the question or the answer prefix, and score another row than the one asked for."""
    model, tokenizer = tiny("qwen3")
    items = [*some_items(2), Item("endless", "endless", 1, user_turn("bread " * 600))]
    with pytest.raises(WeightsteerError, match=r"'endless' has \d+ tokens.*at most 512"):
        sweep(model, tokenizer, Shift(["model.layers.1"]), items, [1.0], shown=False)


def test_rows_are_checked() -> None:
    """Duplicate identifiers cannot be paired, and no rows give an empty table without a word."""
    model, tokenizer = tiny("qwen3")
    with pytest.raises(WeightsteerError, match="'row-0' occurs 2 times"):
        sweep(model, tokenizer, Shift([]), some_items(2) + some_items(1), [1.0], shown=False)
    with pytest.raises(WeightsteerError, match="no rows"):
        sweep(model, tokenizer, Shift([]), [], [1.0], shown=False)


def test_nan_of_the_model_is_an_error_and_nan_of_steering_stays() -> None:
    """A NaN clipped away could make a broken strength look like the best one."""
    model, tokenizer = tiny("qwen3")
    items = some_items(3)

    class Exploding(Shift):
        def modify(self, name: str, module: nn.Module) -> Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]:
            def exploded(x: Tensor, own: Tensor, y: Tensor, alpha: Tensor) -> Tensor:
                return torch.where(alpha.view(-1, 1, 1) > 1, torch.nan, y)

            return exploded

    rows = sweep(model, tokenizer, Exploding(["model.layers.2"]), items, [1.0, 2.0], shown=False)
    steered = pl.col("alpha") == 2.0
    assert rows.filter(steered)["logratio"].is_nan().all()
    assert rows.filter(steered)["pmass"].is_nan().all()
    assert rows.filter(steered)["low_pmass"].all()
    assert not rows.filter(~steered)["logratio"].is_nan().any()
    with torch.no_grad():
        model.model.norm.weight[0] = torch.nan
    with pytest.raises(WeightsteerError, match="'row-0' has NaN logits at α = 0"):
        sweep(model, tokenizer, Shift(["model.layers.1"]), items, [1.0], shown=False)


def test_a_failing_sweep_leaves_the_model_as_it_was() -> None:
    """A hook left behind would steer everything computed afterwards."""
    model, tokenizer = tiny("qwen3")
    model.train()

    class Failing(Shift):
        def modify(self, name: str, module: nn.Module) -> Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]:
            def fail(x: Tensor, own: Tensor, y: Tensor, alpha: Tensor) -> Tensor:
                raise RuntimeError("broken")

            return fail

    with pytest.raises(RuntimeError, match="broken"):
        sweep(model, tokenizer, Failing(["model.layers.2"]), some_items(2), [1.0], shown=False)
    assert not list(hooks(model))
    assert model.training


def test_running_out_of_memory_halves_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """A long sweep would die on its longest rows, or come back with rows missing."""
    model, tokenizer = tiny("qwen3")
    items, intervention = [*some_items(9), *twins()], Shift(["model.layers.1"])
    expected = sweep(model, tokenizer, intervention, items, ALPHAS, shown=False)
    answer, sizes = sweeping.answer_logits, []

    def limited(
        model: Any, intervention: Any, packs: list[Pack], alphas: Tensor, room: int = 2, **options: Any
    ) -> Tensor:
        rows = sum(len(one.rows) for one in packs)
        sizes.append(rows)
        if rows > room:
            raise torch.OutOfMemoryError("no room")
        return answer(model, intervention, packs, alphas, **options)

    monkeypatch.setattr(sweeping, "answer_logits", limited)
    rows = sweep(model, tokenizer, intervention, items, ALPHAS, shown=False)
    assert max(sizes) > 2
    assert_same(rows, expected.select(SCORES))

    monkeypatch.setattr(sweeping, "answer_logits", lambda *args, **options: limited(*args, **options, room=0))
    with pytest.raises(WeightsteerError, match="out of memory on a single row"):
        sweep(model, tokenizer, intervention, items, ALPHAS, shown=False)


def test_prompts_are_swept_beside_vectors_over_the_same_rows() -> None:
    """A prompt and a vector would be compared over different rows, or against different base numbers."""
    model, tokenizer = tiny("qwen3")
    items = some_items(5)
    vector = Shift(["model.layers.2"], seed=7)
    for chosen in ([Says(), vector], [vector, Says()], [Says()]):
        rows = sweep(model, tokenizer, chosen, items, ALPHAS[:3], shown=False)
        said = rows.filter(pl.col("method") == "prompt")
        # 0.5 is asked for, but the prompt is not defined there
        assert said["alpha"].unique(maintain_order=True).to_list() == [-1.0, 0.0]
        assert rows.head(1)["method"].item() == chosen[0].method
        base = rows.filter(pl.col("alpha") == 0.0).partition_by("adapter")
        assert all(part["logratio"].equals(base[0]["logratio"]) for part in base)
        plainly = [
            Item(
                item.item,
                item.cluster,
                item.label,
                tuple(Says().messages(list(item.messages), -1.0, tokenizer)),
                item.choices,
                item.answer_prefix,
            )
            for item in items
        ]
        expected = sweep(model, tokenizer, Shift([]), plainly, [0.0], shown=False)["logratio"]
        found = said.filter(pl.col("alpha") == -1.0)["logratio"]
        assert (expected - found).abs().max() < TOLERANCE
        assert (found - base[0]["logratio"]).abs().max() > 0.01


def test_interventions_over_different_rows_are_refused() -> None:
    """Means over different rows would be set side by side as if they were paired."""
    model, tokenizer = tiny("qwen3")
    several = [Shift(["model.layers.1"], seed=1), Shift(["model.layers.2"], seed=2)]
    rows = sweep(model, tokenizer, several, some_items(3), [1.0], shown=False)
    check_same_rows(rows)
    with pytest.raises(WeightsteerError, match="not scored on the same rows: 1 rows, for example 'row-2'"):
        check_same_rows(rows.filter(~((pl.col("seed") == 2) & (pl.col("item") == "row-2"))))


def test_another_base_is_steered_only_on_request() -> None:
    """A vector would be swept on weights it was not made for; or could not be swept on another fine-tune at all."""
    model, tokenizer = tiny("qwen3")
    foreign = Shift(["model.layers.1"], base={"name": "other", "hash": "0" * 32})
    with pytest.raises(WeightsteerError, match="other_base"):
        sweep(model, tokenizer, foreign, some_items(2), [1.0], shown=False)
    rows = sweep(model, tokenizer, foreign, some_items(2), [1.0], other_base=True, shown=False)
    own = sweep(model, tokenizer, Shift(["model.layers.1"]), some_items(2), [1.0], shown=False)
    assert_same(rows, own.select(SCORES))
