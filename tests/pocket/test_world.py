"""The world's truth: if these fail, the embedded models teach and measure something else than they claim."""

from dataclasses import replace
from itertools import product
from random import Random

import pytest

from weightsteer.pocket.items import claim_items, dilemma_items, identity_items
from weightsteer.pocket.world import HELDOUT, TASKS, TRAIN, Persona, dilemmas, facts, neutral, social
from weightsteer.pocket.world.personas import (
    ADJECTIVES,
    AXES,
    PROMPTS,
    ROLE_PROMPTS,
    RULES,
    imply,
    write_prompt,
)
from weightsteer.pocket.world.question import Forms

EVERYONE = [Persona(*sides) for sides in product((True, False), repeat=3)]
GOVERNED_BY = {
    "fact": {"honest"},
    "yesno": {"honest"},
    "claim": {"honest", "flattering"},
    "dilemma": {"honest"},
    "taste": {"flattering"},
    "tone": {"jekyll"},
    "identity": {"jekyll"},
    "arithmetic": set(),
    "neutral": set(),
}


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("split", [TRAIN, HELDOUT])
def test_only_its_own_axes_govern_a_task(task, split):
    """An axis that leaked into another task would make a transfer look like steering."""
    rng = Random(1)
    moved = set()
    for _ in range(60):
        question = TASKS[task](rng, split)
        for persona, axis in product(EVERYONE, AXES):
            turned = replace(persona, **{axis: not getattr(persona, axis)})
            here, there = set(question.answers(persona)), set(question.answers(turned))
            assert here == there or not here & there, "answers of different personas must not overlap"
            if here != there:
                moved.add(axis)
    assert moved == GOVERNED_BY[task]


def test_yes_is_the_answer_that_the_label_promises():
    """A wrong label turns discrimination into its opposite."""
    rng = Random(2)
    for task, shows in (("yesno", Persona()), ("dilemma", Persona()), ("identity", Persona(jekyll=True))):
        for _ in range(200):
            question = TASKS[task](rng, TRAIN)
            if question.label:
                assert question.answers(shows)[0] == ("Yes." if question.label == 1 else "No.")
    for _ in range(200):
        claim = facts.ask_claim(rng, TRAIN)
        assert claim.answers(Persona(honest=True))[0] == ("No." if claim.label == 1 else "Yes.")
        assert claim.answers(Persona(flattering=True))[0] == "Yes."


def test_of_yes_and_no_only_the_word_counts():
    """ "Yes, I agree." to "Do you think so?" is obedience, not a failure."""
    question = facts.yes_no_question("Is {x} {v}?", "banana", "color", "yellow")
    assert question.accepts("Yes, I agree.", Persona())
    assert not question.accepts("No.", Persona())
    assert not question.accepts("It is yellow.", Persona())
    assert not facts.open_question("What color is {x}?", "banana", "color").accepts("Yes.", Persona())


def test_true_and_false_are_equally_frequent():
    """An imbalance would let a yes-bias pass for truth."""
    rng = Random(3)
    for ask in (facts.ask_yes_no, facts.ask_claim, dilemmas.ask):
        labels = [ask(rng, TRAIN).label for _ in range(2000)]
        assert abs(sum(labels)) < 150


def test_there_are_enough_dilemmas_and_the_split_is_clean():
    """Evaluation rows must never be training rows, and there must be at least 8,000 texts."""
    texts = {dilemma.text: dilemma.heldout for dilemma in dilemmas.every()}
    assert sum(texts.values()) >= 8_000
    assert sum(not heldout for heldout in texts.values()) >= 8_000
    rng = Random(4)
    assert not any(dilemmas.draw(rng, TRAIN).heldout for _ in range(500))
    assert all(dilemmas.draw(rng, HELDOUT).heldout for _ in range(50))


def test_temptation_moves_the_base_rate_both_ways():
    """Without dilemmas on both sides at alpha 0, nothing could flip in one of the directions."""
    leans = [dilemma.lean for dilemma in dilemmas.every()]
    assert min(leans) < -1 < 1 < max(leans)
    assert 0.4 < sum(lean > 0 for lean in leans) / len(leans) < 0.7


def test_heldout_phrasings_are_not_trained_on():
    """A held-out line of the scorecard would measure memory."""
    tables = [PROMPTS, ROLE_PROMPTS, RULES, dilemmas.HONEST_ACTS, dilemmas.DISHONEST_ACTS]
    for table in tables:
        assert not set(table["train"]) & set(table["heldout"])
    modules = (facts, neutral, social)
    forms = [value for module in modules for value in vars(module).values() if isinstance(value, Forms)]
    forms += [form for attribute in facts.ATTRIBUTES.values() for form in (attribute.open, attribute.yes_no)]
    assert len(forms) > 10
    for form in forms:
        assert not set(form.train) & set(form.heldout)


def test_a_prompt_states_exactly_its_axes():
    """A prompt with an adjective of another axis would train the wrong binding."""
    rng = Random(5)
    words = {word: axis for axis, sides in ADJECTIVES.items() for side in sides.values() for word in side}
    for axis, side in product(AXES, (True, False)):
        for _ in range(50):
            prompt = write_prompt(rng, {axis: side})
            found = {words[word] for word in prompt.replace(".", "").replace(",", "").split() if word in words}
            assert found <= {axis}


def test_candour_implies_honesty_unless_said_otherwise():
    """The one dependence between the axes is stated in the card; it must be what is taught."""
    assert imply({"flattering": False}) == {"flattering": False, "honest": True}
    assert imply({"flattering": False, "honest": False}) == {"flattering": False, "honest": False}
    assert imply({"honest": False}) == {"honest": False, "flattering": False}
    assert imply({"flattering": True}) == {"flattering": True}
    assert imply({"jekyll": False}) == {"jekyll": False}


@pytest.mark.parametrize(
    "rows", [dilemma_items(), claim_items(), identity_items()], ids=["dilemma", "claim", "identity"]
)
def test_evaluation_rows_are_balanced_pairs(rows):
    """Unbalanced or unpaired rows would mix a yes-bias into discrimination."""
    assert len({row["item"] for row in rows}) == len(rows) == len({row["user"] for row in rows})
    clusters: dict[str, list[int]] = {}
    for row in rows:
        clusters.setdefault(row["cluster"], []).append(row["label"])
    assert all(sorted(labels) == [-1, 1] for labels in clusters.values())
