"""WeightVector: a direction in weight space, ``dW = θ⁺ − θ⁻``, held as exact structured terms.

Fierro & Roger, *Steering Language Models with Weight Arithmetic*, arXiv 2511.05408: two fine-tunes of one
base on opposite behaviour are subtracted, the base cancels, and ``θ + α·dW`` is the steered model. Here dW is
computed from the tensors of the two adapters in fp32; nothing is merged and subtracted, which in bf16 loses
most of a small vector.
"""

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from copy import deepcopy
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from weightsteer import difference, export, models, vectorfile
from weightsteer.errors import WeightsteerError, unknown
from weightsteer.terms import Modifier, Sum, matrix_shape

Pattern = str | int | Iterable[str | int]
"""Modules: a glob on the path or its end ("*.mlp.*", "down_proj"), a layer number, or several of these."""


class WeightVector:
    """A vector in weight space. Immutable; every operation gives a new one. An `Intervention`.

    Attributes:
        terms: the delta of each module by module path, as a formal sum of low-rank terms
            (`weightsteer.terms.Sum`).
        names: the module paths, layers in ascending order.
    """

    def __init__(self, terms: Mapping[str, Sum], metadata: Mapping[str, Any]) -> None:
        if not terms:
            raise WeightsteerError("a weight vector needs at least one module; this one would have none.")
        self.terms: dict[str, Sum] = {name: terms[name] for name in sorted(terms, key=_natural)}
        defaults = {"method": "weight", "behavior": "unnamed", "adapter": "unknown", "seed": 0}
        try:
            self._metadata = json.loads(json.dumps({**defaults, **metadata}, allow_nan=False))
        except (TypeError, ValueError) as error:
            raise WeightsteerError(
                f"the metadata of a vector must be JSON: strings, finite numbers, lists, dicts ({error})."
            ) from error

    @classmethod
    def from_adapters(
        cls,
        positive: str | Path,
        negative: str | Path,
        model: PreTrainedModel,
        *,
        metadata: Mapping[str, Any] | None = None,
    ) -> "WeightVector":
        """``dW = τ⁺ − τ⁻`` of two PEFT adapter folders trained on ``model``; rank at most 2r per module.

        Args:
            positive: folder of the branch trained on the behaviour.
            negative: folder of the branch trained on its opposite.
            model: the base both were trained on.
            metadata: added to (and winning over) what the folders say about themselves.

        Raises:
            WeightsteerError: the two adapt different modules, were trained on another base, are given in the
                wrong order, or hold something whose delta is not exact.
        """
        terms, told = difference.difference(positive, negative, model)
        return cls(terms, {**told, **(metadata or {})})

    @property
    def metadata(self) -> dict[str, Any]:
        """Provenance, JSON-able (a copy): behavior, adapter, seed, base, branches, operations …"""
        return deepcopy(self._metadata)

    @property
    def method(self) -> str:
        """``weight``, or ``control`` for a vector made to be compared with one."""
        return str(self._metadata["method"])

    @property
    def names(self) -> list[str]:
        return list(self.terms)

    @property
    def digest(self) -> str:
        """blake2b-128 (hex) of all terms and coefficients; metadata does not count."""
        content = json.dumps([[name, term.key] for name, term in self.terms.items()])
        return hashlib.blake2b(content.encode(), digest_size=16).hexdigest()

    def __eq__(self, other: object) -> bool:
        """Whether both add the same to every weight, exactly; metadata does not count."""
        return isinstance(other, WeightVector) and self.terms == other.terms

    def __hash__(self) -> int:
        return hash(tuple(self.terms.items()))

    def __repr__(self) -> str:
        told = self._metadata
        base = told.get("base", {}).get("name", "unknown base")
        return (
            f"WeightVector({told['behavior']}, {told['adapter']} on {base}, {len(self.terms)} modules, "
            f"rank ≤ {max(term.rank for term in self.terms.values())}, norm {self.norm():.4g})"
        )

    def delta(self, name: str) -> Tensor:
        """The dense fp32 matrix (d_out, d_in) of one module, whichever way its weight is stored."""
        if name not in self.terms:
            raise unknown("module", name, self.terms)
        return self.terms[name].delta()

    def rank(self, name: str) -> int:
        """An upper bound of the rank of one module's delta."""
        return self.terms[name].rank

    def norms(self) -> dict[str, float]:
        """The Frobenius norm of each module's delta, from the factors."""
        return {name: term.norm() for name, term in self.terms.items()}

    def norm(self) -> float:
        """``‖dW‖ = √Σ_i ‖dW_i‖²`` over all modules."""
        return math.sqrt(sum(norm**2 for norm in self.norms().values()))

    def inner(self, other: "WeightVector") -> float:
        """The Frobenius inner product over all modules; a module one of them lacks counts as zero."""
        self._check_comparable(other)
        return sum(term.inner(other.terms[name]) for name, term in self.terms.items() if name in other.terms)

    def cosine(self, other: "WeightVector") -> float:
        """``<v, u> / (‖v‖ ‖u‖)``, in [−1, 1].

        Raises:
            WeightsteerError: one of them is zero, or they belong to different base models.
        """
        length = self.norm() * other.norm()
        if length == 0.0:
            raise WeightsteerError("the cosine with a zero vector is not defined; check v.norm() first.")
        return max(-1.0, min(1.0, self.inner(other) / length))

    def __add__(self, other: "WeightVector") -> "WeightVector":
        return self._combined(other, 1.0) if isinstance(other, WeightVector) else NotImplemented

    def __sub__(self, other: "WeightVector") -> "WeightVector":
        return self._combined(other, -1.0) if isinstance(other, WeightVector) else NotImplemented

    def __neg__(self) -> "WeightVector":
        return self * -1.0

    def __mul__(self, factor: float) -> "WeightVector":
        try:
            factor = float(factor)
        except (TypeError, ValueError):
            return NotImplemented
        if not math.isfinite(factor):
            raise WeightsteerError(f"a weight vector cannot be scaled by {factor}.")
        scaled = {name: term.scaled(factor) for name, term in self.terms.items()}
        return self._derived(scaled, f"scaled by {factor!r}")

    __rmul__ = __mul__

    def norm_matched(self, other: "WeightVector") -> "WeightVector":
        """This direction with the (global) norm of ``other``."""
        if self.norm() == 0.0:
            raise WeightsteerError("a zero vector has no direction, so its norm cannot be matched to another's.")
        return self * (other.norm() / self.norm())

    def randomized(self, seed: int) -> "WeightVector":
        """A control: random directions with the norm, rank and singular values of every module's delta.

        Its ``method`` is ``control``, its adapter is named after this one's and its ``seed`` is that of the
        draw, so that tables keep the two apart.
        """

        def random(name: str, term: Sum) -> Sum:
            content = hashlib.blake2b(f"{seed}\0{name}".encode(), digest_size=7).digest()
            return term.randomized(torch.Generator().manual_seed(int.from_bytes(content, "big")))

        drawn = {name: random(name, term) for name, term in self.terms.items()}
        return self._derived(drawn, f"randomized with seed {seed}").with_metadata(
            method="control",
            adapter=f"{self._metadata['adapter']}-random",
            seed=seed,
            control={"kind": "random", "of": self.digest, "of_seed": self._metadata["seed"]},
        )

    def with_metadata(self, **changes: Any) -> "WeightVector":
        """The same vector with some metadata changed: ``v.with_metadata(behavior="candour")``."""
        return WeightVector(self.terms, {**self._metadata, **changes})

    def keep(self, pattern: Pattern) -> "WeightVector":
        """Only the modules that match; ``keep(range(8, 12))``, ``keep("mlp.*")``, ``keep(["q_proj", 3])``.

        Raises:
            WeightsteerError: nothing matches.
        """
        matching = self._matching(wanted := _listed(pattern))
        kept = {name: term for name, term in self.terms.items() if name in matching}
        return self._derived(kept, f"kept {', '.join(map(str, wanted))}")

    def drop(self, pattern: Pattern) -> "WeightVector":
        """All but the modules that match.

        Raises:
            WeightsteerError: nothing matches, or nothing would remain.
        """
        matching = self._matching(wanted := _listed(pattern))
        kept = {name: term for name, term in self.terms.items() if name not in matching}
        return self._derived(kept, f"dropped {', '.join(map(str, wanted))}")

    def modify(self, name: str, module: nn.Module) -> Modifier:
        """``y' = y + α · dW x`` at one module (`weightsteer.steer` calls this)."""
        self._check_shape(name, module)
        return self.terms[name].modifier(module)

    def check_fits(self, model: nn.Module) -> None:
        """Raise a `WeightsteerError` unless the model has every module of the vector, in the same shape."""
        modules = dict(model.named_modules())
        if missing := [name for name in self.terms if name not in modules]:
            raise WeightsteerError(
                f"the model has no module {missing[0]} ({len(missing)} of {len(self.terms)} are missing). "
                f"The vector was made for {self._base_name()}: load that, unwrapped."
            )
        for name in self.terms:
            self._check_shape(name, modules[name])

    def merge_into(self, model: nn.Module, alpha: float = 1.0) -> None:
        """Write ``W + α·dW`` into the model, in place; see `weightsteer.export.merge_into`."""
        export.merge_into(self, model, alpha)

    def save(self, path: str | Path) -> Path:
        """Write one safetensors file: fp32 factors, and all provenance as JSON in its metadata.

        The same vector gives the same bytes. See `weightsteer.vectorfile` for the layout.
        """
        return vectorfile.write(Path(path), self.terms, self._metadata)

    @classmethod
    def load(
        cls, path: str | Path, model: PreTrainedModel | None = None, *, allow_other_base: bool = False
    ) -> "WeightVector":
        """Read what `save` wrote. Give the model it is for, so that the base can be checked.

        Args:
            path: the file.
            model: the model to be steered; its modules, shapes and weight hash must be those of the vector's
                base.
            allow_other_base: steer another fine-tune of the same architecture: the hash may differ.

        Raises:
            WeightsteerError: the file is damaged or no weight vector, or the model is another base (both
                are named).
        """
        vector = cls(*vectorfile.read(Path(path)))
        if model is not None:
            vector.check_fits(model)
            if not allow_other_base:
                vector._check_base(model)
        return vector

    def export_peft(self, folder: str | Path) -> Path:
        """Write a PEFT LoRA folder that is this vector at α = 1; see `weightsteer.export.export_peft`."""
        return export.export_peft(self, Path(folder))

    def _combined(self, other: "WeightVector", sign: float) -> "WeightVector":
        """``self + sign·other`` over the union of their modules."""
        self._check_comparable(other)
        terms = dict(self.terms)
        for name, term in other.terms.items():
            scaled = term.scaled(sign)
            terms[name] = terms[name].plus(scaled) if name in terms else scaled
        told, theirs = self.metadata, other.metadata
        for key in ("behavior", "adapter"):
            told[key] = difference.common([told[key], theirs[key]])
        if theirs["seed"] != told["seed"]:
            told["seeds"] = sorted({*told.get("seeds", [told["seed"]]), *theirs.get("seeds", [theirs["seed"]])})
        verb = "plus" if sign > 0 else "minus"
        told["operations"] = [*told.get("operations", []), f"{verb} {other.digest}"]
        told["with"] = [*told.get("with", []), {"digest": other.digest, "metadata": theirs}]
        return WeightVector(terms, told)

    def _check_comparable(self, other: "WeightVector") -> None:
        mine, theirs = self._metadata.get("base", {}), other._metadata.get("base", {})
        if mine.get("hash") and theirs.get("hash") and mine["hash"] != theirs["hash"]:
            raise WeightsteerError(
                f"the vectors belong to different base models: {difference.described(mine)} and "
                f"{difference.described(theirs)}. Directions in the weights of different models cannot be "
                "added or compared."
            )
        for name in set(self.terms) & set(other.terms):
            if self.terms[name].shape != other.terms[name].shape:
                raise WeightsteerError(
                    f"{name} has shape {self.terms[name].shape} in one vector and {other.terms[name].shape} "
                    "in the other: they belong to different base models."
                )

    def _check_base(self, model: PreTrainedModel) -> None:
        mine = self._metadata.get("base", {})
        theirs = {"name": models.model_name(model), "hash": models.weight_hash(model)}
        if mine.get("hash") not in (None, theirs["hash"]):
            raise WeightsteerError(
                f"the vector was made on {difference.described(mine)}, but the model is "
                f"{difference.described(theirs)}: other weights. Load the vector's own base, or pass "
                "allow_other_base=True to steer another fine-tune of the same architecture."
            )

    def _check_shape(self, name: str, module: nn.Module) -> None:
        shape = matrix_shape(module)
        if shape != self.terms[name].shape:
            d_out, d_in = self.terms[name].shape
            raise WeightsteerError(
                f"the vector's {name} is {d_out}×{d_in}, the model's is "
                f"{f'{shape[0]}×{shape[1]}' if shape else f'a {type(module).__name__}'}. Use the base model "
                f"of the vector ({self._base_name()})."
            )

    def _base_name(self) -> str:
        return str(self._metadata.get("base", {}).get("name", "its metadata do not name it"))

    def _derived(self, terms: Mapping[str, Sum], operation: str) -> "WeightVector":
        told = self.metadata
        told["operations"] = [*told.get("operations", []), operation]
        return WeightVector(terms, told)

    def _matching(self, wanted: Iterable[str | int]) -> set[str]:
        matched: set[str] = set()
        for one in wanted:
            found = {name for name in self.terms if _matches(name, one)}
            if not found:
                raise WeightsteerError(
                    f"no module of this vector matches {one!r}. It has, for instance, "
                    f"{next(iter(self.terms))}; a pattern is a layer number, or a glob on the path or its "
                    'end, such as "*.mlp.*" or "down_proj".'
                )
            matched |= found
        return matched


def _matches(name: str, pattern: str | int) -> bool:
    if isinstance(pattern, int):
        return _layer(name) == pattern
    return fnmatchcase(name, pattern) or fnmatchcase(name, f"*.{pattern}")


def _layer(name: str) -> int | None:
    """The first number in a module path, which is the layer in every decoder."""
    return next((int(part) for part in name.split(".") if part.isdigit()), None)


def _listed(pattern: Pattern) -> list[str | int]:
    return [pattern] if isinstance(pattern, str | int) else list(pattern)


def _natural(name: str) -> list[tuple[int, str]]:
    """Sort key: layer 9 before layer 10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in name.split(".")]
