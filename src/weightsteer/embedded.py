"""The paths of the weights of the embedded models; `weightsteer.pocket` makes them."""

from hashlib import sha256
from pathlib import Path

from weightsteer.errors import WeightsteerError

POCKET = ("pocket-s", "pocket", "pocket-l")
_WEIGHTS = Path(__file__).parent / "pocket" / "weights"


def shipped_digests() -> dict[str, str]:
    """SHA-256 of every shipped file, by its path below the weights folder: ``weights/SHA256SUMS``."""
    lines = (_WEIGHTS / "SHA256SUMS").read_text().splitlines()
    return {path: digest for digest, path in (line.split("  ") for line in lines)}


def weights_folder(name: str) -> Path:
    """The folder of the shipped weights of an embedded model.

    Raises:
        WeightsteerError: a file is missing or is not the one that was shipped: results on a damaged model would be
            taken for results on this one.
    """
    for path, digest in shipped_digests().items():
        if path.startswith(f"{name}/"):
            file = _WEIGHTS / path
            if not file.exists() or sha256(file.read_bytes()).hexdigest() != digest:
                raise WeightsteerError(
                    f"the shipped model file {path} is missing or damaged; install weightsteer again"
                )
    return _WEIGHTS / name
