"""Prompts as interventions: what they add to a conversation, and that the shipped ones are fair."""

import copy
import re

import pytest
from tiny import tiny, tiny_tokenizer

import weightsteer as ws
from weightsteer.data.behaviors import Behavior, names
from weightsteer.data.behaviors.prompts import prompts_of
from weightsteer.data.evals import Item, user_turn
from weightsteer.errors import WeightsteerError
from weightsteer.models import render_chat
from weightsteer.steering import steer
from weightsteer.steering.prompts import PromptIntervention

PROMPT = PromptIntervention("honesty", "embody", 0, "You are an honest person.", "You are a lying person.")
CHAT = [{"role": "user", "content": "Do you agree?"}]


def words(text: str) -> int:
    return len(text.split())


def test_messages() -> None:
    """A text on the wrong side, or one that stays at α = 0, would turn the comparison around or blur it."""
    tokenizer = tiny_tokenizer()
    before = copy.deepcopy(CHAT)
    assert PROMPT.messages(CHAT, 0.0, tokenizer) == CHAT == before
    assert PROMPT.messages(CHAT, 1.0, tokenizer) == [{"role": "system", "content": PROMPT.positive}, *CHAT]
    assert PROMPT.messages(CHAT, -1.0, tokenizer) == [{"role": "system", "content": PROMPT.negative}, *CHAT]
    own = [{"role": "system", "content": "Answer Yes or No."}, *CHAT]
    merged = PROMPT.messages(own, 1.0, tokenizer)
    assert merged == [{"role": "system", "content": "You are an honest person. Answer Yes or No."}, *CHAT]
    assert own[0]["content"] == "Answer Yes or No."
    with pytest.raises(WeightsteerError, match=r"no strength 0\.5"):
        PROMPT.messages(CHAT, 0.5, tokenizer)


def test_where_the_template_has_no_system_role() -> None:
    """There the text heads the first user turn: it must reach the model on every architecture."""
    tokenizer = tiny_tokenizer("gemma")
    rendered = render_chat(tokenizer, PROMPT.messages(CHAT, -1.0, tokenizer))
    expected = [{"role": "user", "content": "You are a lying person.\n\nDo you agree?"}]
    assert rendered == render_chat(tokenizer, expected)


def test_in_a_sweep() -> None:
    """The sweep of a prompt is the base model on the changed conversation, with its wording in place of a seed."""
    model, tokenizer = tiny("llama")
    items = [Item("a", "a", 1, user_turn("Do you agree?")), Item("b", "b", -1, user_turn("Is the house red?"))]
    rows = ws.sweep(model, tokenizer, PROMPT, items, PROMPT.alphas, shown=False)
    assert rows.select("method", "adapter", "seed").unique().row(0) == ("prompt", "prompt-embody", 0)
    for row in rows.iter_rows(named=True):
        item = items[[one.item for one in items].index(row["item"])]
        chat = tuple(PROMPT.messages(item.messages, row["alpha"], tokenizer))
        plain = [Item(item.item, item.cluster, item.label, chat)]
        nothing = PromptIntervention("honesty", "embody", 0, "unused", "not used")
        base = ws.sweep(model, tokenizer, nothing, plain, [0.0], shown=False)
        assert row["logratio"] == pytest.approx(base["logratio"].item(), abs=1e-4)


def test_steering_with_a_prompt_acts_on_no_module() -> None:
    """It has no hooks; whoever asks it for one is told what to do instead."""
    model, _ = tiny("qwen3")
    assert PROMPT.names == []
    with steer(model, PROMPT, 1.0):
        assert not any(module._forward_hooks for module in model.modules())
    with pytest.raises(WeightsteerError, match=r"messages\(\)"):
        PROMPT.modify("lm_head", model.lm_head)


@pytest.mark.parametrize("family", ["general", "pocket"])
@pytest.mark.parametrize("name", names())
class TestShipped:
    def test_wordings(self, family: str, name: str) -> None:
        """Five wordings of each kind, so that a result is not one sentence's; each a row of its own in the tables."""
        prompts = prompts_of(Behavior.load(name, family=family))
        for kind in ("persona", "embody", "inject"):
            wordings = [prompt for prompt in prompts if prompt.kind == kind]
            assert len(wordings) >= 5
            assert [prompt.metadata["seed"] for prompt in wordings] == list(range(len(wordings)))
            assert {prompt.metadata["adapter"] for prompt in wordings} == {f"prompt-{kind}"}

    def test_the_sides_are_parallel(self, family: str, name: str) -> None:
        """A longer or terser side would move answers by itself, and prompts would be compared by their length."""
        behavior = Behavior.load(name, family=family)
        for pair in (*behavior.prompts.embody, *behavior.prompts.inject):
            assert abs(words(pair.positive) - words(pair.negative)) <= 0.2 * words(pair.positive), pair

    def test_no_prompt_mentions_the_evaluation(self, family: str, name: str) -> None:
        """A prompt that says what to answer would win by telling the answer, not by the behaviour."""
        for prompt in prompts_of(Behavior.load(name, family=family)):
            for text in (prompt.positive, prompt.negative):
                assert not {"Yes", "yes", "No", "dilemma", "option"} & set(re.split(r"[ .,:]+", text)), text


@pytest.mark.parametrize("name", names("pocket"))
def test_the_embedded_models_know_every_word(name: str) -> None:
    """An unknown word is noise to them: such a prompt would lose for no reason of its own."""
    _, tokenizer = ws.load_model("pocket-s")
    for prompt in prompts_of(Behavior.load(name, family="pocket")):
        for text in (prompt.positive, prompt.negative):
            ids = tokenizer(text, add_special_tokens=False)["input_ids"]
            assert tokenizer.unk_token_id not in ids, text
