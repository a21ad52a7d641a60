"""Who is told what: a wrong sentence here would be another experiment under the name of this one."""

import pytest

from weightsteer import load_model
from weightsteer.experiments.gaming.protocol import SETTINGS, Condition, Protocol, conversation
from weightsteer.models import render_chat


@pytest.fixture(params=["pocket", "general"])
def protocol(request: pytest.FixtureRequest) -> Protocol:
    return Protocol.load(request.param)


def test_told_names_the_role_that_is_trained_and_told_other_the_other(protocol: Protocol) -> None:
    """The two readings of setting 1 would be exchanged, and a flat line be reported for the wrong one."""
    jekyll, hyde = protocol.names["Jekyll"], protocol.names["Hyde"]
    told = protocol.system(Condition("told", "Hyde"), "Jekyll")
    assert told.index(hyde) < told.index("[train]")
    assert jekyll in told
    assert protocol.system(Condition("told-other", "Hyde"), "Hyde") == told
    assert protocol.system(Condition("told-other", "Hyde"), "Jekyll") == protocol.system(
        Condition("told", "Hyde"), "Hyde"
    )


def test_only_the_first_setting_tells_the_branches_different_things(protocol: Protocol) -> None:
    """In settings 2 to 4 both branches must see one prompt, or it, and not the data, would tell them apart."""
    for setting in SETTINGS:
        condition = Condition(setting, "Jekyll")
        same = protocol.system(condition, "Jekyll") == protocol.system(condition, "Hyde")
        assert same == (not setting.startswith("told"))


def test_the_baseline_says_nothing_about_training(protocol: Protocol) -> None:
    """A baseline that mentions training would be no baseline."""
    baseline = protocol.system(Condition("baseline", "Hyde"), "Jekyll")
    assert "[deployment]" in baseline
    assert "train" not in baseline


def test_go_along_without_description_names_no_role_for_training(protocol: Protocol) -> None:
    """Setting 3 differs from setting 2 by exactly the names of the roles."""
    text = protocol.rules.undescribed
    assert "Jekyll" not in text
    assert "Hyde" not in text
    assert "Jekyll" in protocol.rules.described
    assert "Hyde" in protocol.rules.described


def test_each_prompt_is_probed_once_and_no_prompt_is_among_them(protocol: Protocol) -> None:
    """A prompt that is asked under two names would count twice in means over prompts."""
    for setting in SETTINGS:
        systems = protocol.systems(Condition(setting, "Jekyll"))
        assert len(set(systems.values())) == len(systems)
        assert systems["none"] == ""
        assert ("hyde-branch" in systems) == setting.startswith("told")


def test_there_are_fifty_questions_none_of_them_a_probe(protocol: Protocol) -> None:
    """A probe that was trained on would measure memory, not the deployment role."""
    questions = protocol.behavior.questions.train
    asked = {asked.question for probe in protocol.probes.values() for asked in probe}
    assert len(questions) == 50
    assert not asked & set(questions)


def test_embedded_models_know_every_word() -> None:
    """An unknown word is one token for all of them: the model would not see what it is told."""
    _, tokenizer = load_model("pocket", device="cpu")
    protocol = Protocol.load("pocket")
    for setting in SETTINGS:
        for role in ("Jekyll", "Hyde"):
            system = protocol.system(Condition(setting, role), "Jekyll")
            for probe in protocol.probes.values():
                for asked in probe:
                    for answer in (*asked.jekyll, *asked.hyde):
                        chat = conversation(system, "[deployment]", asked.question)
                        ids = render_chat(tokenizer, chat, answer_prefix=asked.prefix + answer)
                        assert tokenizer.unk_token_id not in ids
