"""ActivationVector: directions that are added to the residual stream, one per steered decoder layer.

``h_l' = h_l + α · v_l`` for the output h_l of block l, at every position of the prompt and of the answer
(activation addition: Turner et al., arXiv 2308.10248; Rimsky et al., arXiv 2312.06681).
"""

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from weightsteer.activation import gguf, vectorfile
from weightsteer.errors import WeightsteerError
from weightsteer.models import check_base, decoder_layers, described
from weightsteer.terms import Modifier, per_row
from weightsteer.vector.provenance import common


class ActivationVector:
    """Directions in the residual stream. Immutable; every operation gives a new one. An `Intervention`.

    Attributes:
        directions: the direction (d,) of each block in fp32, by module path ("model.layers.3"), in ascending
            order of layers. Not to be written to.
    """

    def __init__(self, directions: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
        if not directions:
            raise WeightsteerError("an activation vector needs at least one layer; this one would have none.")
        self.directions: dict[str, Tensor] = {}
        for name in sorted(directions, key=_layer):
            direction = directions[name].detach().to("cpu", torch.float32).clone()
            if direction.dim() != 1 or not bool(direction.isfinite().all()):
                raise WeightsteerError(
                    f"the direction of {name} must be one vector (d,) of finite numbers; this one has shape "
                    f"{tuple(direction.shape)}, or holds NaN or infinity."
                )
            self.directions[name] = direction
        defaults = {"method": "activation", "behavior": "unnamed", "adapter": "unknown", "seed": 0}
        try:
            self._metadata = json.loads(json.dumps({**defaults, **metadata}, allow_nan=False))
        except (TypeError, ValueError) as error:
            raise WeightsteerError(
                f"the metadata of a vector must be JSON: strings, finite numbers, lists, dicts ({error})."
            ) from error

    @property
    def metadata(self) -> dict[str, Any]:
        """Provenance, JSON-able (a copy): behavior, adapter (the method), seed, base, how it was fitted …"""
        return deepcopy(self._metadata)

    @property
    def method(self) -> str:
        """``activation``, or ``control`` for a vector made to be compared with one."""
        return str(self._metadata["method"])

    @property
    def names(self) -> list[str]:
        """The paths of the steered blocks, in ascending order."""
        return list(self.directions)

    @property
    def layers(self) -> list[int]:
        """The steered decoder layers, ascending; layer l is the output of block l, from 0."""
        return [_layer(name) for name in self.directions]

    @property
    def digest(self) -> str:
        """blake2b-128 (hex) of all directions; metadata does not count."""
        hashed = hashlib.blake2b(digest_size=16)
        for name, direction in self.directions.items():
            hashed.update(f"{name}\0{len(direction)}\0".encode() + direction.numpy().astype("<f4").tobytes())
        return hashed.hexdigest()

    def __eq__(self, other: object) -> bool:
        """Whether both add the same at every layer, exactly; metadata does not count."""
        return (
            isinstance(other, ActivationVector)
            and self.names == other.names
            and all(torch.equal(direction, other.directions[name]) for name, direction in self.directions.items())
        )

    def __hash__(self) -> int:
        return hash(tuple(self.directions))

    def __repr__(self) -> str:
        known = self._metadata
        base = known.get("base", {}).get("name", "unknown base")
        return (
            f"ActivationVector({known['behavior']}, {known['adapter']} on {base}, "
            f"layers {', '.join(map(str, self.layers))}, norm {self.norm():.4g})"
        )

    def norms(self) -> dict[str, float]:
        """The Euclidean norm of each layer's direction."""
        return {name: float(direction.double().norm()) for name, direction in self.directions.items()}

    def norm(self) -> float:
        """``√Σ_l ‖v_l‖²``."""
        return math.sqrt(sum(norm**2 for norm in self.norms().values()))

    def inner(self, other: "ActivationVector") -> float:
        """``Σ_l <v_l, u_l>``; a layer one of them lacks counts as zero."""
        self._check_comparable(other)
        shared = [name for name in self.directions if name in other.directions]
        return sum(float(self.directions[name].double() @ other.directions[name].double()) for name in shared)

    def cosine(self, other: "ActivationVector") -> float:
        """``<v, u> / (‖v‖ ‖u‖)``, in [−1, 1].

        Raises:
            WeightsteerError: one of them is zero, or they belong to different models.
        """
        length = self.norm() * other.norm()
        if length == 0.0:
            raise WeightsteerError("the cosine with a zero vector is not defined; check v.norm() first.")
        return max(-1.0, min(1.0, self.inner(other) / length))

    def __add__(self, other: "ActivationVector") -> "ActivationVector":
        return self._combined(other, 1.0) if isinstance(other, ActivationVector) else NotImplemented

    def __sub__(self, other: "ActivationVector") -> "ActivationVector":
        return self._combined(other, -1.0) if isinstance(other, ActivationVector) else NotImplemented

    def __neg__(self) -> "ActivationVector":
        return self * -1.0

    def __mul__(self, factor: float) -> "ActivationVector":
        try:
            factor = float(factor)
        except (TypeError, ValueError):
            return NotImplemented
        if not math.isfinite(factor):
            raise WeightsteerError(f"an activation vector cannot be scaled by {factor}.")
        return self._derived({name: factor * d for name, d in self.directions.items()}, f"scaled by {factor!r}")

    __rmul__ = __mul__

    def norm_matched(self, other: "ActivationVector") -> "ActivationVector":
        """``v · ‖other‖ / ‖v‖``: this direction with the norm of another vector, over all layers.

        Raises:
            WeightsteerError: this vector is zero, so it has no direction.
        """
        if self.norm() == 0.0:
            raise WeightsteerError("a zero vector has no direction, so its norm cannot be matched to another's.")
        return self * (other.norm() / self.norm())

    def randomized(self, seed: int) -> "ActivationVector":
        """A control: a random direction of the same norm at every layer.

        Its ``method`` is ``control``, its adapter is named after this one's, and ``seed`` is its draw in tables.
        """

        def random(name: str, direction: Tensor) -> Tensor:
            content = hashlib.blake2b(f"{seed}\0{name}".encode(), digest_size=7).digest()
            generator = torch.Generator().manual_seed(int.from_bytes(content, "big"))
            drawn = torch.randn(len(direction), generator=generator, dtype=torch.float64)
            return drawn * (direction.double().norm() / drawn.norm())

        drawn = {name: random(name, direction) for name, direction in self.directions.items()}
        return self._derived(drawn, f"randomized with seed {seed}").with_metadata(
            method="control",
            adapter=f"{self._metadata['adapter']}-random",
            control={
                "kind": "random",
                "of": self.digest,
                "of_adapter": self._metadata["adapter"],
                "of_seed": self._metadata["seed"],
                "draw": seed,
            },
        )

    def with_metadata(self, **changes: Any) -> "ActivationVector":
        """The same vector with some metadata changed: ``v.with_metadata(adapter="diffmean-layer2")``."""
        return ActivationVector(self.directions, {**self._metadata, **changes})

    def keep(self, layers: int | Iterable[int]) -> "ActivationVector":
        """Only these layers, of those that the vector steers.

        Raises:
            WeightsteerError: the vector steers none of them.
        """
        wanted = {layers} if isinstance(layers, int) else set(layers)
        kept = {name: direction for name, direction in self.directions.items() if _layer(name) in wanted}
        if not kept:
            raise WeightsteerError(f"the vector steers the layers {self.layers}, none of {sorted(wanted)}.")
        return self._derived(kept, f"kept the layers {sorted(wanted & set(self.layers))}")

    def modify(self, name: str, module: nn.Module) -> Modifier:
        """``y' = y + α · v`` with y (b, t, d) and v (d,) at one block; rounded once, to the model's dtype.

        `weightsteer.steer` calls this.

        Raises:
            WeightsteerError: the output of the block has another width (raised in the forward pass).
        """
        direction = self.directions[name]
        width = len(direction)
        if (parameter := next(module.parameters(), None)) is not None and not parameter.is_meta:
            direction = direction.to(parameter.device)

        def add(x: Tensor, own: Tensor, y: Tensor, alpha: Tensor) -> Tensor:
            if y.shape[-1] != width:
                raise self._wrong_width(name, y.shape[-1])
            return (y + per_row(alpha, y) * direction.to(y.device)).to(y.dtype)

        return add

    def check_compatible(self, model: PreTrainedModel) -> None:
        """Raise a `WeightsteerError` unless the model has every steered block, at the width of the vector."""
        prefix, blocks = decoder_layers(model)
        known = {f"{prefix}.{number}" for number in range(len(blocks))}
        if missing := [name for name in self.directions if name not in known]:
            raise WeightsteerError(
                f"the model has no decoder layer {missing[0]}; its layers are {prefix}.0 to {prefix}.{len(known) - 1}. "
                f"The vector was made for {described(self._metadata.get('base', {}))}: load that, unwrapped."
            )
        width = model.config.get_text_config().hidden_size
        for name, direction in self.directions.items():
            if len(direction) != width:
                raise self._wrong_width(name, width)

    def save(self, path: str | Path) -> Path:
        """Write one safetensors file: fp32 directions, and all provenance as JSON in its metadata."""
        return vectorfile.write(Path(path), self.directions, self._metadata)

    @classmethod
    def load(
        cls, path: str | Path, model: PreTrainedModel | None = None, *, other_base: bool = False
    ) -> "ActivationVector":
        """Read what `save` wrote. Give the model it is for, so that the base can be checked.

        Args:
            model: the model to be steered; its layers, width and weight hash must be those of the vector's base.
            other_base: as in `weightsteer.steer`: the weight hash may differ.

        Raises:
            WeightsteerError: the file is damaged or no activation vector, or the model is another base.
        """
        vector = cls(*vectorfile.read(Path(path)))
        if model is not None:
            vector.check_compatible(model)
            if not other_base:
                check_base(vector._metadata, model)
        return vector

    def to_gguf(self, path: str | Path, *, model_hint: str | None = None) -> Path:
        """Write a GGUF control vector for llama.cpp or repeng; see `weightsteer.activation.gguf`.

        Args:
            model_hint: llama.cpp's name of the architecture; the base's ``model_type`` when not given.
        """
        hint = model_hint or self._metadata.get("base", {}).get("model_type", "")
        return gguf.write(
            Path(path), dict(zip(self.layers, self.directions.values(), strict=True)), hint, self._metadata
        )

    @classmethod
    def from_gguf(
        cls, path: str | Path, model: PreTrainedModel, *, metadata: Mapping[str, Any] | None = None
    ) -> "ActivationVector":
        """Read a GGUF control vector for a model; ``direction.l`` belongs to the output of block l.

        Args:
            path: a file of llama.cpp or repeng, with one direction (d,) per layer.
            model: the model to be steered.
            metadata: behavior, adapter and seed, under which tables list the vector.

        Raises:
            WeightsteerError: no control vector, or one with other layers or another width than the model's.
        """
        directions, hint, known = gguf.read(Path(path))
        prefix, _ = decoder_layers(model)
        known = {"adapter": "gguf", **known, "gguf": {"file": Path(path).name, "model_hint": hint}, **(metadata or {})}
        vector = cls({f"{prefix}.{layer}": direction for layer, direction in directions.items()}, known)
        vector.check_compatible(model)
        return vector

    def _combined(self, other: "ActivationVector", sign: float) -> "ActivationVector":
        """``self + sign·other`` over the union of their layers."""
        self._check_comparable(other)
        directions = {name: direction.double() for name, direction in self.directions.items()}
        for name, direction in other.directions.items():
            directions[name] = directions.get(name, torch.zeros(len(direction))) + sign * direction.double()
        metadata, theirs = self.metadata, other.metadata
        for key in ("behavior", "adapter"):
            metadata[key] = common([metadata[key], theirs[key]])
        if theirs["seed"] != metadata["seed"]:
            metadata["seeds"] = sorted(
                {*metadata.get("seeds", [metadata["seed"]]), *theirs.get("seeds", [theirs["seed"]])}
            )
        metadata["operations"] = [*metadata.get("operations", []), f"{'plus' if sign > 0 else 'minus'} {other.digest}"]
        metadata["with"] = [*metadata.get("with", []), {"digest": other.digest, "metadata": theirs}]
        return ActivationVector(directions, metadata)

    def _check_comparable(self, other: "ActivationVector") -> None:
        mine, theirs = self._metadata.get("base", {}), other._metadata.get("base", {})
        widths = {len(direction) for vector in (self, other) for direction in vector.directions.values()}
        if (mine.get("hash") and theirs.get("hash") and mine["hash"] != theirs["hash"]) or len(widths) > 1:
            raise WeightsteerError(
                f"the vectors belong to different models: {described(mine)} and {described(theirs)} (widths "
                f"{', '.join(map(str, sorted(widths)))}). Directions in different residual streams cannot be added or "
                "compared."
            )

    def _wrong_width(self, name: str, width: int) -> WeightsteerError:
        return WeightsteerError(
            f"the vector's direction at {name} has {len(self.directions[name])} entries, the model's residual stream "
            f"{width}. Use the base model of the vector ({described(self._metadata.get('base', {}))})."
        )

    def _derived(self, directions: Mapping[str, Tensor], operation: str) -> "ActivationVector":
        operations = [*self._metadata.get("operations", []), operation]
        return ActivationVector(directions, {**self._metadata, "operations": operations})


def _layer(name: str) -> int:
    """The decoder layer of a block's module path: its last part."""
    last = name.rpartition(".")[2]
    if not last.isdigit():
        raise WeightsteerError(f"{name!r} is not the path of a decoder layer, such as model.layers.3.")
    return int(last)
