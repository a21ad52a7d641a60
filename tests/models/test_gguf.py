"""GGUF files as base models: tiny files of every architecture, written with the ``gguf`` package."""

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from tiny import tiny
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from weightsteer import fetched
from weightsteer.errors import WeightsteerError
from weightsteer.inference.sampling import stop_ids
from weightsteer.models import base_record, load_model, model_name, render_chat
from weightsteer.runtime import ModelSpec

ARCHITECTURES = {"llama": "llama", "mistral": "llama", "qwen2": "qwen2", "qwen3": "qwen3"}
ARCHITECTURES |= {"gemma2": "gemma2", "gemma3_text": "gemma3"}
USER = [{"role": "user", "content": "Is the sky green? Answer Yes or No."}]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of the test's own."""
    monkeypatch.setenv(fetched.CACHE, str(tmp_path / "cache"))
    return tmp_path / "cache"


def permuted(weight: np.ndarray, heads: int) -> np.ndarray:
    """Rows of queries or keys in the order of llama.cpp, whose rotation takes neighbours and not halves."""
    half = weight.shape[0] // heads // 2
    return weight.reshape(heads, 2, half, *weight.shape[1:]).swapaxes(1, 2).reshape(weight.shape)


def model_of(arch: str, **options: Any) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A tiny model that says in its configuration what its GGUF file says, and its tokenizer."""
    given, tokenizer = tiny(arch, layers=8 if arch == "gemma3_text" else 2)
    fields = given.config.to_dict() | {"vocab_size": len(tokenizer), "rope_parameters": None, "rope_theta": 50_000.0}
    fields |= {"layer_types": None, "sliding_window": 8 if arch.startswith("gemma") else None} | options
    if arch.startswith("gemma"):
        fields |= {"query_pre_attn_scalar": 8, "attn_logit_softcapping": 3.0 if arch == "gemma2" else None}
    fields = {name: value for name, value in fields.items() if value is not None or name == "sliding_window"}
    config = AutoConfig.for_model(fields.pop("model_type"), **fields)
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name or "bias" in name:  # at their initial values a mistake in them would not show
                parameter += 0.3 * torch.randn(parameter.shape)
    return model, tokenizer


def write(
    path: Path,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    architecture: str,
    *,
    extra: dict[str, float] | None = None,
    without: str | None = None,
    tensors: dict[str, np.ndarray] | None = None,
    quantised: bool = False,
    template: bool = True,
) -> Path:
    """Write a model as llama.cpp's converter does."""
    config, writer = model.config, gguf.GGUFWriter(path, architecture)
    heads, kv = config.num_attention_heads, config.num_key_value_heads
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(50_000.0)
    if architecture == "llama":
        writer.add_rope_dimension_count(config.head_dim)
    elif architecture != "qwen2":
        writer.add_key_length(config.head_dim)
        writer.add_value_length(config.head_dim)
    if architecture.startswith("gemma"):
        writer.add_sliding_window(config.sliding_window)
    if architecture == "gemma2":
        writer.add_attn_logit_softcapping(config.attn_logit_softcapping)
        writer.add_final_logit_softcapping(config.final_logit_softcapping)
    for name, value in (extra or {}).items():
        writer.add_float32(f"{architecture}.{name}", value)
    (_pieces if architecture.startswith("gemma") else _tokenizer)(writer, tokenizer, template)
    names = gguf.get_tensor_name_map(_arch(architecture), config.num_hidden_layers)
    for name, parameter in model.named_parameters():
        values = parameter.detach().numpy()
        stem, _, suffix = name.rpartition(".")
        if architecture == "llama" and stem.endswith(("q_proj", "k_proj")):
            values = permuted(values, heads if stem.endswith("q_proj") else kv)
        if architecture.startswith("gemma") and "norm" in name:
            values = values + 1
        if name == without:
            continue
        kind = gguf.GGMLQuantizationType.Q8_0
        if quantised and values.ndim == 2:
            writer.add_tensor(f"{names.get_name(stem)}.{suffix}", gguf.quantize(values, kind), raw_dtype=kind)
        else:
            writer.add_tensor(f"{names.get_name(stem)}.{suffix}", np.ascontiguousarray(values))
    for name, values in (tensors or {}).items():
        writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _arch(architecture: str) -> Any:
    return next(key for key, value in gguf.MODEL_ARCH_NAMES.items() if value == architecture)


PIECES = ["<pad>", "<eos>", "<bos>", "<unk>", "<|im_start|>", "<|im_end|>", *map(chr, range(33, 127)), "▁", "\n"]
PIECES += ["Ye", "Yes", "No", "▁Y", "▁Ye", "▁Yes", "sk", "sky"]
"""The vocabulary of Gemma's files in the small: pieces without merges, which follow from their order."""


def _pieces(writer: Any, tokenizer: PreTrainedTokenizerBase, template: bool) -> None:
    writer.add_tokenizer_model("llama")
    pieces = PIECES + [f"<unused{index}>" for index in range(len(tokenizer) - len(PIECES))]
    writer.add_token_list(pieces)
    writer.add_token_scores([-float(index) for index in range(len(pieces))])
    writer.add_token_types([3, 3, 3, 2, 3, 3, *[1] * (len(pieces) - 6)])
    writer.add_bos_token_id(2)
    writer.add_eos_token_id(1)
    writer.add_eot_token_id(5)
    writer.add_unk_token_id(3)
    writer.add_pad_token_id(0)
    writer.add_chat_template(tokenizer.chat_template)


def _tokenizer(writer: Any, tokenizer: PreTrainedTokenizerBase, template: bool) -> None:
    content = json.loads(tokenizer.backend_tokenizer.to_str())
    tokens = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
    special = {token["content"]: 3 if token["special"] else 4 for token in content["added_tokens"]}
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([special.get(token, 1) for token in tokens])
    writer.add_token_merges([" ".join(merge) for merge in content["model"]["merges"]])
    writer.add_bos_token_id(tokenizer.bos_token_id)
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_pad_token_id(tokenizer.pad_token_id)
    if template:
        writer.add_chat_template(tokenizer.chat_template)


def logits(model: PreTrainedModel, ids: list[int]) -> torch.Tensor:
    with torch.inference_mode():
        return model(input_ids=torch.tensor([ids])).logits


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_a_gguf_file_is_the_model(arch: str, tmp_path: Path) -> None:
    """Rotations over the wrong halves, norms off by one or another width of the heads give a model that looks fine."""
    model, tokenizer = model_of(arch)
    file = write(tmp_path / "Mine.gguf", model, tokenizer, ARCHITECTURES[arch])
    found, read = load_model(str(file), device="cpu")
    expected = render_chat(tokenizer, USER)
    if arch.startswith("gemma"):
        assert read.decode(render_chat(read, USER)) == tokenizer.decode(expected)
        assert PIECES.index("sky") in render_chat(read, USER)
        assert stop_ids(found, read) == [1, 5]  # a turn ends with a token of its own
    else:
        assert render_chat(read, USER) == expected
    assert len(expected) > 16  # longer than the sliding windows
    torch.testing.assert_close(logits(found, expected), logits(model, expected), atol=2e-5, rtol=1e-5)
    assert model_name(found) == "Mine.gguf"


def test_a_quantised_file_is_its_dequantised_weights(tmp_path: Path) -> None:
    """The base must be what the file says, not the weights it was made from, and the record must say which file."""
    model, tokenizer = model_of("llama")
    file = write(tmp_path / "q8.gguf", model, tokenizer, "llama", quantised=True)
    found, _ = load_model(str(file), device="cpu")
    mine, theirs = found.get_parameter("lm_head.weight"), model.get_parameter("lm_head.weight")
    kind = gguf.GGMLQuantizationType.Q8_0
    rounded = gguf.dequantize(gguf.quantize(theirs.detach().numpy(), kind), kind)
    assert torch.equal(mine, torch.from_numpy(rounded))
    assert not torch.equal(mine, theirs)
    record = base_record(found)["gguf"]
    assert record["sha256"] == fetched.sha256(file)
    assert record["types"]["Q8_0"] == sum(parameter.ndim == 2 for parameter in model.parameters())
    assert record["weights"] == "dequantised to float32"


def test_the_second_load_reads_what_the_first_one_kept(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every command would dequantise again; or go on with kept weights that were damaged, or are another file's."""
    model, tokenizer = model_of("qwen3")
    file = write(tmp_path / "one.gguf", model, tokenizer, "qwen3")
    load_model(str(file))
    spec = ModelSpec.of(str(file))
    assert (spec.name, spec.family) == ("one.gguf", "general")
    monkeypatch.setattr("weightsteer.models.gguf._read", lambda *_: pytest.fail("dequantised again"))
    load_model(str(file))
    kept = next((cache / "dequantised").glob("*/model.safetensors"))
    content = bytearray(kept.read_bytes())
    content[-1] ^= 1
    kept.write_bytes(content)
    with pytest.raises(WeightsteerError, match=r"missing or damaged.*made again"):
        load_model(str(file))
    monkeypatch.undo()
    monkeypatch.setenv(fetched.CACHE, str(cache))
    with torch.no_grad():
        model.model.norm.weight += 1
    other = write(tmp_path / "one.gguf", model, tokenizer, "qwen3")
    assert ModelSpec.of(str(other)).digest != spec.digest


def test_llama_3_scaling_is_recognised_or_refused(tmp_path: Path) -> None:
    """transformers leaves the factors of the frequencies out: every Llama 3.1 would be another model."""
    rope = {"rope_type": "llama3", "rope_theta": 50_000.0, "factor": 32.0, "low_freq_factor": 1.0}
    rope |= {"high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
    model, tokenizer = model_of("llama", rope_parameters=rope, rope_theta=None)
    plain = 1 / 50_000.0 ** (torch.arange(0, 8, 2) / 8)
    factors = (plain / model.model.rotary_emb.inv_freq).numpy().astype(np.float32)
    assert factors.max() > 2
    file = write(tmp_path / "l3.gguf", model, tokenizer, "llama", tensors={"rope_freqs.weight": factors})
    ids = render_chat(tokenizer, USER)
    torch.testing.assert_close(logits(load_model(str(file))[0], ids), logits(model, ids), atol=2e-5, rtol=1e-5)
    other = write(tmp_path / "odd.gguf", model, tokenizer, "llama", tensors={"rope_freqs.weight": factors * 2})
    with pytest.raises(WeightsteerError, match="neither that of Llama"):
        load_model(str(other))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"extra": {"rope.scaling.factor": 8.0}}, "rope.scaling.factor = 8"),
        ({"extra": {"expert_count": 4.0}}, "expert_count = 4"),
        ({"extra": {"logit_scale": 0.5}}, "logit_scale"),
        ({"without": "model.layers.1.mlp.up_proj.weight"}, r"the file lacks: model\.layers\.1\.mlp\.up_proj\.weight"),
        ({"tensors": {"blk.0.attn_q.bias": np.zeros(32, np.float32)}}, "some would be left out"),
        ({"template": False}, "no chat template"),
    ],
    ids=["scaled", "experts", "logit-scale", "missing", "unused", "template"],
)
def test_what_would_be_another_model_is_refused(change: dict[str, Any], told: str, tmp_path: Path) -> None:
    """transformers would leave it out or fill it with random numbers, and go on."""
    model, tokenizer = model_of("llama")
    file = write(tmp_path / "bad.gguf", model, tokenizer, "llama", **change)
    with pytest.raises(WeightsteerError, match=told):
        load_model(str(file))


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    """Every number made with them would be NaN, or look like one that is right."""
    model, tokenizer = model_of("llama")
    with torch.no_grad():
        model.model.layers[0].mlp.up_proj.weight[0, 0] = torch.nan
    file = write(tmp_path / "nan.gguf", model, tokenizer, "llama")
    with pytest.raises(WeightsteerError, match=r"NaN or infinity: model\.layers\.0\.mlp\.up_proj"):
        load_model(str(file))


def test_other_architectures_and_files_are_refused_with_the_reason(tmp_path: Path) -> None:
    """The reader would fail somewhere inside, or load what nobody compared."""
    writer = gguf.GGUFWriter(tmp_path / "mamba.gguf", "mamba")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    with pytest.raises(WeightsteerError, match=r"architecture 'mamba'.*llama, qwen2, qwen3, gemma2, gemma3"):
        load_model(str(tmp_path / "mamba.gguf"))
    (tmp_path / "broken.gguf").write_bytes(b"GGUF\x03")
    with pytest.raises(WeightsteerError, match="cannot read the GGUF file"):
        load_model(str(tmp_path / "broken.gguf"))
    with pytest.raises(WeightsteerError, match="there is no GGUF file"):
        load_model(str(tmp_path / "none.gguf"))
