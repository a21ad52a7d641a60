"""GGUF files as base models: dequantised once to fp32 by transformers, and kept as a folder like any other checkpoint.

The base of a vector is then the dequantised weights: every number that this package computes is exact for them. What
llama.cpp computes from the same file differs by its own rounding, and the weights that were quantised into the file
differ from both by the error of the quantisation.

transformers leaves out what it does not know in a GGUF file: metadata that change the computation, and whole tensors.
Such a model would look like any other, so files that have more than is read here are refused.
"""

import json
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from weightsteer.errors import WeightsteerError
from weightsteer.fetched import RECORD, check_files, dequantised_folder, gguf_file, record_of, sha256, written
from weightsteer.files import file_digest
from weightsteer.models.checkpoint import check_finite, check_keys

ARCHITECTURES = ("llama", "qwen2", "qwen3", "gemma2", "gemma3")
"""As GGUF names them; the models of Mistral are of the architecture llama there."""

_READ = {
    "attention.head_count",
    "attention.head_count_kv",
    "attention.key_length",
    "attention.layer_norm_rms_epsilon",
    "attention.sliding_window",
    "attention.value_length",
    "attn_logit_softcapping",
    "final_logit_softcapping",
    "rope.dimension_count",
    "rope.freq_base",
}
"""Metadata that change the computation and are read, by transformers or by `_amend`."""

_CHANGES = ("attention.", "attn_", "expert", "final_", "logit", "rope.", "embedding_scale", "residual_scale", "sliding")
"""Beginnings of the names of metadata that change the computation."""

_ROPE = "rope_freqs.weight"
_LARGEST = {"gemma2": 46, "gemma3": 62}
"""Layers of the model of a family whose queries are scaled by the width and not by the head, as in llama.cpp."""


def dequantised(source: str) -> Path:
    """The folder of the dequantised weights of a GGUF file, which is made when it is not there.

    Args:
        source: a name of `weightsteer.fetched.FETCHED`, or the path of a file.

    Raises:
        WeightsteerError: there is no such file, the ``gguf`` package is missing, or the file is of an architecture, or
            has contents, that cannot be read exactly.
    """
    folder = dequantised_folder(source)
    if record_of(folder):
        check_files(folder)
        return folder
    reader_of = _gguf().GGUFReader
    with written(folder) as fresh:
        if not record_of(folder):  # else another process was first
            file = gguf_file(source).resolve()
            print(f"dequantising {file.name}, which is done once", file=sys.stderr)
            with _plain_errors(file):
                model, tokenizer, record = _read(file, reader_of(file))
            model.save_pretrained(fresh)
            tokenizer.save_pretrained(fresh)
            files = {path.name: file_digest(path) for path in sorted(fresh.iterdir())}
            (fresh / RECORD).write_text(json.dumps({"gguf": record, "files": files}, indent=1), encoding="utf-8")
    return folder


def origin(folder: Path) -> dict[str, Any]:
    """What the metadata of a vector say of dequantised weights: the file, its digest, and how it was quantised."""
    return dict((record_of(folder) or {})["gguf"])


def _read(file: Path, reader: Any) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, dict[str, Any]]:
    """The model in fp32, its tokenizer, and what is to be recorded of the file."""
    architecture = str(reader.fields["general.architecture"].contents())
    prefix = f"{architecture}."
    metadata = {
        name.removeprefix(prefix): field.contents() for name, field in reader.fields.items() if name.startswith(prefix)
    }
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    _check(file, architecture, metadata)
    if "tokenizer.chat_template" not in reader.fields:
        raise WeightsteerError(
            f"{file.name} has no chat template, so personas and questions cannot be put to the model. Take the file of "
            "the instruction-tuned version."
        )
    options: dict[str, Any] = {"gguf_file": file.name, "trust_remote_code": False, "local_files_only": True}
    config = AutoConfig.from_pretrained(file.parent, **options)
    _amend(file, config, architecture, metadata, tensors)
    loaded, found = AutoModelForCausalLM.from_pretrained(
        file.parent, config=deepcopy(config), dtype=torch.float32, output_loading_info=True, **options
    )
    check_keys(file, found)
    # transformers refuses to save a model that came out of a GGUF file, whatever it holds now
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.load_state_dict(loaded.state_dict(), assign=True)
    model.tie_weights()
    _check_all_used(file, model, {name for name in tensors if name != _ROPE})
    check_finite(file, model)
    tokenizer = AutoTokenizer.from_pretrained(file.parent, **options)
    # chats of some models end with a token of their own, which is not the end of sequence
    turn = reader.fields.get("tokenizer.ggml.eot_token_id")
    model.generation_config.eos_token_id = sorted({config.eos_token_id, *([turn.contents()] if turn else [])} - {None})
    record = {
        "file": file.name,
        "sha256": sha256(file),
        "architecture": architecture,
        # how many tensors of each type: what was rounded, and how coarsely
        "types": dict(Counter(tensor.tensor_type.name for tensor in tensors.values())),
        "weights": "dequantised to float32",
    }
    return model, tokenizer, record


def _check(file: Path, architecture: str, metadata: Mapping[str, Any]) -> None:
    if architecture not in ARCHITECTURES:
        raise WeightsteerError(
            f"{file.name} is a GGUF file of the architecture {architecture!r}. Read exactly are "
            f"{', '.join(ARCHITECTURES)} (models of Mistral are of the architecture llama). Take the model's "
            "checkpoint for transformers, a folder or a hub id, in its place."
        )
    # a scaling that is spelled out to be none changes nothing; one without a type is linear
    scaled = metadata.get("rope.scaling.type", "linear") != "none"
    left = [
        name
        for name in metadata
        if name.startswith(_CHANGES) and name not in _READ and (scaled or not name.startswith("rope.scaling."))
    ]
    if left:
        listed = ", ".join(f"{name} = {metadata[name]}" for name in sorted(left)[:4])
        raise WeightsteerError(
            f"{file.name} has metadata that change what the model computes and are not read here ({listed}), so its "
            "answers would not be those of the model. Take its checkpoint for transformers in its place."
        )


def _amend(
    file: Path, config: PretrainedConfig, architecture: str, metadata: Mapping[str, Any], tensors: Mapping[str, Any]
) -> None:
    """Put into the configuration what the file says and transformers does not read."""
    head = metadata.get("attention.key_length", metadata.get("rope.dimension_count"))
    if head is None:
        head = config.hidden_size // config.num_attention_heads
    if metadata.get("attention.value_length", head) != head or metadata.get("rope.dimension_count", head) != head:
        raise WeightsteerError(f"{file.name}: keys, values and rotations of different widths are not supported.")
    config.head_dim = head
    if architecture in _LARGEST:
        largest = config.num_hidden_layers == _LARGEST[architecture]
        config.query_pre_attn_scalar = config.hidden_size // config.num_attention_heads if largest else head
    for name in ("attn_logit_softcapping", "final_logit_softcapping"):
        if name in metadata:
            setattr(config, name, metadata[name])
    if _ROPE in tensors:
        config.rope_parameters = _rope(file, config, torch.from_numpy(tensors[_ROPE].data.copy()))


def _rope(file: Path, config: PretrainedConfig, factors: torch.Tensor) -> dict[str, Any]:
    """The scaling of Llama 3.1 and 3.2, of which a GGUF file has only what it does to each frequency."""
    plain = {"rope_theta": config.rope_parameters["rope_theta"]}
    exponents = torch.arange(0, config.head_dim, 2).float() / config.head_dim
    unscaled = 1.0 / plain["rope_theta"] ** exponents
    for factor in (8.0, 32.0):
        rope = plain | {"rope_type": "llama3", "factor": factor, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
        config.rope_parameters = rope | {"original_max_position_embeddings": 8192}
        scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](config, torch.device("cpu"))
        if len(factors) == len(scaled) and torch.allclose(unscaled / scaled, factors.float(), rtol=1e-3):
            return dict(config.rope_parameters)
    raise WeightsteerError(
        f"{file.name} scales its rotary frequencies ({_ROPE}) in a way that is neither that of Llama 3.1 nor that of "
        "Llama 3.2. Take the model's checkpoint for transformers in its place."
    )


def _check_all_used(file: Path, model: PreTrainedModel, names: set[str]) -> None:
    """Refuse a file with tensors that have no place in the model: every parameter came from one tensor of its own."""
    parameters = sum(1 for _ in model.parameters())  # tied ones count once
    if len(names) != parameters:
        raise WeightsteerError(
            f"{file.name} holds {len(names)} tensors, and {type(model).__name__} has places for {parameters}: some "
            "would be left out, and the model would be another. Take its checkpoint for transformers in its place."
        )


@contextmanager
def _plain_errors(file: Path) -> Iterator[None]:
    try:
        yield
    except WeightsteerError:
        raise
    # transformers and the reader raise whatever their parsing stumbles over
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise WeightsteerError(
            f"cannot read the GGUF file {file}: {reason}\nIf it is damaged, get it again. Otherwise take the model's "
            "checkpoint for transformers, a folder or a hub id."
        ) from error


def _gguf() -> Any:
    try:
        return import_module("gguf")
    except ImportError as error:
        raise WeightsteerError("GGUF files need the `gguf` package: pip install 'weightsteer[gguf]'.") from error
