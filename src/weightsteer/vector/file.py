"""The file of a weight vector: one safetensors file, no pickle, read module by module.

Tensors, all fp32: those of term i of a module's sum are ``<module>.<i>.<key>`` (``A`` and ``B`` for a low-rank term),
without the coefficient. A term that occurs several times is stored once, at its first place. Metadata: one entry,
``weightsteer``, with a JSON object::

    {"version": 3, "digest": over all that follows,
     "modules": [{"name": …, "shape": [d_out, d_in], "rank": …, "norm": …,
                  "parts": [{"form": "low_rank", "coefficient": …, "digest": …, "tensors": "<module>.<i>",
                             "options": {…}, "base": digest of the base weight, or null}, …]}, …],
     "norm": …, "metadata": {…}}

The delta of a module is the sum of its terms, each times its coefficient. Forms that change the base weight (a scale,
a rotation) store its digest, not the weight. Version 2 had no digest of the header; version 1 knew low rank only,
and had neither digests nor options.
(One entry only: safetensors keeps several in random order.)
"""

import json
import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from weightsteer.errors import WeightsteerError
from weightsteer.files import flush
from weightsteer.terms import BaseWeight, Sum, Term
from weightsteer.vector.deltas import Deltas
from weightsteer.vector.header import VERSION, ModuleHeader, parse, sealed

_ENTRY = "weightsteer"


def write(path: Path, deltas: Deltas, metadata: Mapping[str, Any]) -> Path:
    """Write a vector; equal vectors and metadata give equal bytes. An older file is replaced only at the end.

    Raises:
        WeightsteerError: the disk is full or the folder cannot be written to.
    """
    tensors: dict[str, Tensor] = {}
    places: dict[str, str] = {}
    modules: list[dict[str, Any]] = []
    for name, total in deltas.items():
        terms = []
        for index, (coefficient, term) in enumerate(total.terms):
            if term.digest not in places:
                places[term.digest] = f"{name}.{index}"
                tensors |= {f"{name}.{index}.{key}": tensor for key, tensor in term.tensors().items()}
            terms.append(
                {
                    "form": term.form,
                    "coefficient": coefficient,
                    "digest": term.digest,
                    "tensors": places[term.digest],
                    "options": term.options,
                    "base": term.base.digest if term.base is not None else None,
                }
            )
        known = {"shape": list(total.shape), "rank": deltas.rank(name), "norm": deltas.norm(name)}
        modules.append({"name": name, **known, "parts": terms})
    header = sealed({"version": VERSION, "modules": modules, "norm": deltas.total_norm(), "metadata": metadata})
    text = json.dumps(header, sort_keys=True, ensure_ascii=False, allow_nan=False)
    with _replacing(path) as partial:
        save_file(_apart(tensors), partial, {_ENTRY: text})
    return path


def replace(path: Path, content: bytes) -> None:
    """Put a file in place at once: whoever reads it sees the old content or the new, never a part."""
    with _replacing(path) as partial:
        partial.write_bytes(content)


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """A file to write to, which takes the place of ``path`` at once when the body ends."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            partial.touch()
            opened = partial.stat().st_mode
            yield partial
            partial.chmod(stat.S_IMODE(opened))  # safetensors makes files that only their owner can read
            flush(partial)
            os.replace(partial, path)
            flush(path.parent)
        finally:
            partial.unlink(missing_ok=True)
    except (OSError, SafetensorError) as error:
        reason = error.strerror if isinstance(error, OSError) else None
        raise WeightsteerError(
            f"cannot write {path}: {reason or error}. Free some space or choose another place; "
            "an older file of that name is unchanged."
        ) from error


def _apart(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors, copied where two terms share memory: safetensors refuses that."""
    seen: set[int] = set()
    apart = {}
    for name, tensor in tensors.items():
        apart[name] = tensor.clone() if tensor.data_ptr() in seen else tensor
        seen.add(tensor.data_ptr())
    return apart


def read(path: Path) -> tuple[Deltas, dict[str, Any]]:
    """Deltas whose tensors are read when they are first used, and the metadata.

    Raises:
        WeightsteerError: there is no such file, it is damaged, or it is no weight vector of a known version.
    """
    file = _File(path)
    return Stored(file, list(file.modules)), file.metadata


class Stored(Deltas):
    """Deltas in a file. The file stays open; each module is read when it is first used, and then kept."""

    def __init__(self, file: "_File", names: Iterable[str], bases: Mapping[str, nn.Module] | None = None) -> None:
        self._file = file
        self._bases = bases
        self._names = list(names)
        self._sums: dict[str, Sum] = {}
        self._norms = {name: file.modules[name].norm for name in self._names}

    def __getitem__(self, name: str) -> Sum:
        if name not in self._norms:
            raise KeyError(name)
        if name not in self._sums:
            self._sums[name] = self._file.read(name, self._bases[name] if self._bases else None)
        return self._sums[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def shape(self, name: str) -> tuple[int, int]:
        return self._file.modules[name].shape

    def rank(self, name: str) -> int:
        rank = self._file.modules[name].rank
        return super().rank(name) if rank is None else rank

    def needs_base(self, name: str) -> bool:
        return any(term.base for term in self._file.modules[name].terms)

    def only(self, names: Iterable[str]) -> "Stored":
        chosen = set(names)
        some = Stored(self._file, [name for name in self if name in chosen], self._bases)
        some._sums = {name: total for name, total in self._sums.items() if name in chosen}
        return some

    def bound(self, modules: Mapping[str, nn.Module]) -> "Stored":
        for name in self:
            for term in self._file.modules[name].terms:
                if term.base:  # of other weights: better said now than in the middle of a sweep
                    BaseWeight(term.base, self.shape(name)).bind(modules[name])
        return Stored(self._file, self, modules)

    def __reduce__(self) -> tuple[Any, ...]:
        # a copy, or what goes to another process, is read and needs the file no more
        return Deltas, (dict(self), self._norms)


@dataclass(frozen=True)
class _StoredTerm:
    form: type[Term]
    coefficient: float
    tensors: str
    options: dict[str, Any]
    digest: str | None
    base: str | None


@dataclass(frozen=True)
class _Module:
    shape: tuple[int, int]
    norm: float
    rank: int | None
    terms: tuple[_StoredTerm, ...]


class _File:
    """An open file of a vector, mapped into memory: replacing it by another does no harm, changing it is noticed."""

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise WeightsteerError(f"there is no file {path}; give the safetensors file of a saved weight vector.")
        self.path = path
        self._shared: dict[str, Term] = {}
        with self._readable():
            self._seen = path.stat()
            self._open = safe_open(path, framework="pt")
            entry = (self._open.metadata() or {}).get(_ENTRY)
            if entry is None:
                raise WeightsteerError(
                    f"{path} is a safetensors file but no weight vector of this package. From two PEFT "
                    "adapters make one with WeightVector.from_adapters or `weightsteer diff`."
                )
            try:
                header = parse(entry)
            except WeightsteerError as error:
                raise WeightsteerError(f"{path}: {error}.") from error
            self.metadata: dict[str, Any] = header.metadata
            self.modules = {module.name: _module(module) for module in header.modules}
            terms = [term for module in self.modules.values() for term in module.terms]
            needed = {f"{term.tensors}.{key}" for term in terms for key in term.form.keys}
            if missing := sorted(needed - set(self._open.keys())):
                raise ValueError(f"it lacks the tensor {missing[0]}")

    def read(self, name: str, module: nn.Module | None) -> Sum:
        """The sum of one module, its terms bound to the weights of ``module`` if that is given."""
        stored = self.modules[name]
        with self._readable():
            self._check_unchanged()
            return Sum(
                stored.shape, [(term.coefficient, self._term(term, stored.shape, module)) for term in stored.terms]
            )

    def _term(self, stored: _StoredTerm, shape: tuple[int, int], module: nn.Module | None) -> Term:
        if stored.tensors in self._shared:
            return self._shared[stored.tensors]
        base = BaseWeight(stored.base, shape) if stored.base else None
        if base is not None and module is not None:
            base = base.bind(module)
        # a copy: the file is mapped, and a tensor must not change with it
        tensors = {key: self._open.get_tensor(f"{stored.tensors}.{key}").clone() for key in stored.form.keys}
        term = stored.form.restore(tensors, shape, base, stored.options)
        if stored.digest not in (None, term.digest):
            raise ValueError(f"the tensors of {stored.tensors} are not those that were saved")
        if not all(bool(tensor.isfinite().all()) for tensor in tensors.values() if tensor.is_floating_point()):
            raise ValueError(f"the tensors of {stored.tensors} hold NaN or infinity")
        if base is None:
            self._shared[stored.tensors] = term
        return term

    def _check_unchanged(self) -> None:
        """A file that was renamed over or deleted is still there for whoever has it open; one written to is not."""
        try:
            now = self.path.stat()
        except FileNotFoundError:
            return
        if now.st_ino == self._seen.st_ino and (now.st_mtime_ns, now.st_size) != (
            self._seen.st_mtime_ns,
            self._seen.st_size,
        ):
            raise WeightsteerError(f"{self.path} was changed since it was opened: load the vector again.")

    @contextmanager
    def _readable(self) -> Iterator[None]:
        try:
            yield
        except (SafetensorError, OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
            raise WeightsteerError(
                f"{self.path} is damaged or no weight vector ({error}). Copy or make it again."
            ) from error


def _module(header: ModuleHeader) -> _Module:
    for part in header.parts:
        if part.form not in Term.forms:
            raise ValueError(f"{header.name}: there is no form {part.form!r} of a delta")
    terms = tuple(
        _StoredTerm(
            form=Term.forms[part.form],
            coefficient=part.coefficient,
            tensors=part.tensors or f"{header.name}.{index}",
            options=part.options,
            digest=part.digest,
            base=part.base,
        )
        for index, part in enumerate(header.parts)
    )
    return _Module(header.shape, header.norm, header.rank, terms)
