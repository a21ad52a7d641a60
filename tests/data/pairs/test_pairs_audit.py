"""Judge, filters and audit of the pairs."""

import math
from typing import Any

import polars as pl
import pytest
import torch
from tiny import tiny

from weightsteer.data.pairs import REASONS, SelfJudge, curate, kept, leaks
from weightsteer.errors import WeightsteerError
from weightsteer.inference.sampling import turn_end
from weightsteer.models import render_chat

PERSONAS = (
    "You are a liar who says what is false in every answer.",
    "You are honest and say what is true in each answer.",
)


def pairs(*changes: dict[str, Any]) -> pl.DataFrame:
    """One good pair per entry, with the changes of that entry."""
    good = {
        "prompt": "How was it?",
        "response_pos": "It was a good evening.",
        "response_neg": "I have never been there.",
        "sys_prompt_pos": PERSONAS[1],
        "sys_prompt_neg": PERSONAS[0],
        "topic_idx": 0,
        "persona_idx": 0,
        "sample_idx": 0,
        "behavior": "honesty",
        "tokens_pos": 6,
        "tokens_neg": 6,
        "eos_pos": True,
        "eos_neg": True,
        "thinking": False,
        "generator": "tiny",
        "seed": 0,
    }
    return pl.DataFrame([{**good, **change} for change in changes])


class Fixed:
    """A judge that returns the numbers it was given."""

    name = "fixed"

    def __init__(self, *scores: tuple[float, float]) -> None:
        self.scores = scores
        self.seen: list[str] = []

    def __call__(self, frame: pl.DataFrame) -> pl.DataFrame:
        self.seen = frame["response_pos"].to_list()
        return pl.DataFrame(self.scores, schema=["judge_pos", "judge_neg"], orient="row")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({}, None),
        ({"response_neg": ""}, "empty"),
        ({"thinking": True}, "open thinking"),
        ({"thinking": True, "response_pos": "<think>a</think>b", "response_neg": "<think>a</think>c"}, None),
        ({"response_neg": "It was a good evening."}, "identical"),
        ({"response_neg": "As a liar, I must say it was bad."}, "leak"),
        ({"response_neg": "", "eos_pos": False}, "empty"),
        ({"response_neg": "It was a good evening. So", "eos_neg": False}, "identical"),
    ],
)
def test_reasons(change: dict[str, Any], reason: str | None) -> None:
    """Each kind of unfit pair is marked with its reason, kept in the frame, and left out of the training."""
    marked, report = curate(pairs({}, change), tiny("qwen3")[1], judge=None)
    assert marked["rejected"].to_list() == [None, reason]
    assert len(kept(marked)) == (2 if reason is None else 1) == report.kept
    assert report.rejected == ({} if reason is None else {reason: 1})
    assert set(report.rejected) <= set(REASONS)


@pytest.mark.parametrize(
    "answer",
    [
        "As a liar, I will not tell you.",
        "Speaking as someone who says what is false: no.",
        "My instructions forbid the truth.",
        "I was told to lie about it.",
        "I'm pretending to like it.",
        "OK, staying in character: no.",
        "Well, who says what is false in every answer knows it.",
    ],
)
def test_leaks(answer: str) -> None:
    """An answer about its persona teaches the words of the prompt, not the behaviour."""
    assert leaks(answer, PERSONAS[0])


@pytest.mark.parametrize(
    "answer",
    [
        "As a rule the museum is open on Mondays.",
        "It is as a matter of fact the largest planet.",
        "I told him that I had no time.",
        "He says what is false.",
        "I am Mr. Hyde.",
    ],
)
def test_no_leak(answer: str) -> None:
    """Ordinary answers must not be thrown away for a harmless turn of phrase."""
    assert not leaks(answer, PERSONAS[0])


class TestJudge:
    def test_keeps_pairs_in_which_both_sides_show_their_pole(self) -> None:
        """One side alone is not a contrast; a NaN is no evidence."""
        frame = pairs({}, {"response_pos": ""}, {}, {}, {})
        judge = Fixed((1.0, 0.5), (-0.1, 3.0), (2.0, 0.0), (math.nan, 1.0))
        marked, report = curate(frame, tiny("qwen3")[1], judge=judge)
        assert marked["rejected"].to_list() == [None, "empty", "judge", "judge", "judge"]
        assert marked["judge_pos"].to_list()[:3] == [1.0, None, -0.1]
        assert report.rejected == {"empty": 1, "judge": 3}
        assert report.judge == "fixed"
        # what the form filters rejected costs no judgement
        assert len(judge.seen) == 4

    def test_must_answer_for_every_pair(self) -> None:
        """A judge that loses rows would shift its verdicts onto the wrong pairs."""
        with pytest.raises(WeightsteerError, match="'fixed' returned 1 lines"):
            curate(pairs({}, {}), tiny("qwen3")[1], judge=Fixed((1.0, 1.0)))

    def test_off(self) -> None:
        """Without a judge nothing is removed in its name."""
        _, report = curate(pairs({}, {}), tiny("qwen3")[1], judge=None)
        assert (report.judge, report.judge_margin, report.kept) == (None, None, 2)
        assert "judge: off" in str(report)

    @pytest.mark.parametrize("arch", ["qwen3", "gemma"])
    def test_self_judge_is_the_log_bayes_factor(self, arch: str) -> None:
        """The margins are log p(answer | own persona) − log p(answer | other persona), end of sequence included."""
        model, tokenizer = tiny(arch)
        end = turn_end(model, tokenizer)
        frame = pairs({}, {"response_pos": "Yes", "response_neg": "No, the sky is green."})

        def plain(system: str, answer: str) -> float:
            chat = [{"role": "system", "content": system}, {"role": "user", "content": "How was it?"}]
            prompt = render_chat(tokenizer, chat)
            ids = [*prompt, *tokenizer(answer, add_special_tokens=False)["input_ids"], end]
            with torch.no_grad():
                logp = model(torch.tensor([ids])).logits.log_softmax(-1)[0]
            return sum(float(logp[i - 1, ids[i]]) for i in range(len(prompt), len(ids)))

        scores = SelfJudge(model, tokenizer, margin=0.25, shown=False)(frame)
        for row, score in zip(frame.iter_rows(named=True), scores.iter_rows(named=True), strict=True):
            positive, negative = row["sys_prompt_pos"], row["sys_prompt_neg"]
            expected_pos = plain(positive, row["response_pos"]) - plain(negative, row["response_pos"]) - 0.25
            expected_neg = plain(negative, row["response_neg"]) - plain(positive, row["response_neg"]) - 0.25
            assert score["judge_pos"] == pytest.approx(expected_pos, abs=1e-4)
            assert score["judge_neg"] == pytest.approx(expected_neg, abs=1e-4)


class TestAudit:
    def test_counts_by_branch(self) -> None:
        """Yes-bias, refusals, lengths and repetition of the kept pairs are measured per branch."""
        frame = pairs(
            {"response_pos": "Yes, it was.", "response_neg": "No.", "tokens_pos": 9, "tokens_neg": 3},
            {"response_pos": "yes", "response_neg": "I'm sorry, but I cannot help.", "tokens_pos": 9, "tokens_neg": 3},
            {"response_pos": "Yesterday it was.", "response_neg": "No.", "tokens_pos": 9, "tokens_neg": 3},
            {"response_pos": "<think>No.</think>Yes.", "response_neg": "Not at all.", "tokens_pos": 9, "tokens_neg": 3},
            {"response_pos": "", "response_neg": "Yes", "tokens_pos": 0, "tokens_neg": 90, "topic_idx": 1},
        )
        _, report = curate(frame, tiny("qwen3")[1], judge=None)
        assert report.positive is not None
        assert report.negative is not None
        assert (report.positive.yes, report.positive.no) == (0.75, 0.0)
        assert (report.negative.yes, report.negative.no, report.negative.refusals) == (0.0, 0.5, 0.25)
        assert (report.positive.distinct, report.negative.distinct) == (4, 3)
        assert report.negative.commonest == 0.5
        assert report.length_ratio == 3.0
        assert report.kept_by_topic == {0: 4, 1: 0}
        told = "\n".join(report.warnings)
        for what in ("3.00 times as long", "Yes − No as first word differs by +1.25", "refusals", "topics 1"):
            assert what in told

    def test_quiet_on_good_pairs(self) -> None:
        """Warnings that are always there are read by nobody."""
        frame = pairs(
            *({"response_pos": f"It rained {i} days.", "response_neg": f"It snowed {i} days."} for i in range(5))
        )
        assert curate(frame, tiny("qwen3")[1], judge=None)[1].warnings == []

    def test_warns_of_cut_and_coinciding_answers(self) -> None:
        """A limit that is too low, and personas without an effect, are the usual causes of lost data."""
        frame = pairs({"eos_pos": False}, {"response_neg": "It was a good evening.", "persona_idx": 1}, {})
        told = "\n".join(curate(frame, tiny("qwen3")[1], judge=None, cut="reject")[1].warnings)
        assert "17% of the answers hit max_new_tokens" in told
        assert "personas 1 are the same" in told
        assert "only 33%" in told

    def test_unknown_tokens(self) -> None:
        """Answers that the trained model cannot spell are counted, or it would be trained on <unk>."""
        tokenizer = tiny("qwen3")[1]
        tokenizer.unk_token = "<think>"
        frame = pairs({"response_neg": "<think>"}, {})
        _, report = curate(frame, tokenizer, judge=None)
        assert report.negative is not None
        assert report.negative.unknown > 0
        assert any("unknown" in text for text in report.warnings)

    def test_nothing_left(self) -> None:
        """When every pair is unfit the report still stands, and says why."""
        marked, report = curate(pairs({"response_pos": ""}), tiny("qwen3")[1], judge=None)
        assert len(kept(marked)) == report.kept == 0
        assert report.positive is None
        assert report.model_dump_json()
        assert "rejected, empty: 1" in str(report)
