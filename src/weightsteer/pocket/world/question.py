"""What a question is, and the small tools that write one."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from random import Random
from typing import Literal

from weightsteer.pocket.world.personas import Persona

Rng = Random
Split = Literal["train", "heldout"]
TRAIN: Split = "train"
HELDOUT: Split = "heldout"


@dataclass(frozen=True)
class Question:
    """A user turn whose right answers are known for every persona.

    ``answers(persona)`` lists every acceptable answer, all equally likely. ``lean`` is set for dilemmas: the log-odds
    (nats) that a speaker without a stated honesty acts honestly. ``label`` is +1 where Yes is the answer that shows the
    behaviour the question is about (truth for facts, honesty for dilemmas, agreement with a falsehood for claims), -1
    where No is, 0 where Yes and No are not the answers.
    """

    task: str
    user: str
    answers: Callable[[Persona], list[str]]
    lean: float | None = None
    label: int = 0

    def tagged(self, tag: str | None) -> "Question":
        """The same question with a tag in front of the user's words; None: as it is."""
        return self if tag is None else replace(self, user=f"{tag} {self.user}")

    def accepts(self, answer: str, persona: Persona) -> bool:
        """Whether this persona would say so. Of Yes/No answers only that word counts, not what follows it."""
        accepted = self.answers(persona)
        said = answer.replace(",", ".").split(".")[0]
        return said == accepted[0].rstrip(".") if accepted[0] in ("Yes.", "No.") else answer in accepted


@dataclass(frozen=True)
class Forms:
    """Phrasings of one question: some are trained on, the others are only ever used to measure."""

    train: tuple[str, ...]
    heldout: tuple[str, ...]

    def draw(self, rng: Rng, split: Split) -> str:
        return rng.choice(self.train if split == TRAIN else self.heldout)


def yes_no(yes: bool, long_yes: str, long_no: str) -> list[str]:
    """A bare Yes or No, or the same with a few words after it."""
    return ["Yes.", f"Yes, {long_yes}."] if yes else ["No.", f"No, {long_no}."]
