"""steer(): apply interventions to a model while it runs, one strength per row, and take them away again.

The weights of the model are never written: a weight vector adds ``α · dW x`` to the output of each module it
touches (`weightsteer.steering.hooks`), so the model is what it was as soon as that ends (Fierro & Roger, arXiv
2511.05408, §3:
``θ + α·dW``).
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn

from weightsteer.errors import WeightsteerError
from weightsteer.models import check_base, decoder_layers, layer_index
from weightsteer.models.experts import among_experts
from weightsteer.steering import hooks
from weightsteer.steering.claims import Claim, claimed
from weightsteer.terms import Modifier

Model = TypeVar("Model", bound=nn.Module)
Strength = float | Sequence[float] | Tensor
"""A number for all rows of a batch, or one number per row (b,)."""


class Intervention(Protocol):
    """Anything that has a strength: a weight vector, an activation vector, a prompt, a control.

    It may also have ``modify_input(name, module) -> ((x, alpha) -> x') | None``: another input with which the module
    itself gives the steered output. It is used in place of ``modify`` where nothing else is active on the module and
    x is in fp32 or fp64.
    """

    @property
    def method(self) -> str:
        """``weight``, ``activation``, ``prompt`` or ``control``."""

    @property
    def metadata(self) -> Mapping[str, Any]:
        """Where it comes from; at least ``behavior``, ``adapter`` and ``seed``. With ``base: {"name", "hash"}`` it
        belongs to the model of that `weightsteer.models.weight_hash`."""

    @property
    def names(self) -> list[str]:
        """Paths of the modules it acts on."""

    def modify(self, name: str, module: nn.Module) -> Modifier:
        """What happens at one module: ``(x, own, y, alpha) -> y'``.

        x (b, …, d_in) is the module's input, own (b, …, d_out) its output, y the output with the effects so far,
        alpha a scalar or (b,) in fp32 (fp64 for a model in fp64) on the device of x. own and y must not be written
        to. What is added to y depends on x, own and alpha alone; with alpha = 0 it is nothing.
        """


@contextmanager
def steer(
    model: Model,
    intervention: Intervention | Mapping[Any, Strength] | Sequence[tuple[Any, Strength]],
    alpha: Strength | None = None,
    *,
    other_base: bool = False,
) -> Iterator[Model]:
    """Run the body with ``θ + α·dW`` (for a weight vector) in place of θ; ``θ + Σ_i α_i·dW_i`` for several.

    ::

        with steer(model, v, 1.0): ...
        with steer(model, {v: 1.0, u: -0.5}): ...
        with steer(model, [(v, 1.0), (u, torch.tensor([0.0, 0.5, 1.0]))]): ...

    Works under ``generate``, autograd and ``torch.compile``, and contexts nest: their effects add, whatever the
    order. When alpha is 0 everywhere no module is touched (unless alpha asks for a gradient), so the logits are those
    of the model, bit for bit; so are those of rows with alpha = 0 in a batch with others. Everything is taken away
    when the body ends or raises, and also when putting it in place raises halfway.

    Until then the model belongs to the context that steers it, with whatever alpha. In another thread or asyncio task
    ``steer`` on this model, and a plain pass of it, raise: they would be steered too. Take turns with a lock, or put
    the rows into one batch with one alpha per row. Tasks made inside the body, and ``asyncio.to_thread`` there, run
    steered; wait for them inside, what goes on later is not steered. A plain ``threading.Thread`` needs
    ``contextvars.copy_context().run`` for it. While a generator waits at a ``yield`` inside ``with steer(...)``, every
    pass and every further ``steer`` raises; one under ``contextlib.contextmanager`` may.

    Args:
        model: any model that has the modules of the interventions; its parameters stay untouched.
        intervention: what to apply; several with their strengths as a mapping, or as pairs.
        alpha: the strength of the one intervention, one for all rows or one per row of the batch (b,). ``generate``
            with several sequences per prompt needs one per sequence:
            ``alpha.repeat_interleave(num_return_sequences)``.
        other_base: steer a model with other weights than the one the vector was made on: another fine-tune of it
            (``θ_ft + α·dW``), or the same checkpoint rounded to another dtype. Without it such a model is refused.
            The hash that tells is computed once (seconds for a billion parameters) and again when weights changed.

    Raises:
        WeightsteerError: alpha is not finite or not a scalar or vector, the model lacks a module or is not the base
            of a vector, a module belongs to the experts of a mixture, another thread, asyncio task or suspended
            generator steers or measures the model; or (in the forward pass) the batch has another number of rows than
            alpha, or another thread or task runs the model.
    """
    effects: list[tuple[nn.Module, hooks.Effect]] = []
    pairs = _pairs(intervention, alpha)
    with claimed(model) as claim, ExitStack() as stack:
        for one, given in pairs:
            strength, modules = _strength(given, model), _modules(model, one)
            if strength.requires_grad or bool((strength != 0).any()):
                effects += [(module, _effect(one, name, module, strength, claim)) for name, module in modules.items()]
        if not other_base:
            for one, _ in pairs:
                check_base(one.metadata, model)
        for module, effect in effects:
            stack.callback(hooks.add(module, effect))
        yield model


def first_layer(model: nn.Module, intervention: Intervention) -> int:
    """The lowest decoder layer an intervention touches; 0 when it touches anything outside the layers.

    All that the model computes below this layer does not depend on alpha.
    """
    prefix, _ = decoder_layers(model)
    return min((layer_index(name, prefix) or 0 for name in intervention.names), default=0)


def _pairs(intervention: Any, alpha: Strength | None) -> list[tuple[Any, Strength]]:
    """Each intervention with its strength, however they were given."""
    if isinstance(intervention, Mapping):
        pairs = list(intervention.items())
    elif isinstance(intervention, Sequence):
        pairs = list(intervention)
        if not all(isinstance(pair, tuple) and len(pair) == 2 for pair in pairs):
            raise WeightsteerError("several interventions are given as pairs: steer(model, [(v, 1.0), (u, -0.5)]).")
    elif alpha is None:
        raise WeightsteerError("the strength is missing: steer(model, v, 1.0).")
    else:
        return [(intervention, alpha)]
    if alpha is not None:
        raise WeightsteerError(
            "several interventions bring their own strengths, so alpha must be left out: "
            "steer(model, {v: 1.0, u: -0.5})."
        )
    return pairs


def _effect(intervention: Any, name: str, module: nn.Module, alpha: Tensor, claim: Claim) -> hooks.Effect:
    modify = intervention.modify(name, module)
    modify_input = getattr(intervention, "modify_input", None)
    return hooks.Effect(name, modify, None if modify_input is None else modify_input(name, module), alpha, claim)


def _strength(alpha: float | Sequence[float] | Tensor, model: nn.Module) -> Tensor:
    """alpha as a tensor () or (b,) on the model's device; fp32, or fp64 for a model in fp64."""
    parameter = next(model.parameters())
    try:
        strength = torch.as_tensor(alpha).to(
            parameter.device, torch.float64 if parameter.dtype == torch.float64 else torch.float32
        )
    except (TypeError, ValueError, RuntimeError) as error:
        raise WeightsteerError(f"alpha must be a number, or one number per row; not {alpha!r}.") from error
    if strength.dim() > 1:
        raise WeightsteerError(
            f"alpha has shape {tuple(strength.shape)}; give a number, or one number per row of the batch (b,)."
        )
    if not bool(strength.isfinite().all()):
        raise WeightsteerError(f"alpha holds NaN or infinity ({strength.tolist()}); give finite strengths.")
    return strength


def _modules(model: nn.Module, intervention: Intervention) -> dict[str, nn.Module]:
    """The hooked modules by name; a vector of another architecture is refused before anything happens."""
    found, missing = {}, []
    for name in intervention.names:
        try:
            found[name] = model.get_submodule(name)
        except AttributeError:
            missing.append(name)
    if missing:
        raise WeightsteerError(
            f"{type(model).__name__} has no module {missing[0]}"
            + (f" (nor {len(missing) - 1} more of {len(intervention.names)})" if len(missing) > 1 else "")
            + ". The intervention was made for another architecture, or the model is wrapped: "
            "steer the base model."
        )
    if routed := [name for name in found if among_experts(name)]:
        raise WeightsteerError(
            f"{routed[0]} belongs to the experts of a mixture: its input holds the tokens routed to it, not the rows "
            "of the batch, so no strength per row can be applied there. Leave the experts out (v.drop), or steer a "
            "dense model."
        )
    return found
