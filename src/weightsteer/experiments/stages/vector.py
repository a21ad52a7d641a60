"""Weight vectors: of two branches, of two folders of the user's, or of a file of the user's."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from weightsteer.errors import WeightsteerError
from weightsteer.files import parse_json
from weightsteer.registry import ADAPTERS
from weightsteer.runtime.inputs import InputFile, InputFolder
from weightsteer.runtime.models import ModelSpec
from weightsteer.runtime.stage import Runner, Stage
from weightsteer.runtime.store import Artifact

if TYPE_CHECKING:
    from weightsteer.vector import WeightVector

FILE = "vector.safetensors"
_LARGEST_HEADER = 100_000_000
"""Bytes; safetensors itself refuses a larger one."""


@dataclass(frozen=True)
class Vector(Stage):
    """``vector.safetensors``, ``dW = θ⁺ − θ⁻`` of two branches; see `write_vector`.

    Attributes:
        behavior: what the vector is named after; for a trained control, its kind.
        families: digests of the adapter families of other distributions: the folders decide which family reads them.
    """

    name: ClassVar[str] = "vector"

    model: ModelSpec
    positive: Stage
    negative: Stage
    behavior: str
    seed: int
    families: Mapping[str, str] = field(init=False, default_factory=ADAPTERS.outside)

    def build(self, work: Path, runner: Runner) -> None:
        from weightsteer.vector import WeightVector

        positive, negative = runner.make(self.positive).path, runner.make(self.negative).path
        metadata = {"behavior": self.behavior, "seed": self.seed}
        model, _ = runner.model(self.model)
        write_vector(WeightVector.from_adapters(positive, negative, model, metadata=metadata), work)


@dataclass(frozen=True)
class VectorOfFolders(Stage):
    """The vector of two folders of the user's: PEFT adapters of any family, or full checkpoints of one model.

    Attributes:
        families: as in `Vector`.
    """

    name: ClassVar[str] = "given-difference"

    model: ModelSpec
    positive: InputFolder
    negative: InputFolder
    families: Mapping[str, str] = field(init=False, default_factory=ADAPTERS.outside)

    @classmethod
    def of(cls, model: ModelSpec, positive: Path, negative: Path) -> "VectorOfFolders":
        """The difference of two folders.

        Raises:
            WeightsteerError: one of them is neither a PEFT folder nor a checkpoint.
        """
        for folder in (positive, negative):
            if not any((folder / name).is_file() for name in ("adapter_config.json", "config.json")):
                raise WeightsteerError(
                    f"{folder} is no PEFT folder and no checkpoint: it has neither adapter_config.json nor config.json."
                )
        suffixes = (".json", ".safetensors", ".bin")
        return cls(model, InputFolder.of(positive, suffixes), InputFolder.of(negative, suffixes))

    def build(self, work: Path, runner: Runner) -> None:
        from weightsteer.vector import WeightVector

        model, _ = runner.model(self.model)
        write_vector(WeightVector.from_adapters(self.positive.path, self.negative.path, model), work)


@dataclass(frozen=True)
class VectorFile(Stage):
    """A vector from a file of the user's, checked against the model, in the place of one made here."""

    name: ClassVar[str] = "given-vector"

    model: ModelSpec
    file: InputFile

    @classmethod
    def of(cls, model: ModelSpec, path: Path, flag: str = "--vector") -> "VectorFile":
        """The vector of a file.

        Raises:
            WeightsteerError: there is no such file.
        """
        missing = f"no vector {path}. Make one with `weightsteer diff`, or leave it out of {flag}."
        return cls(model, InputFile.of(path, missing))

    def build(self, work: Path, runner: Runner) -> None:
        from weightsteer.vector import WeightVector

        write_vector(WeightVector.load(self.file.path, runner.model(self.model)[0]), work)


def write_vector(vector: "WeightVector", work: Path) -> None:
    """The vector, ``norms.parquet`` (layer, module, norm), and the geometry of its branches where it is known."""
    import polars

    vector.save(work / FILE)
    layer = [int(found[0]) if (found := re.findall(r"\.(\d+)\.", name)) else -1 for name in vector.names]
    norms = vector.norms()
    columns = {"layer": layer, "module": vector.names, "norm": [norms[name] for name in vector.names]}
    polars.DataFrame(columns).write_parquet(work / "norms.parquet")
    if geometry := vector.metadata.get("geometry"):
        (work / "geometry.json").write_text(json.dumps(geometry, indent=1, ensure_ascii=False), encoding="utf-8")


def load_vector(artifact: Artifact, runner: Runner, model: ModelSpec) -> "WeightVector":
    """The vector of an artifact, on its model."""
    from weightsteer.vector import WeightVector

    return WeightVector.load(artifact.path / FILE, runner.model(model)[0])


def file_metadata(path: Path) -> dict[str, Any]:
    """What a vector's file says of the vector, read without loading torch; empty where it is no such file."""
    try:
        with path.open("rb") as file:
            header = parse_json(file.read(min(int.from_bytes(file.read(8), "little"), _LARGEST_HEADER)))
        return dict(parse_json(header["__metadata__"]["weightsteer"])["metadata"])
    except (OSError, ValueError, KeyError, TypeError, OverflowError, MemoryError):
        return {}  # the stage that reads it says what is wrong
