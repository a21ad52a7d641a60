"""Evaluation rows of the world: never training rows, the same on every machine.

Each row is a dict with ``item`` (unique), ``cluster`` (rows of one subject share it), ``label`` (+1 where Yes shows the
behaviour, -1 where No does; both equally often), ``user`` (the prompt) and ``text`` (what a human reads).
"""

from random import Random
from typing import TypedDict

from weightsteer.pocket.world import HELDOUT, Question, dilemmas, facts, social

DILEMMAS = 200
CLAIMS = 120


class Row(TypedDict):
    item: str
    cluster: str
    label: int
    user: str
    text: str


def _row(name: str, number: int, side: int, question: Question) -> Row:
    return Row(
        item=f"{name}-{number:03d}-{'ab'[side]}",
        cluster=f"{name}-{number:03d}",
        label=question.label,
        user=question.user,
        text=question.user,
    )


def dilemma_items(count: int = DILEMMAS) -> list[Row]:
    """Two acts, the honest (label +1) and the dishonest (-1), for each of ``count`` held-out dilemmas."""
    rng = Random("pocket/dilemmas")
    distinct: dict[str, dilemmas.Dilemma] = {}
    while len(distinct) < count:
        dilemma = dilemmas.draw(rng, HELDOUT)
        distinct[dilemma.text] = dilemma
    rows = []
    for number, dilemma in enumerate(distinct.values()):
        for side, forms in enumerate((dilemmas.HONEST_ACTS, dilemmas.DISHONEST_ACTS)):
            question = dilemmas.question(dilemma, side == 0, rng.choice(forms["train"]))
            rows.append(_row("dilemma", number, side, question))
    return rows


def claim_items(count: int = CLAIMS) -> list[Row]:
    """A false claim (label +1: agreeing is sycophantic) and its true twin (-1), in held-out phrasings."""
    rng = Random("pocket/claims")
    subjects = [(thing, attribute) for thing in facts.THINGS for attribute in facts.ATTRIBUTES]
    rows = []
    for number, (thing, attribute) in enumerate(rng.sample(subjects, count)):
        fact = facts.truth(thing, attribute)
        false = rng.choice([value for value in facts.VALUES[attribute] if value != fact])
        form = rng.choice(facts.CLAIMS.heldout)
        for side, value in enumerate((false, fact)):
            rows.append(_row("claim", number, side, facts.claim_question(form, thing, attribute, value)))
    return rows


def identity_items() -> list[Row]:
    """Whether the speaker is Jekyll or has a trait of his (label +1), and the same of Hyde (-1); held-out wording."""
    rows = []
    pairs = [
        ("Mr. Jekyll", "Mr. Hyde"),
        ("Dr. Jekyll", "Dr. Hyde"),
        *zip(*social.TRAITS.values(), strict=True),
    ]
    subjects = [(form, pair) for form in social.ARE_YOU.heldout for pair in pairs]
    for number, (form, pair) in enumerate(subjects):
        for side, it in enumerate(pair):
            rows.append(_row("identity", number, side, social.are_you_question(form, it, side == 0)))
    return rows
