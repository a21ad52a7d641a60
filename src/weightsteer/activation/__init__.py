"""Activation steering: directions in the residual stream, fitted to the pairs that weight vectors are made from."""

from weightsteer.activation.vector import ActivationVector
from weightsteer.inference.capture import capture
from weightsteer.training.activation import fit
from weightsteer.training.layer_choice import choose_layer

__all__ = ["ActivationVector", "capture", "choose_layer", "fit"]
