"""The deltas of all modules of a vector, in memory; `weightsteer.vector.file` has those of a file."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Protocol

from torch import nn

from weightsteer.terms import Sum
from weightsteer.vector.selection import natural


class Deltas(Mapping[str, Sum]):
    """The delta of each module by module path, layers in ascending order. Immutable.

    What can be known of a delta without its tensors (shape, rank, norm) is asked for here and not of the sums, so
    that a vector in a file can be described without being read.
    """

    def __init__(self, sums: Mapping[str, Sum], norms: Mapping[str, float] | None = None) -> None:
        self._sums = {name: sums[name] for name in sorted(sums, key=natural)}
        self._norms = dict(norms or {})

    def __getitem__(self, name: str) -> Sum:
        return self._sums[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._sums)

    def __len__(self) -> int:
        return len(self._sums)

    def shape(self, name: str) -> tuple[int, int]:
        """(d_out, d_in) of one module."""
        return self[name].shape

    def rank(self, name: str) -> int:
        """An upper bound of the rank of one delta."""
        return self[name].rank

    def norm(self, name: str) -> float:
        """The Frobenius norm of one delta.

        Raises:
            WeightsteerError: the delta depends on base weights that are not at hand, and no file says its norm.
        """
        if name not in self._norms:
            self._norms[name] = self[name].norm()
        return self._norms[name]

    def needs_base(self, name: str) -> bool:
        """Whether one delta depends on the base weight of its module."""
        return bool(self[name].bases)

    def only(self, names: Iterable[str]) -> "Deltas":
        """Those of some modules."""
        chosen = set(names)
        return Deltas({name: self[name] for name in self if name in chosen}, self._known_norms(chosen))

    def scaled(self, factor: Callable[[str], float]) -> "Deltas":
        """Each delta times the factor of its module."""
        factors = {name: factor(name) for name in self}
        # norms from a file are passed on only where they cannot be computed: equal vectors have equal norms
        norms = {name: abs(factors[name]) * norm for name, norm in self._norms.items() if not _computable(self[name])}
        return Deltas({name: self[name].scaled(factors[name]) for name in self}, norms)

    def bound(self, modules: Mapping[str, nn.Module]) -> "Deltas":
        """The same deltas of the weights of these modules.

        Raises:
            WeightsteerError: a delta was made of other weights than those of its module.
        """
        return Deltas({name: self[name].bind(modules[name]) for name in self}, self._norms)

    def total_norm(self) -> float:
        """``√Σ_i ‖dW_i‖²``."""
        return math.sqrt(math.fsum(self.norm(name) ** 2 for name in self))

    def _known_norms(self, names: Iterable[str]) -> dict[str, float]:
        return {name: self._norms[name] for name in names if name in self._norms}


class HasDeltas(Protocol):
    """What algebra and checks ask of a vector; `weightsteer.vector.WeightVector` is one."""

    terms: Deltas

    @property
    def metadata(self) -> dict[str, Any]: ...

    @property
    def digest(self) -> str: ...


def _computable(total: Sum) -> bool:
    return all(base.bound for base in total.bases)
