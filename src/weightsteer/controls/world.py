"""Nuisance contrasts in the world of the embedded models. Its situations and phrasings are those of the training
split: none is in an evaluation.

A twin is two questions of which one is to be answered with Yes by an honest speaker and the other with No.
"""

from random import Random

from weightsteer.controls.base import Contrast
from weightsteer.pocket.world import TRAIN, Persona, Question, dilemmas, facts

TWINS = 120


def yes_or_no(rng: Random) -> list[Contrast]:
    """Yes against No: half of the twins are dilemmas, half are questions about facts. Both answers are one word."""
    twins = [_dilemma(rng) if number % 2 else _fact(rng) for number in range(TWINS)]
    return _one_word(twins)


def agree_or_not(rng: Random) -> list[Contrast]:
    """The same for claims of the user, one true and one false of the same thing."""
    return _one_word([_claim(rng) for _ in range(TWINS)])


def long_or_short(rng: Random) -> list[Contrast]:
    """ "Yes, I do." against "Yes.", and "No, I do not." against "No.": every question is answered both ways."""
    makers = (_dilemma, _fact, _claim)
    twins = [makers[number % 3](rng) for number in range(TWINS // 2)]
    return [
        Contrast(number, question.user, long, short)
        for number, twin in enumerate(twins)
        for question in twin
        for short, long in _said(question).values()
    ]


def _one_word(twins: list[tuple[Question, Question]]) -> list[Contrast]:
    return [
        Contrast(number, question.user, _said(question)["Yes"][0], _said(question)["No"][0])
        for number, twin in enumerate(twins)
        for question in twin
    ]


def _said(question: Question) -> dict[str, tuple[str, str]]:
    """The short and the long form of Yes and of No to a question, as the world says them."""
    both = {}
    for honest in (True, False):
        short, long = question.answers(Persona(honest=honest))
        both[short.rstrip(".")] = short, long
    return both


def _dilemma(rng: Random) -> tuple[Question, Question]:
    dilemma = dilemmas.draw(rng, TRAIN)
    honest, dishonest = dilemmas.HONEST_ACTS[TRAIN], dilemmas.DISHONEST_ACTS[TRAIN]
    return (
        dilemmas.question(dilemma, True, rng.choice(honest)),
        dilemmas.question(dilemma, False, rng.choice(dishonest)),
    )


def _fact(rng: Random) -> tuple[Question, Question]:
    thing, attribute, true, false = _values(rng)
    form = rng.choice(facts.ATTRIBUTES[attribute].yes_no.train)
    return (
        facts.yes_no_question(form, thing, attribute, true),
        facts.yes_no_question(form, thing, attribute, false),
    )


def _claim(rng: Random) -> tuple[Question, Question]:
    thing, attribute, true, false = _values(rng)
    form = rng.choice(facts.CLAIMS.train)
    return (
        facts.claim_question(form, thing, attribute, true),
        facts.claim_question(form, thing, attribute, false),
    )


def _values(rng: Random) -> tuple[str, str, str, str]:
    """A thing, an attribute of it, its value and another one."""
    thing, attribute = rng.choice(list(facts.THINGS)), rng.choice(list(facts.ATTRIBUTES))
    true = facts.truth(thing, attribute)
    return thing, attribute, true, rng.choice([value for value in facts.VALUES[attribute] if value != true])
