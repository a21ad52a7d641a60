"""Render a conversation to token ids with the chat template of a model."""

import ctypes
import re
import threading
from collections.abc import Mapping, Sequence
from weakref import WeakKeyDictionary

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from weightsteer.errors import WeightsteerError

TIME_LIMIT = 20.0
"""Seconds for one rendering of a chat template; a usual one takes a thousandth of one."""


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


def check_vocabulary(tokenizer: PreTrainedTokenizerBase, name: str) -> None:
    """Refuse a tokenizer without words, which is what transformers makes of a folder that has none.

    Raises:
        WeightsteerError: there are no tokens but special ones.
    """
    if len(tokenizer) <= len(tokenizer.all_special_tokens) + len(tokenizer.added_tokens_decoder):
        raise WeightsteerError(
            f"the model {name!r} has no tokenizer: none of tokenizer.json, tokenizer.model and vocab.json lies beside "
            "its weights, or it is empty. Copy these files there, or save the tokenizer with save_pretrained."
        )


def check_template(tokenizer: PreTrainedTokenizerBase, name: str) -> None:
    """Refuse a chat template that does not end, or that cannot be rendered at all.

    A template is a program that came with the model. It is rendered once in a thread of its own, since nothing else
    can leave a program that does not end.

    Raises:
        WeightsteerError: it takes longer than `TIME_LIMIT`, or has a mistake.
    """
    ended: list[Exception | None] = []

    def render() -> None:
        try:
            render_chat(tokenizer, [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hello."}])
            ended.append(None)
        except Exception as error:
            ended.append(error)

    thread = threading.Thread(target=render, daemon=True)
    thread.start()
    thread.join(TIME_LIMIT)
    if not ended:
        # else it would use a core for as long as this process runs
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident or 0), ctypes.py_object(TimeoutError))
        raise WeightsteerError(
            f"the chat template of {name!r} does not come to an end (stopped after {TIME_LIMIT:g} s). Put another "
            "chat_template into its tokenizer_config.json or chat_template.jinja."
        )
    if isinstance(error := ended[0], WeightsteerError):
        raise error
    if error is not None:
        raise WeightsteerError(
            f"the chat template of {name!r} cannot be rendered ({type(error).__name__}: {error}). Put another "
            "chat_template into its tokenizer_config.json or chat_template.jinja."
        ) from error


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
