"""Damage against plain Hugging Face: cross-entropy of the PEFT model, and KL from its full logits."""

from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from tiny import random_lora, tiny
from torch.nn import functional as F
from vectors import hooks

from weightsteer.controls import control
from weightsteer.data.evals.neutral import Text, neutral_texts
from weightsteer.errors import WeightsteerError
from weightsteer.inference import batching
from weightsteer.measure.damage import SCHEMA, damage
from weightsteer.models import load_model, render_chat
from weightsteer.vector import WeightVector

TEXTS = [
    Text("raw", "Tell me about rivers, stones, bread and winter."),
    Text("short", "Yes No"),
    Text("chat", "Yes, the house is red.", ({"role": "user", "content": "Is the house red?"},), cluster="c"),
]


def one_sided(model, folder: Path) -> tuple[WeightVector, Path]:
    positive = random_lora(model, folder / "positive", seed=1, std=0.15)
    return WeightVector.from_adapters(
        positive, random_lora(model, folder / "negative", seed=2, std=0.0), model
    ), positive


def read(tokenizer, text: Text) -> tuple[list[int], int]:
    if not text.messages:
        return tokenizer(text.text)["input_ids"], 1
    prompt = render_chat(tokenizer, text.messages)
    return prompt + tokenizer(text.text, add_special_tokens=False)["input_ids"], len(prompt)


@torch.no_grad()
def logp(model, ids: list[int], start: int) -> torch.Tensor:
    """(tokens, vocabulary): what predicts each token from ``start`` on."""
    return model(input_ids=torch.tensor([ids])).logits[0, start - 1 : -1].log_softmax(-1)


@pytest.mark.parametrize("arch", ["qwen3", "llama", "gemma2", "mistral"])
@pytest.mark.parametrize("tight", [False, True])
def test_nll_and_kl_are_those_of_plain_forward_passes(
    arch: str, tight: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Padding, chunks of positions, soft caps or another row's strength would enter the price of a vector."""
    if tight:
        monkeypatch.setattr(batching, "LOGITS", 8000)
    model, tokenizer = tiny(arch)
    vector, folder = one_sided(model, tmp_path)
    rows = damage(model, tokenizer, vector, TEXTS, [1.0, 0.0], token_budget=60 if tight else 8192, shown=False)
    assert dict(rows.schema) == SCHEMA
    assert rows["item"].to_list() == ["raw", "short", "chat"] * 2
    adapted = PeftModel.from_pretrained(deepcopy(model), str(folder)).eval()
    for text in TEXTS:
        ids, start = read(tokenizer, text)
        base, steered = logp(model, ids, start), logp(adapted, ids, start)
        zero, one = rows.filter(item=text.item).sort("alpha").rows(named=True)
        assert zero["tokens"] == one["tokens"] == len(ids) - start
        assert zero["cluster"] == text.cluster
        for row, network in ((zero, model), (one, adapted)):
            labels = torch.tensor([[-100] * start + ids[start:]])
            with torch.no_grad():
                loss = network(input_ids=torch.tensor([ids]), labels=labels).loss
            assert row["nll"] == pytest.approx(float(loss), abs=1e-5)
        expected = F.kl_div(steered, base, log_target=True, reduction="sum") / len(base)
        assert one["kl_base_steered"] == pytest.approx(float(expected), rel=1e-4)
        expected = F.kl_div(base, steered, log_target=True, reduction="sum") / len(base)
        assert one["kl_steered_base"] == pytest.approx(float(expected), rel=1e-4)
        assert zero["kl_base_steered"] == zero["kl_steered_base"] == 0.0
    assert hooks(model) == 0
    assert "forward" not in model.base_model.__dict__


def test_a_steered_output_embedding_counts(tmp_path: Path) -> None:
    """What a vector does to the head itself would be lost, because the head runs apart from the decoder."""

    class Push:
        method = "control"
        metadata: Mapping[str, Any] = {"behavior": None, "adapter": None, "seed": 0}
        names = ("lm_head",)

        def modify(self, name: str, module: Any) -> Any:
            def push(x: torch.Tensor, own: torch.Tensor, y: torch.Tensor, alpha: torch.Tensor) -> torch.Tensor:
                shift = torch.linspace(-1, 1, y.shape[-1])
                return y + alpha.view(-1, 1, 1) * shift

            return push

    model, tokenizer = tiny("llama")
    rows = damage(model, tokenizer, Push(), TEXTS[:1], [0.0, 3.0], shown=False)
    ids, start = read(tokenizer, TEXTS[0])
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([ids])).logits[0, start - 1 : -1]
    shifted = logits + 3 * torch.linspace(-1, 1, logits.shape[-1])
    assert rows["nll"][1] == pytest.approx(float(F.cross_entropy(shifted, torch.tensor(ids[start:]))), abs=1e-5)


class Prompt:
    """A system prompt from a strength of 1 on."""

    method = "prompt"
    metadata: Mapping[str, Any] = {"behavior": "honesty", "adapter": None, "seed": None}
    names = ()
    alphas = (0.0, 1.0)

    def messages(self, messages: list[dict[str, str]], alpha: float, tokenizer: Any) -> list[dict[str, str]]:
        return [{"role": "system", "content": "You are a lying person."}, *messages] if alpha else messages

    def modify(self, name: str, module: Any) -> Any:
        raise AssertionError


def test_a_prompt_is_charged_for_the_same_tokens() -> None:
    """Prompts would be compared on other tokens than vectors, or for free."""
    model, tokenizer = tiny("qwen3")
    rows = damage(model, tokenizer, Prompt(), TEXTS[2:], [0.5, 1.0], shown=False)
    assert rows["alpha"].to_list() == [0.0, 1.0], "only where a prompt is defined"
    chat = TEXTS[2].messages
    for place, messages in enumerate([chat, ({"role": "system", "content": "You are a lying person."}, *chat)]):
        ids, start = read(tokenizer, Text("x", TEXTS[2].text, messages))
        picked = logp(model, ids, start).gather(1, torch.tensor(ids[start:])[:, None])
        assert rows["nll"][place] == pytest.approx(-float(picked.mean()), abs=1e-5)
    assert rows["kl_base_steered"][1] > 0
    with pytest.raises(WeightsteerError, match="answers no prompt"):
        damage(model, tokenizer, Prompt(), TEXTS[:1], [1.0])


def test_mistakes_are_named(tmp_path: Path) -> None:
    """Texts that cannot be measured would give numbers all the same."""
    model, tokenizer = tiny("qwen3")
    vector, _ = one_sided(model, tmp_path)
    with pytest.raises(WeightsteerError, match="an item of its own"):
        damage(model, tokenizer, vector, [TEXTS[0], TEXTS[0]], [1.0])
    with pytest.raises(WeightsteerError, match="no token that could be predicted"):
        damage(model, tokenizer, vector, [Text("one", "Yes")], [1.0])
    with pytest.raises(WeightsteerError, match="reads at most 512"):
        damage(model, tokenizer, vector, [Text("long", "Yes No " * 300)], [1.0])
    with pytest.raises(WeightsteerError, match="finite"):
        damage(model, tokenizer, vector, TEXTS, [float("inf")])
    with pytest.raises(WeightsteerError, match="is empty"):
        Text("none", " ")


def test_several_interventions_share_the_texts(tmp_path: Path) -> None:
    """Two methods would be measured on different tokens."""
    model, tokenizer = tiny("qwen3")
    vector, _ = one_sided(model, tmp_path)
    rows = damage(model, tokenizer, [vector, control("random", vector, 0)], TEXTS, [0.5], shown=False)
    zero = rows.filter(alpha=0.0)
    assert rows["method"].n_unique() == 2
    assert zero["nll"][:3].to_list() == zero["nll"][3:].to_list()


def test_neutral_texts_of_both_worlds(tmp_path: Path) -> None:
    """Too few or repeated texts would make the price of a vector noise."""
    general = neutral_texts(tiny("qwen3")[0])
    assert len({text.text for text in general}) == len({text.messages[0]["content"] for text in general}) >= 100
    model, tokenizer = load_model("pocket-s")
    texts = neutral_texts(model)
    assert len({text.item for text in texts}) == len(texts) >= 100
    for text in texts:
        assert tokenizer.unk_token_id not in render_chat(tokenizer, text.messages, answer_prefix=text.text)
    path = tmp_path / "texts.jsonl"
    path.write_text(
        '{"text": "A document.", "cluster": "c"}\n{"text": "Fine.", "prompt": "How are you?", "item": "q"}\n'
    )
    plain, chat = neutral_texts(model, path)
    assert (plain.item, plain.cluster, plain.messages) == ("line-1", "c", ())
    assert (chat.item, chat.cluster, chat.messages[0]["content"]) == ("q", "q", "How are you?")
    lines = tmp_path / "texts.txt"
    words = " ".join(["word"] * 20)
    lines.write_text(
        f" = A title = \n\n {words} \nshort line\n = = A section = = \n {words} .\n = Another = \n{words}!\n"
    )
    assert [(text.item, text.cluster) for text in neutral_texts(model, lines)] == [
        ("line-3", "line-1"),
        ("line-6", "line-1"),
        ("line-8", "line-7"),
    ]
    lines.write_text("too short")
    with pytest.raises(WeightsteerError, match="no line of at least 20 words"):
        neutral_texts(model, lines)
