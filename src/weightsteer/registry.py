"""Extensions by name: adapter families, evaluations, bases, ablation plans, controls, activation methods, behaviours.

An extension is one module that registers itself with a decorator. It is found in three places:

1. Modules of the package that owns the registry. The names are read from the text of these modules, so that a list of
   names imports nothing and a look-up imports one module: a decorator gives its name as a literal string.
2. Installed distributions, by entry points. The group is ``weightsteer.<registry>``, the name of the entry point is the
   name of the extension, and its value is the module (or the object in it) that registers the extension:
   ``[project.entry-points."weightsteer.evals"]``, ``weekdays = "my_package.weekdays"``.
3. Decorators that have run: ``@evals.register("weekdays")`` in a script or a notebook.

The registries of modules are at the end of this file, where they can be had without the packages that own them, which
load torch. Behaviours are YAML files; their registry is in `weightsteer.data.behaviors.files`.
"""

import ast
import sys
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Generic, TypeVar
from uuid import uuid4

from weightsteer.errors import WeightsteerError, unknown
from weightsteer.files import digest_of, file_digest

T = TypeVar("T")

OWN = __name__.partition(".")[0]


@dataclass(frozen=True)
class _Entry(Generic[T]):
    value: T
    by: Any  # the class or function that was decorated
    summary: str
    token: str

    @property
    def where(self) -> str:
        return f"{self.by.__module__}.{self.by.__qualname__}"


class Registry(Generic[T]):
    """Extensions of one kind by name.

    Args:
        kind: what messages call one of them: "evaluation".
        group: of the entry points, without ``weightsteer.``.
        package: whose modules hold the built-in extensions.
        decorators: the functions that register.
    """

    def __init__(self, kind: str, group: str, package: str, decorators: Iterable[str] = ("register",)) -> None:
        self.kind, self.group, self.package = kind, f"{OWN}.{group}", package
        self._decorators = frozenset(decorators)
        self._entries: dict[str, _Entry[T]] = {}
        self._left_out: set[str] = set()

    def names(self) -> list[str]:
        """All names, sorted. Imports no extension."""
        return sorted({*self.builtin, *self.plugins, *self._entries})

    def get(self, name: str) -> T:
        """The extension of that name; imports the module that defines it and no other.

        Raises:
            WeightsteerError: nobody knows the name (the nearest is suggested), two extensions have it, or the module
                of an installed distribution cannot be imported.
        """
        return self._find(name).value

    def all(self) -> dict[str, T]:
        """Every extension by name, sorted. One that cannot be had is left out, with one warning."""
        found = {}
        for name in self.names():
            if name not in self._left_out:
                try:
                    found[name] = self.get(name)
                except WeightsteerError as error:
                    self._left_out.add(name)
                    warnings.warn(str(error), stacklevel=2)
        return found

    def add(self, name: str, value: T, by: Any, summary: str = "") -> None:
        """Register an extension; what decorators call. The same class or function, defined anew, replaces itself.

        Args:
            by: the class or function that was decorated: its module is where the extension comes from.
            summary: one line for lists; by default the first sentence of the docstring of ``by`` or of its module.

        Raises:
            WeightsteerError: something else has the name.
        """
        entry = _Entry(value, by, summary, uuid4().hex)
        known = self._entries.get(name)
        other = known.where if known else self.builtin.get(name, entry.where)
        if other != entry.where and (known or other != by.__module__):
            raise self._twice(name, [other, entry.where])
        self._entries[name] = entry

    def remove(self, name: str) -> None:
        """Forget an extension that a script has registered; nothing happens when there is none."""
        self._entries.pop(name, None)

    def origin(self, name: str) -> str:
        """Where an extension comes from: ``weightsteer``, a distribution with its version, or a module."""
        if name in self.builtin:
            return OWN
        return _distribution(self.plugins[name][0]) if name in self.plugins else self.module(name)

    def summary(self, name: str) -> str:
        """An extension in one line; one of this package is not imported.

        Raises:
            WeightsteerError: as `get`.
        """
        if name in self.builtin and name not in self.plugins:
            return self._declared[name][1]
        entry = self._find(name)
        return first_sentence(entry.summary or entry.by.__doc__ or sys.modules[entry.by.__module__].__doc__ or "")

    def module(self, name: str) -> str:
        """The module that defines an extension; one of an installed distribution or of this package is not imported.

        Raises:
            WeightsteerError: nobody knows the name.
        """
        if name in self.builtin:
            return self.builtin[name]
        return self.plugins[name][0].module if name in self.plugins else str(self._find(name).by.__module__)

    def source(self, name: str) -> str:
        """A digest of the code behind an extension from outside this package; empty for one of this package.

        It covers the name and the version of the distribution, and all files of the top-level package of the module
        (the file alone where the module is in no package). Where there is no file, as in a notebook, every definition
        has a digest of its own, in every process: what was made with it is then made anew.

        Raises:
            WeightsteerError: nobody knows the name.
        """
        module = self.module(name)
        if name in self.builtin or module.partition(".")[0] == OWN:
            return ""
        origin = self.origin(name) if name in self.plugins else ""
        files = self._files(name)
        if not files:
            return self._find(name).token
        return digest_of([origin, *([label, file_digest(file)] for label, file in files)])

    def outside(self) -> dict[str, str]:
        """The sources of all extensions from outside this package, for work that may use any of them; by name."""
        return {name: source for name in self.names() if (source := self.source(name))}

    @cached_property
    def builtin(self) -> dict[str, str]:
        """Names of the extensions of this package, with the modules that define them."""
        return {name: module for name, (module, _) in self._declared.items()}

    @cached_property
    def plugins(self) -> dict[str, list[EntryPoint]]:
        """Entry points of installed distributions by name."""
        found: dict[str, list[EntryPoint]] = {}
        for point in entry_points(group=self.group):
            found.setdefault(point.name, []).append(point)
        return found

    @cached_property
    def _declared(self) -> dict[str, tuple[str, str]]:
        """By name: the module, and a line about the extension, read from the text of the module."""
        folder = Path(__file__).parent.joinpath(*self.package.split(".")[1:])
        return {
            name: (f"{self.package}.{file.stem}", first_sentence(summary))
            for file in sorted(folder.glob("*.py"))
            for name, summary in _declared_in(ast.parse(file.read_text(encoding="utf-8")), self._decorators)
        }

    def _find(self, name: str) -> _Entry[T]:
        points = self.plugins.get(name, [])
        if points and (name in self.builtin or len({point.value for point in points}) > 1):
            places = [self.builtin[name]] if name in self.builtin else []
            raise self._twice(name, [*places, *(f"{point.value} of {_distribution(point)}" for point in points)])
        if points:
            try:
                self._load(points[0])
            except Exception as error:  # whatever the module of somebody else raises
                raise WeightsteerError(
                    f"the {self.kind} {name!r} comes from the distribution {_distribution(points[0])}, whose entry "
                    f"point {points[0].value} cannot be loaded: {type(error).__name__}: {error}\nRepair or uninstall "
                    "that distribution. Other names are not affected."
                ) from error
        elif name in self.builtin and name not in self._entries:
            self._import(name)
        if name not in self._entries:
            raise unknown(self.kind, name, self.names())
        return self._entries[name]

    def _import(self, name: str) -> None:
        """Register an extension of this package."""
        import_module(self.builtin[name])

    def _files(self, name: str) -> list[tuple[str, Path]]:
        """The files behind an extension from outside, each with a name; none where there are no files."""
        return _files(self.module(name))

    def _load(self, point: EntryPoint) -> None:
        """Register the extension of an entry point."""
        point.load()
        if point.name not in self._entries:
            raise WeightsteerError(f"it registers no {self.kind} of the name {point.name!r}")

    def _twice(self, name: str, places: Iterable[str]) -> WeightsteerError:
        return WeightsteerError(
            f"the {self.kind} {name!r} is registered twice: by {' and by '.join(places)}. Rename or remove one of them."
        )


def first_sentence(text: str) -> str:
    """The first sentence of a docstring, on one line, without its full stop and the marks of code.

    >>> first_sentence("A LoRA, rank r. Exact.")
    'A LoRA, rank r'
    """
    paragraph = " ".join(text.strip().partition("\n\n")[0].replace("`", "").split())
    return paragraph.partition(". ")[0].removesuffix(".")


def _distribution(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist else "an unnamed distribution"


def _declared_in(tree: ast.Module, decorators: frozenset[str]) -> Iterator[tuple[str, str]]:
    """The names that a module registers, each with the text that says what it is: its ``origin`` or a docstring."""
    for node in tree.body:
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)):
            for call in node.decorator_list:
                if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id in decorators:
                    given = {each.arg: ast.literal_eval(each.value) for each in call.keywords if each.arg == "origin"}
                    text = given.get("origin") or ast.get_docstring(node) or ast.get_docstring(tree) or ""
                    yield ast.literal_eval(call.args[0]), text


def _files(module: str) -> list[tuple[str, Path]]:
    """The files of the top-level package of a module, or the one file of a module that is in no package; by name."""
    path = module.split(".")
    for depth in range(1, len(path) + 1):
        try:
            spec = find_spec(".".join(path[:depth]))
        except (ImportError, ValueError):  # a script has no spec
            break
        if spec is not None and spec.origin and spec.has_location:  # else a namespace, which several can share
            file = Path(spec.origin)
            if not spec.submodule_search_locations:
                return [(file.name, file)]
            inside = sorted(path for path in file.parent.rglob("*") if path.is_file() and path.suffix != ".pyc")
            return [(path.relative_to(file.parent).as_posix(), path) for path in inside]
    script = getattr(sys.modules.get(module), "__file__", None)
    return [(Path(script).name, Path(script))] if script else []


ADAPTERS: Registry[Any] = Registry("adapter", "adapters", "weightsteer.adapters")
EVALS: Registry[Any] = Registry("evaluation", "evals", "weightsteer.data.evals")
ACTIVATION: Registry[Any] = Registry("activation method", "activation", "weightsteer.activation.methods")
BASES: Registry[Any] = Registry("basis", "bases", "weightsteer.analysis.bases")
PLANS: Registry[Any] = Registry("plan", "plans", "weightsteer.analysis.plans")
CONTROLS: Registry[Any] = Registry(
    "control", "controls", "weightsteer.controls", ("from_vector", "from_branch", "from_pairs")
)

PACKAGES = frozenset(each.package for each in (ADAPTERS, EVALS, ACTIVATION, BASES, PLANS, CONTROLS))
"""The packages whose modules are found by name, while the program runs."""
