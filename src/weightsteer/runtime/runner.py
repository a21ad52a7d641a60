"""One process at work on the stages of one store: the artifacts it knows, and the models it has loaded."""

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from weightsteer.runtime.models import SMALL, ModelSpec
from weightsteer.runtime.stage import Stage
from weightsteer.runtime.store import Artifact, Store

if TYPE_CHECKING:
    from weightsteer.runtime.models import Loaded

Kept = TypeVar("Kept")


class Runner:
    """Makes stages, each after those it depends on; what is finished is found, and read once."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._known: dict[str, Artifact] = {}
        self._models: dict[ModelSpec, Loaded] = {}
        self._threads: int | None = None
        self._kept: dict[str, Any] = {}

    def find(self, stage: Stage) -> Artifact | None:
        """The artifact of a finished stage; None (a cache miss) where it or one it depends on has yet to be made."""
        if known := self._known.get(stage.signature):
            return known
        if not all(self.find(each) for each in stage.dependencies):
            return None
        found = self.store.find(stage.provenance(self._artifact))
        if found:
            self._known[stage.signature] = found
        return found

    def make(self, stage: Stage) -> Artifact:
        """The artifact of a stage, made where it is not finished; so are the stages it depends on.

        Raises:
            WeightsteerError: a mistake in what it is made from, a full disk, a folder that is not writable.
        """
        if found := self.find(stage):
            return found
        for each in stage.dependencies:
            self.make(each)
        made = self.store.make(stage.provenance(self._artifact), lambda work: stage.build(work, self))
        self._known[stage.signature] = replace(made, cached=True)
        return made

    def model(self, spec: ModelSpec) -> "Loaded":
        """The model and its tokenizer, loaded when first asked for.

        Threads that share the work of a small model on a CPU only wait for each other, on a busy machine for minutes:
        it runs on one, and so its bytes do not depend on the number of cores.
        """
        import torch

        if spec not in self._models:
            self._models[spec] = spec.load()
        if self._threads is None:
            self._threads = torch.get_num_threads()
        model, tokenizer = self._models[spec]
        small = model.device.type == "cpu" and model.num_parameters() < SMALL
        torch.set_num_threads(1 if small else self._threads)
        return model, tokenizer

    def once(self, key: str, make: Callable[[], Kept]) -> Kept:
        """What several stages of this process share in memory: ``make()`` at the first call with this key."""
        if key not in self._kept:
            self._kept[key] = make()
        return self._kept[key]

    def _artifact(self, stage: Stage) -> Artifact:
        return self._known[stage.signature]
