"""``weightsteer gaming``: the training-gaming lab."""

import os
from pathlib import Path
from typing import Any

from weightsteer.cli.verb import Verb


def _gaming(out: Path, workers: int | None, **knobs: Any) -> None:
    from weightsteer.gaming import GamingConfig, gaming
    from weightsteer.lab import ModelIdentity

    config = GamingConfig.checked(knobs)
    if workers is None:
        embedded = all(ModelIdentity.of(name).family == "pocket" for name in config.models)
        workers = _cores() if embedded else 1
    report = gaming(config, out, workers=workers)
    print((report.path / "conclusion.md").read_text(encoding="utf-8"))
    print(report.place / "report.html")


def _cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _flags() -> dict[str, tuple[Any, Any, str]]:
    from weightsteer.gaming.config import GamingConfig

    knobs = {name: (f.annotation, f.default, f.description or "") for name, f in GamingConfig.model_fields.items()}
    return {
        **knobs,
        "out": (Path, Path("out"), "Folder of all artifacts."),
        "workers": (int | None, None, "Processes at work; one per core on embedded models, else one."),
    }


VERB = Verb(
    "the training-gaming lab: does steering reveal what a model hides during training?",
    "weightsteer gaming --model pocket",
    _gaming,
    (),
    _flags(),
)
