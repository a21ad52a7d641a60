"""How near vectors are to nuisance vectors, in the form that `weightsteer.audit.audit` takes."""

from collections import defaultdict
from collections.abc import Sequence
from statistics import fmean

from weightsteer.controls import nuisance_name
from weightsteer.errors import WeightsteerError
from weightsteer.vector import WeightVector
from weightsteer.vector.algebra import gram

Cosines = dict[tuple[str, str | None], dict[str, float]]
"""(behavior, adapter) of a vector to the names of nuisances and the cosine with each."""


def cosines_with(vectors: Sequence[WeightVector], nuisances: Sequence[WeightVector]) -> Cosines:
    """The mean cosine (Frobenius) of every vector with every nuisance vector, over training seeds.

    A vector is compared with the nuisance of its own training seed, which shares its initial adapter; with all of that
    name where none has its seed. Nuisances are named as in `weightsteer.analysis.repair`: by their kind of control,
    else by their behaviour.

    Raises:
        WeightsteerError: a zero vector has no direction; or vectors of different base models.
    """
    if not vectors or not nuisances:
        return {}
    products = gram([*vectors, *nuisances])
    lengths = products.diag().sqrt()
    if not (lengths > 0).all():
        raise WeightsteerError("a zero vector has no direction: leave it out of the cosines.")
    cosine = (products / lengths[:, None] / lengths)[: len(vectors), len(vectors) :].tolist()
    found: dict[tuple[str, str | None], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    names = [nuisance_name(nuisance) for nuisance in nuisances]
    for vector, line in zip(vectors, cosine, strict=True):
        metadata = vector.metadata
        for name in dict.fromkeys(names):
            places = [at for at, other in enumerate(names) if other == name]
            same = [at for at in places if nuisances[at].metadata["seed"] == metadata["seed"]]
            found[metadata["behavior"], metadata["adapter"]][name] += [line[at] for at in same or places]
    return {key: {name: fmean(values) for name, values in each.items()} for key, each in found.items()}
