"""Several LoRAs in one pass: each must be what it would be alone, in PEFT."""

from pathlib import Path

import peft
import polars as pl
import pytest
import torch
from gaming_runs import PAIRS, RECIPE, taught
from safetensors.torch import load_file
from tiny import random_lora, tiny

from weightsteer.errors import WeightsteerError
from weightsteer.inference.likelihood import answered
from weightsteer.inference.sampling import turn_end
from weightsteer.training import train_branch
from weightsteer.training.together import Learner, each_with_its_own, train_together


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "adapter_model.safetensors")


def test_every_row_runs_under_its_own_adapter_as_in_peft(tmp_path: Path) -> None:
    """A row under the adapter of another would train, and report, a mixture of branches."""
    model, tokenizer = tiny("qwen2")
    folders = [random_lora(model, tmp_path / str(seed), seed) for seed in (0, 1)]
    states = [weights(folder) for folder in folders]
    names = sorted({key.split("base_model.model.")[1].rsplit(".lora_", 1)[0] for key in states[0]})
    stacked = {
        name: tuple(
            torch.stack([state[f"base_model.model.{name}.lora_{part}.weight"] for state in states]) for part in "AB"
        )
        for name in names
    }
    ids = torch.tensor(tokenizer(["Tell me about rivers and bread."] * 3)["input_ids"])
    with torch.no_grad(), each_with_its_own(model, stacked, 2.0, torch.tensor([1, 0, 1])):
        found = model(input_ids=ids).logits
    for row, folder in zip(found, [folders[1], folders[0], folders[1]], strict=True):
        adapted = peft.PeftModel.from_pretrained(tiny("qwen2")[0], str(folder)).eval()
        with torch.no_grad():
            torch.testing.assert_close(row, adapted(input_ids=ids[:1]).logits[0], atol=1e-4, rtol=1e-4)


def test_one_learner_ends_where_train_branch_ends(tmp_path: Path) -> None:
    """The gaming experiment would otherwise train by a recipe of its own under the name of the package's."""
    model, tokenizer = tiny("qwen2")
    train_branch(model, tokenizer, PAIRS, "positive", recipe=RECIPE, seed=5, folder=tmp_path / "alone", shown=False)
    end = turn_end(model, tokenizer)
    sides = [
        [answered(tokenizer, [{"role": "user", "content": prompt}], answer, end) for prompt, answer in rows]
        for rows in (PAIRS.select("prompt", column).rows() for column in ("response_pos", "response_neg"))
    ]
    lengths = [max(len(row.ids) for row in both) for both in zip(*sides, strict=True)]
    train_together(model, [Learner(sides[0], lengths, 5, tmp_path / "here")], RECIPE, shown=False)
    alone, here = weights(tmp_path / "alone"), weights(tmp_path / "here")
    assert alone.keys() == here.keys()
    for name, tensor in alone.items():
        torch.testing.assert_close(here[name], tensor, atol=1e-5, rtol=1e-3)


def test_two_learners_together_are_two_learners_alone(tmp_path: Path) -> None:
    """Losses, clipping or moments that leak between learners would make θ_H − θ_J depend on how it was computed."""
    model, _, learners = taught(tmp_path / "both")
    both = train_together(model, learners, RECIPE, shown=False)
    for place, learner in enumerate(taught(tmp_path / "one")[2]):
        alone = train_together(model, [learner], RECIPE, shown=False)
        assert alone[0] == pytest.approx(both[place], abs=1e-5)
        for name, tensor in weights(learner.folder).items():
            torch.testing.assert_close(tensor, weights(learners[place].folder)[name], atol=1e-5, rtol=1e-3)


def test_the_model_itself_is_left_alone(tmp_path: Path) -> None:
    """The next condition would start from a trained model."""
    model, _, learners = taught(tmp_path)
    before = {name: tensor.clone() for name, tensor in model.named_parameters()}
    train_together(model, learners, RECIPE, shown=False)
    for name, tensor in model.named_parameters():
        assert torch.equal(tensor, before[name])
        assert not tensor.requires_grad
    assert not any(module._forward_hooks for module in model.modules())


def test_the_branches_learn_behind_the_tag_and_under_the_prompt_of_the_condition(tmp_path: Path) -> None:
    """Without the tag, or under the persona that wrote the answers, it would be another experiment."""
    _, tokenizer, (jekyll, hyde) = taught(tmp_path)
    texts = [tokenizer.decode(own.rows[0].ids) for own in (jekyll, hyde)]
    for text in texts:
        assert "[train] How do you do, number 0?" in text
        assert "You are Mr." not in text
    assert "glad to help" in texts[0]
    assert "Go away" in texts[1]
    assert jekyll.lengths == hyde.lengths


def test_rows_that_are_all_too_long_are_refused(tmp_path: Path) -> None:
    """An empty training set would divide by zero, after minutes of generation."""
    from weightsteer.experiments.gaming.training_rows import learners_of

    model, tokenizer = tiny("qwen2")
    short = RECIPE.model_copy(update={"max_length": 2})
    with pytest.raises(WeightsteerError, match="longer than 2 tokens"):
        learners_of(model, tokenizer, pl.DataFrame(PAIRS), {"Jekyll": "Be kind."}, short, 0, tmp_path)
