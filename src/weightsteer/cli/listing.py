"""The verbs there are: one file each in `weightsteer.cli.verbs`, named after the verb."""

from importlib import import_module
from pathlib import Path

from weightsteer.cli.verb import Verb

ORDER = (
    *("replicate", "sweep", "data", "train", "diff", "eval", "calibrate", "subspace", "ablate", "gaming"),
    *("report", "export"),
)
"""Of the verbs in the overview; others follow."""


def verbs(folder: str = "verbs") -> dict[str, Verb]:
    """The verbs of a folder of files, by name."""
    files = {path.stem for path in (Path(__file__).parent / folder).glob("*.py")} - {"__init__"}
    names = [name for name in ORDER if name in files]
    names += sorted(files.difference(names))
    package = f"weightsteer.cli.{folder.replace('/', '.')}"
    return {name: import_module(f"{package}.{name}").VERB for name in names}


VERBS = verbs()
POCKET_VERBS = verbs("verbs/pocket")
