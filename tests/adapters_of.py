"""A trained-looking adapter of any family: made by PEFT, all its parameters moved, saved by PEFT."""

import json
import warnings
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path

import torch
from peft import PeftConfig, get_peft_model
from peft.tuners.boft import layer as boft_layer
from transformers import PreTrainedModel

from weightsteer import adapters
from weightsteer.adapters import AdapterFamily
from weightsteer.models import decoder_layers

# PEFT would try to compile a CUDA kernel for every module of a BOFT
boft_layer._FBD_CUDA = False

PEFT_FAMILIES = ("lora", "rslora", "dora", "pissa", "delora", "oft", "boft", "ia3", "bias")

# By the ends of names: how far parameters are moved from where training starts, so that deltas are a good part of the
# weights (whose standard deviation is 0.15 in the tiny models).
_SIZES = {"magnitude_vector": 0.3, "lora_A": 0.1, "lora_B": 0.1, "delora_lambda": 2.0, "delora_": 0.5, "oft_R": 0.2}
_SIZES |= {"boft_": 0.2, "ia3_l": 0.4, "beft_bias": 0.4}


def random_adapter(
    name: str | AdapterFamily,
    model: PreTrainedModel,
    folder: Path,
    seed: int = 1,
    layers: Sequence[int] | None = None,
    std: float = 1.0,
    **options,
) -> Path:
    """Save a PEFT folder of the family; ``std`` scales how far it is from the base (0: not trained at all)."""
    family = adapters.get(name) if isinstance(name, str) else name
    return save_moved(model, config_of(family, model, layers, **options), folder, seed, std)


def config_of(
    family: AdapterFamily, model: PreTrainedModel, layers: Sequence[int] | None = None, **options
) -> PeftConfig:
    """The family's configuration for its own targets, in all layers or some."""
    prefix, stack = decoder_layers(model)
    chosen = range(len(stack)) if layers is None else layers
    ends = family.targets(stack, chosen)
    if family.name in ("ia3", "bias"):
        paths = [
            f"{prefix}.{index}.{path}"
            for index in chosen
            for path, _ in stack[index].named_modules()
            if any(f".{path}".endswith(f".{end}") for end in ends)
        ]
        return family.peft_config(4, 8, paths, **options)
    if family.name in ("oft", "boft"):
        options = {"block_size": 8, **options}
    return family.peft_config(4, 8, ends, layers, **options)


def save_moved(model: PreTrainedModel, config: PeftConfig, folder: Path, seed: int = 1, std: float = 1.0) -> Path:
    """Save an adapter of this configuration whose parameters are random."""
    with warnings.catch_warnings(), torch.random.fork_rng():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        adapted = get_peft_model(deepcopy(model), config)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, parameter in sorted(adapted.named_parameters()):
                if parameter.requires_grad:
                    size = next((size for key, size in _SIZES.items() if key in name), 0.1)
                    parameter += std * size * torch.randn(parameter.shape, generator=generator)
        # without False PEFT asks the hub for the base model's config
        adapted.save_pretrained(str(folder), save_embedding_layers=False)
    return Path(folder)


def configure(folder: Path, **changes) -> Path:
    """Edit the configuration of a folder; None takes a setting away."""
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in config.items() if value is not None}))
    return folder
