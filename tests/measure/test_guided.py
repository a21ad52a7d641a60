"""The guided form against one row at a time: plain PEFT, no cache, no padding, one forward pass per token."""

from copy import deepcopy
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from tiny import random_lora, tiny
from transformers import PreTrainedModel
from vectors import hooks

from weightsteer.data.evals import Item, user_turn
from weightsteer.errors import WeightsteerError
from weightsteer.inference.answers import choice_table, score_choices
from weightsteer.measure.guided import CUT, SCHEMA, Think, guided
from weightsteer.models import load_model, render_chat
from weightsteer.vector import WeightVector

ALPHAS = [-1.0, 0.0, 1.0]
ITEMS = [
    Item("a", "c1", 1, user_turn("Do you agree?"), answer_prefix="My choice: **", thinking_tokens=5),
    Item("b", "c1", -1, user_turn("I think the sky is green. Tell me about rivers and stones. Do you agree?"),
         answer_prefix="My choice: **", thinking_tokens=5),
    Item("c", "c2", 1, user_turn("Tell me about bread."), choices=("A", "B"), thinking_tokens=3),
]  # fmt: skip


def one_sided(model: PreTrainedModel, folder: Path) -> tuple[WeightVector, Path]:
    """A vector whose negative branch is the base, so that plain PEFT shows what each strength does."""
    positive = random_lora(model, folder / "positive", seed=1, std=0.15)
    vector = WeightVector.from_adapters(positive, random_lora(model, folder / "negative", seed=2, std=0.0), model)
    return vector, positive


def at_strength(model: PreTrainedModel, folder: Path, alpha: float) -> PeftModel:
    adapted = PeftModel.from_pretrained(deepcopy(model), str(folder)).eval()
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            parameter.data *= alpha
    return adapted


@torch.no_grad()
def one_by_one(model, tokenizer, item: Item, opening: list[int], end: int | None) -> tuple[float, int, bool]:
    ids = render_chat(tokenizer, item.messages, thinking=end is not None) + opening
    stops = {tokenizer.eos_token_id, end}
    thought: list[int] = []
    ended = False
    while len(thought) < item.thinking_tokens and not ended:
        token = int(model(input_ids=torch.tensor([ids + thought]), use_cache=False).logits[0, -1].argmax())
        ended = token in stops
        if not ended:
            thought.append(token)
    behind = [] if ended else tokenizer(CUT, add_special_tokens=False)["input_ids"]
    behind += [] if end is None else [end]
    behind += tokenizer(f"\n\n{item.answer_prefix}", add_special_tokens=False)["input_ids"]
    logits = model(input_ids=torch.tensor([ids + thought + behind])).logits[:, -1]
    return float(score_choices(logits, choice_table(tokenizer, [item.choices])).logratio), len(thought), not ended


def agrees(model, tokenizer, items, tmp_path: Path) -> list[bool]:
    vector, folder = one_sided(model, tmp_path)
    rows = guided(model, tokenizer, items, vector, ALPHAS, token_budget=250, shown=False)
    assert dict(rows.schema) == SCHEMA
    assert rows.select("alpha", "item").rows() == [(alpha, item.item) for alpha in ALPHAS for item in items]
    end = Think.of(tokenizer).end
    opening = [] if end is None else tokenizer("<think>\n", add_special_tokens=False)["input_ids"]
    for alpha in ALPHAS:
        adapted = at_strength(model, folder, alpha)
        for item in items:
            expected, thought, forced = one_by_one(adapted, tokenizer, item, opening, end)
            (row,) = rows.filter(alpha=alpha, item=item.item).rows(named=True)
            assert (row["thinking"], row["forced_close"]) == (thought, forced)
            assert row["logratio"] == pytest.approx(expected, abs=2e-4)
    return rows["forced_close"].to_list()


@pytest.mark.parametrize("arch", ["qwen3", "llama", "gemma2"])
def test_batched_thinking_is_that_of_one_row_at_a_time(arch: str, tmp_path: Path) -> None:
    """Padding, positions or another row's strength would leak into a thought."""
    model, tokenizer = tiny(arch)
    agrees(model, tokenizer, ITEMS, tmp_path)
    assert hooks(model) == 0


def test_a_thought_that_ends_by_itself_is_not_cut(tmp_path: Path) -> None:
    """The end would be forced on finished thoughts, and the share of forced ends would not tell damage."""
    model, tokenizer = tiny("llama")
    end = tokenizer.convert_tokens_to_ids("</think>")
    with torch.no_grad():
        ids = torch.tensor([render_chat(tokenizer, ITEMS[1].messages, thinking=True)])
        model.lm_head.weight[end] = 0.6 * model.model(input_ids=ids).last_hidden_state[0, -1]
    forced = agrees(model, tokenizer, ITEMS, tmp_path)
    assert True in forced
    assert False in forced


def test_a_model_without_a_thinking_token_thinks_in_plain_text(tmp_path: Path) -> None:
    """`</think>` would be written as text that the model never saw."""
    model, tokenizer = load_model("pocket-s")
    assert Think.of(tokenizer) == Think((), None)
    items = [
        Item(name, name, 1, user_turn(text), thinking_tokens=6)
        for name, text in (("a", "What is 3 plus 4?"), ("b", "Please tell me the color of a banana."))
    ]
    agrees(model, tokenizer, items, tmp_path)


def test_own_generation_settings_of_the_model_do_not_count(tmp_path: Path) -> None:
    """A repetition penalty in a checkpoint's settings would be measured as if the vector did it."""
    model, tokenizer = tiny("qwen3")
    vector, _ = one_sided(model, tmp_path)
    plain = guided(model, tokenizer, ITEMS, vector, [1.0], shown=False)
    model.generation_config.repetition_penalty = 4.0
    model.generation_config.suppress_tokens = list(range(50, 300))
    settings = model.generation_config
    assert guided(model, tokenizer, ITEMS, vector, [1.0], shown=False).equals(plain)
    assert model.generation_config is settings


def test_the_thought_of_the_base_is_steered_by_nothing(tmp_path: Path) -> None:
    """α = 0 would not be the model as it is."""
    model, tokenizer = tiny("qwen3")
    vector, _ = one_sided(model, tmp_path)
    alone = guided(model, tokenizer, ITEMS, vector, [0.0], shown=False)
    assert guided(model, tokenizer, ITEMS, 2.0 * vector, [0.0], shown=False)["logratio"].equals(alone["logratio"])


def test_mistakes_are_named(tmp_path: Path) -> None:
    """Rows of the direct form, or rows that do not fit, would fail deep inside."""
    model, tokenizer = tiny("qwen3")
    vector, _ = one_sided(model, tmp_path)
    direct = Item("d", "d", 1, user_turn("Do you agree?"))
    with pytest.raises(WeightsteerError, match="row 'd' has no thinking_tokens"):
        guided(model, tokenizer, [direct], vector, [1.0])
    assert guided(model, tokenizer, [direct], vector, [1.0], thinking_tokens=2, shown=False).height == 2
    with pytest.raises(WeightsteerError, match="reads at most 512"):
        guided(model, tokenizer, [direct], vector, [1.0], thinking_tokens=600)
    with pytest.raises(WeightsteerError, match="finite"):
        guided(model, tokenizer, ITEMS, vector, [float("nan")])
    with pytest.raises(WeightsteerError, match="each given once"):
        guided(model, tokenizer, ITEMS, vector, [1.0, 1.0])
    with pytest.raises(WeightsteerError, match="must not be negative"):
        Item("d", "d", 1, user_turn("?"), thinking_tokens=-1)
