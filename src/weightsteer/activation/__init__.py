"""Activation steering: directions in the residual stream, fitted to the pairs that weight vectors are made from."""

from weightsteer.activation.capture import capture
from weightsteer.activation.choice import choose_layer
from weightsteer.activation.fitting import fit
from weightsteer.activation.vector import ActivationVector

__all__ = ["ActivationVector", "capture", "choose_layer", "fit"]
