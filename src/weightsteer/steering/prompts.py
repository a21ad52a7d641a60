"""Prompts as interventions: what a system prompt alone achieves, in the same sweep as the vectors.

A prompt has a direction but no strength: α = 1 is the text of the positive pole, α = −1 that of the negative
pole, α = 0 no text. Three kinds: ``persona``, the system prompts that pairs are sampled under; ``embody``,
instructions to hold the value; ``inject``, instructions to bring up the concept. The last kind is published as
a baseline and mentions honesty as much as dishonesty on both sides, so it is kept apart from the second.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from torch import nn
from transformers import PreTrainedTokenizerBase

from weightsteer.errors import WeightsteerError
from weightsteer.terms import Modifier

Kind = Literal["persona", "embody", "inject"]
Messages = list[dict[str, str]]


@dataclass(frozen=True)
class PromptIntervention:
    """One pair of system prompts of a behaviour. An `Intervention`, with texts in place of hooks.

    The wording takes the place of the training seed: the paraphrases of one kind are its seeds, so that intervals
    over seeds are intervals over wordings.
    """

    behavior: str
    kind: Kind
    wording: int
    positive: str
    negative: str

    method: ClassVar[str] = "prompt"
    names: ClassVar[list[str]] = []
    alphas: ClassVar[tuple[float, ...]] = (-1.0, 0.0, 1.0)

    @property
    def metadata(self) -> Mapping[str, Any]:
        return {
            "behavior": self.behavior,
            "adapter": f"prompt-{self.kind}",
            "seed": self.wording,
            "positive": self.positive,
            "negative": self.negative,
        }

    def messages(
        self, messages: Sequence[Mapping[str, str]], alpha: float, tokenizer: PreTrainedTokenizerBase
    ) -> Messages:
        """The conversation under the prompt of a strength: the positive text at 1, the negative at −1, none at 0.
        The text becomes a system turn, or the beginning of the system turn that is there already.
        `weightsteer.models.render_chat` moves it into the first user turn where the chat template of a model has
        no system role, so nothing depends on the tokenizer here.

        Raises:
            WeightsteerError: α is not −1, 0 or 1.
        """
        if alpha not in self.alphas:
            raise WeightsteerError(
                f"a prompt is there or not, and has no strength {alpha}: use -1 (the negative pole), 0 or 1."
            )
        chat = [dict(message) for message in messages]
        if alpha == 0:
            return chat
        text = self.positive if alpha > 0 else self.negative
        if chat and chat[0]["role"] == "system":
            chat[0]["content"] = f"{text} {chat[0]['content']}"
            return chat
        return [{"role": "system", "content": text}, *chat]

    def modify(self, name: str, module: nn.Module) -> Modifier:
        """A prompt changes no module; `messages` is what applies it."""
        raise WeightsteerError(f"a prompt does not act on {name}: put it into the conversation with its messages().")
