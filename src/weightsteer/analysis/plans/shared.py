"""What the vector has in common with others of its base, kept and taken out.

With two or more others the subspace is found in these alone: whether the vector has its effect there is then a
finding. With one it is found in both, and contains a component of the vector by construction, which its lines say.
"""

from collections.abc import Iterator

from weightsteer.analysis import bases
from weightsteer.analysis.plans.base import Ablation, PlanInput, register
from weightsteer.analysis.plans.projection import on_basis
from weightsteer.errors import WeightsteerError

NAME = "shared"


@register("shared")
def shared(given: PlanInput) -> Iterator[Ablation]:
    """The projections on the subspace that the vector shares with others, and on the own subspace of each.

    Raises:
        WeightsteerError: no other vector is given.
    """
    others = dict(given.others)
    if not others:
        raise WeightsteerError(
            "the plan shared compares vectors of one base, and there is only one: give others with --others "
            "FILE.safetensors, or run several seeds or adapter families."
        )
    stated: set[str] = set()
    rank = max(given.ranks)
    among = list(others.values()) if len(others) > 1 else [given.vector, *others.values()]
    name = "shared by the others" if len(others) > 1 else "shared with the other"
    found = bases.make("shared", given.model, rank=rank, vectors=among)
    yield from on_basis(given, NAME, name, (found,), stated)
    for other, vector in others.items():
        own = bases.make("own", given.model, rank=rank, vector=vector)
        yield from on_basis(given, NAME, f"own subspace of {other}", (own,), stated)
