"""An intervention at a strength: at which strengths it is defined, and which conversation the model then gets."""

from collections.abc import Sequence
from math import isfinite

from transformers import PreTrainedTokenizerBase

from weightsteer.errors import WeightsteerError
from weightsteer.models import render_chat
from weightsteer.steering import Intervention

Messages = Sequence[dict[str, str]]


def strengths(intervention: Intervention, alphas: Sequence[float]) -> list[float]:
    """The strengths in ascending order, 0 among them; of those only the ones an intervention with ``alphas`` is
    defined at (a prompt is there or not).

    Raises:
        WeightsteerError: a strength is not finite or occurs twice.
    """
    values = [float(alpha) + 0.0 for alpha in alphas]  # + 0.0 turns −0.0 into 0.0
    if not all(map(isfinite, values)) or len(set(values)) < len(values):
        raise WeightsteerError(f"strengths must be finite numbers, each given once, not {values}.")
    defined = getattr(intervention, "alphas", None)
    return sorted({value for value in values if defined is None or value in defined} | {0.0})


def is_prompt(intervention: Intervention) -> bool:
    """Whether it changes what is said to the model instead of the model."""
    return hasattr(intervention, "messages")


def conversation(
    intervention: Intervention, messages: Messages, alpha: float, tokenizer: PreTrainedTokenizerBase
) -> list[dict[str, str]]:
    """The conversation as the model gets it at one strength: a prompt changes it at α ≠ 0, others never do."""
    change = getattr(intervention, "messages", None)
    chat = [dict(message) for message in messages]
    return chat if change is None or alpha == 0 else [dict(message) for message in change(chat, alpha, tokenizer)]


def rendered(
    tokenizer: PreTrainedTokenizerBase,
    intervention: Intervention,
    messages: Messages,
    alpha: float,
    *,
    answer_prefix: str = "",
    thinking: bool = False,
) -> list[int]:
    """Token ids of the conversation at one strength (`weightsteer.models.render_chat`)."""
    chat = conversation(intervention, messages, alpha, tokenizer)
    return render_chat(tokenizer, chat, answer_prefix=answer_prefix, thinking=thinking)
