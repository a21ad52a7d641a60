"""The leading direction of the paired differences ``D = h⁺ − h⁻`` (n, d), with and without their mean.

*Uncentred*, the top right singular vector of D: the direction along which the pairs differ most. *Centred*,
the top principal component of ``D − mean(D)``: the form published as representation engineering (Zou et al.,
arXiv 2310.01405). Centring takes out the difference of means, which is the contrast itself; what is left is
how the pairs vary around it. It is here to repeat published baselines, not as a good one.

Both are unit vectors. A principal component has no sign: it is set so that the positive side has the larger
mean projection.
"""

import torch
from torch import Tensor

from weightsteer.activation.methods.base import Contrast, register
from weightsteer.errors import WeightsteerError


@register("pca")
def uncentred(train: Contrast, held_out: Contrast | None) -> Tensor:
    """The direction along which the pairs differ most, ``argmax_v ‖D v‖``.

    Returns:
        (d,) of unit length.
    """
    differences = train.differences
    return _leading(differences, differences)


@register("repe-centered")
def centred(train: Contrast, held_out: Contrast | None) -> Tensor:
    """The direction along which the differences of the pairs vary most, ``argmax_v ‖(D − mean(D)) v‖``.

    Returns:
        (d,) of unit length.
    """
    differences = train.differences
    return _leading(differences - differences.mean(0), differences)


def _leading(matrix: Tensor, differences: Tensor) -> Tensor:
    """The top right singular vector (d,) of a matrix (n, d), signed by the mean of ``differences``."""
    rows, columns = matrix.shape
    # the Gram matrix of the smaller side: only one vector is wanted, and d may be thousands
    if rows < columns:
        direction = matrix.T @ torch.linalg.eigh(matrix @ matrix.T).eigenvectors[:, -1]
    else:
        direction = torch.linalg.eigh(matrix.T @ matrix).eigenvectors[:, -1]
    # of a matrix without any content the direction would be rounding error
    if float(matrix.norm()) <= 1e-9 * float(differences.norm()) or float(direction.norm()) == 0.0:
        raise WeightsteerError(
            "the differences of the pairs do not vary, so they have no principal component. Give more pairs, or "
            "use the method 'diffmean'."
        )
    direction = direction / direction.norm()
    return direction if float(differences.mean(0) @ direction) >= 0 else -direction
