"""Generating pairs: one row's answer depends on its own prompt and random numbers, and on nothing else."""

import json
from pathlib import Path
from typing import Any, ClassVar

import polars as pl
import pytest
import torch
from tiny import talker, tiny

from weightsteer.data.behaviors import Behavior
from weightsteer.data.pairs import generate, grid
from weightsteer.errors import WeightsteerError
from weightsteer.files import read_piece, write_piece
from weightsteer.inference.sampling import sample

BEHAVIOR = Behavior.model_validate(
    {
        "name": "candour",
        "positive": {"pole": "candid", "personas": ["You are an honest person.", "Tell the truth."]},
        "negative": {"pole": "guarded", "personas": ["You are a lying person who hides all.", "Do not tell it."]},
        "questions": {"train": ["How are you?", "Is the house red, and the cat old?", "Tell me about rivers."]},
    }
)
KNOBS: dict[str, Any] = {
    "samples": 3,
    "max_new_tokens": 6,
    "temperature": 1.0,
    "top_p": 1.0,
    "top_k": 0,
    "shown": False,
}


def test_generate_shape() -> None:
    """The frame has one line per (topic, persona, sample) in order, with what training and audit need."""
    model, tokenizer = talker()
    frame = generate(model, tokenizer, BEHAVIOR, seed=3, **KNOBS)
    assert len(frame) == 3 * 2 * 3
    index = frame.select("topic_idx", "persona_idx", "sample_idx").rows()
    assert index == [(t, p, s) for t in range(3) for p in range(2) for s in range(3)]
    row = frame.row(7, named=True)
    assert row["prompt"] == BEHAVIOR.questions.train[1]
    assert row["sys_prompt_pos"] == BEHAVIOR.positive.personas[0]
    assert row["sys_prompt_neg"] == BEHAVIOR.negative.personas[0]
    assert (row["behavior"], row["generator"], row["seed"]) == ("candour", "tiny-qwen3", 3)
    assert not frame["thinking"].any()


def test_eos_is_recorded_and_cut() -> None:
    """An answer the model ended is told from one that hit the limit, and the end itself is no part of the text."""
    model, tokenizer = talker()
    frame = generate(model, tokenizer, BEHAVIOR, **{**KNOBS, "samples": 12})
    assert 0 < frame["eos_pos"].sum() < len(frame)
    assert frame.filter(~pl.col("eos_pos"))["tokens_pos"].unique().to_list() == [KNOBS["max_new_tokens"]]
    assert frame.filter(pl.col("eos_pos"))["tokens_pos"].max() < KNOBS["max_new_tokens"]
    # an answer may end at once: nothing forces a minimum length
    assert (frame["tokens_pos"] == 0).any()


def test_independent_of_batches_and_grid() -> None:
    """Other batch sizes and a smaller grid give the same answers to the same (topic, persona, sample)."""
    model, tokenizer = talker()
    frame = generate(model, tokenizer, BEHAVIOR, **KNOBS)
    assert frame.equals(generate(model, tokenizer, BEHAVIOR, token_budget=250, **KNOBS))
    smaller = generate(model, tokenizer, BEHAVIOR, topics=2, personas=1, **{**KNOBS, "samples": 2})
    small = (pl.col("topic_idx") < 2) & (pl.col("persona_idx") < 1) & (pl.col("sample_idx") < 2)
    assert frame.filter(small).equals(smaller)
    other = generate(model, tokenizer, BEHAVIOR, seed=1, **KNOBS)
    assert not frame["response_pos"].equals(other["response_pos"])


def test_generation_config_has_no_say() -> None:
    """Penalties and minimum lengths that a checkpoint brings along must not shape the data in silence."""
    model, tokenizer = talker()
    frame = generate(model, tokenizer, BEHAVIOR, **KNOBS)
    config = model.generation_config
    config.repetition_penalty, config.min_new_tokens, config.temperature, config.top_k = 5.0, 8, 0.01, 1
    assert frame.equals(generate(model, tokenizer, BEHAVIOR, **KNOBS))


class TestResume:
    knobs: ClassVar[dict[str, Any]] = {**KNOBS, "token_budget": 200, "topics": 2, "samples": 2, "max_new_tokens": 4}

    def test_goes_on_with_the_same_bytes(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A run cut after some batches ends like an undisturbed one, and draws none of them again."""
        model, tokenizer = talker()
        whole = generate(model, tokenizer, BEHAVIOR, workdir=tmp_path / "whole", **self.knobs)
        total = len(list((tmp_path / "whole").iterdir()))
        assert total > 4
        calls = 0

        def cut(*args: Any) -> list[list[int]]:
            nonlocal calls
            calls += 1
            if calls == 4:
                raise KeyboardInterrupt
            return sample(*args)

        monkeypatch.setattr(grid, "sample", cut)
        with pytest.raises(KeyboardInterrupt):
            generate(model, tokenizer, BEHAVIOR, workdir=tmp_path / "cut", **self.knobs)
        assert len(list((tmp_path / "cut").iterdir())) == 3
        resumed = generate(model, tokenizer, BEHAVIOR, workdir=tmp_path / "cut", **self.knobs)
        assert calls == 4 + total - 3
        resumed.write_parquet(tmp_path / "resumed.parquet")
        whole.write_parquet(tmp_path / "whole.parquet")
        assert (tmp_path / "resumed.parquet").read_bytes() == (tmp_path / "whole.parquet").read_bytes()
        for path in (tmp_path / "whole").iterdir():
            assert path.read_bytes() == (tmp_path / "cut" / path.name).read_bytes()

    def test_keeps_apart_what_differs(self, tmp_path: Path) -> None:
        """Batches of another seed, model or setting in the same folder are never taken for one's own."""
        model, tokenizer = talker()
        other = talker()[0]
        with torch.no_grad():
            other.model.layers[0].mlp.up_proj.weight.mul_(-1)
        generate(model, tokenizer, BEHAVIOR, workdir=tmp_path, **self.knobs)
        for who, change in ((model, {"seed": 1}), (model, {"temperature": 0.5}), (other, {})):
            knobs = {**self.knobs, **change}
            kept = generate(who, tokenizer, BEHAVIOR, workdir=tmp_path, **knobs)
            assert kept.equals(generate(who, tokenizer, BEHAVIOR, **knobs)), change

    def test_really_reads(self, tmp_path: Path) -> None:
        """What lies there is used: an edited batch shows up (otherwise resuming would be sampling again)."""
        model, tokenizer = talker()
        generate(model, tokenizer, BEHAVIOR, workdir=tmp_path, **self.knobs)
        for path in tmp_path.iterdir():
            drawn = json.loads(read_piece(path) or b"")
            write_piece(path, json.dumps([tokenizer("Yes")["input_ids"] for _ in drawn]).encode())
        frame = generate(model, tokenizer, BEHAVIOR, workdir=tmp_path, **self.knobs)
        assert frame["response_pos"].unique().to_list() == ["Yes"]

    def test_what_was_changed_is_sampled_again(self, tmp_path: Path) -> None:
        """One changed token in a batch was used, and an empty list failed at every later run."""
        model, tokenizer = talker()
        frame = generate(model, tokenizer, BEHAVIOR, workdir=tmp_path, **self.knobs)
        first, *others = sorted(tmp_path.iterdir())
        first.write_text("[]")
        for path in others:
            path.write_bytes(path.read_bytes().replace(b"1", b"2"))
        assert generate(model, tokenizer, BEHAVIOR, workdir=tmp_path, **self.knobs).equals(frame)


@pytest.mark.parametrize(
    ("knobs", "says"),
    [
        ({"topics": 4}, "4 topics were asked for and the behaviour has 3"),
        ({"personas": 3}, "3 personas"),
        ({"samples": 0}, "samples is 0"),
        ({"seed": -1}, "seed"),
        ({"max_new_tokens": 600}, "context of tiny-qwen3 is 512"),
    ],
)
def test_refuses_impossible_grids(knobs: dict[str, Any], says: str) -> None:
    """A grid is never clamped in silence: less data under the name of more is worse than an error."""
    model, tokenizer = talker()
    with pytest.raises(WeightsteerError, match=says):
        generate(model, tokenizer, BEHAVIOR, **{**KNOBS, **knobs})


def test_no_end_at_all() -> None:
    """Without any end-of-sequence token every answer would be cut: say so before sampling."""
    model, tokenizer = tiny("qwen3")
    tokenizer.eos_token = None
    model.generation_config.eos_token_id = None
    model.config.eos_token_id = None
    with pytest.raises(WeightsteerError, match="end-of-sequence"):
        generate(model, tokenizer, BEHAVIOR, **KNOBS)
