"""Distributions that are really installed, for what other packages add."""

import os
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as version_of
from pathlib import Path
from zipfile import ZipFile

import pytest

NAME = "another-package"


def installed(
    folder: Path, files: Mapping[str, str], points: Mapping[str, Mapping[str, str]], version: str = "2.1"
) -> Path:
    """The folder into which pip installed a distribution of that name.

    Args:
        files: texts by path.
        points: values of entry points by name, by group.
    """
    try:  # to look for the module would turn off the shim through which others find distutils
        version_of("pip")
    except PackageNotFoundError:
        pytest.skip("needs pip")
    folder.mkdir()
    package = NAME.replace("-", "_")
    info = f"{package}-{version}.dist-info"
    listed = [
        line for group, inner in points.items() for line in (f"[{group}]", *(f"{n} = {v}" for n, v in inner.items()))
    ]
    files = {
        **files,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {NAME}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: by-hand\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": "\n".join(listed),
    }
    made, target = folder / f"{package}-{version}-py3-none-any.whl", folder / "site"
    with ZipFile(made, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
        archive.writestr(f"{info}/RECORD", "".join(f"{name},,\n" for name in [*files, f"{info}/RECORD"]))
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--target", target, made]
    subprocess.run(command, check=True)
    return target


def run(code: str, site: Path) -> str:
    """What a program prints that finds the distributions of a folder."""
    paths = [str(site), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout
