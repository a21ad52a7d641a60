"""What code a stage runs: in an installed release its version, in a working copy the content of all it can reach.

A module reaches what it imports, anywhere in it; a package that holds a registry reaches all its modules, because a
name decides at run time which of them is used; and every module reaches the tables and templates in its own folder.
Found by reading the files, without importing them. What decides nothing but how things are shown is left out: comments,
docstrings, the texts of help, ``__repr__``, and imports for annotations alone.
"""

import ast
import hashlib
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from weightsteer.files import digest_of, file_digest
from weightsteer.registry import PACKAGES

PACKAGE = Path(__file__).parents[1]

SHOWN_ONLY = ("errors", "progress", "runtime")
"""Modules and packages that never reach the bytes of an artifact: a changed message must not make anybody train again.

The layout that `weightsteer.runtime` gives to artifacts has a number of its own, `weightsteer.runtime.store.FORMAT`.
"""

_DATA = (".yaml", ".json", ".jinja", ".css")
_HELP = ("description", "help")


@cache
def release() -> str | None:
    """The version of this package where it was installed from an index; None for a working copy.

    A package installed from a folder, a repository or a file (PEP 610) may change without its version.
    """
    try:
        installed = distribution("weightsteer")
    except PackageNotFoundError:
        return None
    here = Path(str(installed.locate_file("weightsteer"))).resolve() == PACKAGE.resolve()
    return installed.version if here and installed.read_text("direct_url.json") is None else None


def code_digest(modules: Iterable[str], package: Path = PACKAGE) -> str:
    """The digest of the code that these modules can reach: see the text of this module.

    Args:
        modules: full names, for example ``weightsteer.experiments.stages.pairs``. One from outside this package counts
            with the content of its own file.
        package: the folder of the package that is read.
    """
    return _code_digest(tuple(sorted(set(modules))), package)


@cache
def _code_digest(names: tuple[str, ...], package: Path) -> str:
    # once in a process: a program that changes while it runs is still the one that was loaded
    if (version := release()) is not None and package == PACKAGE:
        inside: object = {"release": version}
    else:
        inside = reached([name for name in names if name.startswith("weightsteer.")], package)
    outside = {name: _outside(name) for name in names if not name.startswith("weightsteer.")}
    return digest_of({"inside": inside, "outside": outside})


def reached(modules: Iterable[str], package: Path = PACKAGE) -> dict[str, str]:
    """The digest of every module and data file that these modules can reach, by its path in the package."""
    found: dict[str, str] = {}
    todo = [name.removeprefix("weightsteer.") for name in modules]
    seen: set[str] = set()
    folders: set[Path] = set()
    while todo:
        name = todo.pop()
        path = _source(name, package)
        if path is None or name in seen or name.split(".")[0] in SHOWN_ONLY:
            continue
        seen.add(name)
        state = path.stat()
        digest, imports = _read(path, state.st_mtime_ns, state.st_size)
        found[path.relative_to(package).as_posix()] = digest
        folders.add(path.parent)
        todo += _absolute(imports, name, path)
        if f"weightsteer.{name}" in PACKAGES:
            todo += [f"{name}.{each.stem}" for each in path.parent.glob("*.py") if each != path]
            todo += [f"{name}.{each.parent.name}" for each in path.parent.glob("*/__init__.py")]
    data = (file for folder in folders for file in folder.iterdir() if file.suffix in _DATA)
    return found | {file.relative_to(package).as_posix(): file_digest(file) for file in data}


def _outside(name: str) -> str:
    file = getattr(sys.modules.get(name), "__file__", None)
    return file_digest(Path(file)) if file else "no file"


def _source(name: str, package: Path) -> Path | None:
    if not name:
        return None  # the package itself only names where things are
    base = package.joinpath(*name.split("."))
    return next((path for path in (base.with_suffix(".py"), base / "__init__.py") if path.is_file()), None)


@cache
def _read(path: Path, changed: int, size: int) -> tuple[str, tuple[tuple[int, str], ...]]:
    """The digest of what a file does, and what it imports as (level, name)."""
    tree = _Essence().visit(ast.parse(path.read_text(encoding="utf-8")))
    imports = tuple(_imports(tree))
    return hashlib.blake2b(ast.dump(tree).encode(), digest_size=16).hexdigest(), imports


def _imports(tree: ast.AST) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((0, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            yield node.level, base
            yield from ((node.level, f"{base}.{alias.name}".lstrip(".")) for alias in node.names)


def _absolute(imports: Iterable[tuple[int, str]], module: str, path: Path) -> Iterator[str]:
    """Names within the package; those of other packages and of no module lead to no file and are passed over."""
    parts = module.split(".")
    home = parts if path.name == "__init__.py" else parts[:-1]
    for level, name in imports:
        if level:
            yield ".".join([*home[: len(home) - level + 1], *filter(None, [name])])
        elif name.startswith("weightsteer."):
            yield name.removeprefix("weightsteer.")


class _Essence(ast.NodeTransformer):
    """A module without what only shows: docstrings, ``__repr__``, texts of help, imports for annotations."""

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        text = isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        return None if text else self.generic_visit(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST | None:
        return None if node.name == "__repr__" else self.generic_visit(node)

    def visit_If(self, node: ast.If) -> ast.AST | None:
        if isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            return None
        return self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> ast.AST:
        node.keywords = [each for each in node.keywords if each.arg not in _HELP]
        return self.generic_visit(node)
