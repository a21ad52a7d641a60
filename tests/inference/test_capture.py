"""States are read at the right layer, at the right tokens, whatever the padding."""

import polars as pl
import pytest
import torch
from captured import ARCHITECTURES, hidden_states, pairs
from tiny import tiny

from weightsteer.data.pairs.encoding import encode
from weightsteer.errors import WeightsteerError
from weightsteer.inference.capture import States, block_outputs, capture
from weightsteer.training.activation import capture_pairs


def read(model, answers, layers, **options) -> States:
    """The states (layers, n, d) that blocks put out."""
    points = block_outputs(model, layers).values()
    found = capture(model, answers, points, shown=False, **options)
    return States(*(torch.stack([getattr(found[point], part) for point in points]) for part in ("values", "norms")))


def rows(arch: str):
    model, tokenizer = tiny(arch)
    both = encode(model, tokenizer, pairs(), personas=True)
    return model, tokenizer, [*both.positive, *both.negative]


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_layer_l_is_the_output_of_block_l(arch: str) -> None:
    """An index off by one reads a neighbour's states: similar enough to go unnoticed, and never the best vector."""
    model, _, answers = rows(arch)
    one = answers[3]
    found = read(model, [one], [0, 1, 2, 3], at="last").values[:, 0]
    states = [state[0, one.length - 2] for state in hidden_states(model, torch.tensor([one.ids]))]
    for layer in (0, 1, 2):
        torch.testing.assert_close(found[layer], states[layer + 1], atol=1e-5, rtol=1e-5)
        assert not torch.allclose(found[layer], states[layer], atol=1e-2)
    # the last entry of hidden_states is already normalised; what a vector is added to is not
    torch.testing.assert_close(model.base_model.norm(found[3]), states[4], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_padding_does_not_matter(arch: str) -> None:
    """Alone, right-padded in one batch, or left-padded with a mask: one answer has one state."""
    model, tokenizer, answers = rows(arch)
    assert len({row.length for row in answers}) > 3
    together = read(model, answers, [1, 3])
    alone = [read(model, [row], [1, 3], token_budget=1) for row in answers]
    torch.testing.assert_close(together.values, torch.cat([one.values for one in alone], 1), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(together.norms, torch.cat([one.norms for one in alone], 1), atol=1e-4, rtol=1e-4)

    longest = max(row.length for row in answers)
    ids = torch.tensor([[tokenizer.pad_token_id] * (longest - row.length) + row.ids for row in answers])
    mask = torch.tensor([[0] * (longest - row.length) + [1] * row.length for row in answers])
    left = hidden_states(model, ids, attention_mask=mask, position_ids=(mask.cumsum(1) - 1).clamp(min=0))[2]
    for index, row in enumerate(answers):
        answer = left[index, longest - row.length + row.start : longest - 1]
        torch.testing.assert_close(together.values[0, index], answer.mean(0), atol=1e-4, rtol=1e-4)


def test_the_tokenizers_padding_side_is_neither_used_nor_changed() -> None:
    """A tokenizer set up for generation (left) must give the same vector as one set up for training (right)."""
    model, tokenizer = tiny("mistral")
    found = []
    for side in ("left", "right"):
        tokenizer.padding_side = side
        found.append(capture_pairs(model, tokenizer, pairs(), [2], shown=False).contrasts[2])
        assert tokenizer.padding_side == side
    assert torch.equal(found[0].positive, found[1].positive)
    assert torch.equal(found[0].negative, found[1].negative)


def test_which_tokens_are_read() -> None:
    """The prompt's or the end token in the mean would dilute the contrast with what both sides share."""
    model, tokenizer, answers = rows("qwen3")
    one = answers[3]
    assert tokenizer.decode(one.ids[one.start : -1]) == " Yes, the truth"
    states = hidden_states(model, torch.tensor([one.ids]))[2][0]
    wanted = {"answer": states[one.start : -1], "last": states[-2:-1], "prompt": states[one.start - 1 : one.start]}
    for at, tokens in wanted.items():
        found = read(model, [one], [1], at=at)
        torch.testing.assert_close(found.values[0, 0], tokens.mean(0), atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(found.norms[0, 0], tokens.norm(dim=-1).mean(), atol=1e-5, rtol=1e-5)


def test_personas_and_equal_rows() -> None:
    """Without personas both sides share their prompt; equal rows must not be mixed up when computed once."""
    model, tokenizer = tiny("qwen3")
    frame = pl.concat([pairs(), pairs()])
    captured = capture_pairs(model, tokenizer, frame, [1], shown=False, personas=False)
    half = len(frame) // 2
    positive = captured.contrasts[1].positive
    assert torch.equal(positive[:half], positive[half:])
    single = read(model, [captured.pairs.positive[3]], [1]).values[0, 0]
    torch.testing.assert_close(positive[3], single, atol=1e-4, rtol=1e-4)
    for ours, theirs in zip(captured.pairs.positive, captured.pairs.negative, strict=True):
        assert ours.ids[: ours.start] == theirs.ids[: theirs.start]
    under = encode(model, tokenizer, frame, personas=True)
    assert "honest" in tokenizer.decode(under.positive[0].ids)
    assert "lying" in tokenizer.decode(under.negative[0].ids)


def test_empty_and_rejected_answers() -> None:
    """An empty answer has no token to read: its pair is left out and counted, and rejected pairs never count."""
    model, tokenizer = tiny("qwen3")
    frame = pairs([("Yes", "No"), ("", "No")])
    captured = capture_pairs(model, tokenizer, frame, [0], shown=False)
    assert captured.pairs.empty == len(frame) // 2 == len(captured.pairs.positive)
    with pytest.raises(WeightsteerError, match="none of the 5 pairs"):
        capture_pairs(model, tokenizer, pairs([("", "")]), [0], shown=False)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"at": "prompt", "personas": False}, "the same prompt"),
        ({"at": "middle"}, "unknown position to read 'middle'"),
        ({"layers": [4]}, "layers of this model are 0 to 3"),
        ({"layers": [-1]}, "layers of this model are 0 to 3"),
        ({"layers": []}, "layers of this model are 0 to 3"),
        ({"pairs": pairs().drop("sys_prompt_neg")}, "sys_prompt_neg.*personas=False"),
        ({"pairs": pairs().drop("response_neg")}, "lack the columns response_neg;"),
    ],
)
def test_mistakes(options: dict, says: str) -> None:
    """Each mistake is named before anything is computed, with what to do."""
    model, tokenizer = tiny("qwen3")
    frame, layers = options.pop("pairs", pairs()), options.pop("layers", [1])
    with pytest.raises(WeightsteerError, match=says):
        capture_pairs(model, tokenizer, frame, layers, shown=False, **options)
