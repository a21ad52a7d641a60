"""The file of a weight vector: one safetensors file, no pickle.

Tensors: for part i of a module's sum, ``<module>.<i>.A`` (r, d_in) and ``<module>.<i>.B`` (d_out, r) in fp32,
without the coefficient. Metadata: one entry, ``weightsteer``, with a JSON object::

    {"version": 1,
     "modules": [{"name": …, "shape": [d_out, d_in], "norm": …,
                  "parts": [{"form": "low_rank", "coefficient": …}, …]}, …],
     "norm": …, "metadata": {…}}

The delta of a module is ``Σ_i coefficient_i · B_i A_i``. (One entry only: safetensors keeps several in random
order.)
"""

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from weightsteer.errors import WeightsteerError
from weightsteer.terms import Sum, Term

VERSION = 1
_ENTRY = "weightsteer"


def write(path: Path, terms: Mapping[str, Sum], metadata: Mapping[str, Any]) -> Path:
    """Write a vector; equal vectors and metadata give equal bytes. An older file is replaced only at the end.

    Raises:
        WeightsteerError: the disk is full or the folder cannot be written to.
    """
    tensors: dict[str, Tensor] = {}
    modules: list[dict[str, Any]] = []
    for name, total in terms.items():
        for index, (_, term) in enumerate(total.parts):
            tensors |= {f"{name}.{index}.{key}": tensor.clone() for key, tensor in term.tensors().items()}
        parts = [{"form": term.form, "coefficient": coefficient} for coefficient, term in total.parts]
        modules.append({"name": name, "shape": list(total.shape), "norm": total.norm(), "parts": parts})
    header = {
        "version": VERSION,
        "modules": modules,
        "norm": math.sqrt(sum(module["norm"] ** 2 for module in modules)),
        "metadata": metadata,
    }
    text = json.dumps(header, sort_keys=True, ensure_ascii=False, allow_nan=False)
    replace(path, save(tensors, {_ENTRY: text}))
    return path


def replace(path: Path, content: bytes) -> None:
    """Put a file in place at once: whoever reads it sees the old content or the new, never a part."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with partial.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise WeightsteerError(
            f"cannot write {path}: {error.strerror or error}. Free some space or choose another place; "
            "an older file of that name is unchanged."
        ) from error


def read(path: Path) -> tuple[dict[str, Sum], dict[str, Any]]:
    """Terms by module path, and the metadata.

    Raises:
        WeightsteerError: there is no such file, it is damaged, or it is no weight vector of a known version.
    """
    if not path.is_file():
        raise WeightsteerError(f"there is no file {path}; give the safetensors file of a saved weight vector.")
    try:
        with safe_open(path, framework="pt") as file:
            entry = (file.metadata() or {}).get(_ENTRY)
            if entry is None:
                raise WeightsteerError(
                    f"{path} is a safetensors file but no weight vector of this package. From two PEFT "
                    "adapters make one with WeightVector.from_adapters or `weightsteer diff`."
                )
            header = json.loads(entry)
            if header["version"] != VERSION:
                raise WeightsteerError(
                    f"{path} has format version {header['version']}, this release reads {VERSION}: "
                    "use the release of weightsteer that wrote it."
                )
            terms = {module["name"]: _sum(file, module) for module in header["modules"]}
            return terms, header["metadata"]
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise WeightsteerError(f"{path} is damaged or no weight vector ({error}). Copy or make it again.") from error


def _sum(file: Any, module: Mapping[str, Any]) -> Sum:
    parts = []
    for index, part in enumerate(module["parts"]):
        form = Term.forms[part["form"]]
        tensors = {key: file.get_tensor(f"{module['name']}.{index}.{key}") for key in form.keys}
        parts.append((float(part["coefficient"]), form(**tensors)))
    d_out, d_in = module["shape"]
    return Sum((d_out, d_in), parts)
