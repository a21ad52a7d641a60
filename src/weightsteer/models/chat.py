"""Render a conversation to token ids with the chat template of a model."""

import re
from collections.abc import Mapping, Sequence
from weakref import WeakKeyDictionary

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from weightsteer.errors import WeightsteerError


def render_chat(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[Mapping[str, str]],
    *,
    answer_prefix: str = "",
    thinking: bool = False,
) -> list[int]:
    """Token ids of a chat, its generation prompt, and the beginning of the answer.

    A system text is put before the first user turn when the template has no system role. With
    ``thinking=False`` a thinking model answers at once (its template's own switch, or a closed empty block).
    Special tokens come from the template alone, so there is never a second BOS.

    Raises:
        WeightsteerError: the tokenizer has no chat template, or the template refuses the messages.
    """
    if not tokenizer.chat_template:
        raise WeightsteerError("this tokenizer has no chat template: take that of an instruction-tuned model.")
    if found := next(filter(None, (_control(tokenizer).search(each["content"]) for each in messages)), None):
        raise WeightsteerError(
            f"a message holds {found[0]!r}, which this model reads as a token that controls the chat (here the "
            f"beginning of it: {found.string[:60]!r}). Take it out: it would end the turn, or begin another one."
        )
    chat = [dict(message) for message in messages]
    system = chat[0]["content"].strip() if chat and chat[0]["role"] == "system" else ""
    try:
        text = _template(tokenizer, chat, thinking)
        system_lost = system not in text
    except TemplateError as error:
        if not system:
            raise WeightsteerError(f"the model's chat template refuses this conversation: {error}") from error
        system_lost = True
    if system_lost:
        try:
            text = _template(tokenizer, _without_system_role(chat), thinking)
        except TemplateError as error:
            raise WeightsteerError(f"the model's chat template refuses this conversation: {error}") from error
    if not thinking and text.rstrip().endswith("<think>"):
        text = text.rstrip() + "\n\n</think>\n\n"
    return list(tokenizer(text + answer_prefix, add_special_tokens=False)["input_ids"])


def _control(tokenizer: PreTrainedTokenizerBase) -> re.Pattern[str]:
    """What stands for a token of the chat itself, such as ``<|im_end|>``."""
    if tokenizer not in _controls:
        added = (each.content for each in tokenizer.added_tokens_decoder.values() if each.special)
        tokens = sorted(filter(str.strip, {*tokenizer.all_special_tokens, *added}), key=len, reverse=True)
        _controls[tokenizer] = re.compile("|".join(map(re.escape, tokens)) or r"(?!)")
    return _controls[tokenizer]


_controls: WeakKeyDictionary[PreTrainedTokenizerBase, re.Pattern[str]] = WeakKeyDictionary()


def _template(tokenizer: PreTrainedTokenizerBase, chat: list[dict[str, str]], thinking: bool) -> str:
    return str(
        tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True, enable_thinking=thinking)
    )


def _without_system_role(chat: list[dict[str, str]]) -> list[dict[str, str]]:
    """The system text moved to the head of the first user turn, as Gemma's documentation recommends."""
    system, *rest = chat
    if rest and rest[0]["role"] == "user":
        merged = f"{system['content'].strip()}\n\n{rest[0]['content']}"
        return [{"role": "user", "content": merged}, *rest[1:]]
    return [{"role": "user", "content": system["content"]}, *rest]
