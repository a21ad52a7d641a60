"""A stage, a typed, frozen object whose fields are all that its bytes depend on, and the runner that makes it.

    key = digest(stage, fields, code, versions)

In the key, a field that is a stage counts as the digest of the artifact it makes, a file of the user's as the digest of
its bytes, and any other value as itself. ``code`` is that of the modules in which the stage and the classes of its
fields are defined (`weightsteer.runtime.code`). A field declared with ``compare=False`` changes no byte (it says where
something is found, or what a progress bar shows) and is no part of the key. So there is no list of inputs to keep by
hand, and none to forget.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from pydantic import BaseModel

from weightsteer.files import digest_of
from weightsteer.runtime.models import SMALL, ModelSpec
from weightsteer.runtime.store import Artifact, Provenance, Store

if TYPE_CHECKING:
    from weightsteer.runtime.models import Loaded

Kept = TypeVar("Kept")


@dataclass(frozen=True)
class Stage(ABC):
    """One step of an experiment, made once for each distinct set of fields.

    A subclass is a frozen dataclass with a ``name``, fields, and `build`. Importing the module of a stage is cheap, and
    so is a stage that is finished: torch and the model are imported inside `build`.
    """

    name: ClassVar[str]

    @abstractmethod
    def build(self, work: Path, runner: "Runner") -> None:
        """Write the files of the artifact into the folder ``work``.

        Args:
            work: empty but for ``work / SCRATCH``, where an interrupted build of the same key left what it had made.
            runner: gives the artifacts of stages (``runner.make(self.pairs)``) and loaded models.
        """

    @cached_property
    def signature(self) -> str:
        """What tells this stage from others before anything is made: the digest of its fields, stages by their own."""
        return digest_of({"stage": self.name, "fields": _fields(self, lambda stage: stage.signature)})

    @cached_property
    def dependencies(self) -> "tuple[Stage, ...]":
        """The stages among its fields, at any depth of values, each once."""
        found = {stage.signature: stage for stage in _walk(self) if isinstance(stage, Stage) and stage is not self}
        return tuple(found.values())

    def provenance(self, artifact: "Callable[[Stage], Artifact]") -> Provenance:
        """All that the key is made of, with the artifacts of the dependencies as ``artifact`` gives them."""
        own = (each for each in _walk(self) if each is self or not isinstance(each, Stage))
        modules = tuple(sorted({type(each).__module__ for each in own}))
        inputs = _fields(self, lambda stage: {"artifact": stage.name, "digest": artifact(stage).digest})
        upstream = tuple(sorted(artifact(stage).folder for stage in self.dependencies))
        return Provenance(self.name, inputs, modules, upstream)


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


def signature_of(value: Any) -> str:
    """What tells a value of a field from others before anything is made, as `Stage.signature` does for a stage."""
    return digest_of(_plain(value, lambda stage: stage.signature))


def _fields(value: Any, of_stage: Callable[[Stage], Any]) -> dict[str, Any]:
    return {each.name: _plain(getattr(value, each.name), of_stage) for each in fields(value) if each.compare}


def _plain(value: Any, of_stage: Callable[[Stage], Any]) -> Any:
    if isinstance(value, Stage):
        return of_stage(value)
    if is_dataclass(value) and not isinstance(value, type):
        return {"type": type(value).__name__, **_fields(value, of_stage)}
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, Mapping):
        return {str(key): _plain(inner, of_stage) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner, of_stage) for inner in value]
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    raise TypeError(
        f"a field of a stage is a JSON value, a stage, a dataclass or a pydantic model, not "
        f"{type(value).__name__}: {value!r}"
    )


def _walk(value: Any) -> Iterator[Any]:
    """The stage itself, the objects among its fields, and the stages among them, whose own fields are not entered."""
    yield value
    for each in fields(value):
        if each.compare:
            yield from _objects(getattr(value, each.name))


def _objects(value: Any) -> Iterator[Any]:
    if isinstance(value, (Stage, BaseModel)):
        yield value
    elif is_dataclass(value) and not isinstance(value, type):
        yield from _walk(value)
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _objects(inner)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from _objects(inner)
