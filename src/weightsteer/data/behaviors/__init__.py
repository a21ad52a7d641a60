"""Behaviours: what a vector is named after, as one YAML file each."""

from weightsteer.data.behaviors.files import BEHAVIORS as registry
from weightsteer.data.behaviors.spec import Behavior, Pole, Questions, names

__all__ = ["Behavior", "Pole", "Questions", "names", "registry"]
