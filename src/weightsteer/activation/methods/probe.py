"""The weight of a logistic probe that tells the two sides apart.

``min_{w,b} 1/2n Σ_i log(1 + exp(−y_i (w·h_i + b))) + λ/2 ‖w‖²``, y = +1 for h⁺ and −1 for h⁻. The activations
are centred and divided by their root mean square norm, so that λ means the same at every layer; of
`STRENGTHS` the λ with the smallest loss on held-out pairs is taken, the stronger one of equals.

The solution lies in the span of the training activations, so the problem is solved there: in at most 2n
dimensions, however wide the model is.
"""

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

from weightsteer.activation.methods.base import Contrast, register
from weightsteer.errors import WeightsteerError

STRENGTHS = (1e1, 1e0, 1e-1, 1e-2, 1e-3, 1e-4)


@register("probe", validates=True)
def probe(train: Contrast, held_out: Contrast | None) -> Tensor:
    """The weight of a logistic probe that tells the two sides apart.

    Returns:
        (d,) of unit length, pointing to the positive side.
    """
    if held_out is None:
        raise WeightsteerError("a probe chooses its regularisation on held-out pairs: give some.")
    activations, labels = _stacked(train)
    centre = activations.mean(0)
    size = float((activations - centre).square().sum(1).mean().sqrt())
    if size == 0.0:
        raise WeightsteerError("all activations are equal, so no probe can tell the sides apart. Look at the pairs.")
    # rows = coordinates · basis; the basis is orthonormal, so the norm of w is the same in both
    left, values, basis = torch.linalg.svd((activations - centre) / size, full_matrices=False)
    coordinates = (left * values).numpy()
    held, held_labels = _stacked(held_out)
    held_coordinates = ((held - centre) / size @ basis.T).numpy()

    best, smallest = np.zeros(len(basis)), np.inf
    solution = np.zeros(len(basis) + 1)
    for strength in STRENGTHS:
        solution = _solve(coordinates, labels, strength, solution)
        loss = _loss(held_coordinates, held_labels, solution)[0]
        if loss < smallest:
            best, smallest = solution[:-1], loss
    direction = basis.T @ torch.from_numpy(best)
    if float(direction.norm()) == 0.0:
        raise WeightsteerError("the probe found no direction that tells held-out pairs apart. Give more pairs.")
    return direction / direction.norm()


def _stacked(contrast: Contrast) -> tuple[Tensor, np.ndarray]:
    """Activations (2n, d) fp64 and their labels (2n,)."""
    sides = torch.cat([contrast.positive, contrast.negative]).double()
    return sides, np.repeat([1.0, -1.0], len(contrast.positive))


def _loss(rows: np.ndarray, labels: np.ndarray, solution: np.ndarray) -> tuple[float, np.ndarray]:
    """The mean logistic loss in nats and its gradient in (w, b)."""
    margins = labels * (rows @ solution[:-1] + solution[-1])
    # −y σ(−margin) / n, without overflow
    pull = -labels * np.exp(-np.logaddexp(0.0, margins)) / len(labels)
    return float(np.logaddexp(0.0, -margins).mean()), np.append(rows.T @ pull, pull.sum())


def _solve(rows: np.ndarray, labels: np.ndarray, strength: float, start: np.ndarray) -> np.ndarray:
    """(w, b) of the penalised problem, from the solution of a stronger penalty."""

    def penalised(solution: np.ndarray) -> tuple[float, np.ndarray]:
        loss, gradient = _loss(rows, labels, solution)
        weight = np.append(solution[:-1], 0.0)
        return loss + 0.5 * strength * float(weight @ weight), gradient + strength * weight

    options = {"maxiter": 1000, "ftol": 1e-14, "gtol": 1e-9}
    return np.asarray(minimize(penalised, start, jac=True, method="L-BFGS-B", options=options).x)
