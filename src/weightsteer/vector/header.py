"""The header of a vector's file: its fields, checked before any of them is used, and the digest over all of them."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from weightsteer.errors import WeightsteerError
from weightsteer.files import digest_of, parse_json

VERSION = 3
DIGEST = "digest"

Positive = Annotated[int, Field(gt=0)]


class _Header(BaseModel):
    model_config = ConfigDict(frozen=True, allow_inf_nan=False)


class _Open(BaseModel):
    """Fields that are read; there may be others."""

    model_config = ConfigDict(extra="allow", strict=True)


class _Base(_Open):
    name: str | None = None
    hash: str | None = None


class _Record(_Open):
    recipe: dict[str, Any] | None = None


class _Branch(_Open):
    training: _Record | None = None
    config: dict[str, Any] = {}


class _Geometry(_Open):
    reading: str | None = None


class _Metadata(_Open):
    method: str
    behavior: str
    adapter: str
    seed: int
    seeds: list[Any] = []
    base: _Base = _Base()
    branches: dict[str, _Branch] = {}
    geometry: _Geometry | None = None
    operations: list[str] = []
    mode: str = ""


def check_metadata(metadata: dict[str, Any]) -> None:
    """Refuse metadata of other kinds than those that are read.

    Raises:
        WeightsteerError: a field has another kind; it is named.
    """
    try:
        _Metadata.model_validate(metadata)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise WeightsteerError(
            f"the metadata of the vector cannot be read: {'.'.join(map(str, first['loc']))}: {first['msg']}, not "
            f"{first['input']!r:.60}. Make the vector again, or set it right with with_metadata(…)."
        ) from error


class PartHeader(_Header):
    """One summand of a module's delta."""

    form: str
    coefficient: float
    digest: str | None = None
    tensors: str | None = None
    options: dict[str, Any] = {}
    base: str | None = None


class ModuleHeader(_Header):
    """One module: its delta is the sum of its parts, each times its coefficient."""

    name: str = Field(min_length=1)
    shape: tuple[Positive, Positive]
    rank: int | None = Field(None, ge=0)
    norm: float = Field(ge=0)
    parts: tuple[PartHeader, ...]


class Header(_Header):
    """All that a vector's file says beside its tensors."""

    version: int
    modules: tuple[ModuleHeader, ...] = Field(min_length=1)
    norm: float | None = Field(None, ge=0)
    metadata: dict[str, Any]

    @model_validator(mode="after")
    def _complete(self) -> "Header":
        names = [module.name for module in self.modules]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise ValueError(f"the module {twice} is in it twice")
        if self.version > 1 and any(part.digest is None for module in self.modules for part in module.parts):
            raise ValueError("a term has no digest, by which its tensors could be known")
        return self


def sealed(header: dict[str, Any]) -> dict[str, Any]:
    """A header with the digest over all its fields: coefficients, norms, metadata, and the digests of the terms."""
    return {**header, DIGEST: digest_of(header)}


def parse(text: str) -> Header:
    """The header of a file.

    Raises:
        ValueError: it is not that of a vector, or was changed after it was written; the message says where.
        WeightsteerError: it has a version that this release does not know.
    """
    content = parse_json(text)
    if not isinstance(content, dict) or not isinstance(content.get("version"), int):
        raise ValueError("its header names no format version")
    if not 1 <= content["version"] <= VERSION:
        raise WeightsteerError(
            f"it has format version {content['version']}, this release reads 1 to {VERSION}: use the release of "
            "weightsteer that wrote it"
        )
    # versions 1 and 2 had no digest of the header
    if content["version"] > 2:
        digest = content.pop(DIGEST, None)
        if digest != digest_of(content):
            raise ValueError("its header is not the one that was saved: a coefficient, a norm or the metadata changed")
    try:
        return Header.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"])) or "its header"
        raise ValueError(f"{place}: {first['msg'].removeprefix('Value error, ')}") from error
