"""What may not happen while a checkpoint is read: its code runs, or something else than its weights is the model."""

import builtins
import io
import json
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import random_lora, tiny
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GPT2Config,
    GPT2LMHeadModel,
    MixtralConfig,
    Qwen3MoeConfig,
)

import weightsteer as ws
from weightsteer import adapters
from weightsteer.adapters import full
from weightsteer.cli import main
from weightsteer.errors import WeightsteerError
from weightsteer.models import checkpoint as loading
from weightsteer.models import load_model, weight_hash
from weightsteer.models.experts import routed
from weightsteer.pocket.build import build
from weightsteer.training import Recipe
from weightsteer.training.trainee import trainee
from weightsteer.vector import WeightVector

UP = "model.layers.0.mlp.up_proj.weight"
EMBEDDING = "model.embed_tokens.weight"
AUTO = {
    "AutoConfig": "evil.EvilConfig",
    "AutoModelForCausalLM": "evil.EvilModel",
    "AutoTokenizer": ["evil.EvilTokenizer", "evil.EvilTokenizer"],
}


def saved(folder: Path, arch: str = "qwen3", **options: Any) -> Path:
    """A tiny model of two layers with its tokenizer."""
    model, tokenizer = tiny(arch, layers=2)
    model.save_pretrained(folder, **options)
    tokenizer.save_pretrained(folder)
    return folder


def edited(folder: Path, edit: Callable[[dict[str, Tensor]], Any]) -> str:
    """Change the tensors in the one file of weights."""
    tensors = load_file(folder / "model.safetensors")
    edit(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return str(folder)


def configured(file: Path, **changes: Any) -> None:
    content = json.loads(file.read_text()) if file.is_file() else {}
    file.write_text(json.dumps(content | changes))


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    """The file that hostile code would write."""
    return tmp_path / "marker"


@pytest.fixture
def hostile(tmp_path: Path, marker: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Makes a model with hostile code beside its weights, while standard input consents to everything."""
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n" * 100))
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))

    def make(name: str, *, known: bool, config: bool = True, tokenizer: bool = True, arch: str = "qwen3") -> Path:
        """``known``: transformers has the architecture built in. ``config``, ``tokenizer``: which of them name code."""
        folder = saved(tmp_path / name, arch)
        (folder / "evil.py").write_text(f"open({str(marker)!r}, 'w').write('ran')\nraise SystemExit(7)\n")
        if config:
            configured(folder / "config.json", auto_map=AUTO, **({} if known else {"model_type": "evil"}))
        if tokenizer:
            changes = {} if known else {"tokenizer_class": "EvilTokenizer"}
            configured(folder / "tokenizer_config.json", auto_map=AUTO, **changes)
        return folder

    return make


def test_the_trap_is_set(hostile: Callable[..., Path], marker: Path) -> None:
    """Without a trap that works, the tests below would pass whatever is loaded how."""
    for read, folder in (
        (AutoConfig, hostile("evil", known=False)),
        (AutoTokenizer, hostile("tokenizer", known=False, config=False, arch="llama")),
    ):
        with pytest.raises(SystemExit):
            read.from_pretrained(folder)
        marker.unlink()


@pytest.mark.parametrize("parts", [{}, {"config": False}, {"tokenizer": False}], ids=["both", "tokenizer", "config"])
def test_code_beside_a_model_does_not_run(parts: dict[str, bool], hostile: Callable[..., Path], marker: Path) -> None:
    """A "y" that some script pipes in would consent to code of a stranger."""
    folder = hostile("evil", known=False, **parts)
    if parts.get("config", True):
        with pytest.raises(WeightsteerError, match=r"evil needs Python code of its own.*never runs.*built in"):
            load_model(str(folder), device="cpu")
    else:  # the tokenizer is read from tokenizer.json, which is data
        load_model(str(folder), device="cpu")
    assert not marker.exists()


def test_a_known_architecture_is_loaded_without_the_code_beside_it(hostile: Callable[..., Path], marker: Path) -> None:
    """Older checkpoints still bring the code that transformers has built in by now; they must load, and not run it."""
    folder = hostile("evil", known=True)
    assert weight_hash(load_model(str(folder), device="cpu")[0]) == weight_hash(tiny("qwen3", layers=2)[0])
    assert not marker.exists()


def test_a_tokenizer_that_is_code_is_refused(hostile: Callable[..., Path], marker: Path) -> None:
    """Tokenizers have code of their own, under another key and in another file than the model's."""
    # an architecture for which transformers knows no tokenizer of its own
    folder = hostile("evil", known=False, config=False, arch="llama")
    with pytest.raises(WeightsteerError, match="evil needs Python code of its own"):
        load_model(str(folder), device="cpu")
    assert not marker.exists()


def test_nobody_is_asked(hostile: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """A question on standard input hangs a job on a server, and takes a line that was meant for a shell loop."""

    def asked(*_: object) -> str:
        raise AssertionError("a question was asked")

    monkeypatch.setattr(builtins, "input", asked)
    with pytest.raises(WeightsteerError, match="needs Python code of its own"):
        load_model(str(hostile("evil", known=False)))


def test_code_beside_the_branches_of_a_full_fine_tune_does_not_run(
    hostile: Callable[..., Path], marker: Path, tmp_path: Path
) -> None:
    """Branches are folders from elsewhere too, and are read on another path than models."""
    folder, model = hostile("evil", known=False), tiny("qwen3", layers=2)[0]
    for pair in ((folder, folder), (folder, model), (model, folder)):
        with pytest.raises(WeightsteerError, match="evil needs Python code of its own"):
            full.difference(*pair)
    for make in (
        lambda: WeightVector.from_models(folder, folder, folder),
        lambda: WeightVector.from_adapters(folder, folder, model),
        lambda: WeightVector.from_branch(folder, model),
    ):
        with pytest.raises(WeightsteerError):
            make()
    full.difference(hostile("known", known=True), model)
    assert not marker.exists()


def test_code_beside_an_adapter_does_not_run(
    hostile: Callable[..., Path], marker: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An adapter may name a hostile base, a module to import, or hold a configuration that names code."""
    base, (model, _) = hostile("evil", known=False), tiny("qwen3", layers=2)
    folders = [random_lora(model, tmp_path / side, seed=seed) for seed, side in enumerate(("plus", "minus"))]
    for folder in folders:
        shutil.copy(base / "evil.py", folder)
        shutil.copy(base / "config.json", folder)
        mapping = {"base_model_class": "Evil", "parent_library": "evil"}
        changes = {"base_model_name_or_path": str(base), "auto_map": None, "auto_mapping": mapping}
        configured(folder / "adapter_config.json", **changes)
        monkeypatch.syspath_prepend(folder)
    WeightVector.from_adapters(*folders, model)
    assert not marker.exists()


def test_a_pickle_does_not_run(hostile: Callable[..., Path], marker: Path, tmp_path: Path) -> None:
    """Weights of the old kind are pickles, which can call anything when they are read."""

    class Call:
        def __reduce__(self) -> tuple[Any, tuple[str, str]]:
            return open, (str(marker), "w")

    folder = saved(tmp_path / "old")
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps({UP: Call()}))
    with pytest.raises(WeightsteerError, match="cannot load the model"):
        load_model(str(folder), device="cpu")
    adapter = random_lora(tiny("qwen3", layers=2)[0], tmp_path / "lora", seed=1)
    (adapter / "adapter_model.safetensors").unlink()
    (adapter / "adapter_model.bin").write_bytes(pickle.dumps({UP: Call()}))
    with pytest.raises(WeightsteerError, match="cannot read"):
        WeightVector.from_branch(adapter, tiny("qwen3", layers=2)[0])
    assert not marker.exists()


def test_code_beside_the_base_that_a_vector_names_does_not_run(
    hostile: Callable[..., Path], marker: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """``export`` loads what the file of a vector names: who sends the vector chooses the folder."""
    model, _ = tiny("qwen3", layers=2)
    folders = [random_lora(model, tmp_path / side, seed=seed) for seed, side in enumerate(("plus", "minus"))]
    base = {"name": str(hostile("evil", known=False)), "hash": weight_hash(model)}
    WeightVector.from_adapters(*folders, model, metadata={"base": base}).save(tmp_path / "v.safetensors")
    for options in ([], ["--merged"]):
        assert main(["export", "--vector", f"{tmp_path}/v.safetensors", "--out", f"{tmp_path}/out", *options]) == 2
        assert "needs Python code of its own" in capsys.readouterr().err
    assert not marker.exists()


def test_a_piped_yes_does_not_run_code(hostile: Callable[..., Path], marker: Path, tmp_path: Path) -> None:
    """The whole way: a shell that pipes something into the command line."""
    folder = hostile("evil", known=False)
    line = ["data", "--model", str(folder), "--out", str(tmp_path / "out")]
    code = f"import sys; from weightsteer.cli import main; sys.exit(main({line!r}))"
    done = subprocess.run([sys.executable, "-c", code], input="y\n1\nyes\n" * 9, capture_output=True, text=True)
    assert done.returncode == 2
    assert "needs Python code of its own" in done.stderr
    assert not marker.exists()


@pytest.mark.parametrize(
    ("arch", "edit", "told"),
    [
        ("qwen3", lambda tensors: tensors.pop(UP), rf"the file lacks: {UP}\)"),
        ("llama", lambda tensors: tensors.pop("lm_head.weight"), r"the file lacks: lm_head\.weight\)"),
        # of two that are tied, one must be there
        ("qwen3", lambda tensors: tensors.pop(EMBEDDING), rf"the file lacks: lm_head\.weight, {EMBEDDING}\)"),
        ("qwen3", lambda tensors: tensors.update({"score.weight": torch.ones(2)}), r"not of this model: score\.weight"),
        (
            "qwen3",
            lambda tensors: tensors.update({UP: torch.ones(4, 32)}),
            rf"of another shape: {UP} \(4, 32\) instead of \(64, 32\)",
        ),
        ("qwen3", lambda tensors: [tensors.pop(name) for name in sorted(tensors)[:9]], "and 6 more"),
    ],
    ids=["missing", "untied head", "tied pair", "unexpected", "mismatched", "many"],
)
def test_other_tensors_than_those_of_the_model_are_refused(
    arch: str, edit: Callable[[dict[str, Tensor]], Any], told: str, tmp_path: Path
) -> None:
    """Random numbers would be taken for a model, and its verdict would differ from run to run."""
    with pytest.raises(WeightsteerError, match=told) as error:
        load_model(edited(saved(tmp_path, arch), edit), device="cpu")
    assert "save_pretrained" in str(error.value)


@pytest.mark.parametrize("kept", [EMBEDDING, "lm_head.weight"])
def test_one_of_two_tied_tensors_is_enough(kept: str, tmp_path: Path) -> None:
    """Checkpoints hold tied tensors once, under the one name or the other: refusing that would refuse most models."""
    name = edited(saved(tmp_path), lambda tensors: tensors.update({kept: tensors.pop(EMBEDDING)}))
    assert weight_hash(load_model(name, device="cpu")[0]) == weight_hash(tiny("qwen3", layers=2)[0])


def test_names_of_no_account_are_accepted(tmp_path: Path) -> None:
    """Old files hold rotary frequencies and attention masks, which the model computes itself."""
    frequencies = {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)}
    load_model(edited(saved(tmp_path / "qwen3"), lambda tensors: tensors.update(frequencies)), device="cpu")
    config = GPT2Config(vocab_size=400, n_embd=16, n_layer=1, n_head=2, n_positions=32)
    GPT2LMHeadModel(config).save_pretrained(tmp_path / "gpt2")
    tiny("qwen3")[1].save_pretrained(tmp_path / "gpt2")
    mask = {"transformer.h.0.attn.bias": torch.ones(1, 1, 32, 32)}
    load_model(edited(tmp_path / "gpt2", lambda tensors: tensors.update(mask)), device="cpu")


@pytest.mark.parametrize("arch", ["qwen3", "llama"])
def test_shards_are_one_model(arch: str, tmp_path: Path) -> None:
    """Large models lie in several files, of which one may be lost or cut."""
    folder = saved(tmp_path, arch, max_shard_size="20KB")
    assert weight_hash(load_model(str(folder), device="cpu")[0]) == weight_hash(tiny(arch, layers=2)[0])
    index = json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"]
    shard = folder / index[UP]
    tensors = load_file(shard)
    save_file({name: tensor for name, tensor in tensors.items() if name != UP}, shard, metadata={"format": "pt"})
    with pytest.raises(WeightsteerError, match=f"the file lacks: {UP}"):
        load_model(str(folder), device="cpu")
    shard.unlink()
    with pytest.raises(WeightsteerError, match="cannot load the model"):
        load_model(str(folder), device="cpu")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_weights_that_are_no_numbers_are_named(value: float, dtype: str, tmp_path: Path) -> None:
    """Every score would be NaN, or the tensor would go unnoticed where no prompt reaches it."""

    def spoil(tensors: dict[str, Tensor]) -> None:
        tensors[UP][3, 5] = value
        tensors[EMBEDDING][7, 1] = value

    name = edited(saved(tmp_path), spoil)
    with pytest.raises(WeightsteerError, match=rf"hold NaN or infinity: {EMBEDDING}, {UP}\."):
        load_model(name, device="cpu", dtype=dtype)


def test_a_dtype_too_small_for_the_weights_is_named(tmp_path: Path) -> None:
    """Weights that float16 turns into infinity look like a broken file."""
    name = edited(saved(tmp_path), lambda tensors: tensors[UP].mul_(1e6))
    load_model(name, device="cpu")
    with pytest.raises(WeightsteerError, match=r"float16 ends at 65504.*--dtype float32"):
        load_model(name, device="cpu", dtype="float16")


def test_the_folder_of_an_adapter_is_no_model(tmp_path: Path) -> None:
    """transformers attaches the adapter, and the model would pass for the base, whose hash it has."""
    folder = saved(tmp_path / "base")
    adapter = random_lora(tiny("qwen3", layers=2)[0], tmp_path / "lora", seed=1)
    configured(adapter / "adapter_config.json", base_model_name_or_path=str(folder))
    with pytest.raises(WeightsteerError, match=r"lora holds an adapter.*Name the base model"):
        load_model(str(adapter), device="cpu")
    for file in adapter.iterdir():
        shutil.copy(file, folder)
    with pytest.raises(WeightsteerError, match=r"base holds an adapter"):
        load_model(str(folder), device="cpu")


def test_embedded_models_are_not_looked_through_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their files are compared with digests; a second look at every number would only make them slower to load."""
    monkeypatch.setattr(loading, "check_finite", None)
    ws.load_model("pocket-s", device="cpu")


def test_a_model_is_not_grown_from_random_weights(tmp_path: Path) -> None:
    """``pocket build`` starts the largest model from a smaller one that lies on the disk."""
    base = tmp_path / "pocket-l" / "pocket"  # where the larger one looks for it
    model = AutoModelForCausalLM.from_pretrained(Path(ws.__file__).parent / "pocket" / "weights" / "pocket")
    model.save_pretrained(base)
    edited(base, lambda tensors: tensors.pop(UP))
    with pytest.raises(WeightsteerError, match=f"the file lacks: {UP}"):
        build("pocket-l", tmp_path / "pocket-l", seed=0, steps=1, shown=False)


MIXTURES = {
    "mixtral": lambda: MixtralConfig(num_local_experts=2, num_experts_per_tok=1, **SMALL),
    "qwen3-moe": lambda: Qwen3MoeConfig(num_experts=2, num_experts_per_tok=1, moe_intermediate_size=8, **SMALL),
}
SMALL = {
    "vocab_size": 32,
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
}


@pytest.mark.parametrize("name", MIXTURES)
def test_a_mixture_of_experts_is_not_trained_without_its_experts(name: str) -> None:
    """A vector of attention alone would be measured and published as one of the whole model."""
    model = AutoModelForCausalLM.from_config(MIXTURES[name]()).eval()
    assert routed(model)
    with (
        pytest.raises(WeightsteerError, match=r"mixture of experts.*Use a dense model"),
        trainee(model, adapters.get("lora"), Recipe.load("paper"), 0),
    ):
        pytest.fail("it was trained")
