"""Representation engineering as it was published for weight steering: a weak baseline, for comparison.

The centred principal component (`repe-centered`) of the last token in front of the answer, at the decoder layers from
30% to 80% of the depth (8 to 21 of 28), each a unit vector, so that α = 1 adds a vector of norm 1 to states whose norm
is many times that. Read from a pool of suffixes (`weightsteer.data.suffixes.suffix_pairs`), it is the last token of the
suffix under the first persona of either side.
"""

from torch import Tensor

from weightsteer.activation.methods.base import Contrast, register
from weightsteer.activation.methods.pca import centred


@register("repe-published", layers="middle", at="prompt", scale="unit")
def published(train: Contrast, held_out: Contrast | None) -> Tensor:
    """The centred principal component of the last token, at layers 30% to 80%, of unit length: RepE as published.

    Returns:
        (d,) of unit length.
    """
    return centred(train, held_out)
