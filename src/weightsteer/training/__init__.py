"""Fine-tune the two branches of a behaviour."""

from weightsteer.training.branch import TrainingRecord, train_branch
from weightsteer.training.loop import Loss
from weightsteer.training.recipes import PRESETS, Recipe

__all__ = ["PRESETS", "Loss", "Recipe", "TrainingRecord", "train_branch"]
