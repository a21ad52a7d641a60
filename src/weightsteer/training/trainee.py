"""What is trained: a copy of the model with the parameters of an adapter family in it.

The copy shares all its tensors with the user's model but those that training changes, so the model itself stays bare
and bit-identical, and nothing of it is held twice.
"""

import copy
import inspect
import json
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import peft
import torch
from peft.tuners.boft import layer as boft_layer
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.utils import logging

from weightsteer.adapters import AdapterFamily
from weightsteer.adapters.checks import some
from weightsteer.adapters.folder import CONFIG, INITIAL, WEIGHTS
from weightsteer.adapters.release import config_class
from weightsteer.adapters.targets import ends_with
from weightsteer.errors import WeightsteerError
from weightsteer.models import decoder_layers, layer_index, model_name
from weightsteer.models.experts import routed
from weightsteer.terms import matrix_shape
from weightsteer.training.recipes import Recipe

OPTIONS = ("block_size", "delora_lambda")
"""Settings of a recipe that only some families have: given to those whose ``peft_config`` names them."""


@dataclass(frozen=True)
class Trainee:
    """A network whose parameters that require a gradient are to be trained, and how the result is saved."""

    network: PreTrainedModel
    modules: list[str]
    """what is adapted in each layer: last components of the module paths"""
    save: Callable[[Path], None]

    @property
    def parameters(self) -> int:
        """How many numbers are trained."""
        return sum(parameter.numel() for parameter in self.network.parameters() if parameter.requires_grad)


@contextmanager
def trainee(model: PreTrainedModel, family: AdapterFamily, recipe: Recipe, seed: int) -> Iterator[Trainee]:
    """The family's parameters on a copy of ``model``, initialised from ``seed``; ``model`` itself stays as it is.

    Raises:
        WeightsteerError: the model carries an adapter already, a layer to train holds experts, the family does not
            fit the model, or this release of PEFT does not have the family.
    """
    if any(isinstance(module, BaseTunerLayer) for module in model.modules()):
        raise WeightsteerError(
            "the model already carries a PEFT adapter. Train on the base model: unload the adapter first."
        )
    prefix, layers = decoder_layers(model)
    chosen = recipe.layer_slice(len(layers))
    _check_experts(model, prefix, layers, chosen)
    wanted = family.targets(layers, chosen)
    paths = _paths(model, prefix, chosen, wanted)
    tensors = [*model.parameters(), *model.buffers()]
    flags = [tensor.requires_grad for tensor in tensors]
    changed = {id(tensor) for tensor in _own(model, paths)} if family.changes_base or not family.peft_type else set()
    bare = copy.deepcopy(model, {id(tensor): tensor for tensor in tensors if id(tensor) not in changed})
    try:
        if family.peft_type:
            config = _config(model, family, recipe, chosen, wanted, paths)
            adapted = _adapted(bare, config, seed)
            modules = _coverage(adapted, prefix, chosen, wanted)
            save = partial(_save, adapted, model_name(model), family.initial(adapted))
            yield Trainee(adapted.get_base_model(), modules, save)
        else:
            _open(bare, paths)
            names = sorted({path.rsplit(".", 1)[-1] for path in paths})
            yield Trainee(bare.eval(), names, partial(_save_checkpoint, bare))
    finally:
        for tensor, flag in zip(tensors, flags, strict=True):
            tensor.requires_grad_(flag)


def _check_experts(model: PreTrainedModel, prefix: str, layers: nn.ModuleList, chosen: range) -> None:
    """Refuse layers with experts: the families find linear modules, and would train all of a layer but its experts."""
    if found := [f"{prefix}.{index}.{name}" for index in chosen for name in routed(layers[index])]:
        raise WeightsteerError(
            f"{model_name(model)} is a mixture of experts ({some(found)}), and no adapter family here reaches the "
            "weights of experts: training would leave them out, and what was measured would be attention alone. Use "
            "a dense model; or, where some layers have no experts, train those alone (--layers)."
        )


def _own(model: PreTrainedModel, paths: Sequence[str]) -> Iterator[nn.Parameter]:
    """Weights and biases of the modules at these paths."""
    for path in paths:
        yield from model.get_submodule(path).parameters()


def _open(bare: PreTrainedModel, paths: Sequence[str]) -> None:
    """Train these modules themselves, and nothing else."""
    bare.requires_grad_(False)
    for parameter in _own(bare, paths):
        if parameter.dtype != torch.float32:
            raise WeightsteerError(
                f"a full fine-tune of {str(parameter.dtype).removeprefix('torch.')} weights would lose most of its "
                "steps, which are smaller than their rounding. Load the model with --dtype float32."
            )
        parameter.requires_grad_(True)


def _adapted(bare: PreTrainedModel, config: peft.PeftConfig, seed: int) -> peft.PeftModel:
    # PEFT draws the initial adapter from the global generator: the same one for both branches, and the
    # generator of the caller goes on as if nothing had happened
    with torch.random.fork_rng(), warnings.catch_warnings(), _without_compiling(bare):
        torch.manual_seed(seed)
        # attributes that are about to be renamed, biases that cannot be merged: no user can act on that
        warnings.simplefilter("ignore")
        return peft.get_peft_model(bare, config).eval()


def _paths(model: PreTrainedModel, prefix: str, chosen: range, wanted: Sequence[str]) -> list[str]:
    """Full paths of the wanted modules in the chosen layers."""
    return [
        name for name, _ in model.named_modules() if layer_index(name, prefix) in chosen and ends_with(name, wanted)
    ]


def _config(
    model: PreTrainedModel,
    family: AdapterFamily,
    recipe: Recipe,
    chosen: range,
    wanted: Sequence[str],
    paths: Sequence[str],
) -> peft.PeftConfig:
    """PEFT's configuration of the family: by names and layers where PEFT can, else by full module paths."""
    kind = config_class(family.peft_type)
    takes = inspect.signature(family.peft_config).parameters
    options: dict[str, Any] = {
        name: value for name in OPTIONS if name in takes and (value := getattr(recipe, name)) is not None
    }
    if size := options.get("block_size"):
        _check_blocks(model, paths, size)
    if "layers_to_transform" in {field.name for field in fields(kind)}:
        return family.peft_config(recipe.rank, recipe.lora_alpha, list(wanted), list(chosen), **options)
    return family.peft_config(recipe.rank, recipe.lora_alpha, list(paths), **options)


def _check_blocks(model: PreTrainedModel, paths: Sequence[str], size: int) -> None:
    """PEFT would refuse such a block in words of its own, or quietly take another size for this module alone."""
    for name in paths:
        shape = matrix_shape(model.get_submodule(name))
        if shape is not None and shape[1] % size:
            fitting = [str(each) for each in range(2, min(shape[1], 65)) if shape[1] % each == 0]
            raise WeightsteerError(
                f"blocks of {size} do not divide the {shape[1]} inputs of {name}. "
                f"Set --block-size to one of {', '.join(fitting) or shape[1]}."
            )


@contextmanager
def _without_compiling(model: PreTrainedModel) -> Iterator[None]:
    """Keep PEFT's BOFT from compiling its CUDA kernel where it could not run: it tries for every module anew."""
    known = boft_layer._FBD_CUDA
    if model.device.type != "cuda":
        boft_layer._FBD_CUDA = False
    try:
        yield
    finally:
        boft_layer._FBD_CUDA = known


def _coverage(adapted: peft.PeftModel, prefix: str, chosen: range, targets: Sequence[str]) -> list[str]:
    """The projections adapted in every chosen layer, sorted; refuses an adapter that is anywhere else."""
    found: dict[int | None, set[str]] = {}
    for name, module in adapted.get_base_model().named_modules():
        if isinstance(module, BaseTunerLayer):
            found.setdefault(layer_index(name, prefix), set()).add(name.rsplit(".", 1)[-1])
    outside = sorted(str(layer) for layer in found if layer is None or layer not in chosen)
    missed = [str(layer) for layer in chosen if layer not in found]
    if outside or missed:
        raise WeightsteerError(
            f"PEFT was to adapt {', '.join(targets)} in the layers {chosen.start}–{chosen.stop - 1}, but missed the "
            f"layers {', '.join(missed) or '(none)'} and reached others: {', '.join(outside) or '(none)'}. "
            "This architecture names its layers in a way that PEFT does not follow."
        )
    return sorted(set().union(*found.values()))


def _save(adapted: peft.PeftModel, base: str, initial: Mapping[str, Tensor], folder: Path) -> None:
    """Write the PEFT folder. PEFT's own ``save_pretrained`` leaves sets in no order, and local paths, in it."""
    config = next(iter(adapted.peft_config.values())).to_dict()
    config = {key: sorted(value) if isinstance(value, set) else value for key, value in config.items()}
    config |= {"base_model_name_or_path": base, "inference_mode": True}
    state = peft.get_peft_model_state_dict(adapted, save_embedding_layers=False)
    folder.mkdir(parents=True, exist_ok=True)
    if initial:
        _save_tensors(initial, folder / INITIAL)
    _save_tensors(state, folder / WEIGHTS)
    write(folder / CONFIG, json.dumps(config, indent=2, sort_keys=True))


def _save_tensors(state: Mapping[str, Tensor], path: Path) -> None:
    unfinished = path.with_suffix(".partial")
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in sorted(state.items())}
    save_file(tensors, unfinished, metadata={"format": "pt"})
    os.replace(unfinished, path)


def _save_checkpoint(model: PreTrainedModel, folder: Path) -> None:
    """Write the whole model as transformers reads it."""
    folder.mkdir(parents=True, exist_ok=True)
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        model.save_pretrained(folder)
    finally:
        if shown:
            logging.enable_progress_bar()


def write(path: Path, text: str) -> None:
    """A file that is never half there."""
    unfinished = path.with_suffix(".partial")
    unfinished.write_text(text + "\n", encoding="utf-8")
    os.replace(unfinished, path)
