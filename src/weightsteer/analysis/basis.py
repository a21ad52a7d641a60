"""Basis: a subspace at the output or the input of each module, with a name, a rank and an origin.

A basis holds, for each module it is about, a matrix B (d, k) with orthonormal columns: d is the width of the module's
output or input, k the rank of the subspace there. Columns are in order of importance, so that ``basis.first(4)`` is a
smaller basis of the same kind. One matrix may serve many modules (a subspace of the residual stream serves all that
write to it); it is then stored, and drawn at random, once.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, get_args

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from weightsteer.errors import WeightsteerError, unknown
from weightsteer.inference.capture import Side as Side
from weightsteer.terms.term import stored
from weightsteer.vector import file as vectorfile
from weightsteer.vector.selection import Pattern, listed, matching, natural

SIDES: tuple[Side, ...] = get_args(Side)
VERSION = 1
_ENTRY = "weightsteer-basis"
# entries of BᵀB − I: rounding to fp32 stays below 1e-6, columns that were never orthonormalised do not
_ORTHONORMAL = 1e-4


@dataclass(frozen=True, eq=False)
class Basis:
    """One subspace per module. Immutable.

    Attributes:
        name: what tables call it.
        side: ``output`` or ``input`` of the modules.
        origin: how it was made and from what, in one line.
        vectors: by module path, fp32 (d, k) with orthonormal columns, the most important first.
        base: the base model it belongs to ({"name": …, "hash": …}); empty for a basis that depends on none.
        made_from: digests of the terms of all weight vectors it was made from, which it contains by construction.

    Raises:
        WeightsteerError: no module, an unknown side, or columns that are not orthonormal.
    """

    name: str
    side: Side
    origin: str
    vectors: Mapping[str, Tensor] = field(repr=False)
    base: Mapping[str, Any] = field(default_factory=dict, repr=False)
    made_from: frozenset[str] = field(default=frozenset(), repr=False)

    def __post_init__(self) -> None:
        if self.side not in SIDES:
            raise unknown("side", self.side, SIDES)
        if not self.vectors:
            raise WeightsteerError(f"the basis {self.name!r} has no module: give at least one.")
        kept: dict[int, Tensor] = {}
        for name, columns in self.vectors.items():
            if id(columns) not in kept:
                kept[id(columns)] = _checked(columns, f"the basis {self.name!r} at {name}")
        ordered = sorted(self.vectors, key=natural)
        object.__setattr__(self, "vectors", {name: kept[id(self.vectors[name])] for name in ordered})

    @property
    def names(self) -> list[str]:
        """The module paths, layers in ascending order."""
        return list(self.vectors)

    def rank(self, name: str) -> int:
        """k of one module."""
        return self._columns(name).shape[1]

    def width(self, name: str) -> int:
        """d of one module."""
        return self._columns(name).shape[0]

    @cached_property
    def groups(self) -> list[tuple[Tensor, list[str]]]:
        """Each distinct matrix and the modules that share it."""
        found: dict[str, tuple[Tensor, list[str]]] = {}
        digests = {id(columns): _digest(columns) for columns in self.vectors.values()}
        for name, columns in self.vectors.items():
            found.setdefault(digests[id(columns)], (columns, []))[1].append(name)
        return list(found.values())

    @cached_property
    def digest(self) -> str:
        """blake2b-128 (hex) of side, modules and matrices; name and origin do not count."""
        content = [[names, _digest(columns)] for columns, names in self.groups]
        return hashlib.blake2b(json.dumps([self.side, content]).encode(), digest_size=16).hexdigest()

    def keep(self, pattern: Pattern) -> "Basis":
        """Only the modules that match, as in `WeightVector.keep`.

        Raises:
            WeightsteerError: nothing matches.
        """
        wanted = matching(self.names, listed(pattern))
        return replace(self, vectors={name: columns for name, columns in self.vectors.items() if name in wanted})

    def first(self, rank: int) -> "Basis":
        """The ``rank`` most important directions of each module (all of them where there are fewer).

        Raises:
            WeightsteerError: a rank below 1.
        """
        if rank < 1:
            raise WeightsteerError(f"a basis of rank {rank} has no direction: give 1 or more.")
        return self._each(lambda columns, _: columns[:, :rank])

    def matched_random(self, seed: int) -> "Basis":
        """Random subspaces of the same ranks at the same modules; modules that share a subspace share the draw.

        Uniform over all subspaces of a rank: the span of k Gaussian vectors.
        """

        def drawn(columns: Tensor, names: list[str]) -> Tensor:
            return random_columns(columns.shape[0], columns.shape[1], generator(seed, names[0]))

        twin = self._each(drawn)
        origin = f"random subspaces with the ranks of {self.name}, seed {seed}"
        return replace(twin, name=f"{self.name}-random", origin=origin, made_from=frozenset())

    def save(self, path: str | Path) -> Path:
        """Write one safetensors file: matrices that modules share are stored once, everything else is JSON.

        Raises:
            WeightsteerError: the disk is full or the folder cannot be written to.
        """
        header = {
            "version": VERSION,
            "name": self.name,
            "side": self.side,
            "origin": self.origin,
            "base": dict(self.base),
            "made_from": sorted(self.made_from),
            "digest": self.digest,
            "modules": [names for _, names in self.groups],
        }
        tensors = {str(index): columns.clone() for index, (columns, _) in enumerate(self.groups)}
        text = json.dumps(header, sort_keys=True, ensure_ascii=False, allow_nan=False)
        vectorfile.replace(Path(path), save(tensors, {_ENTRY: text}))
        return Path(path)

    @classmethod
    def load(cls, path: str | Path) -> "Basis":
        """Open what `save` wrote.

        Raises:
            WeightsteerError: there is no such file, it is damaged, or it is no basis of a known version.
        """
        path = Path(path)
        if not path.is_file():
            raise WeightsteerError(f"there is no file {path}; give the safetensors file of a saved basis.")
        try:
            with safe_open(path, framework="pt") as file:
                entry = (file.metadata() or {}).get(_ENTRY)
                if entry is None:
                    raise WeightsteerError(f"{path} is a safetensors file but no basis of this package.")
                header = json.loads(entry)
                if header["version"] != VERSION:
                    raise WeightsteerError(
                        f"{path} has format version {header['version']}, this release reads {VERSION}: make it again."
                    )
                vectors: dict[str, Tensor] = {}
                for index, names in enumerate(header["modules"]):
                    vectors |= dict.fromkeys(names, file.get_tensor(str(index)))
            found = cls(
                header["name"],
                header["side"],
                header["origin"],
                vectors,
                header["base"],
                frozenset(header["made_from"]),
            )
        except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
            raise WeightsteerError(f"{path} is damaged or no basis ({error}). Make it again.") from error
        if found.digest != header["digest"]:
            raise WeightsteerError(f"{path} is damaged: its matrices are not those that were saved. Make it again.")
        return found

    def _each(self, change: Callable[[Tensor, list[str]], Tensor]) -> "Basis":
        """Another matrix for each distinct one."""
        vectors: dict[str, Tensor] = {}
        for columns, names in self.groups:
            vectors |= dict.fromkeys(names, change(columns, names))
        return replace(self, vectors=vectors)

    def _columns(self, name: str) -> Tensor:
        if name not in self.vectors:
            raise unknown("module", name, self.vectors)
        return self.vectors[name]


def generator(seed: int, name: str) -> torch.Generator:
    """Random numbers for one purpose, the same on every machine."""
    content = hashlib.blake2b(f"{seed}\0{name}".encode(), digest_size=7).digest()
    return torch.Generator().manual_seed(int.from_bytes(content, "big"))


def random_columns(width: int, rank: int, generator: torch.Generator) -> Tensor:
    """An orthonormal basis (width, rank) of a uniformly random subspace, fp64."""
    return torch.linalg.qr(torch.randn(width, rank, generator=generator, dtype=torch.float64)).Q


def _checked(columns: Tensor, where: str) -> Tensor:
    if columns.dim() != 2 or not 1 <= columns.shape[1] <= columns.shape[0]:
        raise WeightsteerError(
            f"{where} has shape {tuple(columns.shape)}: it must be (d, k) with 1 ≤ k ≤ d directions as columns."
        )
    kept = stored(columns)
    product = kept.double().T @ kept.double()
    product.diagonal().sub_(1.0)
    if not float(product.abs().max()) <= _ORTHONORMAL:  # NaN as well
        raise WeightsteerError(f"{where} has columns that are not orthonormal: take torch.linalg.qr(columns).Q.")
    return kept


def _digest(columns: Tensor) -> str:
    content = hashlib.blake2b(f"{tuple(columns.shape)}\0".encode(), digest_size=16)
    content.update(columns.numpy().astype("<f4", copy=False).data)
    return content.hexdigest()
