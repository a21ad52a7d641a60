"""Versions of this package and of the libraries that do its arithmetic."""

from functools import cache

__version__ = "0.1.0"

_NUMERICS = ("torch", "transformers", "peft")


@cache
def versions() -> dict[str, str]:
    """Versions of this package and of the libraries that do the arithmetic, read without importing them."""
    from importlib.metadata import PackageNotFoundError, version  # takes a tenth of the start of --help

    found = {"weightsteer": __version__}
    for package in _NUMERICS:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found
