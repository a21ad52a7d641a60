"""The texts that come with the package, one YAML list per evaluation."""

from importlib.resources import files
from typing import Any

import yaml


def shipped(name: str) -> list[dict[str, Any]]:
    """The entries of ``name.yaml`` in this folder."""
    return list(yaml.safe_load((files("weightsteer.data.evals") / f"{name}.yaml").read_text(encoding="utf-8")))
