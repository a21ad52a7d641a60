"""Which modules of a decoder layer a family adapts."""

from collections.abc import Iterable, Sequence

from torch import nn
from transformers.pytorch_utils import Conv1D

from weightsteer.errors import WeightsteerError

# the second matrix of the feed-forward block, as the architectures call it
FEED_FORWARD = ("down_proj", "fc2", "fc_out", "w2", "dense_4h_to_h", "mlp.c_proj")


def linear_names(layers: nn.ModuleList, chosen: Iterable[int]) -> list[str]:
    """Last path components of all linear projections in the chosen layers, sorted.

    Raises:
        WeightsteerError: there are none.
    """
    return sorted({path.rsplit(".", 1)[-1] for path in _linear_paths(layers, chosen)})


def named(layers: nn.ModuleList, chosen: Iterable[int], names: Sequence[str], family: str) -> list[str]:
    """Those of the names (ends of a module path) that are linear projections of the chosen layers.

    Raises:
        WeightsteerError: there are none.
    """
    paths = _linear_paths(layers, chosen)
    if found := [name for name in names if any(f".{path}".endswith(f".{name}") for path in paths)]:
        return found
    has = sorted({path.rsplit(".", 1)[-1] for path in paths})
    raise WeightsteerError(
        f"{family} adapts modules of the names {', '.join(names)}, but the chosen layers have only {', '.join(has)}. "
        "Train a family that adapts any linear module, such as lora."
    )


def ends_with(name: str, ends: Sequence[str]) -> bool:
    """Whether a module path ends in one of these, whole components only."""
    return any(f".{name}".endswith(f".{end}") for end in ends)


def _linear_paths(layers: nn.ModuleList, chosen: Iterable[int]) -> set[str]:
    """Paths, relative to their layer, of the linear projections."""
    indices = sorted(chosen)
    paths = {
        name
        for index in indices
        for name, module in layers[index].named_modules()
        if isinstance(module, nn.Linear | Conv1D)
    }
    if not paths:
        raise WeightsteerError(
            f"layers {indices[0]}–{indices[-1]} contain no linear projection to adapt."
            if indices
            else "no layer was chosen, so there is nothing to adapt."
        )
    return paths
