"""Where the stages of the lab run: one model with its protocol, its recipe and the store of artifacts."""

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from weightsteer.experiments.gaming.config import GamingConfig
from weightsteer.experiments.gaming.protocol import Protocol
from weightsteer.experiments.sweep.config import RunConfig
from weightsteer.experiments.sweep.lab import ModelIdentity, Models
from weightsteer.runtime.store import Artifact, Store, safe_name

if TYPE_CHECKING:
    from weightsteer.experiments.sweep.lab import Loaded
    from weightsteer.training import Recipe

EMBEDDED = {"lr": 1e-3, "batch": 32, "max_length": 256}
GENERAL = {"lr": 1e-4, "batch": 16, "max_length": 1024}


class Bench:
    """One model of the ladder."""

    def __init__(self, config: GamingConfig, store: Store, name: str) -> None:
        self.config = config
        self.store = store
        given = RunConfig(model=name, generator=config.generator, device=config.device, dtype=config.dtype)
        self._models = Models(given)
        self.identity: ModelIdentity = self._models.trained_identity
        self.generator_identity: ModelIdentity = self._models.generator_identity
        self.protocol = Protocol.load(self.identity.family)
        self.home = Path(safe_name(self.identity.name), "gaming")

    @property
    def trained(self) -> "Loaded":
        """The model and its tokenizer, loaded when first needed."""
        return self._models.trained

    @property
    def generator(self) -> "Loaded":
        """The model that writes the answers to learn from."""
        return self._models.generator

    @cached_property
    def recipe(self) -> "Recipe":
        """How a branch is trained: the last checkpoint counts, and nothing is held out."""
        from weightsteer.training import Recipe

        own: dict[str, Any] = EMBEDDED if self.identity.family == "pocket" else GENERAL
        asked = {name: getattr(self.config, name) for name in ("lr", "batch", "steps")}
        return Recipe(
            name="gaming",
            rank=self.config.rank,
            lora_alpha=self.config.lora_alpha,
            epochs=self.config.epochs,
            layers=(0.0, 1.0),
            validation=0.0,
            keep="last",
            **{**own, **{name: value for name, value in asked.items() if value is not None}},
        )

    def on(self, identity: ModelIdentity) -> dict[str, Any]:
        """What a stage's key has to know of the model it runs."""
        return {**asdict(identity), "device": self.config.device, "dtype": self.config.dtype}

    def make(
        self,
        stage: str,
        inputs: Mapping[str, Any],
        code: Sequence[str],
        build: Callable[[Path], None],
        place: Path,
    ) -> Artifact:
        """`Store.stage` with a link below this model's folder, and a line on standard error when something is made."""

        started = time.monotonic()
        artifact = self.store.stage(stage, inputs, code, build, self.home / place)
        if not artifact.cached:
            print(f"{self.identity.name:<10} {place!s:<44} {time.monotonic() - started:.1f} s", file=sys.stderr)
        return artifact
