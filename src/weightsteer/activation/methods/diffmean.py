"""Difference of means: ``v = mean(h⁺) − mean(h⁻)``.

The strongest simple baseline in published comparisons (AxBench, Wu et al., arXiv 2501.17148), and the usual
one of contrastive activation addition (Rimsky et al., arXiv 2312.06681) and persona vectors (Chen et al.,
arXiv 2507.21509).
"""

from torch import Tensor

from weightsteer.activation.methods.base import Contrast, register


@register("diffmean")
def diffmean(train: Contrast, held_out: Contrast | None) -> Tensor:
    """The difference of the means of both sides: at α = 1 it moves the mean of one to that of the other.

    Returns:
        (d,) in units of activations.
    """
    return train.differences.mean(0)
