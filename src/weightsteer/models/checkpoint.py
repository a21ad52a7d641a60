"""Read a model and its tokenizer from files that nobody here wrote: their code is never run, and what is not whole is
refused.

transformers fills every tensor that a checkpoint lacks with random numbers, warns, and goes on; a result measured on
such a model looks like any other. And unless it is told not to, it asks on standard input whether it may run Python
files that lie beside the weights, where a piped "y" is a yes.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import model_info
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from weightsteer.errors import WeightsteerError

ADAPTER = "adapter_config.json"


def read(
    source: str, dtype: str | torch.dtype, *, verified: bool = False
) -> tuple[PreTrainedTokenizerBase, PreTrainedModel]:
    """Tokenizer and model of a folder or a hub id; what is on this machine is used before the hub is asked.

    Args:
        source: the folder, or the hub id.
        dtype: of the weights; ``auto`` for that of the checkpoint.
        verified: the files are known by their digests, so their values need not be looked at.

    Raises:
        WeightsteerError: the checkpoint needs code of its own, is an adapter, lacks tensors, has others than the
            model, or holds NaN or infinity.
    """
    if (Path(source) / ADAPTER).is_file():
        raise _adapter(source)

    def local_or_not(local: bool) -> tuple[PreTrainedTokenizerBase, PreTrainedModel]:
        options: dict[str, Any] = {"local_files_only": local, "trust_remote_code": False}
        with no_code(source):
            # first, for the tokenizer would go on without a configuration and end in an error about something else
            AutoConfig.from_pretrained(source, **options)
            tokenizer = AutoTokenizer.from_pretrained(source, **options)
            # mismatched tensors are refused below, by name; transformers would not name them in its error
            model, found = AutoModelForCausalLM.from_pretrained(
                source, dtype=dtype, output_loading_info=True, ignore_mismatched_sizes=True, **options
            )
        # transformers attaches the adapter of a repository that has one, and then tells what was loaded of that alone
        if getattr(model, "_hf_peft_config_loaded", False):
            raise _adapter(source)
        check_keys(source, found)
        return tokenizer, model

    try:
        tokenizer, model = local_or_not(True)
    except (OSError, ValueError):
        if Path(source).is_dir():
            raise
        # fails at once for an unknown id or without a network, where loading would retry for most of a minute
        model_info(source, timeout=10)
        tokenizer, model = local_or_not(False)
    if not verified:
        check_finite(source, model)
    return tokenizer, model


@contextmanager
def no_code(source: str | Path) -> Iterator[None]:
    """Say plainly that a checkpoint needs code of its own, where transformers was told not to run it.

    Raises:
        WeightsteerError: it does.
    """
    try:
        yield
    except ValueError as error:
        # transformers has no class for this error, but it always names the argument that would permit the code
        if "trust_remote_code" not in str(error):
            raise
        raise WeightsteerError(
            f"{source} needs Python code of its own (auto_map in its config.json or tokenizer_config.json), and "
            "weightsteer never runs code that comes with a checkpoint. Use a version of the model that transformers "
            "has built in, or load it yourself with transformers, once you have read its code, and pass the loaded "
            "model to the Python functions of weightsteer."
        ) from error


def check_keys(source: str | Path, found: Mapping[str, Any]) -> None:
    """Refuse a checkpoint whose tensors are not exactly those of the model.

    Args:
        source: where it lies, for the message.
        found: transformers' loading information. Weights that are tied to one that is there, and names that the
            architecture declares to be of no account (such as the rotary frequencies in old files), are not in it.

    Raises:
        WeightsteerError: tensors are missing, unexpected, or of another shape; they are named.
    """
    lists = {
        "the file lacks": sorted(found["missing_keys"]),
        "of another shape": [
            f"{name} {tuple(stored)} instead of {tuple(wanted)}"
            for name, stored, wanted in sorted(found["mismatched_keys"])
        ],
        "not of this model": sorted(found["unexpected_keys"]),
    }
    if any(lists.values()):
        listed = "; ".join(f"{what}: {_some(names)}" for what, names in lists.items() if names)
        raise WeightsteerError(
            f"the weights of {source} are not those of the model that its config.json describes ({listed}). "
            "transformers would put random numbers where a tensor is missing and leave out what it does not know. Copy "
            "or download the checkpoint again, all of its files; or save the model again with save_pretrained."
        )


def check_finite(source: str | Path, model: PreTrainedModel) -> None:
    """Refuse weights that hold NaN or infinity.

    Raises:
        WeightsteerError: some do; the tensors are named.
    """
    seen: set[int] = set()
    bad = []
    for name, tensor in model.state_dict(keep_vars=True).items():
        # quantised ones have no plain values, offloaded ones none in memory; tied ones are looked at once
        if not isinstance(tensor, torch.Tensor) or tensor.is_meta or id(tensor) in seen:
            continue
        if not tensor.is_floating_point() or tensor.element_size() < 2:
            continue
        seen.add(id(tensor))
        # one pass without a copy; both ends are NaN when any entry is
        if tensor.numel() and not bool(torch.stack(torch.aminmax(tensor.detach())).isfinite().all()):
            bad.append(name)
    if bad:
        raise WeightsteerError(
            f"the weights of {source} hold NaN or infinity: {_some(bad)}. The training that made them diverged, the "
            "file is damaged, or they are too large for the dtype they were loaded in (float16 ends at 65504). Take "
            "an earlier checkpoint, copy it again, or load it with --dtype float32."
        )


def _adapter(source: str) -> WeightsteerError:
    return WeightsteerError(
        f"{source} holds an adapter ({ADAPTER}), and a model with an adapter in it is not the base that vectors are "
        "made on and applied to. Name the base model instead; or merge the adapter (PEFT's merge_and_unload), and "
        "save and name the merged model."
    )


def _some(names: list[str], most: int = 4) -> str:
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"
