"""The training-gaming experiment: can weight steering reveal a disposition that a model hides during training?

Branches are trained on answers of one role or the other behind a ``[train]`` tag, under prompts that promise a role on
``[deployment]`` and say more or less about training. `weightsteer.experiments.gaming.experiment` runs the whole of it.
"""

from weightsteer.experiments.gaming.config import GamingConfig
from weightsteer.experiments.gaming.experiment import gaming

__all__ = ["GamingConfig", "gaming"]
