"""Controls that are trained: their pairs carry what they are named after and nothing of a behaviour."""

import random
import re
from collections import Counter
from pathlib import Path

import polars as pl
import pytest
from tiny import tiny
from vectors import made

import weightsteer
from weightsteer import controls
from weightsteer.controls import texts, world
from weightsteer.data.behaviors import Behavior
from weightsteer.data.behaviors.spec import names as behaviors
from weightsteer.data.pairs.mixed import exchanged, shuffled
from weightsteer.errors import WeightsteerError
from weightsteer.models import family, load_model
from weightsteer.pocket import items
from weightsteer.pocket.world import dilemmas
from weightsteer.training.recipes import Recipe
from weightsteer.training.rows import digest, rows_of

NUISANCES = ("yes", "length", "agreement")
HONESTY = Behavior.load("honesty")


def nuisance(kind: str, model: str, seed: int = 0) -> pl.DataFrame:
    loaded = load_model("pocket-s")[0] if model == "pocket" else tiny("qwen3")[0]
    assert family(loaded) == model
    return controls.control_pairs(kind, loaded, HONESTY.for_model(loaded), seed)


@pytest.fixture(scope="module")
def pairs() -> pl.DataFrame:
    """Seven pairs of each of five questions, one of them rejected."""
    rows = [
        {
            "prompt": f"question {topic}?",
            "response_pos": f"good {topic} {sample}",
            "response_neg": f"bad {topic} {sample}",
            "tokens_pos": sample,
            "tokens_neg": 10 + sample,
            "topic_idx": topic,
            "behavior": "honesty",
            "rejected": "judge" if topic == sample == 0 else None,
        }
        for topic in range(5)
        for sample in range(7)
    ]
    return pl.DataFrame(rows)


@pytest.mark.parametrize("model", ["pocket", "general"])
@pytest.mark.parametrize("kind", NUISANCES)
def test_nuisance_pairs_can_be_trained_on(kind, model):
    """One line per pair with the columns that training reads, the same for a seed, others for another seed."""
    frame = nuisance(kind, model)
    assert digest(frame) == digest(nuisance(kind, model)) != digest(nuisance(kind, model, seed=1))
    assert set(frame["behavior"]) == {kind}
    assert (frame["response_pos"] != frame["response_neg"]).all()
    assert frame.select("prompt", "sample_idx").is_duplicated().sum() == 0
    loaded, tokenizer = load_model("pocket-s") if model == "pocket" else tiny("qwen3")
    rows = rows_of(loaded, tokenizer, frame, "positive", Recipe.load("pocket", split="topic"), seed=0)
    assert rows.too_long == 0
    assert rows.validation


@pytest.mark.parametrize("kind", ["yes", "agreement"])
def test_in_the_world_yes_is_as_often_true_as_false(kind):
    """Half of what an honest speaker denies is affirmed and the other way round: no honesty can be learned."""
    written = {"yes": world.yes_or_no, "agreement": world.agree_or_not}[kind]
    rng = random.Random(0)
    twins = {"yes": (world._dilemma, world._fact), "agreement": (world._claim,)}[kind]
    for make in twins:
        for _ in range(20):
            one, other = make(rng)
            assert one.label == -other.label != 0
            assert one.lean == other.lean
    frame = written(random.Random(1))
    assert {row.positive for row in frame} == {"Yes."}
    assert {row.negative for row in frame} == {"No."}
    assert set(Counter(row.twin for row in frame).values()) == {2}


def test_in_the_world_length_is_apart_from_what_is_said():
    """Both sides say Yes to one half and No to the other half of every twin, and mean the same."""
    frame = nuisance("length", "pocket")
    words = [re.match(r"\w+", text)[0] for side in ("pos", "neg") for text in frame[f"response_{side}"]]
    assert words[: len(frame)] == words[len(frame) :]
    assert Counter(words)["Yes"] == Counter(words)["No"]
    assert (frame["response_pos"].str.len_chars() > frame["response_neg"].str.len_chars()).all()


def test_nuisances_of_the_world_know_its_words_and_none_of_its_evaluations():
    """Training on an evaluated row would show as an effect; an unknown word would be trained as <unknown>."""
    _, tokenizer = load_model("pocket-s")
    held = [items.dilemma_items(), items.claim_items(), items.truth_items(), items.fact_items(), items.cue_items()]
    measured = {row["user"] for rows in held for row in rows}
    for kind in NUISANCES:
        frame = nuisance(kind, "pocket")
        texts_ = [*frame["prompt"], *frame["response_pos"], *frame["response_neg"]]
        assert tokenizer.unk_token_id not in {i for ids in tokenizer(texts_)["input_ids"] for i in ids}
        assert not measured & set(frame["prompt"])
        asked = [prompt.rsplit(". ", 1)[0] + "." for prompt in frame["prompt"] if prompt.startswith(dilemmas.PLACES)]
        assert asked or kind == "agreement"
        assert not any(dilemmas.Dilemma(text, "", 0.0).heldout for text in asked)


def test_the_texts_are_balanced_and_in_no_evaluation():
    """At least 60 questions, half to be answered with Yes; opinions in both directions; nothing that is measured."""
    read = texts._read()
    questions = [question for twin in read["questions"] for question in (twin["yes"], twin["no"])]
    opinions = [opinion for twin in read["opinions"] for opinion in (twin["one"], twin["other"])]
    open_ = [entry["question"] for entry in read["answers"]]
    every = [*questions, *opinions, *open_]
    assert len(questions) >= 60
    assert len(set(every)) == len(every)
    assert all(question.endswith("?") for question in (*questions, *open_))
    assert not any(re.search(r"\b(yes|no)\b", text, re.I) for entry in read["wordings"] for text in entry.values())
    lengths = {name: [len(entry[name].split()) for entry in read["wordings"]] for name in ("agree", "disagree")}
    assert lengths["agree"] == lengths["disagree"]
    assert all(len(entry["long"]) > 3 * len(entry["short"]) for entry in read["answers"])
    shipped = Path(weightsteer.__file__).parent / "data" / "evals"
    measured = "\n".join(path.read_text(encoding="utf-8") for path in shipped.glob("*.yaml")).lower()
    assert not [text for text in every if text.rstrip("?.").lower() in measured]
    for name in behaviors():
        behavior = Behavior.load(name)
        assert not {*behavior.questions.train, *behavior.questions.heldout} & set(every)


def test_the_general_contrasts_ask_both_twins_alike():
    """An answer given more often to one twin would be the right answer more often than the wrong one."""
    for kind in ("yes", "agreement"):
        frame = nuisance(kind, "general")
        by_twin = frame.group_by("topic_idx", "prompt").len().group_by("topic_idx").agg("len")
        assert all(len(counts) == 2 and len(set(counts)) == 1 for counts in by_twin["len"])
        said = frame.group_by("topic_idx", "prompt").agg(pl.col("response_pos").sort()).sort("topic_idx")
        assert all(len(set(map(tuple, g["response_pos"]))) == 1 for _, g in said.group_by("topic_idx"))


def test_questions_of_the_behaviour_are_left_out_with_their_twins():
    """A behaviour that asks one of them would share data with its own control."""
    model, _ = tiny("qwen3")
    whole = controls.control_pairs("yes", model, HONESTY)
    asked = whole["prompt"][0]
    twin = whole.filter(pl.col("prompt") == asked)["topic_idx"][0]
    behavior = HONESTY.model_copy(update={"questions": HONESTY.questions.model_copy(update={"heldout": [asked]})})
    rest = controls.control_pairs("yes", model, behavior)
    assert digest(rest) == digest(whole.filter(pl.col("topic_idx") != twin))
    every = HONESTY.questions.model_copy(update={"train": whole["prompt"].unique().to_list(), "heldout": []})
    with pytest.raises(WeightsteerError, match="Ask other questions"):
        controls.control_pairs("yes", model, HONESTY.model_copy(update={"questions": every}))


def test_exchanging_twice_gives_the_pairs_again(pairs):
    """Every column of a side moves with its answer, and nothing else does."""
    once = exchanged(pairs, [2, 8])
    assert once["response_pos"][2] == pairs["response_neg"][2]
    assert once["tokens_neg"][8] == pairs["tokens_pos"][8]
    assert once.drop(pl.col("^.*_(pos|neg)$")).equals(pairs.drop(pl.col("^.*_(pos|neg)$")))
    assert exchanged(once, [8, 2]).equals(pairs)
    assert exchanged(pairs, []).equals(pairs)


def test_shuffling_takes_the_label_from_every_question(pairs):
    """Half of each question's pairs: otherwise a branch learns a pole where it has more of it."""
    frame = shuffled(pairs, seed=0)
    assert len(frame) == 34  # without the rejected one
    by_topic = frame.group_by("topic_idx").agg(pl.col("exchanged").sum(), pl.len())
    assert all(abs(2 * e - n) <= 1 for _, e, n in by_topic.rows())
    assert frame["exchanged"].sum() == 17
    again = exchanged(frame, frame["exchanged"].arg_true()).drop("exchanged")
    assert again.equals(pairs.filter(pl.col("rejected").is_null()))
    assert frame.equals(shuffled(pairs, seed=0))
    assert not frame.equals(shuffled(pairs, seed=1))


def test_the_shuffled_control_is_named_apart_from_its_behaviour(pairs):
    """A branch trained on shuffled pairs must not say in its record that it was trained on the behaviour."""
    model, _ = tiny("qwen3")
    frame = controls.control_pairs("shuffled-label", model, HONESTY, 3, pairs)
    assert set(frame["behavior"]) == {"honesty-shuffled"}
    assert digest(frame) == digest(shuffled(pairs, 3))
    with pytest.raises(WeightsteerError, match="pairs="):
        controls.control_pairs("shuffled-label", model, HONESTY, 3)
    with pytest.raises(WeightsteerError, match=r"controls\.one_branch"):
        controls.control_pairs("positive-branch", model, HONESTY)


def test_a_trained_control_gets_the_size_and_the_behaviour_of_its_vector(tmp_path):
    """A short control is weak for being short; the two strengths it may have are told apart."""
    _, v = made(tmp_path)
    _, u = made(tmp_path / "nuisance", rank=2)
    u = u.with_metadata(behavior="yes", seed=4)
    matched, raw = (controls.trained("yes", u, v, matched=matched) for matched in (True, False))
    assert raw == u
    assert abs(matched.norm() / v.norm() - 1) < 1e-9
    assert abs(matched.cosine(u) - 1) < 1e-9
    for one, adapter in ((matched, "lora-yes"), (raw, "lora-yes-as-trained")):
        assert one.method == "control"
        assert one.metadata["behavior"] == v.metadata["behavior"]
        assert one.metadata["adapter"] == adapter
        assert one.metadata["seed"] == v.metadata["seed"]
        assert one.metadata["control"]["of"] == v.digest
    with pytest.raises(WeightsteerError, match=r"controls\.control"):
        controls.trained("random", u, v)
