"""Files and folders of the user's as inputs of stages: their content is an input, their place is not."""

from dataclasses import dataclass, field
from pathlib import Path

from weightsteer.errors import WeightsteerError
from weightsteer.files import file_digest, fixed


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
