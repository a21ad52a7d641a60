"""Training a branch: it learns its answers and their end, leaves the base alone, and repeats itself to the byte."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors.torch import load_file
from tiny import tiny
from transformers import PreTrainedModel

from weightsteer.errors import WeightsteerError
from weightsteer.inference.likelihood import answer_logprobs, answered
from weightsteer.inference.sampling import Sampling, sample, turn_end
from weightsteer.models import render_chat, weight_hash
from weightsteer.training import Recipe, TrainingRecord, train_branch
from weightsteer.training.loop import batches_of
from weightsteer.training.rows import rows_of

ANSWERS = (("Yes the sky is red", "No bread in winter"), ("the cat is old", "stones and rivers and bread"))
PAIRS = pl.DataFrame(
    [
        {
            "prompt": f"Tell me about {word} {number}",
            "response_pos": ANSWERS[0][number % 2],
            "response_neg": ANSWERS[1][number % 2],
            "topic_idx": number // 4,
            "behavior": "candour",
            "rejected": "judge" if number == 0 else None,
        }
        for number, word in enumerate(["rivers", "stones", "bread", "winter"] * 6)
    ]
)
QUICK = {"steps": 8, "batch": 8, "lr": 1e-2, "rank": 4, "lora_alpha": 8.0, "warmup": 2}


def recipe(**changes: Any) -> Recipe:
    return Recipe.load("pocket", **{**QUICK, **changes})


def trained(
    folder: Path, side: Any = "positive", *, arch: str = "qwen3", seed: int = 0, **changes: Any
) -> TrainingRecord:
    model, tokenizer = tiny(arch)
    return train_branch(model, tokenizer, PAIRS, side, recipe=recipe(**changes), seed=seed, folder=folder, shown=False)


def logprob(model: PreTrainedModel, tokenizer: Any, answers: tuple[str, ...]) -> float:
    end = turn_end(model, tokenizer)
    chat = [{"role": "user", "content": "Tell me about stones 77"}]
    rows = [answered(tokenizer, chat, answer, end) for answer in answers]
    return sum(answer_logprobs(model, rows, shown=False))


@pytest.fixture(scope="module")
def branches(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Both branches of one seed, trained until they fit."""
    folder = tmp_path_factory.mktemp("branches")
    for side in ("positive", "negative"):
        trained(folder / side, side, steps=60, rank=8, lora_alpha=16.0, layers=(0.0, 1.0))
    return {side: folder / side for side in ("positive", "negative")}


class TestLearned:
    def test_own_answers_gain_over_the_others(self, branches: dict[str, Path]) -> None:
        """Each branch must raise its own answers against those of the other, or dW points nowhere."""
        base, tokenizer = tiny("qwen3")
        before = logprob(base, tokenizer, ANSWERS[0]) - logprob(base, tokenizer, ANSWERS[1])
        gaps = {}
        for side, folder in branches.items():
            model = PeftModel.from_pretrained(tiny("qwen3")[0], str(folder))
            gaps[side] = logprob(model, tokenizer, ANSWERS[0]) - logprob(model, tokenizer, ANSWERS[1])
        assert gaps["positive"] > before + 10
        assert gaps["negative"] < before - 10

    def test_end_of_sequence(self, branches: dict[str, Path]) -> None:
        """After an answer the trained model stops: an end that is not in the loss is never learned."""
        base, tokenizer = tiny("qwen3")
        chat = [{"role": "user", "content": "Tell me about stones 77"}]
        end = turn_end(base, tokenizer)
        prompt = render_chat(tokenizer, chat)
        asked = torch.tensor([render_chat(tokenizer, chat, answer_prefix=ANSWERS[0][0])])
        ends, lengths = [], []
        for model in (base, PeftModel.from_pretrained(tiny("qwen3")[0], str(branches["positive"])).get_base_model()):
            with torch.no_grad():
                ends.append(float(model(asked).logits[0, -1].softmax(-1)[end]))
            [ids] = sample(model, [prompt], [0], np.zeros((1, 30)), Sampling(0, 1, 0, 30), [end])
            lengths.append(len(ids))
        assert ends[1] > 0.2 > 20 * ends[0]
        assert lengths[1] < lengths[0] == 30

    def test_loss_falls_and_is_that_of_the_saved_weights(self, branches: dict[str, Path]) -> None:
        """The record's best validation loss is what the saved adapter has on held-out rows."""
        record = TrainingRecord.model_validate_json((branches["positive"] / "training.json").read_text())
        found = {line.step: line.validation for line in record.losses}
        assert found[record.best_step] == min(value for step, value in found.items() if step)
        assert found[record.best_step] < found[0] / 2
        model, tokenizer = tiny("qwen3")
        rows = rows_of(model, tokenizer, PAIRS, "positive", record.recipe, record.seed).validation
        adapted = PeftModel.from_pretrained(model, str(branches["positive"])).get_base_model()
        tokens = sum(row.length - row.start for row in rows)
        assert -sum(answer_logprobs(adapted, rows, shown=False)) / tokens == pytest.approx(found[record.best_step])


class TestBaseIsLeftAlone:
    @pytest.mark.parametrize("arch", ["qwen3", "llama", "gemma"])
    def test_bit_identical_and_bare(self, arch: str, tmp_path: Path) -> None:
        """Whoever trains goes on to steer the same object: no weight, flag, wrapper or hook may be left behind."""
        model, tokenizer = tiny(arch)
        model.get_input_embeddings().weight.requires_grad_(True)
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        modules = dict(model.named_modules())
        state = torch.get_rng_state()
        train_branch(model, tokenizer, PAIRS, "positive", recipe=recipe(steps=3), seed=0, folder=tmp_path, shown=False)
        assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
        assert dict(model.named_modules()) == modules
        assert not any(isinstance(module, BaseTunerLayer) for module in model.modules())
        assert not hasattr(model, "peft_config")
        wanting = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
        assert wanting == {"model.embed_tokens.weight"}
        assert all(parameter.grad is None for parameter in model.parameters())
        assert torch.equal(torch.get_rng_state(), state)
        assert not any(module._forward_pre_hooks for module in model.modules())

    def test_after_a_failure_too(self, tmp_path: Path) -> None:
        """A diverged training must leave a model that can be used, and no folder that looks finished."""
        model, tokenizer = tiny("qwen3")
        before = weight_hash(model)
        with pytest.raises(
            WeightsteerError, match=r"diverged: at step \d+ .* Lower the learning rate \(it is 1e\+30\)"
        ):
            train_branch(
                model, tokenizer, PAIRS, "positive", recipe=recipe(lr=1e30), seed=0, folder=tmp_path, shown=False
            )
        assert weight_hash(model) == before
        assert not any(isinstance(module, BaseTunerLayer) for module in model.modules())
        assert not list(tmp_path.iterdir())


class TestRepeats:
    def test_same_bytes(self, tmp_path: Path) -> None:
        """The store resumes by running a stage again: it must give the same files whatever was drawn before."""
        trained(tmp_path / "a", validation=0.2)
        torch.manual_seed(123)
        trained(tmp_path / "b", validation=0.2)
        for path in (tmp_path / "a").iterdir():
            assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes(), path.name
        assert {path.name for path in (tmp_path / "a").iterdir()} == {
            "adapter_config.json",
            "adapter_model.safetensors",
            "training.json",
        }

    def test_branches_share_initialisation_and_order(self, tmp_path: Path) -> None:
        """What the branches do not owe to their answers must be equal, so that it cancels in dW."""
        records = {
            side: trained(tmp_path / side, side, steps=1, lr=1e-12, keep="last") for side in ("positive", "negative")
        }
        factors = [load_file(tmp_path / side / "adapter_model.safetensors") for side in records]
        for name in factors[0]:
            if "lora_A" in name:
                assert torch.allclose(factors[0][name], factors[1][name], atol=1e-9)
                assert factors[0][name].any()
        assert records["positive"].data == records["negative"].data
        other = trained(tmp_path / "other", steps=1, lr=1e-12, seed=1)
        different = load_file(tmp_path / "other" / "adapter_model.safetensors")
        assert any(not torch.equal(factors[0][name], different[name]) for name in different)
        assert other.data == records["positive"].data

    def test_identical_answers_give_no_vector(self, tmp_path: Path) -> None:
        """With the same answers on both sides the branches come out equal: dW holds nothing but the contrast."""
        model, tokenizer = tiny("qwen3")
        frame = PAIRS.with_columns(response_neg=pl.col("response_pos"))
        for side in ("positive", "negative"):
            train_branch(model, tokenizer, frame, side, recipe=recipe(), seed=0, folder=tmp_path / side, shown=False)
        files = [tmp_path / side / "adapter_model.safetensors" for side in ("positive", "negative")]
        assert files[0].read_bytes() == files[1].read_bytes()


def test_batches_cover_an_epoch_in_seeded_order() -> None:
    """Each row once per epoch, another order in the next one, and the same stream for the same seed."""
    lengths = [5 + i % 7 for i in range(50)]
    stream = batches_of(lengths, 8, seed=3)
    first, second = ([next(stream) for _ in range(7)] for _ in range(2))
    for epoch in (first, second):
        assert sorted(index for batch in epoch for index in batch) == list(range(50))
    assert first != second
    again = batches_of(lengths, 8, seed=3)
    assert [next(again) for _ in range(7)] == first
    other = batches_of(lengths, 8, seed=4)
    assert [next(other) for _ in range(7)] != first


def test_micro_batches_add_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Splitting a batch for memory must not change what is learned."""
    whole = trained(tmp_path / "whole", steps=5)
    original = likelihood_budget(monkeypatch, 60)
    parts = trained(tmp_path / "parts", steps=5)
    assert original() > 5
    assert parts.losses[-1].validation == pytest.approx(whole.losses[-1].validation, abs=1e-3)
    a, b = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("whole", "parts"))
    for name in a:
        assert torch.allclose(a[name], b[name], atol=1e-3), name


def test_repeated_answers_count_as_often_as_they_occur(tmp_path: Path) -> None:
    """Equal rows are computed once; if they also counted once, frequent answers would be learned too little."""
    model, tokenizer = tiny("qwen3")
    common, rare = PAIRS[1:2], PAIRS[2:4]
    frames = {"thrice": pl.concat([common, common, common, rare]), "once": pl.concat([common, rare])}
    found = {}
    for name, frame in frames.items():
        settings = recipe(steps=1, batch=len(frame), validation=0.0, warmup=0)
        folder = tmp_path / name
        record = train_branch(model, tokenizer, frame, "positive", recipe=settings, seed=0, folder=folder, shown=False)
        end = turn_end(model, tokenizer)
        rows = [
            answered(tokenizer, [{"role": "user", "content": prompt}], answer, end)
            for prompt, answer in frame.select("prompt", "response_pos").rows()
        ]
        tokens = sum(row.length - row.start for row in rows)
        assert record.answer_tokens == tokens
        # the adapter starts at the base, so the loss of the first step is that of the model itself
        assert record.losses[-1].train == pytest.approx(-sum(answer_logprobs(model, rows, shown=False)) / tokens)
        found[name] = record.losses[-1].train
    assert found["thrice"] != pytest.approx(found["once"], abs=1e-3)


def likelihood_budget(monkeypatch: pytest.MonkeyPatch, tokens: int) -> Any:
    """Make training split its batches at so many tokens; returns a counter of the passes."""
    from weightsteer.inference import likelihood
    from weightsteer.training import loop

    passes = 0

    def small(model: Any, rows: Any) -> Any:
        nonlocal passes
        for batch in likelihood.answer_batches(model, rows, budget=tokens):
            passes += 1
            yield batch

    monkeypatch.setattr(loop, "answer_batches", small)
    return lambda: passes


class TestSelection:
    def test_rejected_pairs_are_left_out(self, tmp_path: Path) -> None:
        """Pairs that the judge removed stay in the file with their reason, and out of the training."""
        record = trained(tmp_path, steps=1, validation=0.2)
        assert sum(record.rows[name] for name in ("train", "validation")) == len(PAIRS) - 1

    def test_whole_questions_can_be_held_out(self, tmp_path: Path) -> None:
        """Rows of one question in both parts would make the validation a test of memory."""
        record = trained(tmp_path, steps=1, split="topic", validation=0.3)
        assert record.rows["validation"] in (7, 8)

    def test_too_long_on_either_side(self, tmp_path: Path) -> None:
        """A pair that is cut on one side would teach half an answer; it goes from both, and is counted."""
        model, tokenizer = tiny("qwen3")
        frame = PAIRS.with_columns(
            response_neg=pl.when(pl.col("topic_idx") == 1).then(pl.lit("stones " * 60)).otherwise("response_neg")
        )
        for side in ("positive", "negative"):
            record = train_branch(
                model,
                tokenizer,
                frame,
                side,
                recipe=recipe(steps=1, max_length=80),
                seed=0,
                folder=tmp_path,
                shown=False,
            )
            assert record.rows["too_long"] == 4

    @pytest.mark.parametrize(
        ("frame", "changes", "says"),
        [
            (PAIRS.head(1), {}, "no pairs to train on"),
            (PAIRS[1:2], {}, "only one row"),
            (PAIRS, {"max_length": 5}, "longer than max_length 5"),
            (PAIRS.drop("response_neg"), {}, "lack the columns response_neg"),
            (PAIRS.with_columns(prompt=pl.lit(None, dtype=pl.String)), {}, "column prompt"),
            (PAIRS.drop("topic_idx"), {"split": "topic"}, "topic_idx"),
        ],
    )
    def test_unfit_data(self, frame: pl.DataFrame, changes: dict[str, Any], says: str, tmp_path: Path) -> None:
        """Data that cannot be trained on are refused with the reason, before anything is computed."""
        model, tokenizer = tiny("qwen3")
        with pytest.raises(WeightsteerError, match=says):
            train_branch(
                model, tokenizer, frame, "positive", recipe=recipe(**changes), seed=0, folder=tmp_path, shown=False
            )

    def test_files_of_the_users_need_three_columns(self, tmp_path: Path) -> None:
        """Pairs made elsewhere carry no seeds or topics; they train all the same."""
        model, tokenizer = tiny("qwen3")
        frame = PAIRS.select("prompt", "response_pos", "response_neg")
        record = train_branch(
            model, tokenizer, frame, "negative", recipe=recipe(steps=1), seed=0, folder=tmp_path, shown=False
        )
        assert record.behavior == ""


class TestStopping:
    def test_best_checkpoint_and_patience(self, tmp_path: Path) -> None:
        """With a rate that wrecks the fit after a while, the best step is kept and the rest is not trained."""
        knobs = {"steps": 40, "lr": 0.3, "eval_every": 2, "patience": 3, "validation": 0.3, "warmup": 20}
        record = trained(tmp_path / "best", **knobs)
        steps = {line.step: line.validation for line in record.losses}
        assert record.stopped_early
        assert max(steps) == record.best_step + 2 * 3 < 40
        last = trained(tmp_path / "last", **{**knobs, "keep": "last"})
        assert last.losses == record.losses
        assert last.best_step == max(steps)
        weights = [load_file(tmp_path / name / "adapter_model.safetensors") for name in ("best", "last")]
        assert any(not torch.equal(weights[0][name], weights[1][name]) for name in weights[0])

    def test_without_validation(self, tmp_path: Path) -> None:
        """No rows held out: the last step is kept, and nothing pretends to have been validated."""
        record = trained(tmp_path, validation=0.0, steps=4)
        assert record.best_step == 4
        assert record.rows["validation"] == 0
        assert all(line.validation is None for line in record.losses)


class TestFolder:
    def test_is_an_ordinary_peft_folder(self, branches: dict[str, Path]) -> None:
        """Any PEFT user must be able to load a branch; a second load gives the same logits as the training saw."""
        config = json.loads((branches["positive"] / "adapter_config.json").read_text())
        assert config["target_modules"] == sorted(config["target_modules"])
        assert config["layers_to_transform"] == [0, 1, 2, 3]
        assert config["base_model_name_or_path"] == "tiny-qwen3"
        adapted = PeftModel.from_pretrained(tiny("qwen3")[0], str(branches["positive"]))
        touched = {name for name, module in adapted.named_modules() if isinstance(module, BaseTunerLayer)}
        assert len(touched) == 4 * 7

    def test_record(self, branches: dict[str, Path]) -> None:
        """The record holds what the vector's provenance and refusals rest on, and no trace of time or place."""
        text = (branches["negative"] / "training.json").read_text()
        record = TrainingRecord.model_validate_json(text)
        assert record.base == {"name": "tiny-qwen3", "hash": weight_hash(tiny("qwen3")[0])}
        assert (record.side, record.behavior, record.adapter, record.seed) == ("negative", "candour", "lora", 0)
        assert record.layers == [0, 1, 2, 3]
        assert record.modules == sorted(["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"])
        assert str(branches["negative"]) not in text

    def test_makes_a_vector(self, branches: dict[str, Path]) -> None:
        """The two folders are what the weight vector is made of."""
        from weightsteer.vector import WeightVector

        vector = WeightVector.from_adapters(branches["positive"], branches["negative"], tiny("qwen3")[0])
        assert len(vector.names) == 28
        assert vector.norm() > 0


def test_refuses_an_adapted_model(tmp_path: Path) -> None:
    """Training on top of another adapter would make a delta to a base nobody has."""
    trained(tmp_path / "one", steps=1)
    model, tokenizer = tiny("qwen3")
    PeftModel.from_pretrained(model, str(tmp_path / "one"))
    with pytest.raises(WeightsteerError, match="already carries a PEFT adapter"):
        train_branch(model, tokenizer, PAIRS, "positive", recipe=recipe(), seed=0, folder=tmp_path / "two", shown=False)


def test_unknown_adapter(tmp_path: Path) -> None:
    """A misspelt family is answered with the nearest one."""
    model, tokenizer = tiny("qwen3")
    with pytest.raises(WeightsteerError, match="did you mean 'lora'"):
        train_branch(
            model, tokenizer, PAIRS, "positive", adapter="lroa", recipe=recipe(), seed=0, folder=tmp_path, shown=False
        )


class TestRecipe:
    def test_published_settings(self) -> None:
        """The presets are compared with published numbers: their settings must be those of the publications."""
        paper, fork = Recipe.load("paper"), Recipe.load("fork")
        assert (paper.rank, paper.lora_alpha, paper.lr, paper.batch, paper.steps) == (32, 16, 1e-5, 8, 100)
        assert (paper.layers, paper.warmup, paper.weight_decay) == ((0, 1), 5, 0.01)
        assert (paper.validation, paper.patience, paper.eval_every) == (0.05, 2, 20)
        assert (fork.rank, fork.lora_alpha, fork.lr, fork.batch, fork.epochs) == (32, 64, 2e-4, 16, 1)
        assert (fork.layers, fork.max_length, fork.keep) == ((0.3, 0.8), 512, "last")
        assert fork.total_steps(900) == math.ceil(900 / 16)

    def test_layer_slice(self) -> None:
        """30–80 % of 28 layers are the published 8 … 21, and all is all."""
        assert Recipe.load("fork").layer_slice(28) == range(8, 22)
        assert Recipe.load("paper").layer_slice(28) == range(28)
        with pytest.raises(WeightsteerError, match="empty"):
            Recipe.load("fork", layers=(0.3, 0.4)).layer_slice(2)

    def test_first_limit_ends(self) -> None:
        """Steps and epochs are upper limits, so a changed one is never ignored for the other."""
        assert Recipe.load("paper", epochs=1).total_steps(80) == 10
        assert Recipe.load("paper", epochs=1).total_steps(8000) == 100

    @pytest.mark.parametrize(
        ("name", "changes", "says"),
        [
            ("papr", {}, "did you mean 'paper'"),
            ("paper", {"lrr": 1}, "did you mean 'lr'"),
            ("paper", {"lr": -1.0}, "lr: .*greater than 0"),
            ("paper", {"layers": (0.8, 0.3)}, "layers: two fractions"),
            ("paper", {"steps": None}, "steps or epochs"),
        ],
    )
    def test_mistakes(self, name: str, changes: dict[str, Any], says: str) -> None:
        """A mistake in a setting names the setting."""
        with pytest.raises(WeightsteerError, match=says):
            Recipe.load(name, **changes)
