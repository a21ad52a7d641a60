"""Principal directions of the activations under the contrast: how the states of the two sides of a pair differ.

Differences ``D = h⁺ − h⁻`` (n, d), one row per probe pair, not centred: centring would take out the difference of
means, which is the contrast itself. Three contrasts:

- *activation-pca*, *activation-pca-block*: the answers, each under its own persona where the pairs know them;
- *task-difference*: the answers without personas, which is what the branches are trained on;
- *persona-contrast*: the last token in front of the answer under the two personas, the same text otherwise.
"""

import torch
from torch import Tensor

from weightsteer.analysis.bases.base import register
from weightsteer.analysis.bases.leading import principal
from weightsteer.analysis.bases.materials import Materials
from weightsteer.analysis.basis import Side
from weightsteer.errors import WeightsteerError
from weightsteer.inference.capture import HookPoint


@register(
    "activation-pca",
    needs=("model", "pairs"),
    origin="principal differences of the stream behind each block (output), or of each module's own input (input)",
)
def cumulative(materials: Materials, rank: int, side: Side) -> dict[str, Tensor]:
    """The leading principal directions of the differences of the stream behind each block, for its writers.

    Cumulative: the stream behind block l holds what all blocks up to l have written. On the input side every linear
    module has the directions of its own input, o_proj and down_proj too.
    """
    stream = materials.stream
    if side == "output":
        return stream.at_modules(_by_depth(materials, rank, answers=True, personas=materials.personas), side)
    # the readers behind one norm have one input
    points = {one.name: HookPoint(one.norm, "output") for one in stream.readers}
    points |= {one.name: HookPoint(one.name, "input") for one in stream.writers}
    return _at(materials, points, rank)


@register(
    "activation-pca-block",
    needs=("model", "pairs"),
    sides=("output",),
    origin="principal differences of what each writer itself puts out",
)
def block_local(materials: Materials, rank: int, side: Side) -> dict[str, Tensor]:
    """The leading principal directions of ``Δy`` (n, d) at the output of each writer, (d, rank) by module."""
    return _at(materials, {one.name: HookPoint(one.name, "output") for one in materials.stream.writers}, rank)


@register(
    "task-difference",
    needs=("model", "pairs"),
    origin="principal differences of the stream at the answers without personas, over all depths, each of unit length",
)
def task_difference(materials: Materials, rank: int, side: Side) -> dict[str, Tensor]:
    """The leading principal directions of the differences of both sides over all depths: one subspace for the stream.

    Every difference has unit length, since the stream grows with depth and the last layers would dominate.
    """
    states = materials.states(materials.stream_points, answers=True, personas=False)
    rows = torch.cat([sides.differences for sides in states.values()])
    lengths = rows.norm(dim=1, keepdim=True)
    rows = rows[lengths[:, 0] > 0] / lengths[lengths[:, 0] > 0]
    found = principal({0: rows}, rank, "the differences of the answers of the pairs")
    return materials.stream.at_modules(found[0], side)


@register(
    "persona-contrast",
    needs=("model", "pairs"),
    origin="principal differences of the stream in front of the answer under the two personas, by depth",
)
def persona_contrast(materials: Materials, rank: int, side: Side) -> dict[str, Tensor]:
    """The leading principal directions, at every depth, of the difference that the personas make before the answer.

    Raises:
        WeightsteerError: the pairs name no personas.
    """
    if not materials.personas:
        raise WeightsteerError(
            "the basis persona-contrast compares personas, and the pairs lack the columns sys_prompt_pos and "
            "sys_prompt_neg: give pairs as weightsteer.data.pairs.generate makes them."
        )
    return materials.stream.at_modules(_by_depth(materials, rank, answers=False, personas=True), side)


def _by_depth(materials: Materials, rank: int, *, answers: bool, personas: bool) -> dict[int, Tensor]:
    """Principal differences of the stream behind each block. The embedding is left out: at one and the same token it
    does not differ."""
    points = dict(enumerate(materials.stream_points))
    del points[0]
    states = materials.states(list(points.values()), answers=answers, personas=personas)
    rows = {depth: states[point].differences for depth, point in points.items()}
    return principal(rows, rank, "the differences of the pairs in the stream")


def _at(materials: Materials, points: dict[str, HookPoint], rank: int) -> dict[str, Tensor]:
    """Principal differences at each module's hook point; modules with the same point share one computation."""
    states = materials.states(list(points.values()), answers=True, personas=materials.personas)
    rows = {point: sides.differences for point, sides in states.items()}
    found = principal(rows, rank, "the differences of the pairs")
    return {name: found[point] for name, point in points.items() if point in found}
