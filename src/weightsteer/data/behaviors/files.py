"""The YAML files of behaviours: in this package and in installed distributions.

A distribution names each behaviour under the entry points ``weightsteer.behaviors``. The value is a package whose
folder holds ``<name>.yaml`` (``punctuality = "my_package.behaviors"``; nothing is imported, and the folder needs no
Python file), or an attribute that is the path of the folder or of the file (``punctuality = "my_package:FOLDER"``). A
file of the same name in the subfolder ``pocket``, when there is one, is the counterpart for the embedded models.
"""

from functools import cached_property
from importlib.metadata import EntryPoint
from importlib.util import find_spec
from pathlib import Path

import yaml

from weightsteer.errors import WeightsteerError
from weightsteer.registry import Registry

FAMILIES = ("general", "pocket")
"""Of models: any chat model, and the embedded models, which know only the words of their own world."""

_OWN = Path(__file__).parent


class Behaviors(Registry[Path]):
    """Behaviours by name, each with the folder of its file, or with the file."""

    def __init__(self) -> None:
        super().__init__("behavior", "behaviors", __package__ or "")

    @cached_property
    def builtin(self) -> dict[str, str]:
        """Names of the behaviours of this package."""
        return {path.stem: __name__ for path in sorted(_OWN.glob("*/*.yaml"))}

    def file(self, name: str, family: str = FAMILIES[0]) -> Path:
        """The file of a behaviour for a family of models: its counterpart for them, or else the general file.

        Raises:
            WeightsteerError: as `get`, or there is no such file.
        """
        place = self.get(name)
        found = [place / family / f"{name}.yaml", place / FAMILIES[0] / f"{name}.yaml", place / f"{name}.yaml", place]
        for path in found:
            if path.is_file():
                return path
        raise WeightsteerError(f"the behaviour {name!r} of {self.origin(name)} has no file {place / name}.yaml.")

    def family_names(self, family: str) -> list[str]:
        """The behaviours for a family of models, sorted: those of this package written for it, and all others."""
        others = set(self.names()) - set(self.builtin)
        return sorted(others.union(path.stem for path in (_OWN / family).glob("*.yaml")))

    def summary(self, name: str) -> str:
        """Its two poles, as the file names them.

        Raises:
            WeightsteerError: as `file`.
        """
        known = yaml.safe_load(self.file(name).read_text(encoding="utf-8"))
        return f"α > 0: {known['positive']['pole']}; α < 0: {known['negative']['pole']}"

    def _files(self, name: str) -> list[tuple[str, Path]]:
        return [(family, self.file(name, family)) for family in FAMILIES]

    def _import(self, name: str) -> None:
        self.add(name, _OWN, Behaviors)

    def _load(self, point: EntryPoint) -> None:
        if point.attr:
            place = Path(point.load())
        else:
            top, *inner = point.module.split(".")
            spec = find_spec(top)
            roots = (spec and spec.submodule_search_locations) or []
            folders = [folder for root in roots if (folder := Path(root).joinpath(*inner)).is_dir()]
            if not folders:
                raise WeightsteerError(f"{point.module} is no folder of a package")
            place = folders[0]
        self.add(point.name, place, Behaviors)


BEHAVIORS = Behaviors()
