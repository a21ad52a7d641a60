"""What an activation method is: a direction from the activations of n pairs at one layer."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from torch import Tensor

from weightsteer.registry import ACTIVATION, Registry


class Contrast(NamedTuple):
    """The activations of n pairs at one layer, each (n, d); row i of both belongs to pair i."""

    positive: Tensor
    negative: Tensor

    @property
    def differences(self) -> Tensor:
        """(n, d) fp64."""
        return self.positive.double() - self.negative.double()


Fit = Callable[[Contrast, Contrast | None], Tensor]
"""``(training pairs, held-out pairs) -> direction (d,)``; held-out pairs are there when the method asks for them."""


@dataclass(frozen=True)
class Method:
    """A registered method: how it fits one layer, and whether it chooses something on held-out pairs.

    ``settings``: the ``layers``, ``at`` and ``scale`` of `weightsteer.training.activation.fit_activation` that belong
    to it; they hold where the caller gives none.
    """

    fit: Fit
    validates: bool
    settings: Mapping[str, Any] = field(default_factory=dict)


registry: Registry[Method] = ACTIVATION


def register(name: str, *, validates: bool = False, **settings: Any) -> Callable[[Fit], Fit]:
    """Function decorator: make a method known under this name, which becomes the ``adapter`` of its vectors."""

    def add(fit: Fit) -> Fit:
        registry.add(name, Method(fit, validates, settings), fit)
        return fit

    return add
