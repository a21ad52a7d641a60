"""PeftFamily: reads a PEFT adapter folder module by module; a family adds the formula of one module."""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from weightsteer.adapters.base import AdapterFamily
from weightsteer.adapters.checks import check_config, check_coverage, check_experts, refusal, some
from weightsteer.adapters.folder import AdapterFolder
from weightsteer.errors import WeightsteerError
from weightsteer.terms import BaseWeight, Sum, Term, linear_shape

Terms = list[tuple[float, Term]]
"""Summands of a delta: coefficient and term."""


@dataclass(frozen=True)
class Adapted:
    """One adapted module: what the folder holds for it, and its place in the base model.

    Attributes:
        name: the module path.
        shape: (d_out, d_in), whichever way the module stores its weight.
    """

    adapter: AdapterFolder
    name: str
    module: nn.Module
    shape: tuple[int, int]
    tensors: Mapping[str, Tensor]

    def __getitem__(self, key: str) -> Tensor:
        """One tensor of the adapter in fp64, by the end of its name in the file."""
        return self.tensors[key].double()

    def __contains__(self, key: str) -> bool:
        return key in self.tensors

    @property
    def base(self) -> BaseWeight:
        """The base weight, for a delta that depends on it.

        Raises:
            WeightsteerError: it is quantised, so its values are not at hand.
        """
        try:
            return BaseWeight.of(self.module)
        except WeightsteerError as error:
            raise WeightsteerError(f"{self.adapter.path}: {self.name}: {error}") from error

    @property
    def weight(self) -> Tensor:
        """The base weight in fp64, (d_out, d_in); errors as for `base`."""
        return self.base.columns(0, self.shape[1])

    def check(self, key: str, *shape: int) -> None:
        """Refuse a tensor of another shape: the adapter belongs to another model."""
        if (found := tuple(self.tensors[key].shape)) != shape:
            raise WeightsteerError(
                f"{self.adapter.path}: the {key} of {self.name} has shape {found}, but {shape} would fit the module, "
                f"which is {self.shape[0]}×{self.shape[1]} in the model. Load the base model the adapter was trained "
                f"on ({self.adapter.base_name or 'it names none'})."
            )

    def refused(self, reason: str) -> WeightsteerError:
        return refusal(self.adapter, reason)


class PeftFamily(AdapterFamily):
    """A family of PEFT adapters on linear modules.

    A subclass says which tensors a module has in the file, which settings of the configuration its formula takes
    into account, and the formula.
    """

    keys: ClassVar[tuple[str, ...]]
    """Ends of the names of an adapted module's tensors, without PEFT's name of the adapter: ``lora_A.weight``."""

    optional: ClassVar[tuple[str, ...]] = ()
    """Those of ``keys`` that a file may lack."""

    known: ClassVar[frozenset[str]] = frozenset()
    """Settings that `terms` takes into account, or that change nothing once the adapter is trained."""

    refusals: ClassVar[Mapping[str, str]] = {}
    """Settings under which the formula does not hold, with the reason."""

    @abstractmethod
    def terms(self, one: Adapted) -> Terms:
        """``θ_branch − θ_base`` of one module, computed in fp64.

        Raises:
            WeightsteerError: the tensors do not fit the module, or do not tell the difference exactly.
        """

    def check(self, adapter: AdapterFolder) -> None:
        """Refuse an adapter whose difference is not known exactly, by its configuration."""
        check_config(adapter, self.known, self.refusals)

    def branch_delta(self, adapter: AdapterFolder, model: nn.Module) -> dict[str, Sum]:
        return {name: Sum(one.shape, self.terms(one)) for name, one in self.read(adapter, model).items()}

    def read(self, adapter: AdapterFolder, model: nn.Module) -> dict[str, Adapted]:
        """The adapted modules by path, checked.

        Raises:
            WeightsteerError: a setting, a tensor or a module that this family does not know; an incomplete file; an
                adapter that would leave out the experts of the model.
        """
        self.check(adapter)
        tensors = self.grouped(adapter, adapter.tensors)
        check_experts(adapter, tensors, model)
        check_coverage(adapter, tensors, model)
        modules = dict(model.named_modules())
        found = {}
        for name, own in tensors.items():
            shape = linear_shape(modules[name])
            if shape is None:
                raise refusal(adapter, f"{name} is a {type(modules[name]).__name__}, not a linear module")
            found[name] = Adapted(adapter, name, modules[name], shape, own)
        return found

    def grouped(self, adapter: AdapterFolder, tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
        """Tensors by module path and key; anything else in the file is refused by name."""
        groups: dict[str, dict[str, Tensor]] = {}
        extra = []
        for path, tensor in tensors.items():
            key = next((key for key in self.keys if path.endswith(f".{key}")), None)
            if key is None:
                extra.append(path)
            else:
                groups.setdefault(path.removesuffix(f".{key}"), {})[key] = tensor
        if extra:
            raise refusal(
                adapter, f"it holds more than the {', '.join(self.keys)} of linear modules: {some(sorted(extra))}"
            )
        needed = [key for key in self.keys if key not in self.optional]
        lacking = [f"{name}.{key}" for name, own in groups.items() for key in needed if key not in own]
        if lacking:
            raise WeightsteerError(
                f"{adapter.path}: the file lacks {some(lacking)}. It is incomplete; save or copy the adapter again."
            )
        if not groups:
            raise WeightsteerError(
                f"{adapter.path} holds no {', '.join(self.keys)} at all; save or copy the adapter again."
            )
        return groups
