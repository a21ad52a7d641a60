"""weightsteer: build, apply, audit and ship steering vectors in weight space.

A weight vector is ``dW = θ⁺ − θ⁻``, the difference of two fine-tunes of one model on opposite behaviours; the
steered model is ``θ + α·dW`` (Fierro & Roger, arXiv 2511.05408). The names below are the public API. They are
imported on first use, so that ``import weightsteer`` and ``weightsteer --help`` do not load torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from weightsteer.versions import __version__

__all__ = [
    "ActivationVector",
    "Behavior",
    "Intervention",
    "WeightVector",
    "WeightsteerError",
    "__version__",
    "audit",
    "calibrate",
    "compare",
    "controls",
    "evals",
    "export_peft",
    "fit_activation",
    "load_model",
    "prompts_of",
    "random_null",
    "steer",
    "summarize",
    "sweep",
    "write_report",
]

_MODULES = {"audit": "audit", "controls": "controls", "evals": "data.evals"}
"""Names that stand for a module: ``audit.audit(rows)``, ``controls.draws("random", v)``, ``evals.load("dilemmas")``."""

_MODULE_OF = {
    "ActivationVector": "activation",
    "Behavior": "data.behaviors",
    "Intervention": "steering",
    "WeightVector": "vector",
    "WeightsteerError": "errors",
    "calibrate": "measure.calibrate",
    "compare": "stats",
    "export_peft": "export",
    "fit_activation": "training.activation",
    "load_model": "models",
    "prompts_of": "data.behaviors.prompts",
    "random_null": "controls.random_null",
    "steer": "steering",
    "summarize": "stats",
    "sweep": "measure",
    "write_report": "experiments.sweep.page",
}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"weightsteer.{_MODULES[name]}")
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'weightsteer' has no attribute {name!r}")
    return getattr(import_module(f"weightsteer.{_MODULE_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)


if TYPE_CHECKING:
    from weightsteer import audit, controls
    from weightsteer.activation import ActivationVector
    from weightsteer.controls.random_null import random_null
    from weightsteer.data import evals
    from weightsteer.data.behaviors import Behavior
    from weightsteer.data.behaviors.prompts import prompts_of
    from weightsteer.errors import WeightsteerError
    from weightsteer.experiments.sweep.page import write_report
    from weightsteer.export import export_peft
    from weightsteer.measure import sweep
    from weightsteer.measure.calibrate import calibrate
    from weightsteer.models import load_model
    from weightsteer.stats import compare, summarize
    from weightsteer.steering import Intervention, steer
    from weightsteer.training.activation import fit_activation
    from weightsteer.vector import WeightVector
