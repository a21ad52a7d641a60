"""A folder that is there complete, or not at all."""

import ctypes
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from weightsteer.errors import WeightsteerError
from weightsteer.files import flush, follow_umask

RECORD = "weightsteer.json"


@contextmanager
def finished(folder: Path, record: Mapping[str, Any]) -> Iterator[Path]:
    """Write into the folder that this gives; it takes its name only when the body ends without an error.

    ``weightsteer.json`` is added: the record, and the list of files. An earlier export of that name is
    replaced as a whole; a folder that holds anything else is left alone.

    Raises:
        WeightsteerError: the folder holds other files, or it cannot be written.
    """
    folder = folder.expanduser().resolve()
    with _explained(folder):
        _tidy(folder)
    _check_replaceable(folder)
    partial = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
    try:
        with _explained(folder):
            partial.mkdir(parents=True)
        yield partial
        with _explained(folder):
            files = sorted(path.relative_to(partial).as_posix() for path in partial.rglob("*") if path.is_file())
            (partial / RECORD).write_bytes(as_json({**record, "files": files}))
            follow_umask((partial / name for name in files), partial / RECORD)
            for each in (*partial.rglob("*"), partial):
                flush(each)
            _swap(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def as_json(content: Mapping[str, Any]) -> bytes:
    """One layout for all records: equal content, equal bytes."""
    return (json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n").encode()


def _swap(fresh: Path, folder: Path) -> None:
    """Put the fresh folder in place of an older one, which stays when that fails."""
    old = fresh.with_suffix(".old")
    if not folder.exists():
        os.replace(fresh, folder)
    elif _exchanged(fresh, folder):
        os.replace(fresh, old)
    else:
        os.replace(folder, old)
        try:
            os.replace(fresh, folder)
        except OSError:
            os.replace(old, folder)
            raise
    flush(folder.parent)
    shutil.rmtree(old, ignore_errors=True)


def _exchanged(one: Path, other: Path) -> bool:
    """Let two folders change names in one step, where the system can: at every moment both names lead to a folder."""
    try:
        rename = ctypes.CDLL(None).renameat2
    except (OSError, AttributeError, TypeError):
        return False
    return bool(rename(_HERE, os.fsencode(one), _HERE, os.fsencode(other), _EXCHANGE) == 0)


_HERE, _EXCHANGE = -100, 2
"""AT_FDCWD of ``fcntl.h``, and RENAME_EXCHANGE of ``linux/fs.h``."""


def _tidy(folder: Path) -> None:
    """Take up after exports to this folder that were killed: an old folder without its name, and unfinished ones."""
    for left in folder.parent.glob(".*") if folder.parent.is_dir() else ():
        found = re.fullmatch(r"\.(.*)\.(\d+)\.(partial|old)", left.name)
        if not found or found[1] != folder.name or _alive(int(found[2])):
            continue
        if found[3] == "old" and not folder.exists():
            os.replace(left, folder)
        else:
            shutil.rmtree(left, ignore_errors=True)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # somebody else's
        return True
    return True


def _check_replaceable(folder: Path) -> None:
    """Only what an earlier export wrote may be replaced."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise WeightsteerError(f"{folder} is a file; give the name of a folder.")
    try:
        known = {RECORD, *json.loads((folder / RECORD).read_text(encoding="utf-8"))["files"]}
    except (OSError, ValueError, KeyError, TypeError):
        known = set()
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()}
    if strange := sorted(found - known):
        raise WeightsteerError(
            f"{folder} holds files that are no export of this package ({', '.join(strange[:3])}"
            f"{' …' if len(strange) > 3 else ''}); choose another folder."
        )


@contextmanager
def _explained(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise WeightsteerError(
            f"cannot write {folder}: {error.strerror or error}. Free some space or choose another folder."
        ) from error
