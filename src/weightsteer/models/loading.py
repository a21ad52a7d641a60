"""Load chat models, name and hash them, render prompts to token ids, find the tokens of a choice.

Everything here works on any Hugging Face decoder; only `family` tells the embedded models (``pocket``) from
the rest.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import torch
from jinja2 import TemplateError
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import ModulesToSaveWrapper
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging

from weightsteer.errors import WeightsteerError, unknown
from weightsteer.models import checkpoint as loading
from weightsteer.models.fingerprint import marks

POCKET = ("pocket-s", "pocket", "pocket-l")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

# A token that starts a word carries one of these in front: byte-level BPE, SentencePiece, WordPiece, newline.
_BOUNDARY_MARKS = ("##", "Ġ", "▁", "Ċ", " ", "\n")


def load_model(
    name: str, *, device: str | None = None, dtype: str | torch.dtype | None = None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a model and its tokenizer, ready for inference (``eval()``, no parameter requires a gradient).

    Args:
        name: an embedded model (``pocket-s``, ``pocket``, ``pocket-l``), a folder, or a Hugging Face id.
        device: where to put it; the first GPU when there is one, else the CPU.
        dtype: ``float32`` on CPU and for embedded models by default, otherwise what the checkpoint says.

    Raises:
        WeightsteerError: nothing of that name can be had, its files are damaged, lack tensors or hold NaN, it needs
            code of its own, there is no such device, or its tokenizer has no chat template.
    """
    target = _device(device)
    source = _source(name)
    if dtype is None:
        dtype = torch.float32 if target.type == "cpu" or name in POCKET else "auto"
    elif isinstance(dtype, str) and dtype != "auto":
        if dtype not in DTYPES:
            raise unknown("dtype", dtype, [*DTYPES, "auto"])
        dtype = DTYPES[dtype]
    try:
        with _quiet(name in POCKET):
            # the files of embedded models were compared with their digests, which says more than a look at the values
            tokenizer, model = loading.read(source, dtype, verified=name in POCKET)
    except WeightsteerError:
        raise
    # the libraries beneath raise errors of many kinds for a damaged file, an unknown id or a missing network
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise WeightsteerError(
            f"cannot load the model {name!r}: {reason}\nGive a folder with config.json and weights, an embedded "
            f"model ({', '.join(POCKET)}), or a Hugging Face id; without a network an id works only once it is in "
            "the local cache."
        ) from error
    if not tokenizer.chat_template:
        raise WeightsteerError(
            f"the tokenizer of {name!r} has no chat template, so personas and questions cannot be put to it. "
            "Use the instruction-tuned version of the model, or save a tokenizer with `chat_template` set "
            "next to its weights."
        )
    return model.to(target).eval().requires_grad_(False), tokenizer


@contextmanager
def _quiet(quiet: bool) -> Iterator[None]:
    """No progress bar for loading a model that is there in a moment."""
    shown = logging.is_progress_bar_enabled()
    if quiet:
        logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _device(name: str | None) -> torch.device:
    try:
        device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
    except RuntimeError as error:
        raise WeightsteerError(f"unknown device {name!r}: use cpu, cuda, cuda:1, mps …") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise WeightsteerError("there is no usable CUDA GPU on this machine: use the device cpu.")
    return device


def _source(name: str) -> str:
    """The folder or hub id that ``name`` stands for."""
    if name in POCKET:
        from weightsteer.pocket import weights_folder

        return str(weights_folder(name))
    if Path(name).is_dir():
        return name
    path_like = name.startswith((".", "/", "~")) or name.count("/") > 1
    near_pocket = "/" not in name and get_close_matches(name, POCKET, n=1, cutoff=0.6)
    if path_like or near_pocket:
        error = unknown("model", name, POCKET)
        raise WeightsteerError(f"{error}; or an existing folder; or a Hugging Face id (owner/name)")
    return name


def model_name(model: PreTrainedModel) -> str:
    """``pocket``, the hub id, or the name of the folder the model came from."""
    name = str(model.name_or_path or model.config.model_type)
    path = Path(name)
    return path.resolve().name if path.is_absolute() or path.is_dir() else name


def family(model: PreTrainedModel) -> str:
    """``pocket`` for the embedded models (they know only their own world), ``general`` for any other."""
    return "pocket" if isinstance(getattr(model.config, "weightsteer_pocket", None), str) else "general"


def weight_hash(model: PreTrainedModel) -> str:
    """blake2b-128 (hex) over name, shape and little-endian fp32 bytes of the unique base parameters, by name.

    A bf16 checkpoint has the same hash whether it is loaded as bf16 or fp32. The parameters of attached PEFT
    adapters are left out, so that a model has the same hash with and without them. The hash of a model is
    remembered until a parameter changes (`weightsteer.models.fingerprint` says how that is noticed).

    Raises:
        WeightsteerError: parameters are not in memory (offloaded).
    """
    parameters = sorted(_base_parameters(model), key=lambda entry: entry[0])
    if absent := [name for name, tensor in parameters if tensor.is_meta]:
        raise WeightsteerError(
            f"{absent[0]} is not in memory (offloaded), so the weights cannot be hashed. Load the model without "
            "offloading; to steer without a check of the base, pass other_base=True."
        )
    seen = (tuple(name for name, _ in parameters), *marks(tensor for _, tensor in parameters))
    cached = _hashes.get(model)
    if cached is None or cached[0] != seen:
        cached = (seen, _hash(parameters))
        _hashes[model] = cached
    return cached[1]


# by model: the marks of its base parameters when they were hashed, and the hash
_hashes: WeakKeyDictionary[nn.Module, tuple[tuple[Any, ...], str]] = WeakKeyDictionary()


def _hash(parameters: list[tuple[str, torch.Tensor]]) -> str:
    def digest(entry: tuple[str, torch.Tensor]) -> bytes:
        name, tensor = entry
        values = tensor.detach().to("cpu", torch.float32).contiguous().numpy().astype("<f4", copy=False)
        hashed = hashlib.blake2b(f"{name}\0{tuple(tensor.shape)}\0".encode(), digest_size=16)
        hashed.update(values.data)
        return hashed.digest()

    # hashlib releases the interpreter lock, so threads bring a 0.6 B model from seconds to the memory's speed
    with ThreadPoolExecutor(max_workers=4) as pool:
        digests = list(pool.map(digest, parameters))
    return hashlib.blake2b(b"".join(digests), digest_size=16).hexdigest()


def _base_parameters(model: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Unique parameters of the base model under the names they have without PEFT and ``torch.compile``."""
    added: set[int] = set()
    for module in model.modules():
        if isinstance(module, BaseTunerLayer):
            holders = [getattr(module, name) for name in module.adapter_layer_names]
        elif isinstance(module, ModulesToSaveWrapper):
            holders = [module.modules_to_save]
        else:
            continue
        for holder in holders:
            if isinstance(holder, nn.Module):
                added.update(map(id, holder.parameters()))
    for name, parameter in model.named_parameters():
        if id(parameter) not in added:
            name = name.replace("_orig_mod.", "").removeprefix("base_model.model.")
            yield name.replace(".base_layer.", ".").replace(".original_module.", "."), parameter


def decoder_layers(model: PreTrainedModel) -> tuple[str, nn.ModuleList]:
    """The module path and the list of the decoder layers, e.g. ``("model.layers", …)``.

    Raises:
        WeightsteerError: no list (or more than one) has as many entries as the config has hidden layers.
    """
    expected = getattr(model.config.get_text_config(), "num_hidden_layers", None)
    found = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList)
        and len(module) == expected
        and not any(word in name for word in ("vision", "visual", "audio"))
        # a list of experts or heads inside a layer can be as long as the list of layers
        and not any(part.isdigit() for part in name.split("."))
    ]
    if len(found) != 1:
        raise WeightsteerError(
            f"cannot tell which modules of {type(model).__name__} are its {expected} decoder layers "
            f"(candidates: {', '.join(name for name, _ in found) or 'none'}). "
            "Architectures with one plain list of decoder layers are supported."
        )
    return found[0]


def layer_index(module_name: str, prefix: str) -> int | None:
    """The decoder layer a module lies in, or None when it lies outside the layers.

    >>> layer_index("model.layers.3.mlp.down_proj", "model.layers"), layer_index("lm_head", "model.layers")
    (3, None)
    """
    rest = module_name.removeprefix(prefix + ".")
    head = rest.split(".", 1)[0]
    return int(head) if rest != module_name and head.isdigit() else None


def render_chat(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[Mapping[str, str]],
    *,
    answer_prefix: str = "",
    thinking: bool = False,
) -> list[int]:
    """Token ids of a chat, its generation prompt, and the beginning of the answer.

    A system text is put before the first user turn when the template has no system role. With
    ``thinking=False`` a thinking model answers at once (its template's own switch, or a closed empty block).
    Special tokens come from the template alone, so there is never a second BOS.

    Raises:
        WeightsteerError: the tokenizer has no chat template, or the template refuses the messages.
    """
    if not tokenizer.chat_template:
        raise WeightsteerError("this tokenizer has no chat template: take that of an instruction-tuned model.")
    chat = [dict(message) for message in messages]
    system = chat[0]["content"].strip() if chat and chat[0]["role"] == "system" else ""
    try:
        text = _template(tokenizer, chat, thinking)
        system_lost = system not in text
    except TemplateError as error:
        if not system:
            raise WeightsteerError(f"the model's chat template refuses this conversation: {error}") from error
        system_lost = True
    if system_lost:
        try:
            text = _template(tokenizer, _without_system_role(chat), thinking)
        except TemplateError as error:
            raise WeightsteerError(f"the model's chat template refuses this conversation: {error}") from error
    if not thinking and text.rstrip().endswith("<think>"):
        text = text.rstrip() + "\n\n</think>\n\n"
    return list(tokenizer(text + answer_prefix, add_special_tokens=False)["input_ids"])


def _template(tokenizer: PreTrainedTokenizerBase, chat: list[dict[str, str]], thinking: bool) -> str:
    return str(
        tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True, enable_thinking=thinking)
    )


def _without_system_role(chat: list[dict[str, str]]) -> list[dict[str, str]]:
    """The system text moved to the head of the first user turn, as Gemma's documentation recommends."""
    system, *rest = chat
    if rest and rest[0]["role"] == "user":
        merged = f"{system['content'].strip()}\n\n{rest[0]['content']}"
        return [{"role": "user", "content": merged}, *rest[1:]]
    return [{"role": "user", "content": system["content"]}, *rest]


# by tokenizer, then by whether the texts were decoded: what every token spells
_vocabularies: WeakKeyDictionary[PreTrainedTokenizerBase, dict[bool, dict[str, list[int]]]] = WeakKeyDictionary()


def choice_ids(tokenizer: PreTrainedTokenizerBase, choice: str) -> list[int]:
    """Every vocabulary id whose text, without a leading boundary mark and lower-cased, is the choice.

    "Yes" thus covers ``Yes``, ``ĠYes``, ``yes``, ``YES``…; punctuated variants are not counted (they would
    make the mass of a choice depend on the style of the answer).

    Raises:
        WeightsteerError: no single token spells the choice.
    """
    wanted = choice.strip().lower()
    cached = _vocabularies.setdefault(tokenizer, {})
    # byte-level vocabularies store other scripts in an alphabet of their own; decoding it all is slow
    decoded = not wanted.isascii()
    if decoded not in cached:
        cached[decoded] = _spellings(tokenizer, decoded)
    if not (ids := cached[decoded].get(wanted)):
        raise WeightsteerError(
            f"the choice {choice!r} is not a single token of this model's vocabulary, so its probability "
            "cannot be read at one position. Use choices that are single tokens, such as Yes/No, A/B or 1/2."
        )
    return ids


def _spellings(tokenizer: PreTrainedTokenizerBase, decoded: bool) -> dict[str, list[int]]:
    """Vocabulary ids by what they spell, lower-cased and without one boundary mark."""
    ids = range(len(tokenizer))
    texts = [tokenizer.decode([i]) for i in ids] if decoded else tokenizer.convert_ids_to_tokens(list(ids))
    spelled: dict[str, list[int]] = {}
    for index, text in zip(ids, texts, strict=True):
        mark = next((mark for mark in _BOUNDARY_MARKS if text and text.startswith(mark)), "")
        spelled.setdefault((text or "")[len(mark) :].lower(), []).append(index)
    return spelled
