"""Does a vector belong to a model: has the model its modules, are they of the same shape, are the weights the same?"""

from typing import TYPE_CHECKING, Any

from torch import nn
from transformers import PreTrainedModel

from weightsteer import models
from weightsteer.errors import WeightsteerError
from weightsteer.terms import matrix_shape
from weightsteer.vector.provenance import described

if TYPE_CHECKING:
    from weightsteer.vector import WeightVector


def check_compatible(vector: "WeightVector", model: nn.Module) -> None:
    """Raise a `WeightsteerError` unless the model has every module of the vector, in the same shape."""
    modules = dict(model.named_modules())
    if missing := [name for name in vector.names if name not in modules]:
        raise WeightsteerError(
            f"the model has no module {missing[0]} ({len(missing)} of {len(vector.names)} are missing). "
            f"The vector was made for {_base_name(vector)}: load that, unwrapped."
        )
    for name in vector.names:
        check_shape(vector, name, modules[name])


def check_shape(vector: "WeightVector", name: str, module: nn.Module) -> None:
    """Raise a `WeightsteerError` unless the module has the shape of the vector's delta."""
    shape = matrix_shape(module)
    if shape != vector.terms.shape(name):
        d_out, d_in = vector.terms.shape(name)
        raise WeightsteerError(
            f"the vector's {name} is {d_out}×{d_in}, the model's is "
            f"{f'{shape[0]}×{shape[1]}' if shape else f'a {type(module).__name__}'}. Use the base model "
            f"of the vector ({_base_name(vector)})."
        )


def check_base(vector: "WeightVector", model: PreTrainedModel) -> None:
    """Raise a `WeightsteerError` when the vector is known to have been made on other weights."""
    theirs = {"name": models.model_name(model), "hash": models.weight_hash(model)}
    if _base(vector).get("hash") not in (None, theirs["hash"]):
        raise WeightsteerError(
            f"the vector was made on {described(_base(vector))}, but the model is {described(theirs)}: other weights. "
            "Load the vector's own base, or pass allow_other_base=True to steer another fine-tune of the same "
            "architecture."
        )


def for_model(
    vector: "WeightVector", model: PreTrainedModel | None, base: PreTrainedModel | None, allow_other_base: bool
) -> "WeightVector":
    """A loaded vector, checked against the model it is to steer, with the base weights it is part of at hand.

    Raises:
        WeightsteerError: it does not fit, or was made on other weights than those of ``base`` (of ``model``, unless
            that may be another fine-tune).
    """
    if model is not None:
        check_compatible(vector, model)
        if not allow_other_base:
            check_base(vector, model)
    if base is not None:
        check_base(vector, base)
        return vector.bind(base)
    if model is None:
        return vector
    try:
        return vector.bind(model)
    except WeightsteerError as error:
        raise WeightsteerError(
            f"the delta of {vector.metadata['adapter']} is part of the weights of its own base, "
            f"{described(_base(vector))}, and {models.model_name(model)} has others. To steer this model with it, load "
            "that base too and pass both: load(path, model, base=..., allow_other_base=True)."
        ) from error


def _base(vector: "WeightVector") -> dict[str, Any]:
    return vector.metadata.get("base") or {}


def _base_name(vector: "WeightVector") -> str:
    return str(_base(vector).get("name") or "its metadata do not name it")
