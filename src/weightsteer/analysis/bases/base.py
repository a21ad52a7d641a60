"""What a kind of basis is: a function from materials to one subspace per module."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from torch import Tensor

from weightsteer.analysis.basis import Side
from weightsteer.registry import BASES, Registry

if TYPE_CHECKING:
    from weightsteer.analysis.bases.materials import Materials

Need = Literal["model", "pairs", "vector", "vectors"]

Find = Callable[["Materials", int, Side], Mapping[str, Tensor]]
"""``(materials, rank, side) -> columns by module path``, (d, k) orthonormal, the most important first.

k is ``rank``, or what a module has where that is less. Modules that share a subspace get the same tensor object."""


@dataclass(frozen=True)
class Kind:
    """One kind of basis.

    Attributes:
        name: what tables call it.
        origin: what its directions are, in one line; ``{seed}`` stands for the seed of the materials.
        needs: what it is made from.
        sides: on which it can be; the first is the default.
        find: finds the directions.
        contains: whether, made from a vector, it holds that vector by construction, so that its share is no finding.
    """

    name: str
    origin: str
    needs: tuple[Need, ...]
    sides: tuple[Side, ...]
    find: Find
    contains: bool = True


registry: Registry[Kind] = BASES


def register(
    name: str,
    *,
    origin: str,
    needs: tuple[Need, ...] = ("model",),
    sides: tuple[Side, ...] = ("output", "input"),
    contains: bool = True,
) -> Callable[[Find], Find]:
    """Function decorator: make a kind of basis known under this name.

    Args:
        name: as ``weightsteer.analysis.bases.make`` and ``--bases`` take it.
        origin: what the directions are, in one line; ``{seed}`` stands for the seed of the materials.
        needs: what the function is made from: ``model``, ``pairs``, ``vector``, ``vectors``.
        sides: on which the basis can be; the first is the default.

    The function is ``(materials, rank, side) -> {module path: B}`` with orthonormal columns B (d, k), k ≤ rank.
    """

    def add(find: Find) -> Find:
        registry.add(name, Kind(name, origin, needs, sides, find, contains), find, origin)
        return find

    return add
