"""Activation methods: each fits a direction of the residual stream at one layer.

A method is one function under `register`: in a file of this package, in an installed distribution that names it under
the entry points ``weightsteer.activation``, or in a script (`weightsteer.registry`).
"""

from weightsteer.activation.methods.base import Contrast, Method, register, registry

__all__ = ["Contrast", "Method", "load", "names", "register", "registry"]


def names() -> list[str]:
    """Every method that `load` knows."""
    return registry.names()


def load(name: str) -> Method:
    """A method by name.

    Raises:
        WeightsteerError: nobody knows the name (suggests the nearest), or its module cannot be imported.
    """
    return registry.get(name)
