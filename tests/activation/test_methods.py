"""Each method against its definition, and on data whose direction is planted."""

import pytest
import torch
from torch import Tensor

from weightsteer.activation.methods import Contrast, load, names
from weightsteer.errors import WeightsteerError


def drawn(n: int, d: int, seed: int = 0) -> Contrast:
    generator = torch.Generator().manual_seed(seed)
    shared = torch.randn(n, d, generator=generator)
    return Contrast(
        shared + torch.randn(n, d, generator=generator) + 0.3, shared + torch.randn(n, d, generator=generator)
    )


def cosine(a: Tensor, b: Tensor) -> float:
    return float(torch.nn.functional.cosine_similarity(a.double(), b.double(), dim=0))


def test_every_method_is_found_by_its_file() -> None:
    """A method is one new file: whoever adds one edits no list."""
    assert {"diffmean", "pca", "repe-centered", "probe"} <= set(names())
    with pytest.raises(WeightsteerError, match="did you mean 'diffmean'"):
        load("difmean")


def test_diffmean() -> None:
    """The difference of the means, in units of activations: a normalised one would steer by another amount."""
    contrast = drawn(7, 5)
    expected = contrast.positive.double().mean(0) - contrast.negative.double().mean(0)
    torch.testing.assert_close(load("diffmean").fit(contrast, None), expected)


@pytest.mark.parametrize(("n", "d"), [(6, 20), (40, 9)])
@pytest.mark.parametrize("method", ["pca", "repe-centered"])
def test_pca_against_the_singular_value_decomposition(method: str, n: int, d: int) -> None:
    """The shortcut over the smaller Gram matrix must give the singular vector, with the sign of the contrast."""
    contrast = drawn(n, d)
    differences = contrast.positive.double() - contrast.negative.double()
    matrix = differences - differences.mean(0) if method == "repe-centered" else differences
    expected = torch.linalg.svd(matrix).Vh[0]
    found = load(method).fit(contrast, None)
    assert abs(cosine(found, expected)) == pytest.approx(1.0, abs=1e-9)
    assert float(found.norm()) == pytest.approx(1.0)
    assert float(differences.mean(0) @ found) > 0
    swapped = load(method).fit(Contrast(contrast.negative, contrast.positive), None)
    torch.testing.assert_close(swapped, -found)


def test_centring_removes_the_contrast() -> None:
    """The published form finds how pairs vary, not how they differ: it must not pass for the uncentred one."""
    generator = torch.Generator().manual_seed(0)
    contrast_axis, varied_axis = torch.eye(8, dtype=torch.float64)[:2]
    differences = 5 * contrast_axis + torch.randn(50, 1, generator=generator, dtype=torch.float64) * varied_axis
    contrast = Contrast(differences, torch.zeros_like(differences))
    assert cosine(load("pca").fit(contrast, None), contrast_axis) > 0.99
    assert abs(cosine(load("repe-centered").fit(contrast, None), varied_axis)) > 0.99
    for same in (contrast_axis.repeat(4, 1), differences[:1]):
        with pytest.raises(WeightsteerError, match="do not vary"):
            load("repe-centered").fit(Contrast(same, torch.zeros_like(same)), None)


def test_probe_finds_the_planted_direction() -> None:
    """Noise along the mean difference misleads the mean; a probe that did not see it would be a slow diffmean."""
    generator = torch.Generator().manual_seed(0)
    planted = torch.eye(30, dtype=torch.float64)[0]
    loud = torch.eye(30, dtype=torch.float64)[1]

    def side(sign: int) -> Tensor:
        noise = 0.3 * torch.randn(300, 30, generator=generator, dtype=torch.float64)
        return (
            noise + sign * (planted + loud) + 6 * torch.randn(300, 1, generator=generator, dtype=torch.float64) * loud
        )

    train, held = Contrast(side(1), side(-1)), Contrast(side(1), side(-1))
    found = load("probe").fit(train, held)
    assert cosine(found, planted) > 0.95
    assert cosine(load("diffmean").fit(train, None), planted) < 0.9
    assert float(found.norm()) == pytest.approx(1.0)
    # neither the unit of the activations nor where their origin lies may matter
    moved = [Contrast(1000 * pair.positive + 77, 1000 * pair.negative + 77) for pair in (train, held)]
    assert cosine(load("probe").fit(*moved), found) > 0.9999


def test_probe_chooses_its_regularisation_on_held_out_pairs() -> None:
    """Held-out pairs that show no contrast call for the strongest penalty, whose solution is the mean difference."""
    train, nothing = drawn(20, 40), drawn(20, 40, seed=1)
    held = Contrast(nothing.negative, nothing.negative + 1e-6 * nothing.positive)
    found = load("probe").fit(train, held)
    assert cosine(found, load("diffmean").fit(train, None)) > 0.99
    kept = load("probe").fit(train, train)
    assert cosine(kept, load("diffmean").fit(train, None)) < 0.97
    with pytest.raises(WeightsteerError, match="held-out pairs"):
        load("probe").fit(train, None)
