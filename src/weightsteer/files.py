"""Digests of values and files, and writing a file that is never half there."""

import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any


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


def flush(path: Path) -> None:
    """Push a file or a folder to the disk: a rename must not reach it before the bytes it names."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def safe_name(name: str) -> str:
    """A model's or behaviour's name as one folder name: ``Qwen/Qwen3-0.6B`` becomes ``Qwen--Qwen3-0.6B``."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name.replace("/", "--")).strip(".-") or "unnamed"
