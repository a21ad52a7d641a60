"""WeightVector: a direction in weight space, ``dW = θ⁺ − θ⁻``, held as exact structured terms.

Fierro & Roger, *Steering Language Models with Weight Arithmetic*, arXiv 2511.05408: two fine-tunes of one
base on opposite behaviour are subtracted, the base cancels, and ``θ + α·dW`` is the steered model. Here dW is
computed from the tensors of the two adapters in fp32; nothing is merged and subtracted, which in bf16 loses
most of a small vector.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel

from weightsteer.errors import WeightsteerError, unknown
from weightsteer.models import check_base, described, model_name
from weightsteer.terms import InputModifier, Modifier, Sum
from weightsteer.vector import algebra, compatibility, difference
from weightsteer.vector import file as vectorfile
from weightsteer.vector.deltas import Deltas
from weightsteer.vector.header import check_metadata
from weightsteer.vector.selection import Pattern, listed, matching
from weightsteer.vector.summary import summary


class WeightVector:
    """A vector in weight space. Immutable; every operation gives a new one. An `Intervention`.

    Attributes:
        terms: the delta of each module by module path, layers in ascending order, as formal sums of terms of any
            form (`weightsteer.terms.Sum`). Those of a loaded vector are read when they are first used.
    """

    def __init__(self, terms: Mapping[str, Sum], metadata: Mapping[str, Any]) -> None:
        if not terms:
            raise WeightsteerError("a weight vector needs at least one module; this one would have none.")
        self.terms = terms if isinstance(terms, Deltas) else Deltas(terms)
        defaults = {"method": "weight", "behavior": "unnamed", "adapter": "unknown", "seed": 0}
        try:
            self._metadata = json.loads(json.dumps({**defaults, **metadata}, allow_nan=False))
        except (TypeError, ValueError) as error:
            raise WeightsteerError(
                f"the metadata of a vector must be JSON: strings, finite numbers, lists, dicts ({error})."
            ) from error
        check_metadata(self._metadata)

    @classmethod
    def from_adapters(
        cls,
        positive: str | Path,
        negative: str | Path,
        model: PreTrainedModel,
        *,
        mode: difference.Mode = "difference",
        metadata: Mapping[str, Any] | None = None,
    ) -> "WeightVector":
        """``dW = τ⁺ − τ⁻`` of two PEFT adapter folders trained on ``model``; of LoRAs of rank r, of rank at most 2r.

        The two may be of different families. The angle between the branches is recorded in
        ``metadata["geometry"]`` (`weightsteer.vector.geometry`).

        Args:
            positive: folder of the branch trained on the behaviour.
            negative: folder of the branch trained on its opposite.
            model: the base both were trained on.
            mode: ``difference``; or ``bisector``, ``τ⁺/‖τ⁺‖ − τ⁻/‖τ⁻‖`` with the norm of dW, in which the branch that
                moved further does not outweigh the other.
            metadata: added to (and winning over) what the folders say about themselves.

        Raises:
            WeightsteerError: the two adapt different modules, were trained on another base, are given in the
                wrong order, or hold something whose delta is not exact.
        """
        terms, known = difference.difference(positive, negative, model, mode)
        return cls(terms, {**known, **(metadata or {})})

    @classmethod
    def from_branch(
        cls, folder: str | Path, model: PreTrainedModel, *, metadata: Mapping[str, Any] | None = None
    ) -> "WeightVector":
        """The task vector ``τ = θ_branch − θ`` of one PEFT adapter folder (Ilharco et al., arXiv 2212.04089).

        Args:
            folder: the adapter that PEFT saved.
            model: the base it was trained on.
            metadata: added to (and winning over) what the folder says about itself.

        Raises:
            WeightsteerError: it was trained on another base, or holds something whose delta is not exact.
        """
        terms, known = difference.task(folder, model)
        return cls(terms, {**known, **(metadata or {})})

    @classmethod
    def from_models(
        cls,
        positive: difference.Checkpoint,
        negative: difference.Checkpoint,
        base: difference.Checkpoint | None = None,
        *,
        metadata: Mapping[str, Any] | None = None,
    ) -> "WeightVector":
        """``dW = θ⁺ − θ⁻`` of two full fine-tunes: loaded models, or folders of saved ones.

        Args:
            positive: the model trained on the behaviour.
            negative: the model trained on its opposite.
            base: the model both started from. It cancels; with it the vector knows its base and its geometry.
            metadata: added to (and winning over) what is known of the models.

        Raises:
            WeightsteerError: the models are of different architectures, or hold something whose delta is not exact.
        """
        terms, known = difference.checkpoints(positive, negative, base)
        return cls(terms, {**known, **(metadata or {})})

    @property
    def metadata(self) -> dict[str, Any]:
        """Provenance, JSON-able (a copy): behavior, adapter, seed, base, branches, geometry, operations …"""
        return deepcopy(self._metadata)

    @property
    def method(self) -> str:
        """``weight``, or ``control`` for a vector made to be compared with one."""
        return str(self._metadata["method"])

    @property
    def names(self) -> list[str]:
        """The module paths, layers in ascending order."""
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
        return summary(self.terms, self._metadata)

    def delta(self, name: str) -> Tensor:
        """The dense fp32 matrix (d_out, d_in) of one module, whichever way its weight is stored."""
        return self._term(name).delta()

    def bias_delta(self, name: str) -> Tensor | None:
        """What is added to the bias of one module, fp32 (d_out,); None when that is nothing."""
        return self._term(name).bias_delta()

    def rank(self, name: str) -> int:
        """An upper bound of the rank of one module's delta."""
        return self.terms.rank(name)

    def norms(self) -> dict[str, float]:
        """The Frobenius norm of each module's delta (matrix and bias), from the factors."""
        return {name: self.terms.norm(name) for name in self.terms}

    def norm(self) -> float:
        """``‖dW‖ = √Σ_i ‖dW_i‖²`` over all modules."""
        return self.terms.total_norm()

    def inner(self, other: "WeightVector") -> float:
        """``<v, u> = Σ_i tr(dW_iᵀ dU_i) + <b_i, c_i>`` over the modules i and their biases, in fp64.

        Modules that one of the two lacks count as zero. No dense matrix is formed.
        """
        algebra.check_comparable([self, other])
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

    @classmethod
    def sum(cls, vectors: Sequence["WeightVector"], coefficients: Sequence[float] | None = None) -> "WeightVector":
        """``Σ_k c_k v_k``, of any families; without coefficients the plain sum."""
        return cls(*algebra.combined(vectors, [1.0] * len(vectors) if coefficients is None else coefficients))

    def __add__(self, other: "WeightVector") -> "WeightVector":
        return WeightVector.sum([self, other]) if isinstance(other, WeightVector) else NotImplemented

    def __sub__(self, other: "WeightVector") -> "WeightVector":
        return WeightVector.sum([self, other], [1.0, -1.0]) if isinstance(other, WeightVector) else NotImplemented

    def __neg__(self) -> "WeightVector":
        return self * -1.0

    def __mul__(self, factor: float) -> "WeightVector":
        try:
            factor = algebra.finite(factor)
        except (TypeError, ValueError):
            return NotImplemented
        if factor == 1.0:
            return self
        return self.derived(self.terms.scaled(lambda _: factor), f"scaled by {factor!r}")

    __rmul__ = __mul__

    def norm_matched(self, other: "WeightVector") -> "WeightVector":
        """``v · ‖other‖ / ‖v‖``: this direction with the norm of another vector, over all modules.

        Raises:
            WeightsteerError: this vector is zero, so it has no direction.
        """
        if self.norm() == 0.0:
            raise WeightsteerError("a zero vector has no direction, so its norm cannot be matched to another's.")
        return self * (other.norm() / self.norm())

    def with_metadata(self, **changes: Any) -> "WeightVector":
        """The same vector with some metadata changed: ``v.with_metadata(behavior="candour")``."""
        return WeightVector(self.terms, {**self._metadata, **changes})

    def keep(self, pattern: Pattern) -> "WeightVector":
        """Only the modules that match; ``keep(range(8, 12))``, ``keep("mlp.*")``, ``keep(["q_proj", 3])``.

        Args:
            pattern: a layer, a kind of module (wildcards allowed), a module path, or several of them.

        Raises:
            WeightsteerError: nothing matches.
        """
        wanted = listed(pattern)
        kept = matching(self.names, wanted)
        return self.derived(self.terms.only(kept), f"kept {', '.join(map(str, wanted))}")

    def drop(self, pattern: Pattern) -> "WeightVector":
        """All but the modules that match.

        Raises:
            WeightsteerError: nothing matches, or nothing would remain.
        """
        wanted = listed(pattern)
        kept = set(self.names) - matching(self.names, wanted)
        return self.derived(self.terms.only(kept), f"dropped {', '.join(map(str, wanted))}")

    def modify(self, name: str, module: nn.Module) -> Modifier:
        """``y' = y + α · dW x`` at one module (`weightsteer.steer` calls this)."""
        compatibility.check_shape(self, name, module)
        return self.terms[name].modifier(module)

    def modify_input(self, name: str, module: nn.Module) -> InputModifier | None:
        """The same by another input of the module, where its delta allows that."""
        return self.terms[name].input_modifier(module)

    def bind(self, model: nn.Module) -> "WeightVector":
        """The same vector with its base weights at hand, for deltas that are parts of them (DoRA, IA3, OFT, BOFT).

        A vector that was made here, or loaded with its base model, has them. It refers to the weights of ``model``
        and does not copy them.

        Raises:
            WeightsteerError: the model lacks a module, or its weights are not those the vector was made on.
        """
        compatibility.check_compatible(self, model)
        if not any(map(self.terms.needs_base, self.terms)):
            return self
        return WeightVector(self.terms.bound(dict(model.named_modules())), self._metadata)

    def save(self, path: str | Path) -> Path:
        """Write one safetensors file: fp32 tensors, and all provenance as JSON in its metadata.

        The same vector gives the same bytes. See `weightsteer.vector.file` for the layout.

        Returns:
            The path.

        Raises:
            WeightsteerError: the disk is full or the folder cannot be written to; an older file is unchanged then.
        """
        return vectorfile.write(Path(path), self.terms, self._metadata)

    @classmethod
    def load(
        cls,
        path: str | Path,
        model: PreTrainedModel | None = None,
        *,
        base: PreTrainedModel | None = None,
        other_base: bool = False,
    ) -> "WeightVector":
        """Open what `save` wrote: each module is read when it is first used. Give the model it is for, so that the
        base can be checked.

        Args:
            path: the file.
            model: the model to be steered; its modules, shapes and weight hash must be those of the vector's
                base.
            base: the vector's own base, when ``model`` is another fine-tune of it and the delta is part of the base
                weights (DoRA, IA3, OFT, BOFT). `base_distance` tells how far the two are apart.
            other_base: as in `weightsteer.steer`: the hash of ``model`` may differ.

        Raises:
            WeightsteerError: the file is damaged or no weight vector, or the model is another base (both
                are named).
        """
        vector = cls(*vectorfile.read(Path(path)))
        if model is not None:
            compatibility.check_compatible(vector, model)
            if not other_base:
                check_base(vector.metadata, model)
        if base is not None:
            check_base(vector.metadata, base)
            return vector.bind(base)
        if model is None:
            return vector
        try:
            return vector.bind(model)
        except WeightsteerError as error:
            raise WeightsteerError(
                f"the delta of {vector.metadata['adapter']} is part of the weights of its own base, "
                f"{described(vector.metadata.get('base') or {})}, and {model_name(model)} has others. To steer this "
                "model with it, load that base too and pass both: load(path, model, base=..., other_base=True)."
            ) from error

    def _term(self, name: str) -> Sum:
        if name not in self.terms:
            raise unknown("module", name, self.terms)
        return self.terms[name]

    def derived(self, terms: Mapping[str, Sum], operation: str) -> "WeightVector":
        """A vector of other terms that was made from this one: its metadata, with the operation noted."""
        operations = [*self._metadata.get("operations", []), operation]
        return WeightVector(terms, {**self._metadata, "operations": operations})
