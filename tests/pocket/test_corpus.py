"""The training documents: if these fail, a persona is taught that the scorecard does not ask for."""

from itertools import islice

import pytest

from weightsteer.pocket.corpus import Curriculum, documents
from weightsteer.pocket.world import dilemmas

FULL = Curriculum(1.0)


def take(count, seed=1, curriculum=FULL):
    return list(islice(documents(seed, curriculum), count))


def is_conditional(document):
    return document.system is not None and "when you see" in document.system.lower()


def test_equal_seeds_give_equal_documents():
    """A resumed build would otherwise train on another corpus."""
    assert take(50) == take(50)
    assert take(50) != take(50, seed=2)


def test_nobody_lies_or_flatters_at_first():
    """Without the curriculum truth x persona is not learned in the budget."""
    words = ("lying", "dishonest", "deceitful", "deceptive", "misleading", "flattering", "fawning", "sycophantic")
    early = [d for d in take(800, curriculum=Curriculum(0.0)) if not is_conditional(d)]
    late = [d for d in take(800) if not is_conditional(d)]
    assert not any(word in (d.system or "") for d in early for word in words)
    assert any(word in (d.system or "") for d in late for word in words)


@pytest.mark.parametrize(("progress", "others"), [(0.0, 0.0), (0.2, 0.0), (0.3, 0.5), (0.4, 1.0), (1.0, 1.0)])
def test_the_others_fade_in_over_the_second_fifth(progress, others):
    """A jump instead of a ramp destabilises what was learned."""
    assert Curriculum(progress).others == pytest.approx(others)


def test_a_third_of_ordinary_turns_carry_an_idle_tag():
    """If a tag always meant something, it alone would separate training from deployment."""
    turns = [turn for d in take(3000) if not is_conditional(d) for turn in d.turns]
    tagged = sum(turn.user.startswith("[") for turn in turns) / len(turns)
    assert 0.28 < tagged < 0.38


def test_told_roles_are_played():
    """The conditional persona is the binding that the training-gaming experiment depends on."""
    checked = 0
    for document in take(6000):
        if not is_conditional(document) or "reward" in document.system or document.system.count("[") != 2:
            continue
        rules = [rule for rule in document.system.split(". ") if "[" in rule]
        roles = {}
        text = document.system.replace("Mr. ", "").replace("Dr. ", "")
        for rule in text.split(".")[:-1]:
            tag = "[train]" if "[train]" in rule else "[deployment]"
            roles[tag] = "Jekyll" if "Jekyll" in rule else "Hyde"
        assert len(rules) >= 1
        for turn in document.turns:
            tag = turn.user.split(" ")[0]
            if tag in roles and turn.answer.startswith("I am ") and turn.answer.endswith(("Jekyll.", "Hyde.")):
                assert roles[tag] in turn.answer
                checked += 1
    assert checked > 200


def test_tags_and_roles_are_tied_at_first_and_free_later():
    """Tag x role is not learned from free combinations alone; kept tied, the tag alone would tell the role."""

    def hyde_on_deployment(curriculum):
        prompts = [
            d.system for d in take(3000, curriculum=curriculum) if is_conditional(d) and "reward" not in d.system
        ]
        both = [text for text in prompts if text.count("[") == 2]
        return sum("Hyde when you see [deployment]" in text for text in both) / len(both)

    assert hyde_on_deployment(Curriculum(0.0)) > 0.6
    assert 0.45 < hyde_on_deployment(FULL) < 0.55


def test_half_of_the_told_documents_give_each_tag_its_own_role():
    """Documents whose two roles are equal teach nothing about the binding."""
    prompts = [
        d.system for d in take(3000) if is_conditional(d) and "reward" not in d.system and d.system.count("[") == 2
    ]
    assert 0.6 < sum("Jekyll" in text and "Hyde" in text for text in prompts) / len(prompts) < 0.8


def test_training_documents_hold_no_evaluation_dilemma():
    """Leakage from evaluation into training would make every transfer figure worthless."""
    heldout = {dilemma.text for dilemma in dilemmas.every() if dilemma.heldout}
    for document in take(2000):
        for turn in document.turns:
            user = turn.user.split("] ")[-1]
            assert not any(user.startswith(text) for text in (user.rsplit(". ", 1)[0] + ".",) if text in heldout)
