"""Principal directions of what a vector itself does to the stream: the shift of the states from −dW to +dW.

``D = h(x; θ + dW) − h(x; θ − dW)`` (n, d), one row per answer of the probe pairs, of either side and without personas,
not centred. The published projection diagnostic was made with such a basis: directions in which the steered states
move, and not those in which the pairs differ (*activation-pca*). It is made from the vector by way of the model, so a
share of the vector in it is a finding and no tautology.
"""

from torch import Tensor

from weightsteer.analysis.bases.base import register
from weightsteer.analysis.bases.leading import principal
from weightsteer.analysis.bases.materials import Materials
from weightsteer.analysis.basis import Side
from weightsteer.inference.capture import HookPoint

WHAT = "the shifts of the states between −dW and +dW"


@register(
    "steering-shift",
    needs=("model", "pairs", "vector"),
    contains=False,
    origin="principal shifts of the stream behind each block between −dW and +dW, as in the published projection",
)
def cumulative(materials: Materials, rank: int, side: Side) -> dict[str, Tensor]:
    """The stream behind block l has moved by what the vector did in all blocks up to l."""
    places = dict(enumerate(materials.stream_points))
    del places[0]  # the embedding does not move
    shifts = materials.shifts(list(places.values()))
    found = principal({depth: shifts[place] for depth, place in places.items()}, rank, WHAT)
    return materials.stream.at_modules(found, side)


@register(
    "steering-shift-block",
    needs=("model", "pairs", "vector"),
    sides=("output",),
    contains=False,
    origin="principal shifts of what each writer itself puts out between −dW and +dW",
)
def block_local(materials: Materials, rank: int, side: Side) -> dict[str, Tensor]:
    places = {site.name: HookPoint(site.name, "output") for site in materials.stream.writers}
    shifts = materials.shifts(list(places.values()))
    found = principal({name: shifts[place] for name, place in places.items()}, rank, WHAT)
    return dict(found)
