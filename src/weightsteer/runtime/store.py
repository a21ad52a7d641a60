"""Content-addressed artifacts: each stage of an experiment is made once per distinct input.

A stage is keyed by everything that can change its bytes: its inputs (configuration and the content digests of
the artifacts it reads), the source code it runs, and the versions of the numerical libraries. Layout under
one root::

    .store/<stage>-<key>/          finished, with artifact.json: inputs, lineage, digest of every file
    .store/<stage>-<key>.partial/  being made; its scratch/ survives crashes, so that a builder can go on
    .store/.locks/                 one lock per key: two processes never make the same artifact at once
    <model>/<behavior>/…           relative symbolic links for people, replaced atomically

A folder gets its final name only after all its files are on the disk, by one rename. So a finished artifact
is complete, whatever was killed when, and what is not finished is made again from the same inputs: same
bytes.
"""

import ast
import errno
import hashlib
import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from weightsteer import __version__
from weightsteer.errors import WeightsteerError

FORMAT = 1
# A builder may keep finished pieces in workdir / SCRATCH; the finished artifact is without it.
SCRATCH = "scratch"
RECORD = "artifact.json"

_PACKAGE = Path(__file__).parents[1]
_NUMERICS = ("torch", "transformers", "peft")
# What these do never reaches the bytes of an artifact: changing a message must not make anybody train again.
_WITHOUT_EFFECT = {"errors", "progress", "runtime", "export"}
# Templates and tables beside the code of a folder, which reach its artifacts as the code does.
_TEXTS = {".jinja", ".css", ".yaml"}


@dataclass(frozen=True)
class Artifact:
    """A finished artifact.

    ``digest`` covers names and bytes of its files: artifacts of equal digest are equal.
    """

    stage: str
    key: str
    digest: str
    path: Path = field(compare=False)
    cached: bool = field(default=True, compare=False)
    link: Path | None = field(default=None, compare=False)

    @property
    def place(self) -> Path:
        """Where people look for it: the link, unless another run has made it lead elsewhere.

        To be told, not to be read: it may lead elsewhere at any moment. The files are read at ``path``.
        """
        return self.link if self.link is not None and _linked(self.link, self.path) else self.path

    def read_json(self, name: str) -> Any:
        return json.loads((self.path / name).read_text(encoding="utf-8"))


class Unmade(Exception):
    """A stage is not finished, and its store was only looked through."""


class Store:
    """Artifacts below ``root``; see the module's text. Safe for several processes on one machine."""

    looks = False
    """Whether it is only looked through, see `looking`."""

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

    @contextmanager
    def looking(self) -> Iterator[None]:
        """Inside, a stage that is not finished raises :class:`Unmade` instead of being made."""
        self.looks = True
        try:
            yield
        finally:
            self.looks = False

    def stage(
        self,
        name: str,
        inputs: Mapping[str, Any],
        code: Sequence[str],
        build: Callable[[Path], None],
        link: Path | None = None,
    ) -> Artifact:
        """Return the artifact of this stage for these inputs; make it when it does not exist or is damaged.

        ``inputs``: JSON values, and :class:`Artifact` for what the stage reads from earlier stages. ``code``:
        modules of this package the stage runs (see :func:`code_digest`). ``build(workdir)`` writes the files;
        the folder is empty except for what an interrupted build of the same key left in ``workdir /
        SCRATCH``. ``link``: path relative to the root where people find the artifact.

        Raises :class:`WeightsteerError` when the disk is full or the root is not writable; everything
        finished stays, so the same command goes on from there.
        """
        plain = _plain(inputs)
        code_hash = code_digest(tuple(sorted(code)))
        recipe = {"format": FORMAT, "stage": name, "inputs": plain, "code": code_hash, "versions": versions()}
        key = digest_of(recipe)
        folder = self._objects / f"{name}-{key[:16]}"
        with self._explained(name):
            found = _finished(folder, name, key)
            shown = None if link is None else self.root / link
            if found and (shown is None or _linked(shown, folder)):
                return replace(found, link=shown)
            if self.looks and not found:
                raise Unmade(name)
            with self._lock(folder.name):
                found = _finished(folder, name, key)  # another process may have made it while we waited
                record = {**recipe, "key": key, "upstream": _upstream(inputs)}
                artifact = found or self._make(folder, record, build)
                if shown is not None and not _linked(shown, folder):
                    _relink(shown, folder)
                return replace(artifact, link=shown)

    def _make(self, folder: Path, record: dict[str, Any], build: Callable[[Path], None]) -> Artifact:
        partial = folder.with_name(f"{folder.name}.partial")
        damaged = folder.with_name(f"{folder.name}.damaged")
        _remove(damaged)
        if folder.exists():
            folder.rename(damaged)  # one step: nobody ever sees half of it removed
            _remove(damaged)
        partial.mkdir(exist_ok=True)
        for entry in partial.iterdir():
            if entry.name != SCRATCH:
                _remove(entry)
        build(partial)
        shutil.rmtree(partial / SCRATCH, ignore_errors=True)
        files = _file_digests(partial)
        record = {**record, "files": files, "digest": digest_of(files)}
        (partial / RECORD).write_text(json.dumps(record, indent=1, sort_keys=True), encoding="utf-8")
        for name in (*files, RECORD):
            _flush(partial / name)
        for inner in sorted({(partial / name).parent for name in (*files, RECORD)}):
            _flush(inner)
        partial.rename(folder)
        _flush(folder.parent)
        return Artifact(record["stage"], record["key"], record["digest"], folder, cached=False)

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
        except (WeightsteerError, Unmade):
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


@cache
def versions() -> dict[str, str]:
    """Versions of this package and of the libraries that do the arithmetic, read without importing them."""
    found = {"weightsteer": __version__}
    for package in _NUMERICS:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


@cache
def code_digest(modules: tuple[str, ...], package: Path = _PACKAGE) -> str:
    """Digest of the source a stage runs: the named modules and all they import from this package.

    Names are relative to the package: ``pairs``, ``adapters.lora``, ``evals`` (a folder named outright counts
    with all its files, templates included), or ``stages:swept``, which is the function (or class) ``swept`` in
    ``stages.py`` alone, so that stages described in one file do not invalidate each other. Found by reading the
    files, without importing them.
    """
    texts: dict[str, str] = {}
    todo = list(modules)
    while todo:
        name = todo.pop()
        if name in texts or name.split(".")[0] in _WITHOUT_EFFECT:
            continue
        module, _, function = name.partition(":")
        path = _source(module, package)
        if path is None:
            raise ValueError(f"no module {module!r} in {package}")
        if name in modules and path.name == "__init__.py":
            todo += [_module(file, package) for file in path.parent.rglob("*.py")]
            texts |= {
                file.relative_to(package).as_posix(): file.read_text(encoding="utf-8")
                for file in path.parent.rglob("*")
                if file.suffix in _TEXTS
            }
        text = path.read_text(encoding="utf-8")
        tree: ast.AST = ast.parse(text)
        if function:
            kinds = (ast.FunctionDef, ast.ClassDef)
            tree = next(n for n in ast.walk(tree) if isinstance(n, kinds) and n.name == function)
            text = ast.get_source_segment(text, tree) or ""
        texts[name] = text
        todo += _imports(tree, module if path.name == "__init__.py" else module.rpartition(".")[0], package)
    return digest_of(texts)


def _imports(tree: ast.AST, parent: str, package: Path) -> list[str]:
    """Modules of this package imported anywhere in ``tree``, the code of a module in package ``parent``."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                here = ["weightsteer", *filter(None, parent.split("."))]
                base = ".".join([*here[: len(here) - node.level + 1], *filter(None, [base])])
            found += [base, *(f"{base}.{alias.name}" for alias in node.names)]
    inside = [name.partition(".")[2] for name in found if name.startswith("weightsteer.")]
    return [name for name in inside if _source(name, package)]


def _source(module: str, package: Path) -> Path | None:
    base = package.joinpath(*module.split("."))
    return next((path for path in (base.with_suffix(".py"), base / "__init__.py") if path.is_file()), None)


def _module(path: Path, package: Path) -> str:
    parts = path.relative_to(package).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def safe_name(name: str) -> str:
    """A model's or behaviour's name as one folder name: ``Qwen/Qwen3-0.6B`` becomes ``Qwen--Qwen3-0.6B``."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name.replace("/", "--")).strip(".-") or "unnamed"


def digest_of(value: Any) -> str:
    """Digest of a JSON value's canonical text (NaN has none: ValueError): blake2b, 128 bits, hex."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def file_digest(path: Path) -> str:
    """Digest of a file's bytes: blake2b, 128 bits, hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def fixed(path: Path) -> Path:
    """The path with the links of its folders followed.

    The links for people lead to another artifact as soon as another run is done: what is read twice, once for a key
    and once for its content, is read from the artifact itself.
    """
    return path.parent.resolve() / path.name


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file that is either absent, the old one or the new one, never half of it."""
    fresh = path.with_name(f"{path.name}.partial")
    fresh.write_bytes(content)
    _flush(fresh)
    fresh.replace(path)


def _plain(value: Any) -> Any:
    if isinstance(value, Artifact):
        return {"artifact": value.stage, "digest": value.digest}
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    raise TypeError(f"a stage's input is a JSON value or an Artifact, not {type(value).__name__}: {value!r}")


def _upstream(value: Any) -> list[str]:
    if isinstance(value, Artifact):
        return [f"{value.stage}-{value.key[:16]}"]
    inner = value.values() if isinstance(value, Mapping) else value
    nested = inner if isinstance(value, (Mapping, list, tuple)) else ()
    return sorted({name for each in nested for name in _upstream(each)})


def _finished(folder: Path, name: str, key: str) -> Artifact | None:
    """The artifact when every file is there with its recorded bytes, else None: it is made again."""
    try:
        record = json.loads((folder / RECORD).read_bytes())
        whole = record["key"] == key and all(
            (folder / file).stat().st_size == told["size"] and file_digest(folder / file) == told["blake2b"]
            for file, told in record["files"].items()
        )
    except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError):
        return None
    return Artifact(name, key, record["digest"], folder) if whole else None


def _linked(path: Path, folder: Path) -> bool:
    return path.is_symlink() and os.readlink(path) == os.path.relpath(folder, path.parent)


def _relink(path: Path, folder: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # Named by the key, which we have locked: what a crash left here is ours to replace.
    fresh = folder.with_name(f"{folder.name}.link")
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(os.path.relpath(folder, path.parent))
    fresh.replace(path)


def _file_digests(folder: Path) -> dict[str, dict[str, Any]]:
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        path.relative_to(folder).as_posix(): {"size": path.stat().st_size, "blake2b": file_digest(path)}
        for path in paths
        if path.name != RECORD or path.parent != folder
    }


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    """Push a file or a folder to the disk: a rename must not reach it before the bytes it names."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
