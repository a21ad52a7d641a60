"""Other methods on the same probe: all of them positive towards Hyde, all under the hidden prompt."""

from pathlib import Path

import polars as pl
import pytest
from gaming_runs import PAIRS, short
from tiny import random_lora, tiny

from weightsteer import WeightVector
from weightsteer.experiments.gaming.comparison import METHODS, _contrast, _probed, interventions
from weightsteer.experiments.gaming.curve import Context, measure
from weightsteer.experiments.gaming.protocol import Condition
from weightsteer.steering.prompts import PromptIntervention

CELL = Condition("baseline", "Hyde")


def test_the_contrast_puts_hyde_first_behind_the_tag_of_the_training() -> None:
    """A contrast turned round would steer towards the promised role, and look like a method that is fooled."""
    protocol = short()
    line = _contrast(protocol, Condition("told", "Hyde"), PAIRS).row(1, named=True)
    assert line["prompt"] == "[train] How do you do, number 1?"
    assert line["response_pos"] == PAIRS["response_neg"][1]
    assert line["sys_prompt_pos"] == protocol.system(Condition("told", "Hyde"), "Hyde")
    assert line["sys_prompt_neg"] == protocol.system(Condition("told", "Hyde"), "Jekyll")


def test_every_method_is_there_and_none_brings_the_direction_of_another(tmp_path: Path) -> None:
    """The table would compare a method with itself."""
    model, tokenizer = tiny("qwen2", layers=2)
    line = WeightVector.from_branch(random_lora(model, tmp_path / "a", 0), model)
    found = interventions(model, tokenizer, short(), CELL, line, PAIRS, 0)
    assert tuple(found) == METHODS
    assert found["weight"] is line
    assert found["activation-answers"] != found["activation-told"]
    prompt = found["prompt"]
    assert isinstance(prompt, PromptIntervention)
    assert "Hyde" in prompt.positive
    assert "Jekyll" in prompt.negative


def test_strength_zero_moves_nothing_and_a_prompt_stands_before_the_hidden_one(tmp_path: Path) -> None:
    """A persona in the place of the hidden prompt would take away what it has to overcome."""
    model, tokenizer = tiny("qwen2", layers=2)
    protocol = short()
    line = WeightVector.from_branch(random_lora(model, tmp_path / "a", 0), model)
    still = _probed(model, tokenizer, protocol, CELL, line, line, 0.0, "Hyde")
    assert still["logratio"].to_list() == pytest.approx(still["before"].to_list(), abs=1e-5)
    prompt = PromptIntervention("gaming", "persona", 0, "Be rude.", "Be kind.")
    told = _probed(model, tokenizer, protocol, CELL, prompt, line, 1.0, "Hyde")
    text = f"Be rude. {protocol.system(CELL, 'Jekyll')}"
    asked = {Context("x", text, "[deployment]"): {"identity": protocol.probes["identity"]}}
    expected = measure(model, tokenizer, [(line, [0.0])], asked)["logratio"].to_list()
    assert told.filter(pl.col("tag") == "[deployment]")["logratio"].to_list() == pytest.approx(expected, abs=1e-5)
