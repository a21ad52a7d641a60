"""The base weight that a delta such as ``diag(s) W`` depends on: by reference, never copied, never saved."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from weightsteer.errors import WeightsteerError
from weightsteer.models.fingerprint import fingerprint
from weightsteer.terms.modifiers import Copies
from weightsteer.terms.modules import linear_shape

# by module: the fingerprint of weight and bias when they were hashed, and the hash
_digests: WeakKeyDictionary[nn.Module, tuple[tuple[Any, ...], str]] = WeakKeyDictionary()


@dataclass(frozen=True)
class Served:
    """A base weight, checked, for use at one module.

    Attributes:
        owned: the module has this very weight, so that its own output is ``W x + b``.
        weight: W (d_out, d_in), where it is needed.
        bias: b (d_out,).
    """

    owned: bool
    weight: Copies
    bias: Tensor | None


class BaseWeight:
    """Weight and bias of one linear module of the base model.

    Bound to a module, it refers to the module's own tensors and refuses to give them once they hold other values.
    Unbound, as read from a file, it only knows what the weight must be: `bind` finds it. If W asks for a gradient, it
    gets that through ``dW`` as well.

    Attributes:
        shape: (d_out, d_in).
        digest: blake2b-128 (hex) over the fp32 content of weight and bias. The same for a bf16 checkpoint loaded as
            bf16 or fp32, and for ``Linear`` and ``Conv1D``.
    """

    def __init__(self, digest: str, shape: tuple[int, int]) -> None:
        self.digest = digest
        self.shape = shape
        self._module: nn.Module | None = None

    @classmethod
    def of(cls, module: nn.Module) -> "BaseWeight":
        """The weight of a ``Linear`` or ``Conv1D``.

        Raises:
            WeightsteerError: the module is no plain linear one: quantised, wrapped, or not linear at all.
        """
        shape = linear_shape(module)
        weight = getattr(module, "weight", None)
        stored = shape[::-1] if shape and isinstance(module, Conv1D) else shape
        if not isinstance(weight, Tensor) or shape is None or tuple(weight.shape) != stored:
            raise WeightsteerError(
                f"the delta depends on the weight of a {type(module).__name__}, which holds no plain matrix "
                "(quantised, or wrapped by an adapter). Load the base model unquantised and unwrapped."
            )
        if not weight.is_floating_point() or weight.element_size() < 2 or weight.is_meta:
            raise WeightsteerError(
                f"the delta depends on a base weight that is {'not in memory' if weight.is_meta else 'quantised'} "
                f"({weight.dtype}), so its values are not at hand. Load the base model unquantised, without offloading."
            )
        bound = cls(_digest(module), shape)
        bound._module = module
        return bound

    def bind(self, module: nn.Module) -> "BaseWeight":
        """The same base weight, found in a module.

        Raises:
            WeightsteerError: the module has other weights.
        """
        found = BaseWeight.of(module)
        if found.digest != self.digest:
            raise WeightsteerError(
                f"the delta was made on another {self.shape[0]}×{self.shape[1]} base weight (digest "
                f"{self.digest[:12]}, this one has {found.digest[:12]}). Load the base model of the vector and pass it "
                "as `base`; another fine-tune can then be steered with it."
            )
        return found

    @property
    def bound(self) -> bool:
        return self._module is not None

    @property
    def weight(self) -> Tensor:
        """The weight (d_out, d_in) in its own dtype, on its own device.

        Raises:
            WeightsteerError: not bound, or changed in place since.
        """
        return _tensors(self._checked())[0]

    @property
    def bias(self) -> Tensor | None:
        """The bias (d_out,), if the module has one; errors as for `weight`."""
        return _tensors(self._checked())[1]

    def columns(self, start: int, stop: int) -> Tensor:
        """Columns of the weight in fp64 on the CPU, (d_out, stop − start)."""
        return self.weight.detach()[:, start:stop].to("cpu", torch.float64)

    def belongs_to(self, module: nn.Module) -> bool:
        """Whether a module has just these weights, so that its own output is ``W x + b``."""
        if module is self._module:
            return self._checked() is module
        try:
            return BaseWeight.of(module).digest == self.digest
        except WeightsteerError:  # quantised
            return False

    def serve(self, module: nn.Module) -> Served:
        """The weight for use at a module: the module's own if it has the same, which then is on its device.

        Raises:
            WeightsteerError: not bound, or changed in place since.
        """
        owned = self.belongs_to(module)
        weight, bias = _tensors(module if owned else self._checked())
        served = Served(owned, Copies(weight), bias)
        served.weight.prepare(module)
        return served

    def _checked(self) -> nn.Module:
        """The module, provided it still holds the weights it was bound with."""
        if self._module is None:
            raise WeightsteerError(
                "the delta depends on the base weight, which a file does not hold. Load the vector with its base "
                "model: WeightVector.load(path, model), or base=... when another fine-tune is to be steered."
            )
        if _digest(self._module) != self.digest:
            raise WeightsteerError(
                "the base weight of this delta was changed in place after the vector was made (merged into, or "
                "trained on). Load the base model again and make or load the vector with it; keep a copy of the "
                "model to change."
            )
        return self._module


def _tensors(module: nn.Module) -> tuple[Tensor, Tensor | None]:
    """The weight (d_out, d_in) and the bias of a linear module."""
    weight, bias = module.weight, module.bias
    assert isinstance(weight, Tensor)
    assert bias is None or isinstance(bias, Tensor)
    return (weight.T if isinstance(module, Conv1D) else weight), bias


def _digest(module: nn.Module) -> str:
    """The digest of weight and bias; computed again only when the fingerprint of the tensors changed."""
    tensors = [tensor for tensor in _tensors(module) if tensor is not None]
    seen = fingerprint(tensors)
    cached = _digests.get(module)
    if cached is None or cached[0] != seen:
        content = hashlib.blake2b(digest_size=16)
        for tensor in tensors:
            values = tensor.detach().to("cpu", torch.float32).contiguous().numpy().astype("<f4", copy=False)
            content.update(f"{tuple(values.shape)}\0".encode())
            content.update(values.data)
        cached = (seen, content.hexdigest())
        _digests[module] = cached
    return cached[1]


def common_base(bases: Iterable[BaseWeight]) -> BaseWeight | None:
    """The one base weight of several terms, bound if any of them is; None when there is none.

    Raises:
        WeightsteerError: they are different.
    """
    found: BaseWeight | None = None
    for base in bases:
        if found is not None and base.digest != found.digest:
            raise WeightsteerError(
                f"two deltas of one module depend on different base weights (digests {found.digest[:12]} and "
                f"{base.digest[:12]}), so they cannot be added. Make both vectors on the same base model."
            )
        if found is None or not found.bound:
            found = base
    return found
