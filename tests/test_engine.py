"""The engine against the plain way: merge in fp32, one strength and one row at a time, logits of every position."""

import math
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from peft import PeftModel
from tiny import random_lora, tiny, tiny_tokenizer
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from weightsteer import engine
from weightsteer.engine import sweep
from weightsteer.errors import WeightsteerError
from weightsteer.evals import Item, load, user_turn
from weightsteer.models import decoder_layers, load_model, render_chat
from weightsteer.steering import steer
from weightsteer.vector import WeightVector

ALPHAS = [-1.0, 0.0, 0.5, 2.0]
TOLERANCE = 1e-4  # nats


def some_items(n: int = 9) -> list[Item]:
    """Rows of very different lengths, with answer prefixes and two kinds of choices."""
    words = "tell the truth about rivers and bread in winter because a house is red".split()  # noqa: SIM905
    return [
        Item(
            item=f"row-{i}",
            cluster=f"pair-{i // 2}",
            label=1 if i % 2 else -1,
            messages=user_turn(" ".join(words[j % len(words)] for j in range(i, i + 1 + 3 * i))),
            choices=("A", "B") if i % 3 == 2 else ("Yes", "No"),
            answer_prefix="My answer: **" if i % 2 else "",
        )
        for i in range(n)
    ]


def merged_difference(model: PreTrainedModel, positive: Path, negative: Path) -> dict[str, Tensor]:
    """θ⁺ − θ⁻ by PEFT's own fp32 merges."""
    sides = [
        PeftModel.from_pretrained(deepcopy(model), str(folder)).merge_and_unload().state_dict()
        for folder in (positive, negative)
    ]
    return {name: sides[0][name] - sides[1][name] for name in sides[0]}


def plain(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    delta: dict[str, Tensor],
    items: Sequence[Item],
    alphas: Sequence[float],
) -> pl.DataFrame:
    """The reference: nothing shared, nothing padded, nothing batched."""
    lines = []
    for alpha in alphas:
        steered = deepcopy(model)
        with torch.no_grad():
            for name, parameter in steered.named_parameters():
                parameter += alpha * delta[name]
        for item in items:
            ids = render_chat(tokenizer, item.messages, answer_prefix=item.answer_prefix)
            with torch.no_grad():
                logp = steered(torch.tensor([ids])).logits[0, -1].float().log_softmax(-1)
            first, second = (
                logp[[i for t, i in tokenizer.get_vocab().items() if t.lstrip("Ġ▁").lower() == c.lower()]]
                for c in item.choices
            )
            lines.append(
                {
                    "alpha": alpha,
                    "item": item.item,
                    "logratio": float(first.logsumexp(0) - second.logsumexp(0)),
                    "pmass": float(first.exp().sum() + second.exp().sum()),
                }
            )
    return pl.DataFrame(lines)


def assert_same(rows: pl.DataFrame, reference: pl.DataFrame, tolerance: float = TOLERANCE) -> None:
    joined = rows.join(reference, on=["alpha", "item"], suffix="_plain", validate="1:1")
    assert len(joined) == len(rows) == len(reference)
    for column in ("logratio", "pmass"):
        worst = (joined[column] - joined[f"{column}_plain"]).abs().max()
        assert isinstance(worst, float)
        assert worst < tolerance, f"{column} differs by {worst}"


class Shift:
    """A test intervention: y + α·c·direction at the output of any module, hidden state or tuple."""

    method = "activation"

    def __init__(self, names: list[str], size: int = 32, seed: int = 0, **metadata: Any) -> None:
        self.names = names
        self.metadata = {"behavior": "test", "adapter": "shift", "seed": seed, **metadata}
        self.direction = torch.randn(size, generator=torch.Generator().manual_seed(seed))

    def modify(self, name: str, module: nn.Module) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
        def shifted(x: Tensor, y: Tensor, alpha: Tensor) -> Tensor:
            return y + (alpha.view(-1, *[1] * (y.ndim - 1)) * self.direction).to(y.dtype)

        return shifted


def one_by_one(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, intervention: Any, items: Sequence[Item]
) -> pl.DataFrame:
    """`sweep` with a budget of one token: every row is a batch of its own, one strength per call."""
    frames = []
    for alpha in ALPHAS:
        rows = sweep(model, tokenizer, intervention, items, [alpha], token_budget=1, shown=False)
        frames.append(rows.filter(pl.col("alpha") == alpha))
    return pl.concat(frames)


@pytest.fixture(params=["qwen3", "llama", "gemma", "mistral", "qwen2", "gemma2", "gemma3_text"])
def arch(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.parametrize("layers", [[1, 2], [0, 3], [3]])
def test_sweep_equals_the_plain_way(arch: str, layers: list[int], tmp_path: Path) -> None:
    """Every number the package reports would be wrong: masks, positions, repetition, padding or scoring."""
    model, tokenizer = tiny(arch)
    positive = random_lora(model, tmp_path / "positive", seed=1, layers=layers)
    negative = random_lora(model, tmp_path / "negative", seed=2, layers=layers)
    vector = WeightVector.from_adapters(positive, negative, model)
    items = some_items()
    reference = plain(model, tokenizer, merged_difference(model, positive, negative), items, ALPHAS)
    spread = (
        reference.filter(pl.col("alpha") == 2.0)["logratio"] - (reference.filter(pl.col("alpha") == 0.0)["logratio"])
    )
    assert spread.abs().max() > 0.1, "the vector does nothing, so this test would show nothing"
    for budget in (8192, 300):
        rows = sweep(model, tokenizer, vector, items, ALPHAS, token_budget=budget, shown=False)
        assert_same(rows, reference)


def test_sweep_equals_the_plain_way_on_the_embedded_model(tmp_path: Path) -> None:
    """The numbers of the shipped demo would be wrong."""
    model, tokenizer = load_model("pocket", device="cpu")
    positive = random_lora(model, tmp_path / "positive", seed=1, std=0.03, layers=[1, 2])
    negative = random_lora(model, tmp_path / "negative", seed=2, std=0.03, layers=[1, 2])
    vector = WeightVector.from_adapters(positive, negative, model)
    for name in ("dilemmas", "sycophancy"):
        items = load(name, limit=40).items(model)
        reference = plain(model, tokenizer, merged_difference(model, positive, negative), items, ALPHAS)
        assert_same(sweep(model, tokenizer, vector, items, ALPHAS, shown=False), reference)


@pytest.mark.parametrize("kind", ["gpt2", "gpt_neox", "phi3", "olmo2", "qwen3_moe", "gemma4_text"])
def test_other_architectures(kind: str) -> None:
    """Layers that take arguments by position, experts, or keys shared between layers would be repeated wrongly."""
    tokenizer = tiny_tokenizer()
    options: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "initializer_range": 0.15,
        "max_position_embeddings": 512,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 3,
    }
    extra: dict[str, dict[str, Any]] = {
        "qwen3_moe": {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "head_dim": 8},
        "gemma4_text": {
            "head_dim": 8,
            "global_head_dim": 8,
            "num_key_value_heads": 2,
            "num_kv_shared_layers": 2,
            "hidden_size_per_layer_input": 8,
            "vocab_size_per_layer_input": len(tokenizer),
            "layer_types": ["sliding_attention", "full_attention"] * 2,
            "sliding_window": 8,
        },
    }
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, **options, **extra.get(kind, {}))
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval().requires_grad_(False)
    prefix, _ = decoder_layers(model)
    intervention = Shift([f"{prefix}.2"])
    items = some_items(5)
    rows = sweep(model, tokenizer, intervention, items, ALPHAS, shown=False)
    assert_same(rows, one_by_one(model, tokenizer, intervention, items))
    with steer(model, intervention, 2.0), torch.no_grad():
        ids = render_chat(tokenizer, items[1].messages, answer_prefix=items[1].answer_prefix)
        logp = model(torch.tensor([ids]), use_cache=False).logits[0, -1].log_softmax(-1)
    yes, no = (
        logp[[i for t, i in tokenizer.get_vocab().items() if t.lstrip("Ġ▁").lower() == c]].logsumexp(0)
        for c in ("yes", "no")
    )
    found = rows.filter((pl.col("alpha") == 2.0) & (pl.col("item") == "row-1"))["logratio"].item()
    assert found == pytest.approx(float(yes - no), abs=TOLERANCE)


@pytest.mark.parametrize(
    "names", [["model.embed_tokens"], ["model.norm"], ["model.layers.0"], ["model.layers.3", "model.norm"], []]
)
def test_steering_outside_the_layers(names: list[str]) -> None:
    """Modules before, after or at the edge of the layers would see rows and strengths that do not match."""
    model, tokenizer = tiny("qwen3")
    items = some_items(4)
    intervention = Shift(names)
    rows = sweep(model, tokenizer, intervention, items, ALPHAS, shown=False)
    assert_same(rows, one_by_one(model, tokenizer, intervention, items))
    moved = rows.group_by("item").agg(pl.col("logratio").max() - pl.col("logratio").min())
    assert (moved["logratio"].max() > 0.01) == bool(names)


def test_alpha_zero_is_the_unsteered_model() -> None:
    """Effects are paired against α = 0: it must be the model itself, also when only asked for implicitly."""
    model, tokenizer = tiny("llama")
    items = some_items(3)
    rows = sweep(model, tokenizer, Shift(["model.layers.2"]), items, [1.0], shown=False)
    assert rows["alpha"].unique(maintain_order=True).to_list() == [0.0, 1.0]
    unsteered = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    assert_same(rows.filter(pl.col("alpha") == 0.0), plain(model, tokenizer, unsteered, items, [0.0]))


def test_half_precision_models_sweep_too() -> None:
    """On a GPU models come in bf16: hooks, scores and strengths must go with that, up to its rounding."""
    model, tokenizer = tiny("qwen3")
    items, intervention = some_items(6), Shift(["model.layers.2"])
    full = sweep(model, tokenizer, intervention, items, ALPHAS, shown=False)
    half = sweep(model.bfloat16(), tokenizer, intervention, items, ALPHAS, shown=False)
    assert_same(half, full.select("alpha", "item", "logratio", "pmass"), tolerance=0.3)


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
    with pytest.raises(WeightsteerError, match="cannot be told apart"):
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
        def modify(self, name: str, module: nn.Module) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
            def exploded(x: Tensor, y: Tensor, alpha: Tensor) -> Tensor:
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


def hooks(model: nn.Module) -> Iterator[Any]:
    for module in model.modules():
        yield from module._forward_hooks.values()
        yield from module._forward_pre_hooks.values()


def test_a_failing_sweep_leaves_the_model_as_it_was() -> None:
    """A hook left behind would steer everything computed afterwards."""
    model, tokenizer = tiny("qwen3")
    model.train()

    class Failing(Shift):
        def modify(self, name: str, module: nn.Module) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
            def fail(x: Tensor, y: Tensor, alpha: Tensor) -> Tensor:
                raise RuntimeError("broken")

            return fail

    with pytest.raises(RuntimeError, match="broken"):
        sweep(model, tokenizer, Failing(["model.layers.2"]), some_items(2), [1.0], shown=False)
    assert not list(hooks(model))
    assert model.training


def test_running_out_of_memory_halves_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """A long sweep would die on its longest rows, or come back with rows missing."""
    model, tokenizer = tiny("qwen3")
    items, intervention = some_items(9), Shift(["model.layers.1"])
    expected = sweep(model, tokenizer, intervention, items, ALPHAS, shown=False)
    answer, sizes = engine._answer_logits, []

    def limited(model: Any, intervention: Any, ids: list[list[int]], alphas: Tensor, room: int = 2) -> Tensor:
        sizes.append(len(ids))
        if len(ids) > room:
            raise torch.OutOfMemoryError("no room")
        return answer(model, intervention, ids, alphas)

    monkeypatch.setattr(engine, "_answer_logits", limited)
    rows = sweep(model, tokenizer, intervention, items, ALPHAS, shown=False)
    assert max(sizes) > 2
    assert_same(rows, expected.select("alpha", "item", "logratio", "pmass"))

    monkeypatch.setattr(engine, "_answer_logits", lambda *args: limited(*args, room=0))
    with pytest.raises(WeightsteerError, match="out of memory on a single row"):
        sweep(model, tokenizer, intervention, items, ALPHAS, shown=False)


def test_layers_below_the_first_steered_one_run_once_per_row() -> None:
    """The engine would be no faster than steering one strength at a time."""
    model, tokenizer = tiny("qwen3")
    seen: dict[int, int] = {}
    for index, layer in enumerate(model.model.layers):
        layer.register_forward_hook(lambda m, a, y, i=index: seen.__setitem__(i, y.shape[0]))
    logits: list[tuple[int, ...]] = []
    model.lm_head.register_forward_hook(lambda m, a, y: logits.append(tuple(y.shape)))
    sweep(model, tokenizer, Shift(["model.layers.2"]), some_items(5), ALPHAS, shown=False)
    assert seen == {0: 5, 1: 5, 2: 20, 3: 20}
    assert logits == [(20, 1, model.config.vocab_size)]
