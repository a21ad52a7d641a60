"""Is a vector compatible with a model: has the model its modules, in the same shapes?

Whether the weights are those it was made on is another question: `weightsteer.models.check_base`.
"""

from torch import nn

from weightsteer.errors import WeightsteerError
from weightsteer.terms import matrix_shape
from weightsteer.vector.deltas import HasDeltas


def check_compatible(vector: HasDeltas, model: nn.Module) -> None:
    """Raise a `WeightsteerError` unless the model has every module of the vector, in the same shape."""
    modules = dict(model.named_modules())
    if missing := [name for name in vector.terms if name not in modules]:
        raise WeightsteerError(
            f"the model has no module {missing[0]} ({len(missing)} of {len(vector.terms)} are missing). "
            f"The vector was made for {_base_name(vector)}: load that, unwrapped."
        )
    for name in vector.terms:
        check_shape(vector, name, modules[name])


def check_shape(vector: HasDeltas, name: str, module: nn.Module) -> None:
    """Raise a `WeightsteerError` unless the module has the shape of the vector's delta."""
    shape = matrix_shape(module)
    if shape != vector.terms.shape(name):
        d_out, d_in = vector.terms.shape(name)
        raise WeightsteerError(
            f"the vector's {name} is {d_out}×{d_in}, the model's is "
            f"{f'{shape[0]}×{shape[1]}' if shape else f'a {type(module).__name__}'}. Use the base model "
            f"of the vector ({_base_name(vector)})."
        )


def _base_name(vector: HasDeltas) -> str:
    return str((vector.metadata.get("base") or {}).get("name") or "its metadata do not name it")
