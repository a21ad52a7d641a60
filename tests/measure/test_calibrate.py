"""Calibration against plain Hugging Face: one prompt and one strength at a time, weights merged in fp32 by PEFT."""

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import asdict, replace
from functools import partial
from math import exp, nan, sin, tanh
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from sweeps import Says, Shift, merged_difference, some_items
from tiny import random_lora, tiny
from torch import Tensor
from torch.nn import functional as F
from transformers import GenerationConfig
from vectors import hooks

from weightsteer.data.evals import Item, user_turn
from weightsteer.data.evals.neutral import Text, neutral_texts
from weightsteer.errors import WeightsteerError
from weightsteer.inference import batching
from weightsteer.inference.answers import choice_table
from weightsteer.measure.calibrate import SCHEMA, budgets_of, calibrate, side_effects
from weightsteer.measure.calibrate.definition import Definition, digest
from weightsteer.measure.calibrate.prompts import halves, kind
from weightsteer.measure.calibrate.search import GRID, Search
from weightsteer.measure.calibrate.statistic import bounds, value
from weightsteer.measure.damage import damage
from weightsteer.models import render_chat
from weightsteer.stats.bootstrap import Bootstrap
from weightsteer.vector import WeightVector

TOKENS = 4
WORDS = "Tell me about rivers stones bread and winter because the house is red".split()  # noqa: SIM905
PROMPTS = [Text(f"p{i}", "Yes.", user_turn(" ".join(WORDS[: 3 + i]))) for i in range(6)]
AUDIT = [Text(f"a{i}", "No.", user_turn(" ".join(WORDS[i:]))) for i in range(1, 4)]
FEW: dict[str, Any] = {"prompts": PROMPTS, "audit_prompts": AUDIT, "tokens": TOKENS, "shown": False, "resamples": 50}


class Tilt:
    """The logit of one token rises by f(α): the KL divergence is known from the base model's probabilities alone."""

    method = "control"
    names = ("lm_head",)
    token = 7

    def __init__(self, f: Callable[[float], float], seed: int = 0) -> None:
        self.f = f
        self.metadata = {"behavior": "test", "adapter": "tilt", "seed": seed}

    def modify(self, name: str, module: Any) -> Any:
        def tilted(x: Tensor, own: Tensor, y: Tensor, alpha: Tensor) -> Tensor:
            rise = torch.tensor([self.f(float(one)) for one in alpha]).view(-1, 1, 1)
            return y + rise * F.one_hot(torch.tensor(self.token), y.shape[-1])

        return tilted


def greedy(model, ids: list[int]) -> list[int]:
    """Plain `generate`, one prompt at a time."""
    settings = GenerationConfig(
        max_new_tokens=TOKENS, do_sample=False, eos_token_id=model.config.eos_token_id, pad_token_id=0
    )
    with torch.no_grad():
        return model.generate(torch.tensor([ids]), generation_config=settings)[0, len(ids) :].tolist()


def logp(model, ids: list[int], text: list[int]) -> Tensor:
    with torch.no_grad():
        return model(input_ids=torch.tensor([ids + text])).logits[0, len(ids) - 1 : -1].log_softmax(-1)


def plain_kl(base, steered, tokenizer, prompts: Sequence[Text], author, direction: str = "base_steered") -> np.ndarray:
    """KL per token along the greedy text of ``author``, which is one of the two models."""
    values = []
    for prompt in prompts:
        ids = render_chat(tokenizer, prompt.messages)
        text = greedy(author, ids)
        p, q = logp(base, ids, text), logp(steered, ids, text)
        p, q = (p, q) if direction == "base_steered" else (q, p)
        values.append(F.kl_div(q, p, log_target=True, reduction="none").sum(-1))
    return torch.cat(values).double().numpy()


def merged(model, delta: dict[str, Tensor], alpha: float):
    steered = deepcopy(model)
    for name, parameter in steered.named_parameters():
        if name in delta:
            parameter += alpha * delta[name]
    return steered


def trained(arch: str, folder: Path, **options: Any):
    model, tokenizer = tiny(arch)
    sides = [random_lora(model, folder / name, seed=seed, **options) for seed, name in enumerate("ab")]
    return model, tokenizer, WeightVector.from_adapters(*sides, model), merged_difference(model, *sides)


@pytest.mark.parametrize(
    ("arch", "text", "statistic", "direction", "layers", "tight"),
    [
        ("qwen3", "base", "p95", "base_steered", [2, 3], False),
        ("gemma2", "base", "mean", "steered_base", None, True),
        ("llama", "steered", "p95", "base_steered", [1, 2], False),
        ("mistral", "steered", "mean", "steered_base", None, True),
    ],
)
def test_the_strength_found_costs_the_budget_when_measured_plainly(
    arch: str, text: Any, statistic: Any, direction: Any, layers: Any, tight: bool, tmp_path: Path, monkeypatch: Any
) -> None:
    """Padding, chunks, shared layers, the cache or another row's strength would enter every comparison."""
    if tight:
        monkeypatch.setattr(batching, "LOGITS", 20_000)
    model, tokenizer, vector, delta = trained(arch, tmp_path, layers=layers)
    rows = calibrate(
        model, tokenizer, vector, text=text, statistic=statistic, direction=direction, budget=0.4, **FEW,
        token_budget=400 if tight else 8192,
    )  # fmt: skip
    assert dict(rows.schema) == SCHEMA
    assert rows["sign"].to_list() == [-1, 1]
    for row in rows.rows(named=True):
        assert row["status"] == "converged", row
        assert row["alpha_star"] * row["sign"] > 0
        assert row["rounds"] <= 3
        steered = merged(model, delta, row["alpha_star"])
        author = model if text == "base" else steered
        for column, prompts in (("value", PROMPTS), ("audit_value", AUDIT)):
            kl = plain_kl(model, steered, tokenizer, prompts, author, direction)
            plain = np.quantile(kl, 0.95) if statistic == "p95" else kl.mean()
            assert row[column] == pytest.approx(plain, rel=1e-3)
        assert row["value"] == pytest.approx(0.4, rel=0.05)
        assert row["low"] <= row["value"] <= row["high"]
        assert 0 <= row["noise_floor"] < 1e-5
    assert hooks(model) == 0


def test_a_known_curve_is_inverted() -> None:
    """The KL divergence of one raised logit has a formula; the search must find where it meets the budget."""
    model, tokenizer = tiny("llama")
    row = calibrate(model, tokenizer, Tilt(lambda a: 3 * a), statistic="mean", budget=0.1, tolerance=0.01, **FEW)
    share = []
    for prompt in PROMPTS:
        ids = render_chat(tokenizer, prompt.messages)
        share += logp(model, ids, greedy(model, ids))[:, Tilt.token].exp().tolist()
    for sign, alpha, found in row.select("sign", "alpha_star", "value").iter_rows():
        p, rise = np.array(share), 3 * alpha
        assert found == pytest.approx((np.log(1 - p + p * exp(rise)) - rise * p).mean(), rel=1e-4)
        assert sign * alpha > 0
        assert found == pytest.approx(0.1, rel=0.01)


@pytest.mark.parametrize(
    ("f", "status", "given"),
    [
        (lambda a: 0.3 * tanh(a), "saturated", False),
        (lambda a: nan if abs(a) > 0.02 else a, "saturated", False),
        (lambda a: 12 * sin(a / 8) if abs(a) < 26 else 0.01, "not monotone", True),
        (lambda a: 0.0 if abs(a) < 1 else 12.0, "not converged", False),
        (lambda a: nan if abs(a) > 40 else 3 * a, "converged", True),
    ],
    ids=["too weak", "breaks before", "rises and falls", "jumps", "breaks beyond"],
)
def test_a_strength_is_given_only_where_it_was_met(f: Callable[[float], float], status: str, given: bool) -> None:
    """The end of a bracket tabulated as an equal-cost strength is a published mistake."""
    model, tokenizer = tiny("llama")
    rows = calibrate(model, tokenizer, Tilt(f), statistic="mean", budget=0.2, **FEW)
    for row in rows.filter(sign=1).rows(named=True):
        assert row["status"] == status, row
        assert (row["alpha_star"] is not None) == given
        if given:
            assert row["alpha_star"] == row["nearest_alpha"]
            assert abs(row["value"] / 0.2 - 1) <= 0.05
        elif row["value"] is not None:
            assert abs(row["value"] / 0.2 - 1) > 0.05


def test_the_first_crossing_is_the_one_given() -> None:
    """Of several strengths with the same cost the smallest is meant; a far one would be a broken model's."""
    search = Search(budget=1.0, largest=64.0, tolerance=0.05)
    while wanted := search.wanted():
        search.record({alpha: 2 * abs(sin(alpha)) for alpha in wanted})
    assert search.status() == "not monotone"
    assert search.hit() == pytest.approx(np.arcsin(0.5), rel=0.06)
    jump = Search(budget=1.0, largest=64.0, tolerance=0.05)
    jump.fine = {1.0: 5.0, 2.0: 1.0}
    assert jump.hit() is None  # met only on the way back


@pytest.mark.parametrize("scale", [1e-4, 0.03, 0.8, 35.0])
@pytest.mark.parametrize("power", [1.0, 2.0, 3.0])
def test_any_scale_is_found_within_three_rounds(scale: float, power: float) -> None:
    """Families differ by a factor of 40 in the strength they need; a fixed start would leave some unconverged."""
    search = Search(budget=0.5, largest=64.0, tolerance=0.05)
    while wanted := search.wanted():
        assert max(wanted) <= 64.0
        search.record({alpha: 8 * tanh((alpha / scale) ** power / 16) for alpha in wanted})
    assert search.rounds <= 3
    assert search.status() == "converged"
    assert abs(search.fine[search.hit()] / 0.5 - 1) <= 0.05


def test_a_smooth_curve_takes_four_strengths() -> None:
    """Every strength costs a pass over all prompts, which on a large model is the price of a calibration."""
    search = Search(budget=0.5, largest=64.0, tolerance=0.05)
    asked = []
    while wanted := search.wanted():
        asked.append(len(wanted))
        search.record({alpha: 8 * tanh(alpha**2 / 30) for alpha in wanted})
    assert search.status() == "converged"
    assert asked[0] == len(GRID)
    assert sum(asked[1:]) <= 4


def test_a_budget_beyond_the_largest_strength_is_saturated() -> None:
    """A strength at the edge of what was tried must not pass for an answer."""
    search = Search(budget=0.5, largest=1.0, tolerance=0.05)
    while wanted := search.wanted():
        search.record({alpha: 0.4 * alpha for alpha in wanted})
    assert (search.status(), search.hit(), search.nearest()) == ("saturated", None, 1.0)
    assert len(GRID) == 9


def test_prompts_are_measured_and_others_matched_to_them(tmp_path: Path) -> None:
    """A prompt has no strength: it sets the budget at which vectors are compared with it."""
    model, tokenizer, vector, _ = trained("qwen3", tmp_path)
    for text in ("base", "steered"):
        rows = calibrate(model, tokenizer, Says(), text=text, **FEW)
        assert rows["status"].to_list() == ["fixed"] * 2
        assert rows["budget"].null_count() == 2
        for row in rows.rows(named=True):
            values = []
            for prompt in PROMPTS:
                ids = render_chat(tokenizer, prompt.messages)
                said = render_chat(tokenizer, Says().messages(list(prompt.messages), row["sign"], tokenizer))
                words = greedy(model, ids if text == "base" else said)
                p, q = logp(model, ids, words), logp(model, said, words)
                values.append(F.kl_div(q, p, log_target=True, reduction="none").sum(-1))
            assert row["value"] == pytest.approx(np.quantile(torch.cat(values).double().numpy(), 0.95), rel=1e-3)
            assert row["alpha_star"] == row["sign"]
            assert row["noise_floor"] < 1e-5
        budgets = budgets_of(rows)
        matched = calibrate(model, tokenizer, vector, budget=budgets, text=text, signs=[1], **FEW)
        assert matched["budget"].to_list() == [budgets[1]]
        assert matched["value"][0] == pytest.approx(budgets[1], rel=0.05)
    with pytest.raises(WeightsteerError, match="rows of one intervention"):
        budgets_of(pl.concat([rows, rows]))


def test_given_strengths_are_measured_as_those_found(tmp_path: Path, monkeypatch: Any) -> None:
    """A control stands at the strength of its vector: what it costs there must be what a search would have found."""
    model, tokenizer, vector, _ = trained("qwen3", tmp_path)
    monkeypatch.setattr("weightsteer.measure.calibrate.prompts.neutral_texts", lambda _: [*PROMPTS, *AUDIT])
    few: dict[str, Any] = {"tokens": TOKENS, "resamples": 50, "shown": False}
    found = calibrate(model, tokenizer, vector, budget=0.2, **few)
    at = dict(found.select("sign", "alpha_star").iter_rows())
    costs = side_effects(model, tokenizer, [vector], at, **few)
    assert costs["alpha"].to_list() == found["alpha_star"].to_list()
    for name in ("sign", "value", "low", "high", "prompts"):
        assert costs[name].to_list() == pytest.approx(found[name].to_list(), rel=1e-5), name
    assert side_effects(model, tokenizer, [vector], {}, **few).is_empty()
    for wrong in ({1: -0.5}, {2: 1.0}, {1: nan}):
        with pytest.raises(WeightsteerError, match="given by sign"):
            side_effects(model, tokenizer, [vector], wrong, **few)


@pytest.mark.parametrize("direction", ["base_steered", "steered_base"])
def test_given_text_is_read_at_its_last_tokens(direction: Any, tmp_path: Path) -> None:
    """The published strengths come from fixed text; another context or other positions would give others."""
    model, tokenizer, vector, delta = trained("qwen3", tmp_path)
    texts = [replace(prompt, text=" ".join(WORDS[i:] + WORDS)) for i, prompt in enumerate(PROMPTS)]
    known = side_effects(
        model, tokenizer, [vector], {1: 0.7}, text="given", direction=direction, statistic="mean", prompts=texts,
        audit_prompts=AUDIT, tokens=TOKENS, resamples=50, shown=False,
    )  # fmt: skip
    steered, values = merged(model, delta, 0.7), []
    for text in texts:
        ids = render_chat(tokenizer, text.messages, answer_prefix=text.text)
        p, q = (logp(each, ids[:-TOKENS], ids[-TOKENS:]) for each in (model, steered))
        p, q = (p, q) if direction == "base_steered" else (q, p)
        values.append(F.kl_div(q, p, log_target=True, reduction="none").sum(-1))
    assert known["value"][0] == pytest.approx(float(torch.cat(values).double().mean()), rel=1e-3)
    found = calibrate(
        model, tokenizer, vector, text="given", direction=direction, budget=0.2, prompts=texts, audit_prompts=AUDIT,
        tokens=TOKENS, resamples=50, shown=False,
    )  # fmt: skip
    assert found["status"].to_list() == ["converged"] * 2
    assert "given-text" in found["definition"][0]


def test_equal_damage_in_nll(tmp_path: Path) -> None:
    """The other budget must be the rise that the damage table shows, or its rows are not at equal damage there."""
    model, tokenizer, vector, _ = trained("llama", tmp_path)
    rows = calibrate(model, tokenizer, vector, budget_kind="nll", budget=0.7, **FEW)
    for row in rows.filter(pl.col("alpha_star").is_not_null()).rows(named=True):
        table = damage(model, tokenizer, vector, PROMPTS, [row["alpha_star"]], shown=False)
        means = {
            alpha: (part["nll"] * part["tokens"]).sum() / part["tokens"].sum()
            for (alpha,), part in table.group_by("alpha")
        }
        assert row["value"] == pytest.approx(means[row["alpha_star"]] - means[0.0], abs=1e-6)
        assert row["value"] == pytest.approx(0.7, rel=0.05)
        assert row["definition"].startswith("nll mean 0.7-nat")
    assert rows["alpha_star"].null_count() < 2
    with pytest.raises(WeightsteerError, match="statistic is the mean"):
        calibrate(model, tokenizer, vector, budget_kind="nll", statistic="p95", **FEW)


def test_equal_loss_of_capability() -> None:
    """p(right) by plain softmax: what is lost with the format, to a token that is neither choice, is lost too."""
    model, tokenizer = tiny("llama")
    items = some_items(12)

    def p_right(item: Item, rise: float) -> float:
        ids = render_chat(tokenizer, item.messages, answer_prefix=item.answer_prefix)
        logits = model(input_ids=torch.tensor([ids])).logits[0, -1]
        p = (logits + rise * F.one_hot(torch.tensor(Tilt.token), len(logits))).softmax(-1)
        (spelled,) = choice_table(tokenizer, [item.choices]).tolist()
        first, second = (p[[i for i in ids if i >= 0]].sum() for ids in spelled)
        return float(first if item.label == 1 else second)

    def lost(some: Sequence[Item], rise: float) -> float:
        return float(np.mean([p_right(item, 0.0) - p_right(item, rise) for item in some]))

    budget = lost(items[:8], 3.0)
    plus, minus = (
        calibrate(
            model, tokenizer, Tilt(lambda alpha: alpha), budget_kind="capability", budget=budget, signs=[sign],
            prompts=items[:8], audit_prompts=items[8:], shown=False, resamples=50,
        ).row(0, named=True)
        for sign in (1, -1)
    )  # fmt: skip
    assert plus["status"] == "converged"
    assert plus["alpha_star"] == pytest.approx(3.0, rel=0.1)
    for column, some in (("value", items[:8]), ("audit_value", items[8:])):
        assert plus[column] == pytest.approx(lost(some, plus["alpha_star"]), rel=1e-3)
    assert plus["noise_floor"] < 1e-3 * budget
    assert plus["definition"].startswith(f"capability mean {budget:g}-probability")
    assert minus["status"] == "saturated"  # the token gives way: the right choices gain
    assert minus["alpha_star"] is None


def test_a_budget_is_read_on_what_it_is_a_budget_of() -> None:
    """A loss of capability above 1 is never reached, and texts have no right answer."""
    model, tokenizer = tiny("llama")
    shift = Shift(["model.layers.1"])
    ask = partial(calibrate, model, tokenizer, shift, budget_kind="capability", shown=False)
    with pytest.raises(WeightsteerError, match="a probability, below 1"):
        ask(budget=1.5)
    with pytest.raises(WeightsteerError, match="rows of a task"):
        ask(prompts=PROMPTS)
    with pytest.raises(WeightsteerError, match="statistic is the mean"):
        ask(statistic="p95")
    with pytest.raises(WeightsteerError, match="is read on texts"):
        calibrate(model, tokenizer, shift, prompts=some_items(8))


def test_generation_settings_do_not_count(tmp_path: Path) -> None:
    """A repetition penalty of the checkpoint would bend text and divergence. Twice the same must give the same."""
    model, tokenizer, vector, _ = trained("qwen3", tmp_path)
    first = calibrate(model, tokenizer, vector, text="steered", **FEW)
    model.generation_config.repetition_penalty = 5.0
    model.generation_config.suppress_tokens = list(range(50))
    assert calibrate(model, tokenizer, vector, text="steered", **FEW).equals(first)


def test_several_interventions_are_those_alone() -> None:
    """What else is calibrated, and the other sign, must not matter to a row."""
    model, tokenizer = tiny("qwen3")
    layers = ["model.layers.1"], ["model.layers.3"]
    both = [Shift(names, seed=seed) for seed, names in enumerate(layers)]
    together = calibrate(model, tokenizer, both, **FEW)
    alone = [calibrate(model, tokenizer, one, signs=[sign], **FEW) for one in both for sign in (-1, 1)]
    for name in ("alpha_star", "value", "audit_value"):
        assert together[name].to_list() == pytest.approx(pl.concat(alone)[name].to_list(), rel=1e-3)
    assert together["status"].to_list() == pl.concat(alone)["status"].to_list()


def test_the_interval_is_over_prompts_and_the_quantile_that_of_numpy() -> None:
    """Tokens of one prompt are alike: resampled one by one they would promise more than there is."""
    random = np.random.default_rng(0)
    level = random.normal(size=20)
    tokens = [np.exp(level[i] + 0.01 * random.normal(size=10)) for i in range(20)]
    names = [f"c{i // 2}" for i in range(20)]
    for statistic in ("p95", "mean"):
        low, high = bounds(tokens, names, statistic, Bootstrap(400, 0))
        assert low < value(tokens, statistic) < high
        single = bounds(
            [np.array([x]) for x in np.concatenate(tokens)], [str(i) for i in range(200)], statistic, Bootstrap(400, 0)
        )
        assert high - low > 1.5 * (single[1] - single[0])
    times = Bootstrap(30, 0).sums(np.eye(20))[1:]
    by_hand = [
        np.quantile(np.concatenate([tokens[i] for i in range(20) for _ in range(int(c[i]))]), 0.95) for c in times
    ]
    spread = Bootstrap(30, 0).pooled(np.array([value(tokens, "p95"), *by_hand])[:, None], 20)
    expected = np.quantile(spread, [0.025, 0.975])
    assert bounds(tokens, [str(i).zfill(2) for i in range(20)], "p95", Bootstrap(30, 0)) == pytest.approx(expected)
    assert bounds(tokens, ["one"] * 20, "mean", Bootstrap(9, 0)) == (None, None)
    assert np.isnan(value([np.array([1.0, np.inf])], "mean"))


def test_every_setting_changes_the_definition(tmp_path: Path) -> None:
    """Strengths of two definitions in one column look comparable and are not."""
    base = Definition("kl", "p95", "base_steered", "base", 32, 0.5, 0.05, "x", "y")
    others = {
        "kind": "nll", "statistic": "mean", "direction": "steered_base", "text": "steered", "tokens": 33,
        "budget": 0.6, "tolerance": 0.1, "prompts": "z", "audit_prompts": "z",
    }  # fmt: skip
    assert others.keys() == asdict(base).keys()
    hashes = {replace(base, **{name: other}).hash for name, other in others.items()} | {base.hash}
    assert len(hashes) == len(others) + 1
    assert base.id == f"kl p95 0.5-nat base_steered base-text 32-tokens {base.hash}"
    assert digest(PROMPTS) != digest(PROMPTS[:-1]) != digest(AUDIT)
    model, tokenizer = tiny("llama")
    ids = {
        calibrate(model, tokenizer, Tilt(lambda a: a), **{**FEW, **change})["definition"][0]
        for change in ({}, {"tokens": 3}, {"prompts": PROMPTS[:5]}, {"statistic": "mean"})
    }
    assert len(ids) == 4


def test_default_prompts_are_two_disjoint_stratified_halves() -> None:
    """An audit on the calibration's own topics, or on other kinds of questions, would audit nothing."""
    model, _ = tiny("qwen3")
    texts = neutral_texts(model)
    first, second = halves(texts, 48)
    assert len(first) == len(second) == 48
    assert not {text.cluster for text in first} & {text.cluster for text in second}
    assert halves(list(reversed(texts)), 48) == (first, second)
    share = [
        [sum(kind(text) == name for text in half) / len(half) for half in (first, second, texts)]
        for name in ("what", "how")
    ]
    for one, other, whole in share:
        assert abs(one - whole) < 0.15
        assert abs(other - whole) < 0.15
    assert kind(Text("x", "y", user_turn("Please tell me, which day comes after Sunday?"))) == "which"
    paired = [replace(text, cluster=str(i // 2)) for i, text in enumerate(texts[:8])]
    assert [len({text.cluster for text in half}) for half in halves(paired)] == [2, 2]


def test_mistakes_are_named(tmp_path: Path) -> None:
    """Settings that cannot mean anything must not give a number."""
    model, tokenizer = tiny("llama")
    tilt = Tilt(lambda a: a)
    for change, message in (
        ({"budget": 0.0}, "positive number"),
        ({"budget": {1: 0.5}}, "no budget for the sign -1"),
        ({"signs": [2]}, "signs are 1 and -1"),
        ({"direction": "both"}, "unknown direction"),
        ({"tolerance": 0}, "tolerance is 0"),
        ({"tokens": 0}, "tokens is 0"),
        ({"audit_prompts": PROMPTS[:2]}, "among the prompts and the audit prompts"),
        ({"audit_prompts": [Text("new", "x", PROMPTS[0].messages)]}, "the conversation"),
        ({"audit_prompts": []}, "at least one prompt"),
        ({"prompts": None}, "without prompts"),
        ({"prompts": PROMPTS[:1], "audit_prompts": None}, "one cluster"),
        ({"prompts": [Text("raw", "A document.")]}, "answers no prompt"),
        ({"tokens": 600}, "reads at most 512"),
    ):
        with pytest.raises(WeightsteerError, match=message):
            calibrate(model, tokenizer, tilt, **{**FEW, **change})
    assert hooks(model) == 0
