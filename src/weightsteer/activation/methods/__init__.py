"""Activation methods: each is a function in a file of this package under `register`; nothing else has to be edited."""

from importlib import import_module
from pkgutil import iter_modules

from weightsteer.activation.methods.base import Contrast, Method, register, registered
from weightsteer.errors import unknown

__all__ = ["Contrast", "Method", "load", "names", "register"]


def names() -> list[str]:
    """Every method that `load` knows."""
    for module in iter_modules(__path__):
        import_module(f"{__name__}.{module.name}")
    return sorted(registered)


def load(name: str) -> Method:
    """A method by name.

    Raises:
        WeightsteerError: nobody knows the name (suggests the nearest).
    """
    if name not in names():
        raise unknown("activation method", name, names())
    return registered[name]
