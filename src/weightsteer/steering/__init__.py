"""Steering: apply interventions to a model while it runs, one strength per row."""

from weightsteer.steering.intervention import Intervention, first_layer, steer

__all__ = ["Intervention", "first_layer", "steer"]
