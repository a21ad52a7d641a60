"""Content-addressed artifacts: each stage of an experiment is made once per distinct input.

Layout under one root::

    .store/<stage>-<key>/          finished, with artifact.json: inputs, lineage, digest of every file; its key is the
                                   digest of its inputs and its digest that of its files, and both are verified
    .store/<stage>-<key>.partial/  being made; its scratch/ survives crashes, so that a build can go on
    .store/.locks/                 one lock per key: two processes never make the same artifact at once
    <model>/<behavior>/…           relative symbolic links for people, replaced atomically

A folder gets its final name only after all its files are on the disk, by one rename. So a finished artifact
is complete, whatever was killed when, and what is not finished is made again from the same inputs: same
bytes.
"""

import errno
import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout

from weightsteer.errors import WeightsteerError
from weightsteer.files import digest_of, file_digest, flush, follow_umask, parse_json
from weightsteer.runtime.code import code_digest
from weightsteer.versions import versions

FORMAT = 2
SCRATCH = "scratch"
"""A build may keep finished pieces in ``work / SCRATCH``; the finished artifact is without it."""
RECORD = "artifact.json"

_KEYED = ("stage", "inputs", "code", "versions")
"""What of a record is digested to the key, beside the format."""

State = Literal["current", "older", "partial", "damaged"]


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
class Artifact:
    """A finished artifact.

    Attributes:
        digest: covers names and bytes of its files: artifacts of equal digest are equal.
        path: the folder with its files.
        cached: it was there already.
        link: the link for people that was set to it.
    """

    stage: str
    key: str
    digest: str
    path: Path = field(compare=False)
    cached: bool = field(default=True, compare=False)
    link: Path | None = field(default=None, compare=False)

    @property
    def folder(self) -> str:
        """The name of its folder in the store."""
        return self.path.name

    @property
    def place(self) -> Path:
        """Where people look for it: the link, unless another run has made it lead elsewhere.

        To be shown, not to be read: it may lead elsewhere at any moment. The files are read at ``path``.
        """
        return self.link if self.link is not None and _linked(self.link, self.path) else self.path

    def read_json(self, name: str) -> Any:
        """The content of one of its JSON files."""
        return json.loads((self.path / name).read_text(encoding="utf-8"))


@dataclass(frozen=True)
class Stored:
    """One folder of a store, as `Store.listing` finds it.

    Attributes:
        stage: name of the stage.
        key: its key, or the part of it that the folder's name has.
        bytes: size of its files.
        state: ``current``, what the present program would make from these inputs; ``older``, made by another version
            of the program or its libraries, and never used by this one; ``partial``, unfinished; ``damaged``, files
            are missing or of another size than recorded.
        made_from: its inputs in one line.
        path: its folder.
        links: the links for people that lead to it.
    """

    stage: str
    key: str
    bytes: int
    state: State
    made_from: str
    path: Path
    links: tuple[Path, ...]


class Store:
    """Artifacts below ``root``. Safe for several processes on one machine.

    Raises:
        WeightsteerError: the folder cannot be made or written.
    """

    def __init__(self, root: Path) -> None:
        self.root = Path(root)
        self._objects = self.root / ".store"
        self._locks = self._objects / ".locks"
        try:
            self._locks.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise explain(error, self.root, "the output folder") or WeightsteerError(
                f"cannot make the output folder '{root}': {error}. Choose another one with --out."
            ) from error

    def find(self, provenance: Provenance) -> Artifact | None:
        """The finished artifact of a provenance; None where there is none, or its bytes are not those recorded."""
        key = _key(provenance)
        with self._explained(provenance.stage):
            return _finished(self._folder(provenance, key), provenance.stage, key)

    def make(self, provenance: Provenance, build: Callable[[Path], None]) -> Artifact:
        """The artifact of a provenance, made by ``build(work)`` where it does not exist or is damaged.

        Raises:
            WeightsteerError: the disk is full or the root is not writable; everything finished stays, so the same
                command goes on from there.
        """
        key = _key(provenance)
        folder = self._folder(provenance, key)
        with self._explained(provenance.stage):
            if found := _finished(folder, provenance.stage, key):
                return found
            with self._lock(folder.name):
                # another process may have made it while we waited
                return _finished(folder, provenance.stage, key) or self._make(folder, provenance, key, build)

    def link(self, artifact: Artifact, place: Path) -> Artifact:
        """Set the link ``place``, relative to the root, to an artifact."""
        shown = self.root / place
        with self._explained(artifact.stage):
            if not _linked(shown, artifact.path):
                with self._lock(artifact.folder):
                    _relink(shown, artifact.path)
        return replace(artifact, link=shown)

    def listing(self) -> list[Stored]:
        """Everything in the store, the largest first."""
        links: dict[Path, list[Path]] = {}
        for path in _links(self.root):
            links.setdefault((path.parent / os.readlink(path)).resolve(), []).append(path)
        folders = (path for path in self._objects.iterdir() if path.is_dir() and path != self._locks)
        found = [_stored(path, tuple(sorted(links.get(path.resolve(), ())))) for path in folders]
        return sorted(found, key=lambda one: (-one.bytes, one.path.name))

    def verify(self) -> tuple[int, list[tuple[Path, str]]]:
        """Read every finished artifact and compare it with its record.

        Returns:
            How many were read, and the folders that are not what they claim to be, each with the reason.
        """
        folders = [one.path for one in self.listing() if one.state != "partial"]
        return len(folders), [(path, flaw) for path in folders if (flaw := _flaw(path))]

    def prune(self, entries: Iterable[Stored]) -> int:
        """Remove these folders with the links that lead to them; the number of bytes that became free.

        What another process is making at the moment is left alone.
        """
        freed = 0
        for one in entries:
            lock = FileLock(self._locks / f"{one.path.name.removesuffix('.partial')}.lock")
            try:
                lock.acquire(timeout=0)
            except Timeout:
                continue
            try:
                for link in one.links:
                    link.unlink(missing_ok=True)
                _remove(one.path)
                freed += one.bytes
            finally:
                lock.release()
        return freed

    def _folder(self, provenance: Provenance, key: str) -> Path:
        return self._objects / f"{provenance.stage}-{key[:16]}"

    def _make(self, folder: Path, provenance: Provenance, key: str, build: Callable[[Path], None]) -> Artifact:
        partial = folder.with_name(f"{folder.name}.partial")
        damaged = folder.with_name(f"{folder.name}.damaged")
        _remove(damaged)
        if folder.exists():
            folder.rename(damaged)  # one step: nobody ever sees half of it removed
            _remove(damaged)
        for place in (partial, partial / SCRATCH):
            if place.is_symlink():
                raise WeightsteerError(
                    f"{place} is a symbolic link, which this program never makes there: its files would be written to "
                    f"{os.readlink(place)}. Remove the link."
                )
        partial.mkdir(exist_ok=True)
        for entry in partial.iterdir():
            if entry.name != SCRATCH:
                _remove(entry)
        build(partial)
        shutil.rmtree(partial / SCRATCH, ignore_errors=True)
        files = _file_digests(partial)
        digest = digest_of(files)
        record = {
            **provenance.content,
            "format": FORMAT,
            "modules": provenance.modules,
            "upstream": provenance.upstream,
            "key": key,
            "files": files,
            "digest": digest,
        }
        (partial / RECORD).write_text(json.dumps(record, indent=1, sort_keys=True), encoding="utf-8")
        follow_umask((partial / name for name in files), partial / RECORD)
        for name in (*files, RECORD):
            flush(partial / name)
        for inner in sorted({(partial / name).parent for name in (*files, RECORD)}):
            flush(inner)
        partial.rename(folder)
        flush(folder.parent)
        return Artifact(provenance.stage, key, digest, folder, cached=False)

    @contextmanager
    def _lock(self, name: str) -> Iterator[None]:
        lock = FileLock(self._locks / f"{name}.lock")
        try:
            lock.acquire(timeout=2)
        except Timeout:
            print(f"another weightsteer process is making {name}; waiting for it", file=sys.stderr)
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    @contextmanager
    def _explained(self, doing: str) -> Iterator[None]:
        try:
            yield
        except WeightsteerError:
            raise
        except Exception as error:
            explanation = explain(error, self.root, doing)
            if explanation is None:
                raise
            raise explanation from error


def explain(error: BaseException, root: Path, doing: str) -> WeightsteerError | None:
    """A full disk or a refused write in words, also as libraries wrap them; None for any other error."""
    text = str(error)
    code = error.errno if isinstance(error, OSError) else None
    kept = "Finished stages are kept: the same command goes on from there."
    if code in (errno.ENOSPC, errno.EDQUOT) or re.search(r"No space left|os error 28\b|quota exceeded", text):
        return WeightsteerError(
            f"the disk that holds '{root}' is full (while working on '{doing}'). {kept} "
            "Free some space, or choose another folder with --out."
        )
    if code == errno.EFBIG or re.search(r"File too large|os error 27\b", text):
        return WeightsteerError(
            f"a file written for '{doing}' is larger than this process may write (ulimit -f). {kept} Raise the limit, "
            "or choose another file system with --out."
        )
    if code == errno.ENAMETOOLONG:
        return WeightsteerError(f"a name is too long for the file system (while working on '{doing}'): {text:.200}.")
    if isinstance(error, MemoryError) or re.search(r"can't allocate memory|out of memory", text):
        return WeightsteerError(
            f"there is not enough memory for '{doing}' ({text.splitlines()[0] if text else 'out of memory'}). {kept} "
            "Free some, raise the limit of the process (ulimit -v), or take a smaller model, batch or rank."
        )
    named = getattr(error, "filename", None)
    if (
        code in (errno.EACCES, errno.EPERM)
        and named
        and Path(named).absolute().is_relative_to(root.absolute()) is False
    ):
        return WeightsteerError(
            f"permission refused while working on '{doing}': {named} cannot be read. {kept} Make it readable for this "
            "user, or give another file."
        )
    if code in (errno.EACCES, errno.EPERM, errno.EROFS) or re.search(r"[Pp]ermission denied", text):
        return WeightsteerError(
            f"permission refused while working on '{doing}' below '{root}': {text}. {kept} "
            "Make the place writable, or choose another folder with --out."
        )
    if code in (errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENOTEMPTY) and str(root) in text:
        return WeightsteerError(
            f"cannot place '{doing}' below '{root}': {text}. Something else has that name: move it away, "
            "or choose another folder with --out."
        )
    return None


def _key(provenance: Provenance) -> str:
    return digest_of({**provenance.content, "format": FORMAT})


def _finished(folder: Path, name: str, key: str) -> Artifact | None:
    """The artifact when it is whole, else None: it is made again."""
    if _flaw(folder, key):
        return None
    return Artifact(name, key, _record(folder)["digest"], folder)


def _record(folder: Path) -> dict[str, Any]:
    record: dict[str, Any] = parse_json((folder / RECORD).read_bytes())
    return record


def _flaw(folder: Path, key: str | None = None) -> str:
    """Why a finished artifact is not what its record says, or the record not that of ``key``; empty when all is well.

    The record vouches for itself: its key has to be the digest of the inputs in it, and its digest that of its list of
    files, which are then read. So nothing of it can be edited alone.
    """
    try:
        record = _record(folder)
        files = record["files"]
        if key is not None and record["key"] != key:
            return "it is the artifact of another key"
        if digest_of({name: record[name] for name in (*_KEYED, "format")}) != record["key"]:
            return f"its key is not the digest of the inputs in {RECORD}"
        if folder.name != f"{record['stage']}-{record['key'][:16]}":
            return "its folder has the name of another key"
        if digest_of(files) != record["digest"]:
            return f"its digest is not that of the list of files in {RECORD}"
        for name in sorted(set(files) ^ {path.relative_to(folder).as_posix() for path in _files(folder)}):
            return f"{name} is missing" if name in files else f"{name} is none of its files"
        for name, known in files.items():
            path = folder / name
            if path.stat().st_size != known["size"] or file_digest(path) != known["blake2b"]:
                return f"{name} is not as it was written"
    except (FileNotFoundError, NotADirectoryError):
        return f"it has no {RECORD}"
    except (ValueError, KeyError, TypeError, AttributeError):
        return f"its {RECORD} is damaged"
    return ""


def _stored(path: Path, links: tuple[Path, ...]) -> Stored:
    """What a folder holds; files are compared by size, not read."""
    stage, _, key = path.name.removesuffix(".partial").removesuffix(".damaged").rpartition("-")
    size = sum(each.stat().st_size for each in path.rglob("*") if each.is_file())
    if path.suffix == ".partial":
        return Stored(stage, key, size, "partial", "", path, links)
    try:
        record = _record(path)
        whole = all((path / name).stat().st_size == known["size"] for name, known in record["files"].items())
        made_from, key, state = _summary(record["inputs"]), str(record["key"]), _state(record)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return Stored(stage, key, size, "damaged", "", path, links)
    return Stored(stage, key, size, state if whole else "damaged", made_from, path, links)


def _state(record: dict[str, Any]) -> State:
    """Whether the program as it is now would use an artifact of this record."""
    same = record.get("format") == FORMAT and record["versions"] == versions()
    return "current" if same and code_digest(record["modules"]) == record["code"] else "older"


_SUMMARISED = ("behavior", "adapter", "side", "evaluation", "kind", "plan", "seed")


def _summary(inputs: dict[str, Any]) -> str:
    """The inputs that tell one artifact from another for a person: the model, the behaviour, the family, the seed."""
    model = inputs.get("model") or inputs.get("generator") or {}
    named = [str(model["name"])] if isinstance(model, dict) and "name" in model else []
    for name in _SUMMARISED:
        value = inputs.get(name)
        value = value.get("name") if isinstance(value, dict) else value
        if isinstance(value, (str, int)):
            named.append(f"seed {value}" if name == "seed" else str(value))
    return ", ".join(named)


def _links(root: Path) -> Iterator[Path]:
    """The links for people below a root."""
    for folder, names, files in os.walk(root):
        if Path(folder) == root and ".store" in names:
            names.remove(".store")
        yield from (Path(folder, name) for name in (*names, *files) if Path(folder, name).is_symlink())


def _linked(path: Path, folder: Path) -> bool:
    return path.is_symlink() and os.readlink(path) == os.path.relpath(folder, path.parent)


def _relink(path: Path, folder: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if os.path.lexists(path) and not (path.is_symlink() and _target(path).parent == folder.parent.resolve()):
        raise FileExistsError(errno.EEXIST, "it is none of the links of this program", str(path))
    # Named by the key, which we have locked: what a crash left here is ours to replace.
    fresh = folder.with_name(f"{folder.name}.link")
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(os.path.relpath(folder, path.parent))
    fresh.replace(path)


def _target(link: Path) -> Path:
    """Where a link leads, whether or not there is anything."""
    return Path(os.path.normpath(link.parent.resolve() / os.readlink(link)))


def _files(folder: Path) -> list[Path]:
    """The files of an artifact, without its record."""
    return sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / RECORD)


def _file_digests(folder: Path) -> dict[str, dict[str, Any]]:
    return {
        path.relative_to(folder).as_posix(): {"size": path.stat().st_size, "blake2b": file_digest(path)}
        for path in _files(folder)
    }


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
