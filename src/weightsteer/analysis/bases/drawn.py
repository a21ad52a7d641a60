"""Random subspaces. The null for another basis is its own random twin (`Basis.matched_random`), not this one."""

from torch import Tensor

from weightsteer.analysis.bases.base import register
from weightsteer.analysis.bases.materials import Materials
from weightsteer.analysis.basis import Side, generator, random_columns


@register(
    "random", origin="one random subspace of the stream, for all its writers (output) or readers (input), seed {seed}"
)
def random(materials: Materials, rank: int, side: Side) -> dict[str, Tensor]:
    """A uniformly random subspace of the residual stream, (d, rank), as directions of the modules on one side."""
    stream = materials.stream
    return stream.at_modules(random_columns(stream.width, rank, generator(materials.seed, f"random {side}")), side)
