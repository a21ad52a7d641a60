"""Activation steering: directions added to the residual stream; `weightsteer.training.activation` fits them."""

from weightsteer.activation.vector import ActivationVector

__all__ = ["ActivationVector"]
