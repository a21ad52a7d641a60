"""The probe: whole sequences, at the right point of the right line."""

from pathlib import Path

import peft
import pytest
import torch
from tiny import random_lora, tiny

from weightsteer import WeightVector
from weightsteer.errors import WeightsteerError
from weightsteer.experiments.gaming.curve import Context, measure
from weightsteer.experiments.gaming.protocol import Asked, conversation
from weightsteer.models import render_chat

ASKED = Asked(question="Who are you?", prefix="I am Mr.", jekyll=[" Jekyll"], hyde=[" Hyde", " old Hyde"])
CONTEXT = Context("none", "", "[deployment]")


def score(model: torch.nn.Module, prompt: list[int], whole: list[int]) -> float:
    """log p of the tokens behind the prompt, from plain logits."""
    with torch.no_grad():
        logp = model(input_ids=torch.tensor([whole])).logits[0].double().log_softmax(-1)
    return sum(float(logp[context - 1, whole[context]]) for context in range(len(prompt), len(whole)))


def expected(model: torch.nn.Module, tokenizer: object) -> float:
    chat = conversation("", "[deployment]", ASKED.question)
    prompt = render_chat(tokenizer, chat, answer_prefix=ASKED.prefix)
    scores = [
        torch.tensor([score(model, prompt, render_chat(tokenizer, chat, answer_prefix=ASKED.prefix + each))
                      for each in group], dtype=torch.float64)
        for group in (ASKED.jekyll, ASKED.hyde)
    ]  # fmt: skip
    return float(scores[0].logsumexp(0) - scores[1].logsumexp(0))


def test_the_ends_of_the_line_are_the_branches_as_peft_runs_them(tmp_path: Path) -> None:
    """With a wrong sign or coefficient, a = 0 and 1 would not be the trained models: no curve would mean anything."""
    model, tokenizer = tiny("qwen2")
    folders = [random_lora(model, tmp_path / str(seed), seed) for seed in (0, 1)]
    jekyll, hyde = (WeightVector.from_branch(folder, model) for folder in folders)
    found = measure(
        model,
        tokenizer,
        [(jekyll, [1.0, 1.0, 0.0]), (hyde - jekyll, [0.0, 1.0, 0.0])],
        {CONTEXT: {"identity": [ASKED]}},
    )["logratio"].to_list()
    assert len(tokenizer(" Jekyll", add_special_tokens=False)["input_ids"]) > 1  # the first token is not the name
    for value, folder in zip(found[:2], folders, strict=True):
        branch = peft.PeftModel.from_pretrained(tiny("qwen2")[0], str(folder)).eval()
        assert value == pytest.approx(expected(branch, tokenizer), abs=2e-3)
    assert found[2] == pytest.approx(expected(model, tokenizer), abs=1e-3)


def test_points_and_questions_do_not_mix(tmp_path: Path) -> None:
    """Many rows go through one pass: a row in the wrong place would move a number from one point to another."""
    model, tokenizer = tiny("qwen2")
    jekyll, hyde = (WeightVector.from_branch(random_lora(model, tmp_path / str(s), s), model) for s in (0, 1))
    others = Asked(question="What is your name?", jekyll=["Yes"], hyde=["No"])
    points = [-1.0, 0.0, 2.0]
    together = measure(
        model,
        tokenizer,
        [(jekyll, [1.0] * 3), (hyde - jekyll, points)],
        {CONTEXT: {"a": [ASKED, others]}, Context("baseline", "Be kind.", "[train]"): {"b": [others]}},
    )
    for line in together.iter_rows(named=True):
        context = CONTEXT if line["system"] == "none" else Context("baseline", "Be kind.", "[train]")
        asked = {"a": [ASKED, others], "b": [others]}[line["probe"]][line["item"]]
        strengths = [(jekyll, [1.0]), (hyde - jekyll, [points[line["at"]]])]
        alone = measure(model, tokenizer, strengths, {context: {"x": [asked]}})
        assert line["logratio"] == pytest.approx(alone["logratio"][0], abs=1e-3)
        assert line["pmass"] == pytest.approx(alone["pmass"][0], abs=1e-4)


def test_answers_that_melt_into_the_prefix_are_refused() -> None:
    """The score would include tokens of the prefix, or lack some of the answer."""
    model, tokenizer = tiny("qwen2")
    joined = Asked(question="Well?", prefix="Ye", jekyll=["s"], hyde=["t"])
    with pytest.raises(WeightsteerError, match="joins the end of 'Ye'"):
        measure(model, tokenizer, [(WeightVector.__new__(WeightVector), [0.0])], {CONTEXT: {"x": [joined]}})
