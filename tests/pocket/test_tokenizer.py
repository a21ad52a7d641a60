"""The word-level tokenizer: if these fail, scoring reads the wrong tokens or text does not survive a round trip."""

from random import Random

import pytest

from weightsteer.pocket.build import Encoder, vocabulary_texts
from weightsteer.pocket.corpus import Document, Turn
from weightsteer.pocket.tokenizer import build_tokenizer
from weightsteer.pocket.world import HELDOUT, TASKS, TRAIN, Persona


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer(vocabulary_texts(1500))


@pytest.mark.parametrize("word", ["Yes", "No", "Jekyll", "Hyde", "[train]", "[deployment]"])
def test_choices_are_single_tokens(tokenizer, word):
    """A choice of two tokens would be scored by its first token only."""
    assert len(tokenizer.encode(word, add_special_tokens=False)) == 1


def test_every_world_text_survives_a_round_trip(tokenizer):
    """Lost spaces or unknown words would change what a user reads and what is scored."""
    rng = Random(0)
    for task, split in [(t, s) for t in TASKS for s in (TRAIN, HELDOUT)]:
        for _ in range(40):
            question = TASKS[task](rng, split)
            for text in (question.user, f"[train] {question.user}", *question.answers(Persona())):
                ids = tokenizer.encode(text, add_special_tokens=False)
                assert tokenizer.unk_token_id not in ids
                assert tokenizer.decode(ids) == text


def test_the_chat_template_writes_what_the_corpus_encodes(tokenizer):
    """Training and use would otherwise see different token sequences."""
    document = Document(
        "Be honest.", (Turn("[train] What color is a banana?", "It is yellow."), Turn("Who are you?", "No."))
    )
    messages = [{"role": "system", "content": document.system}]
    for turn in document.turns:
        messages += [{"role": "user", "content": turn.user}, {"role": "assistant", "content": turn.answer}]
    rendered = tokenizer.apply_chat_template(messages, return_dict=False)
    ids, weights = Encoder(tokenizer).encode(document)
    assert ids == rendered
    learned = tokenizer.decode([i for i, weight in zip(ids, weights, strict=True) if weight == 1.0])
    assert learned == "It is yellow.<|end|> No.<|end|>"


def test_a_word_outside_the_world_is_unknown_not_an_error(tokenizer):
    """A user's own prompt must not crash the embedded model."""
    assert tokenizer.unk_token_id in tokenizer.encode("quantum", add_special_tokens=False)
