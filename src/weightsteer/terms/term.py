"""Term: one primitive form of a delta. Another form is another subclass."""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar, Self, TypeVar

import torch
from torch import Tensor, nn

from weightsteer.errors import WeightsteerError
from weightsteer.terms import streaming
from weightsteer.terms.base_weight import BaseWeight, common_base

Modifier = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""``(x, own, y, alpha) -> y'``: the module's input; its own output, before anything was added; the output so far;
the strength, () or one per row of x (b,), in fp32 (fp64 for models in fp64)."""

InputModifier = Callable[[Tensor, Tensor], Tensor]
"""``(x, alpha) -> x'``: another input with which the module itself gives the steered output."""

Scaled = TypeVar("Scaled", bound="Term")


class Term(ABC):
    """One primitive form of a delta, immutable: a matrix (d_out, d_in), and for some forms a bias (d_out,)."""

    form: ClassVar[str]
    """The name of the form in files."""

    keys: ClassVar[tuple[str, ...]]
    """Attributes that hold the fp32 CPU tensors of the term, named as the parameters of the constructor."""

    forms: ClassVar[dict[str, type["Term"]]] = {}

    shape: tuple[int, int]
    """(d_out, d_in), whichever way the module stores its weight."""

    base: BaseWeight | None = None
    """The base weight the matrix depends on."""

    def __init_subclass__(cls) -> None:
        if "form" in cls.__dict__:
            Term.forms[cls.form] = cls

    @classmethod
    @abstractmethod
    def fuse(cls, terms: Sequence[tuple[float, Any]]) -> Self:
        """``Σ_i c_i T_i`` over terms of this form and one `kind` as one term: summed in fp64, rounded once."""

    @abstractmethod
    def columns(self, start: int, stop: int) -> Tensor:
        """Columns of the matrix, fp64 (d_out, stop − start)."""

    @abstractmethod
    def modifier(self, module: nn.Module) -> Modifier:
        """How a steered module's output changes: ``y' = y + α · T x``."""

    @abstractmethod
    def randomized(self, generator: torch.Generator) -> "Term":
        """A term of the same form and norm in random directions."""

    def input_modifier(self, module: nn.Module) -> InputModifier | None:
        """For ``T = W M``: the input ``x' = x + α · M x``, with which the module gives ``y + α · T x`` by itself.

        None when the form is another, or the module has other weights than the base.
        """
        return None

    @classmethod
    def restore(
        cls, tensors: Mapping[str, Tensor], shape: tuple[int, int], base: BaseWeight | None, options: Mapping[str, Any]
    ) -> "Term":
        """The term that `tensors`, `base` and `options` were read from.

        Args:
            tensors: one for each of ``keys``, fp32.
            shape: (d_out, d_in) of the delta.
            base: the base weight, for forms that depend on it.
            options: as the property of that name gives them.

        Raises:
            WeightsteerError: they do not make a term of this form and shape.
        """
        given = {**tensors, **options} if base is None else {**tensors, **options, "base": base}
        try:
            term = cls(**given)
        except (TypeError, ValueError) as error:
            raise WeightsteerError(
                f"a delta of the form {cls.form} cannot be made of what is given: {error}."
            ) from error
        if term.shape != shape:
            raise WeightsteerError(f"a delta of the form {cls.form} has shape {term.shape}, but {shape} was expected.")
        return term

    @property
    def kind(self) -> Hashable:
        """Terms of one form whose kinds are equal fuse into one term."""
        return None

    @property
    def options(self) -> dict[str, Any]:
        """What the constructor needs apart from the tensors and the base, JSON-able."""
        return {}

    @property
    def rank(self) -> int:
        """An upper bound of the rank."""
        return min(self.shape)

    def delta(self) -> Tensor:
        """The dense matrix, fp32 (d_out, d_in)."""
        return self.columns(0, self.shape[1]).float()

    def bias_delta(self) -> Tensor | None:
        """What is added to the module's bias, fp32 (d_out,); None for nothing."""
        return None

    def tensors(self) -> dict[str, Tensor]:
        """The tensors that a file stores, by key."""
        return {key: getattr(self, key) for key in self.keys}

    def bound(self, base: BaseWeight) -> "Term":
        """The same term with its base weight at hand."""
        return self.restore(self.tensors(), self.shape, base, self.options)

    @cached_property
    def digest(self) -> str:
        """blake2b-128 (hex) of form, content, options and base: two terms are the same when these are."""
        content = hashlib.blake2b(self.form.encode(), digest_size=16)
        for key, tensor in sorted(self.tensors().items()):
            content.update(f"\0{key}{tuple(tensor.shape)}\0".encode())
            content.update(tensor.numpy().astype("<f4", copy=False).data)
        if self.options:
            content.update(f"\0{json.dumps(self.options, sort_keys=True)}".encode())
        if self.base is not None:
            content.update(f"\0{self.base.digest}".encode())
        return content.hexdigest()


def stored(tensor: Tensor) -> Tensor:
    """A tensor as terms keep it: fp32 on the CPU, without a graph."""
    return tensor.detach().to("cpu", torch.float32).contiguous()


def total(terms: Sequence[tuple[float, Any]], key: str) -> Tensor:
    """``Σ_i c_i`` times the tensor ``key`` of the i-th term, in fp64."""
    first, *others = terms
    result: Tensor = first[0] * getattr(first[1], key).double()
    for coefficient, term in others:
        result = result + coefficient * getattr(term, key).double()
    return result


def agreed_base(terms: Sequence[tuple[float, Any]]) -> BaseWeight:
    """The base weight of terms that all depend on one."""
    base = common_base(term.base for _, term in terms)
    assert base is not None
    return base


def rescaled(original: Term, make: Callable[[float], Scaled]) -> Scaled:
    """``make(c)``, linear in c, with the c that gives it the norm of the original."""
    size = streaming.norm(make(1.0))
    return make(streaming.norm(original) / size if size else 1.0)
