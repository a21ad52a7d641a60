"""The page of the training-gaming experiment."""

from weightsteer.experiments.gaming.page.write import write_gaming

__all__ = ["write_gaming"]
