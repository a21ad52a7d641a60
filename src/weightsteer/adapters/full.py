"""full: a full fine-tune, given as a checkpoint folder or as a loaded model; no adapter, and no structure.

The difference of two checkpoints is taken tensor by tensor, in fp64, and kept in fp32 as dense terms: memory for one
difference is needed, not for two models. Folders are what ``save_pretrained`` writes: safetensors in one file or in
shards with an index.

Weights tied in the model (usually input and output embedding) appear under the names of all modules that use them, for
steering has to reach each of them; the norm of a vector counts them as often. Tensors that are equal in both give no
entry.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch
from peft import PeftConfig
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.pytorch_utils import Conv1D

from weightsteer.adapters.base import AdapterFamily, register
from weightsteer.adapters.checks import some
from weightsteer.adapters.folder import CHECKPOINT, CHECKPOINT_INDEX, CHECKPOINT_WEIGHTS, AdapterFolder
from weightsteer.errors import WeightsteerError
from weightsteer.models.checkpoint import no_code
from weightsteer.models.experts import inside, routed
from weightsteer.terms import Bias, Dense, Sum, Term, linear_shape, matrix_shape

Checkpoint = nn.Module | str | Path
"""A loaded model, or the folder of a saved one."""


@register("full")
class Full(AdapterFamily):
    form = "dense: θ_branch − θ_base of every trained weight, bias, embedding and norm"
    # pocket: chosen by validation loss alone, see docs/recipes.md
    recipe: ClassVar = {"paper": {"lr": 1e-5}, "pocket": {"lr": 3e-4}}

    def fit(self, config: Mapping[str, Any]) -> int:
        return int("peft_type" not in config and "model_type" in config)

    def peft_config(
        self,
        rank: int,
        alpha: float,
        target_modules: Sequence[str],
        layers: Sequence[int] | None = None,
        **options: Any,
    ) -> PeftConfig:
        """There is none.

        Raises:
            WeightsteerError: always.
        """
        raise WeightsteerError("a full fine-tune trains the weights themselves, so it has no PEFT configuration.")

    def branch_delta(self, adapter: AdapterFolder, model: nn.Module) -> dict[str, Sum]:
        return difference(adapter.path, model)

    def pair_delta(self, plus: AdapterFolder, minus: AdapterFolder, model: nn.Module) -> dict[str, Sum]:
        # of the two, not of each and the base: twice the rounding, twice the memory
        _check_names(_opened(plus.path), _opened(model))
        return difference(plus.path, minus.path)


def difference(positive: Checkpoint, negative: Checkpoint) -> dict[str, Sum]:
    """``θ⁺ − θ⁻`` by module path.

    Raises:
        WeightsteerError: a folder is no checkpoint, the two have different tensors (they are named), or a tensor
            differs that no module applies in a known way.
    """
    plus, minus = _opened(positive), _opened(negative)
    _check_names(plus, minus)
    deltas: dict[str, Sum] = {}
    hidden = routed(plus.network)
    with plus.reading() as left, minus.reading() as right:
        for path, module in plus.network.named_modules():
            terms = []
            for name, sign, change in _differing(path, module, left, right):
                if inside(path, hidden):
                    raise WeightsteerError(
                        f"{path}.{name} was trained, but it belongs to the experts of a mixture: each sees only the "
                        "tokens routed to it, so no vector here can steer it. Train the fine-tunes with the experts "
                        "frozen, or take a dense model."
                    )
                terms.append((sign, _term(path, module, name, change)))
            if terms:
                deltas[path] = Sum(terms[0][1].shape, terms)
        _check_buffers(plus, left, right)
    return deltas


def _differing(path: str, module: nn.Module, left: "_Reader", right: "_Reader") -> Iterator[tuple[str, float, Tensor]]:
    """Names of a module's own parameters that differ, and ``θ⁺ − θ⁻`` as a sign times a tensor in fp64.

    The first entry of the tensor that is not 0 is positive: the pair the other way round is then the same tensor with
    the opposite sign, and not another tensor.
    """
    for name, _ in module.named_parameters(recurse=False):
        key = f"{path}.{name}" if path else name
        plus, minus = left[key], right[key]
        if plus.shape != minus.shape:
            raise WeightsteerError(
                f"{key} has shape {tuple(plus.shape)} in {left} and {tuple(minus.shape)} in {right}: the two are "
                "fine-tunes of different models. Give two fine-tunes of one base."
            )
        change = plus.double() - minus.double()
        if not bool(change.isfinite().all()):
            raise WeightsteerError(f"{key} holds NaN or infinity in {left} or {right}: the training diverged.")
        flat = change.flatten()
        if bool((changed := flat != 0).any()):
            positive = bool(flat[changed.to(torch.uint8).argmax()] > 0)
            # not -change, whose zeros would be negative ones
            yield (name, 1.0, change) if positive else (name, -1.0, minus.double() - plus.double())


def _term(path: str, module: nn.Module, name: str, change: Tensor) -> Term:
    """A changed parameter as what the module does with it."""
    shape = matrix_shape(module)
    if shape is not None and name == "weight":
        matrix = change.T if isinstance(module, Conv1D) else change.reshape(-1, 1) if change.dim() == 1 else change
        if tuple(matrix.shape) == shape:
            return Dense(matrix)
    if shape is not None and name == "bias" and tuple(change.shape) == shape[:1]:
        return Bias(change, shape[1])
    raise WeightsteerError(
        f"{path}.{name} was trained, but it is neither the weight nor the bias of a linear module, an embedding or a "
        f"norm (it belongs to a {type(module).__name__}), so steering could not apply it. Train the fine-tunes with "
        "this parameter frozen."
    )


def _check_names(plus: "_Source", minus: "_Source") -> None:
    if only := sorted(plus.names ^ minus.names):
        differing = [f"{name} (only in {plus if name in plus.names else minus})" for name in only]
        raise WeightsteerError(
            f"the two checkpoints hold different tensors: {some(differing)}. Give two fine-tunes of one architecture."
        )


def _check_buffers(source: "_Source", left: "_Reader", right: "_Reader") -> None:
    """Saved tensors that no gradient reaches must be the same in both."""
    own = {name for name, _ in source.network.named_parameters(remove_duplicate=False)}
    if changed := [name for name in sorted(source.names - own) if not torch.equal(left[name], right[name])]:
        raise WeightsteerError(
            f"{left} and {right} differ in tensors that are no parameters: {some(changed)}. These are not weights, so "
            "no weight vector can hold their difference."
        )


@dataclass(frozen=True)
class _Source:
    """A checkpoint: the modules (without values, for a folder), and where the values are."""

    network: nn.Module
    folder: Path | None

    def __str__(self) -> str:
        return str(self.folder) if self.folder else f"the loaded {type(self.network).__name__}"

    @cached_property
    def names(self) -> set[str]:
        """All tensors of the model, those that are tied under each of their names."""
        return set(self.network.state_dict())

    @cached_property
    def aliases(self) -> dict[str, list[str]]:
        """By name: all names of the same tensor."""
        groups: dict[int, list[str]] = {}
        for name, parameter in self.network.named_parameters(remove_duplicate=False):
            groups.setdefault(id(parameter), []).append(name)
        return {name: group for group in groups.values() for name in group}

    def reading(self) -> "_Reader":
        return _Reader(self)


class _Reader:
    """The tensors of a checkpoint by name, one at a time, as a context."""

    def __init__(self, source: _Source) -> None:
        self._source = source
        self._stack = ExitStack()
        self._files: dict[str, Any] = {}
        self._values: Mapping[str, Tensor] = {}

    def __str__(self) -> str:
        return str(self._source)

    def __enter__(self) -> "_Reader":
        if self._source.folder is None:
            self._values = self._source.network.state_dict()
            return self
        try:
            for file in _weight_files(self._source.folder):
                # mapped, not read
                opened = self._stack.enter_context(safe_open(file, framework="pt"))
                self._files.update(dict.fromkeys(opened.keys(), opened))
        except (SafetensorError, OSError) as error:
            self._stack.close()
            raise WeightsteerError(f"cannot read {self}: {error}. Copy or save the checkpoint again.") from error
        extra = sorted(set(self._files) - self._source.names)
        lost = sorted(name for name in self._source.names if self._key(name) is None)
        if extra or lost:
            self._stack.close()
            names = [
                *(f"{name} (not in the file)" for name in lost),
                *(f"{name} (only in the file)" for name in extra),
            ]
            raise WeightsteerError(
                f"the tensors of {self} are not those of its modules: {some(names)}. If transformers can load it, load "
                "both models and pass them instead of the folders."
            )
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def __getitem__(self, name: str) -> Tensor:
        if self._source.folder is None:
            tensor = self._values[name].detach().cpu()
        else:
            key = self._key(name)
            assert key is not None
            tensor = self._files[key].get_tensor(key)
        if name in self._source.aliases and (not tensor.is_floating_point() or tensor.element_size() < 2):
            raise WeightsteerError(
                f"{name} of {self} is quantised ({tensor.dtype}), so its values are not at hand. Use the checkpoints "
                "in full or half precision."
            )
        return tensor

    def _key(self, name: str) -> str | None:
        """The name under which a tensor is stored: tied ones are saved once."""
        return next((alias for alias in self._source.aliases.get(name, [name]) if alias in self._files), None)


def _opened(checkpoint: Checkpoint) -> _Source:
    if isinstance(checkpoint, nn.Module):
        for name, module in checkpoint.named_modules():
            weight = getattr(module, "weight", None)
            shape = linear_shape(module)
            if isinstance(weight, Tensor) and shape is not None and set(weight.shape) != set(shape):
                raise WeightsteerError(
                    f"{name} is a {type(module).__name__}, which holds no plain matrix (quantised, or wrapped by an "
                    "adapter). Load both models unquantised and unwrapped."
                )
        return _Source(checkpoint, None)
    folder = Path(checkpoint)
    if not (folder / CHECKPOINT).is_file():
        raise WeightsteerError(f"{folder} holds no {CHECKPOINT}, so it is not the folder of a saved model.")
    _weight_files(folder)
    try:
        with no_code(folder):
            config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
            with torch.device("meta"):
                network = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
                network.tie_weights()
    except WeightsteerError:
        raise
    # transformers raises errors of many kinds for a configuration it does not know
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise WeightsteerError(f"cannot tell the modules of {folder} from its {CHECKPOINT}: {reason}.") from error
    return _Source(network, folder)


def _weight_files(folder: Path) -> list[Path]:
    index = folder / CHECKPOINT_INDEX
    if index.is_file():
        try:
            names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise WeightsteerError(f"cannot read {index}: {error}. Copy or save the checkpoint again.") from error
        return [folder / name for name in names]
    if (folder / CHECKPOINT_WEIGHTS).is_file():
        return [folder / CHECKPOINT_WEIGHTS]
    raise WeightsteerError(
        f"{folder} holds no {CHECKPOINT_WEIGHTS} and no {CHECKPOINT_INDEX}. Save the model with save_pretrained, which "
        "writes safetensors, or pass the loaded models."
    )
