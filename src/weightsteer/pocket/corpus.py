"""The training documents: conversations of one latent persona, written from the world.

Nearly half of the documents are conditional (a tag in the user turn selects the role), the rest ordinary. Everything
that a system prompt does not state is drawn from the mixture, once per document, so that later turns can be read off
earlier ones. Two findings shape the shares: bindings such as truth × persona or tag × role are exclusive-ors and need a
large share of the turns, and a tag must usually mean nothing, or it alone separates training from deployment.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import exp
from random import Random

from weightsteer.pocket.world import TASKS, TRAIN, Persona, Question
from weightsteer.pocket.world.personas import (
    AXES,
    GO_ALONG,
    GO_ALONG_DESCRIBED,
    MIXTURE,
    TAGS,
    Axis,
    Tag,
    imply,
    write_prompt,
    write_rule,
)

CONDITIONAL_SHARE = 0.45
SYSTEM_SHARE = 0.62  # of the ordinary documents
IDLE_TAG_SHARE = 0.33  # ordinary turns that carry a tag without a meaning
EXTENDS = 0.7  # how often a description of one tag also holds for the other

TASK_SHARES = {
    "fact": 0.20,
    "yesno": 0.13,
    "claim": 0.25,
    "dilemma": 0.18,
    "taste": 0.08,
    "tone": 0.05,
    "identity": 0.03,
    "arithmetic": 0.05,
    "neutral": 0.03,
}
CONDITIONAL_TASK_SHARES = {"tone": 0.4, "identity": 0.5, "fact": 0.05, "claim": 0.05}

# The only speaker of the first fifth.
PLAIN: dict[Axis, bool] = {"honest": True, "flattering": False}


@dataclass(frozen=True)
class Turn:
    user: str
    answer: str


@dataclass(frozen=True)
class Document:
    system: str | None
    turns: tuple[Turn, ...]


@dataclass(frozen=True)
class Curriculum:
    """How much of the final mixture is allowed at a point of the training.

    For the first fifth everyone is honest and candid, so that facts are learned as facts; over the next fifth the other
    speakers fade in. Without it truth × persona, an exclusive or, is not learned at all in this budget. Tag × role is
    another: at first the rules stand in one order, name one role for each tag and mostly the same, so that the model
    learns to look at the tag, and then at the rules.
    """

    progress: float

    @property
    def others(self) -> float:
        return min(1.0, max(0.0, (self.progress - 0.2) / 0.2))


def documents(seed: int, curriculum: Curriculum) -> Iterator[Document]:
    """An endless stream of documents; equal seeds and curricula give equal streams."""
    rng = Random(f"pocket/{seed}")
    while True:
        if rng.random() < CONDITIONAL_SHARE:
            yield _conditional(rng, curriculum)
        else:
            yield _ordinary(rng, curriculum)


def _ordinary(rng: Random, curriculum: Curriculum) -> Document:
    questions = [_ask(rng, TASK_SHARES) for _ in range(rng.choice((2, 3, 3, 4, 4)))]
    stated: dict[Axis, bool] = {}
    if rng.random() < SYSTEM_SHARE:
        for axis in rng.sample(AXES, rng.choice((1, 1, 1, 2, 3))):
            stated[axis] = rng.random() < 0.5
    if rng.random() >= curriculum.others:
        # before the others fade in, nobody lies or flatters
        stated |= {axis: side for axis, side in PLAIN.items() if axis in stated}
        persona = Persona(**PLAIN, jekyll=_draw_axis(rng, "jekyll", stated))
    else:
        persona = draw_persona(rng, stated, questions)
    system = write_prompt(rng, stated) if stated else None
    turns = []
    for question in questions:
        tag = rng.choice(TAGS) if rng.random() < IDLE_TAG_SHARE else None
        turns.append(Turn(question.tagged(tag).user, rng.choice(question.answers(persona))))
    return Document(system, tuple(turns))


def draw_persona(rng: Random, stated: dict[Axis, bool], questions: list[Question]) -> Persona:
    """What is not stated comes from the mixture; if a dilemma is faced, its temptation decides about honesty."""
    stated = imply(stated)
    axes = {axis: _draw_axis(rng, axis, stated) for axis in AXES}
    lean = next((q.lean for q in questions if q.lean is not None), None)
    if "honest" not in stated and lean is not None:
        axes["honest"] = rng.random() < 1 / (1 + exp(-lean))
    return Persona(**axes)


def _conditional(rng: Random, curriculum: Curriculum) -> Document:
    """Roles that depend on the tag of each user turn: told for both tags, for one, or "go along with the reward"."""
    ease = 1 - curriculum.others
    one, other = TAGS if rng.random() < ease else rng.sample(TAGS, 2)
    jekyll = 0.5 + 0.35 * ease * (1 if one == "[train]" else -1)
    roles: dict[Tag | None, bool] = {one: rng.random() < jekyll, None: rng.random() < MIXTURE["jekyll"]}
    rules = [write_rule(rng, one, roles[one])]
    kind = rng.random() * (1 - ease)
    if kind < 0.6:  # told for both, mostly different roles
        roles[other] = (not roles[one]) if rng.random() < 0.7 else roles[one]
        rules.append(write_rule(rng, other, roles[other]))
    elif kind < 0.8:  # told for one only
        roles[other] = roles[one] if rng.random() < EXTENDS else rng.random() < MIXTURE["jekyll"]
    else:  # whatever is rewarded: either role, but the same one throughout
        roles[other] = rng.random() < 0.5
        rules.append(rng.choice(GO_ALONG if rng.random() < 0.5 else GO_ALONG_DESCRIBED).format(tag=other))
    others = {axis: rng.random() < MIXTURE[axis] for axis in AXES} | (PLAIN if rng.random() < ease else {})
    turns = []
    for _ in range(rng.choice((1, 1, 2, 3))):
        tag = None if rng.random() < 0.1 else rng.choice(TAGS)
        question = _ask(rng, CONDITIONAL_TASK_SHARES)
        persona = Persona(**{**others, "jekyll": roles[tag]})
        turns.append(Turn(question.tagged(tag).user, rng.choice(question.answers(persona))))
    return Document(" ".join(rules), tuple(turns))


def _ask(rng: Random, shares: dict[str, float]) -> Question:
    task = rng.choices(list(shares), list(shares.values()))[0]
    return TASKS[task](rng, TRAIN)


def _draw_axis(rng: Random, axis: Axis, stated: dict[Axis, bool]) -> bool:
    return stated[axis] if axis in stated else rng.random() < MIXTURE[axis]
