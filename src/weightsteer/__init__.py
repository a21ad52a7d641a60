"""weightsteer: build, apply, audit and ship steering vectors in weight space.

A weight vector is ``dW = θ⁺ − θ⁻``, the difference of two fine-tunes of one model on opposite behaviours; the
steered model is ``θ + α·dW`` (Fierro & Roger, arXiv 2511.05408). The names below are the public API. They are
imported on first use, so that ``import weightsteer`` and ``weightsteer --help`` do not load torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOME = {
    "load_model": "models",
    "Behavior": "behaviors",
    "WeightVector": "vector",
    "steer": "steering",
    "Intervention": "steering",
    "sweep": "sweep",
    "summarize": "stats",
    "WeightsteerError": "errors",
    "evals": "",
}

__all__ = [*_HOME, "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'weightsteer' has no attribute {name!r}")
    home = _HOME[name]
    value = import_module(f"weightsteer.{home}") if home else import_module(f"weightsteer.{name}")
    return getattr(value, name) if home else value


def __dir__() -> list[str]:
    return sorted(__all__)


if TYPE_CHECKING:
    from weightsteer import evals
    from weightsteer.behaviors import Behavior
    from weightsteer.errors import WeightsteerError
    from weightsteer.models import load_model
    from weightsteer.stats import summarize
    from weightsteer.steering import Intervention, steer
    from weightsteer.sweep import sweep
    from weightsteer.vector import WeightVector
