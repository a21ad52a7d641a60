"""Digests of values and files, reading and showing what others wrote, and writing files that are never half there."""

import hashlib
import json
import os
import re
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from weightsteer.errors import WeightsteerError

_LONGEST = 100
"""Characters of a folder name that stands for one name."""


def digest_of(value: Any) -> str:
    """The digest of a JSON value's canonical text: blake2b, 128 bits, hex.

    Raises:
        ValueError: the value holds NaN or an infinity, which JSON has no canonical text for.
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def file_digest(path: Path) -> str:
    """The digest of a file's bytes: blake2b, 128 bits, hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def read_text(path: Path, what: str, most: int | None = None) -> str:
    """The text of a file of the user's.

    Args:
        what: what messages call it: "behaviour file".
        most: a larger file is refused, in bytes.

    Raises:
        WeightsteerError: it cannot be read, is larger than that, or is not UTF-8.
    """
    try:
        if not os.path.isfile(path):  # Path.is_file raises for a name that is too long
            raise WeightsteerError(f"{path} is no file: give the path of a {what}.")
        if most is not None and path.stat().st_size > most:
            raise WeightsteerError(
                f"the {what} {path} has {path.stat().st_size:,} bytes, more than the {most:,} that such a file may "
                "have: check that it is the right one."
            )
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise WeightsteerError(f"the {what} {path} is not UTF-8 text: save it with that encoding.") from error
    except (OSError, ValueError) as error:
        raise WeightsteerError(f"the {what} {path} cannot be read: {getattr(error, 'strerror', error)}.") from error


def parse_json(text: str | bytes) -> Any:
    """The value of a JSON text that nobody here wrote.

    Raises:
        ValueError: it is not JSON, a key occurs twice, a text holds half of a character (a lone surrogate), an integer
            has thousands of digits, or it is nested too deeply; the message says which.
    """
    try:
        value = json.loads(text, object_pairs_hook=_distinct)
        shown = text if isinstance(text, str) else text.decode("utf-8", "replace")
        if "\\ud" in shown or "\\uD" in shown:
            json.dumps(value, ensure_ascii=False).encode()
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    except UnicodeEncodeError as error:
        raise ValueError("a text holds half of a character, a lone surrogate such as \\ud800") from error
    except ValueError as error:
        if "integer string conversion" in str(error):
            raise ValueError("an integer has thousands of digits") from error
        raise
    return value


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the field {next(name for name in names if names.count(name) > 1)!r} is given twice")
    return found


def fixed(path: Path) -> Path:
    """The file itself, with all links of its folders followed once.

    The links under an output folder move to the newest artifact: a file that is read twice through one of them, first
    for its digest and then for its content, could be two files.
    """
    return path.parent.resolve() / path.name


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file that is either absent, the old one or the new one, never half of it."""
    fresh = path.with_name(f"{path.name}.partial")
    fresh.write_bytes(content)
    flush(fresh)
    fresh.replace(path)
    flush(path.parent)


def write_piece(path: Path, content: bytes) -> None:
    """Keep a piece of unfinished work, with the digest by which `read_piece` knows it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, hashlib.blake2b(content, digest_size=16).hexdigest().encode() + b"\n" + content)


def read_piece(path: Path) -> bytes | None:
    """What `write_piece` wrote; None where there is nothing, or it is not as it was written: it is to be made again."""
    try:
        digest, _, content = path.read_bytes().partition(b"\n")
    except (FileNotFoundError, NotADirectoryError):
        return None
    return content if digest == hashlib.blake2b(content, digest_size=16).hexdigest().encode() else None


def follow_umask(files: Iterable[Path], like: Path) -> None:
    """Give files the permissions of ``like``, which was opened in the usual way: some libraries make private ones."""
    mode = stat.S_IMODE(like.stat().st_mode)
    for path in files:
        path.chmod(mode)


def flush(path: Path) -> None:
    """Push a file or a folder to the disk: a rename must not reach it before the bytes it names."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


# control characters, among them the escape of terminals; marks that reverse the order of letters; halves of characters
_INVISIBLE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str, *, lines: bool = False) -> str:
    """A text of somebody else's with what a terminal would obey, or nobody would see, spelled out.

    Args:
        lines: keep line breaks.

    >>> printable("a\x1b[31mb")
    'a\\\\x1b[31mb'
    """

    def spelled(found: re.Match[str]) -> str:
        return found[0] if lines and found[0] == "\n" else found[0].encode("unicode_escape").decode()

    return _INVISIBLE.sub(spelled, text)


def safe_name(name: str) -> str:
    """A model's or behaviour's name as one folder name: ``Qwen/Qwen3-0.6B`` becomes ``Qwen--Qwen3-0.6B``.

    A long name, which with others beside it would exceed the 255 bytes of a file system, ends in its digest.
    """
    safe = re.sub(r"[^A-Za-z0-9._-]+", "-", name.replace("/", "--")).strip(".-") or "unnamed"
    return safe if len(safe) <= _LONGEST else f"{safe[: _LONGEST - 9]}-{digest_of(name)[:8]}"
