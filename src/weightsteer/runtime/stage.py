"""A stage: a typed, frozen object whose fields are all that its bytes depend on.

    key = digest(stage, fields, code, versions)

In the key, a field that is a stage counts as the digest of the artifact it makes, a file of the user's as the digest of
its bytes, and any other value as itself. ``code`` is that of the modules in which the stage and the classes of its
fields are defined (`weightsteer.runtime.code`). A field declared with ``compare=False`` changes no byte (it says where
something is found, or what a progress bar shows) and is no part of the key. So there is no list of inputs to keep by
hand, and none to forget.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import BaseModel

from weightsteer.errors import WeightsteerError
from weightsteer.files import digest_of, file_digest, fixed
from weightsteer.runtime.code import code_digest
from weightsteer.versions import versions

if TYPE_CHECKING:
    from weightsteer.runtime.runner import Runner
    from weightsteer.runtime.store import Artifact


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

    def provenance(self, artifact: "Callable[[Stage], Artifact]") -> "Provenance":
        """All that the key is made of, with the artifacts of the dependencies as ``artifact`` gives them."""
        own = (each for each in _walk(self) if each is self or not isinstance(each, Stage))
        modules = tuple(sorted({type(each).__module__ for each in own}))
        inputs = _fields(self, lambda stage: {"artifact": stage.name, "digest": artifact(stage).digest})
        upstream = tuple(sorted(artifact(stage).folder for stage in self.dependencies))
        return Provenance(self.name, inputs, modules, upstream)


@dataclass(frozen=True)
class Provenance:
    """What an artifact is made from.

    Attributes:
        stage: the name of the stage.
        inputs: the fields of the stage as JSON.
        modules: the modules whose code it runs, with all that they reach.
        upstream: the folders of the artifacts it reads, for the record; what counts is their content.
    """

    stage: str
    inputs: Mapping[str, Any]
    modules: tuple[str, ...]
    upstream: tuple[str, ...] = ()

    @cached_property
    def content(self) -> dict[str, Any]:
        """What is digested to the key."""
        return {
            "stage": self.stage,
            "inputs": dict(self.inputs),
            "code": code_digest(self.modules),
            "versions": versions(),
        }


@dataclass(frozen=True)
class InputFile:
    """A file of the user's: its content is an input, its path is not."""

    digest: str
    path: Path = field(compare=False)

    @classmethod
    def of(cls, path: str | Path, missing: str) -> "InputFile":
        """Digest a file; the links of its folders are followed once, so that what is digested is what is read.

        Raises:
            WeightsteerError: there is no such file; ``missing`` says what to do.
        """
        if not Path(path).is_file():
            raise WeightsteerError(missing)
        found = fixed(Path(path))
        return cls(file_digest(found), found)


@dataclass(frozen=True)
class InputFolder:
    """A folder of the user's: the names and contents of its files are inputs, its path is not."""

    files: tuple[tuple[str, str], ...]
    path: Path = field(compare=False)

    @classmethod
    def of(cls, path: Path, suffixes: tuple[str, ...]) -> "InputFolder":
        """Digest the files of ``path`` that end in one of ``suffixes``."""
        found = path.resolve()
        names = sorted(each for each in found.iterdir() if each.suffix in suffixes and each.is_file())
        return cls(tuple((each.name, file_digest(each)) for each in names), found)


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
