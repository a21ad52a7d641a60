"""How far another model is from the base of a vector: what steering a fine-tune with it rests on.

``θ_ft + α·dW`` is meant for fine-tunes that stayed near the base. The distance ``θ_ft − θ`` is given relative to the
weights themselves, and to dW; its cosine with dW tells whether the fine-tune already moved that way.
"""

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from weightsteer.errors import WeightsteerError
from weightsteer.terms import streaming
from weightsteer.vector.compatibility import check_compatible

if TYPE_CHECKING:
    from weightsteer.vector import WeightVector


@dataclass(frozen=True)
class Distance:
    """One set of weights relative to the base, by its inner products.

    Attributes:
        moved: ‖θ_ft − θ‖².
        base: ‖θ‖².
        vector: ‖dW‖².
        along: <θ_ft − θ, dW>.
    """

    moved: float
    base: float
    vector: float
    along: float

    @property
    def relative(self) -> float | None:
        """``‖θ_ft − θ‖ / ‖θ‖``."""
        return math.sqrt(self.moved / self.base) if self.base else None

    @property
    def in_vectors(self) -> float | None:
        """``‖θ_ft − θ‖ / ‖dW‖``: how many lengths of the vector the model is away."""
        return math.sqrt(self.moved / self.vector) if self.vector else None

    @property
    def cosine(self) -> float | None:
        """``cos(θ_ft − θ, dW)``."""
        length = math.sqrt(self.moved * self.vector)
        return max(-1.0, min(1.0, self.along / length)) if length else None

    def __add__(self, other: "Distance") -> "Distance":
        return Distance(
            self.moved + other.moved, self.base + other.base, self.vector + other.vector, self.along + other.along
        )


@dataclass(frozen=True)
class BaseDistance:
    """The distance of a model from the base of a vector.

    Attributes:
        modules: by module of the vector.
        everywhere: ``‖θ_ft − θ‖ / ‖θ‖`` over all parameters of the model.
    """

    modules: dict[str, Distance] = field(repr=False)
    everywhere: float

    @property
    def total(self) -> Distance:
        """Over the modules of the vector."""
        return sum(self.modules.values(), Distance(0.0, 0.0, 0.0, 0.0))

    @property
    def reading(self) -> str:
        """What the numbers say, in words."""
        whole = self.total
        if not whole.moved:
            where = "anywhere" if not self.everywhere else "in the modules of the vector"
            return f"The model does not differ {where} from the base of the vector."
        text = (
            f"In the modules of the vector the model is {whole.relative or 0.0:.2%} of its weights away from the "
            f"vector's base ({self.everywhere:.2%} over all parameters)"
        )
        if whole.in_vectors is None or whole.cosine is None:
            return f"{text}; the vector itself is zero."
        text += f", {whole.in_vectors:.2g} times the length of the vector, with cosine {whole.cosine:.2f} to it."
        if whole.cosine > 0.3:
            return f"{text} It has already moved in the direction of the vector: α adds to that."
        if whole.cosine < -0.3:
            return f"{text} It has moved against the vector: a positive α first undoes that."
        return text

    def record(self) -> dict[str, Any]:
        """The ratios over the modules of the vector and over all parameters, with `reading`; JSON-able."""
        whole = self.total
        return {
            "relative": whole.relative,
            "in_vectors": whole.in_vectors,
            "cosine": whole.cosine,
            "everywhere": self.everywhere,
            "reading": self.reading,
        }


@torch.no_grad()
def base_distance(vector: "WeightVector", model: nn.Module, base: nn.Module) -> BaseDistance:
    """``‖θ_ft − θ‖ / ‖θ‖``, and the cosine of ``θ_ft − θ`` with the vector. No dense matrix of dW is formed.

    Args:
        vector: whose modules are compared.
        model: another fine-tune of the base, θ_ft.
        base: the base model of the vector, θ.

    Raises:
        WeightsteerError: the two models are of different architectures, one is quantised, or the vector does not fit
            them.
    """
    for one in (model, base):
        check_compatible(vector, one)
    here, there = dict(model.named_modules()), dict(base.named_modules())
    modules = {}
    for name, total in vector.terms.items():
        weights = _Weights(here[name], name), _Weights(there[name], name)
        products = streaming.gram([_Difference(*weights), weights[1], total])
        modules[name] = Distance(*(float(products[i, j]) for i, j in ((0, 0), (1, 1), (2, 2), (0, 2))))
    return BaseDistance(modules, _everywhere(model, base))


class _Weights:
    """Weight and bias of a module, as a matrix (d_out, d_in) that gives its columns in fp64."""

    def __init__(self, module: nn.Module, name: str) -> None:
        weight = module.weight
        if not isinstance(weight, Tensor) or not weight.is_floating_point():
            raise WeightsteerError(f"the weight of {name} is quantised, so its distance cannot be computed.")
        bias = getattr(module, "bias", None)
        self.matrix = weight.T if isinstance(module, Conv1D) else weight.view(len(weight), -1)
        self.shape: tuple[int, int] = (self.matrix.shape[0], self.matrix.shape[1])
        self.bias = bias if isinstance(bias, Tensor) else None

    def columns(self, start: int, stop: int) -> Tensor:
        return self.matrix[:, start:stop].to("cpu", torch.float64)

    def bias_delta(self) -> Tensor | None:
        return None if self.bias is None else self.bias.to("cpu", torch.float64)


class _Difference:
    """The difference of two weights."""

    def __init__(self, first: _Weights, second: _Weights) -> None:
        self.first, self.second = first, second
        self.shape = first.shape

    def columns(self, start: int, stop: int) -> Tensor:
        return self.first.columns(start, stop) - self.second.columns(start, stop)

    def bias_delta(self) -> Tensor | None:
        first, second = self.first.bias_delta(), self.second.bias_delta()
        if first is None or second is None:
            return first if second is None else -second
        return first - second


def _everywhere(model: nn.Module, base: nn.Module) -> float:
    """``‖θ_ft − θ‖ / ‖θ‖`` over all parameters, one at a time."""
    theirs = dict(base.named_parameters())
    moved = length = 0.0
    for name, parameter in model.named_parameters():
        other = theirs.pop(name, None)
        if other is None or other.shape != parameter.shape:
            raise WeightsteerError(f"the models differ in the parameter {name}: they are no fine-tunes of one model.")
        before = other.to("cpu", torch.float64)
        moved += float((parameter.to("cpu", torch.float64) - before).square().sum())
        length += float(before.square().sum())
    if theirs:
        raise WeightsteerError(f"the model lacks the parameter {next(iter(theirs))} of the base.")
    return math.sqrt(moved / length) if length else 0.0
