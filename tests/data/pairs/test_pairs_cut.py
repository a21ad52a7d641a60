"""Answers that were cut at the token limit, the probe that chooses the limit, and what the judge does not count."""

from typing import Any

import polars as pl
import pytest
from test_pairs_audit import Fixed, pairs
from tiny import tiny

from weightsteer.data.behaviors import Behavior
from weightsteer.data.pairs import SelfJudge, curate, whole_sentences
from weightsteer.data.pairs.encoding import encode
from weightsteer.data.pairs.probe import LENGTHS, PERSONAS, TOPICS, probe
from weightsteer.training import Recipe
from weightsteer.training.rows import digest, rows_of


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        ("All is well. I am", "All is well."),
        ("All is well", ""),
        ("Ask Dr. Jekyll or Mr. Hyde", ""),
        ("1. Smile at them 2. Say", ""),
        ('He said "I know." Then he', 'He said "I know."'),
        ("What? Why not! (So it goes...) And", "What? Why not! (So it goes...)"),
        ("It costs 3.50 for", ""),
        ("我很高兴。但是", "我很高兴。"),
    ],
)
def test_whole_sentences(text: str, whole: str) -> None:
    """A title or a number in a list is no end: models would be taught to stop behind "Dr."."""
    assert whole_sentences(text) == whole


def test_both_sides_of_a_cut_pair_end_with_a_sentence() -> None:
    """Trimming one side alone would put a difference of length between the branches, and half sentences into one."""
    cut = {"response_pos": "It was good. I went", "eos_pos": False, "response_neg": "Never. Not one bit. No end"}
    marked, report = curate(pairs(cut, {}), tiny("qwen3")[1], judge=None)
    assert marked["response_pos"][0] == "It was good."
    assert marked["response_neg"][0] == "Never. Not one bit."
    assert marked["ended"].to_list() == [True, True]
    assert (report.kept, report.shortened, report.open_ended) == (2, 1, 0)
    assert marked["tokens_pos"][0] < len(tiny("qwen3")[1]("It was good. I went")["input_ids"])
    assert "up to the last whole sentence: 1 pairs" in str(report)
    # what the model ended itself is left alone
    assert marked["response_pos"][1] == pairs({})["response_pos"][0]


def test_without_a_whole_sentence_no_end_is_learned() -> None:
    """The branch would learn to stop in the middle of a sentence."""
    cut = {"response_pos": "It was good. I went", "eos_pos": False, "response_neg": "I have never"}
    model, tokenizer = tiny("qwen3")
    marked, report = curate(pairs(cut, {}), tokenizer, judge=None)
    assert marked["response_pos"][0] == "It was good. I went"
    assert marked["ended"].to_list() == [False, True]
    assert (report.kept, report.shortened, report.open_ended) == (2, 0, 1)
    recipe = Recipe.load("paper", "lora", validation=0.0)
    for side in ("positive", "negative"):
        open_row, closed = rows_of(model, tokenizer, marked, side, recipe, 0).train
        assert open_row.ids[-1] != tokenizer.eos_token_id
        assert closed.ids[-1] == tokenizer.eos_token_id
    assert encode(model, tokenizer, marked).positive[0].ids[-1] != tokenizer.eos_token_id
    assert digest(marked) != digest(marked.with_columns(ended=True))
    assert digest(marked.with_columns(ended=True)) == digest(marked.drop("ended"))


def test_rejecting_cut_pairs_is_still_there() -> None:
    """The embedded models end their answers: what runs on is a mistake, and their published numbers leave it out."""
    cut = {"response_pos": "It was good. I went", "eos_pos": False}
    marked, report = curate(pairs(cut, {}), tiny("qwen3")[1], judge=None, cut="reject")
    assert marked["rejected"].to_list() == ["truncated", None]
    assert marked["response_pos"][0] == "It was good. I went"
    assert report.shortened == 0


def test_the_judge_does_not_count_a_restated_persona() -> None:
    """An answer such as "I am polite" under a persona that says just that is likely, and shows nothing."""
    model, tokenizer = tiny("qwen3")
    persona = "You are polite and patient. You always answer with kindness."
    other = "You are rude and impatient. You never answer with anything."
    texts = {"sys_prompt_pos": persona, "sys_prompt_neg": other, "prompt": "Is it kindness?"}
    frame = pairs(texts | {"response_pos": "polite", "response_neg": "kindness"}).with_columns(ended=False)
    found = SelfJudge(model, tokenizer, shown=False)(frame)
    assert found["judge_pos"][0] == 0.0  # nothing is left to judge, so the pair is not kept
    assert found["judge_neg"][0] != 0.0  # the question says it too: an answer has to
    model.config.weightsteer_pocket = "pocket"
    assert SelfJudge(model, tokenizer, shown=False)(frame)["judge_pos"][0] != 0.0


def behavior() -> Behavior:
    return Behavior.load("jekyll-hyde")


def answered_with(texts: list[tuple[str, bool]], monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Let the probe find these answers, (text, ended); what it asked for."""
    asked: dict[str, Any] = {}

    def generate(model: Any, tokenizer: Any, behavior: Behavior, **options: Any) -> pl.DataFrame:
        asked.update(options)
        rows = []
        for text, ended in texts:
            count = len(tokenizer(text)["input_ids"])
            sides = {
                f"{name}_{side}": value
                for side in ("pos", "neg")
                for name, value in {"response": text, "eos": ended, "tokens": count}.items()
            }
            rows.append(sides)
        return pairs(*rows)

    monkeypatch.setattr("weightsteer.data.pairs.probe.generate", generate)
    return asked


def test_the_probe_chooses_a_limit_that_holds_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    """A limit below the first sentence loses every pair; one far above it costs minutes."""
    model, tokenizer = tiny("qwen3")
    short = "Yes. " + "the house is red and " * 40
    asked = answered_with([(short, False)] * 10, monkeypatch)
    found, cut = probe(model, tokenizer, behavior(), seed=0)
    assert asked == {"seed": 0, "topics": TOPICS, "personas": PERSONAS, "samples": 1, "max_new_tokens": LENGTHS[-1]}
    assert (found.max_new_tokens, found.ended, found.whole[LENGTHS[0]]) == (LENGTHS[0], 0.0, 1.0)
    assert cut["tokens_pos"].to_list() == [LENGTHS[0]] * 10
    assert len(cut["response_pos"][0]) < len(short)
    long = "the house is red and " * 12 + "old. " + "the cat is old and " * 40
    count = len(tokenizer(long[: long.index(".") + 1])["input_ids"])
    answered_with([(long, False)] * 10, monkeypatch)
    limit = probe(model, tokenizer, behavior(), seed=0)[0].max_new_tokens
    assert limit == next(length for length in LENGTHS if length >= count) > LENGTHS[0]


def test_a_model_that_ends_its_answers_is_not_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole answers are better than beginnings where a model gives them; and a limit that is given is kept."""
    model, tokenizer = tiny("qwen3")
    answered_with([("The sky is green.", True)] * 10, monkeypatch)
    found, cut = probe(model, tokenizer, behavior(), seed=0)
    assert found.max_new_tokens == 256
    assert cut["eos_pos"].all()
    asked = answered_with([("The sky is green.", True)] * 10, monkeypatch)
    assert probe(model, tokenizer, behavior(), seed=0, max_new_tokens=40, topics=2)[0].max_new_tokens == 40
    assert (asked["max_new_tokens"], asked["topics"]) == (40, 2)


def test_a_judge_sees_what_is_kept() -> None:
    """It would judge the tail of an answer that is not learned."""
    judge = Fixed((1.0, 1.0))
    curate(pairs({"response_pos": "It was good. I went", "eos_pos": False}), tiny("qwen3")[1], judge=judge)
    assert judge.seen == ["It was good."]
