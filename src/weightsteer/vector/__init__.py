"""Weight vectors: ``dW = θ⁺ − θ⁻`` as exact structured terms, with their algebra and their file."""

from weightsteer.vector.weight_vector import WeightVector

__all__ = ["WeightVector"]
