"""steer(): apply an intervention to a model by forward hooks, one strength per row, and take it away again.

The weights of the model are never written: a weight vector adds ``α · dW x`` to the output of each module it
touches, so the model is what it was as soon as the hooks are gone (Fierro & Roger, arXiv 2511.05408, §3:
``θ + α·dW``).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn

from weightsteer.errors import WeightsteerError
from weightsteer.models import decoder_layers, layer_index

Model = TypeVar("Model", bound=nn.Module)


class Intervention(Protocol):
    """Anything that has a strength: a weight vector, an activation vector, a prompt, a control."""

    @property
    def method(self) -> str:
        """``weight``, ``activation``, ``prompt`` or ``control``."""

    @property
    def metadata(self) -> Mapping[str, Any]:
        """Where it comes from; at least ``behavior``, ``adapter`` and ``seed``."""

    @property
    def names(self) -> list[str]:
        """Paths of the modules it hooks."""

    def modify(self, name: str, module: nn.Module) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
        """What happens at one module: ``(x, y, alpha) -> y'``.

        x (b, …, d_in) is the module's input, y (b, …, d_out) its output, alpha a scalar or (b,) in fp32 on
        the module's device. y must not be written to. With alpha = 0 the result equals y.
        """


@contextmanager
def steer(model: Model, intervention: Intervention, alpha: float | Sequence[float] | Tensor) -> Iterator[Model]:
    """Run the body with ``θ + α·dW`` (for a weight vector) in place of θ.

    Works under ``generate``, and contexts nest: their effects add. When alpha is 0 everywhere no hook is set
    (unless alpha asks for a gradient), so the logits are those of the model, bit for bit. The hooks go when
    the body ends or raises, and also when setting them raises halfway.

    Args:
        model: any model that has the modules of the intervention; its parameters stay untouched.
        intervention: what to apply.
        alpha: the strength, one for all rows or one per row of the batch (b,). ``generate`` with several
            sequences per prompt needs one per sequence: ``alpha.repeat_interleave(num_return_sequences)``.

    Raises:
        WeightsteerError: alpha is not finite or not a scalar or vector, the model lacks a module, or (in the
            forward pass) the batch has another number of rows than alpha.
    """
    strength = _strength(alpha, model)
    modules = _modules(model, intervention)
    handles = []
    try:
        if strength.requires_grad or bool((strength != 0).any()):
            for name, module in modules.items():
                hook = _hook(name, intervention.modify(name, module), strength)
                handles.append(module.register_forward_hook(hook, with_kwargs=True))
        yield model
    finally:
        for handle in handles:
            handle.remove()


def first_layer(model: nn.Module, intervention: Intervention) -> int:
    """The lowest decoder layer an intervention touches; 0 when it touches anything outside the layers.

    All that the model computes below this layer does not depend on alpha.
    """
    prefix, _ = decoder_layers(model)
    return min((layer_index(name, prefix) or 0 for name in intervention.names), default=0)


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
    return found


def _hook(
    name: str, modify: Callable[[Tensor, Tensor, Tensor], Tensor], alpha: Tensor
) -> Callable[[nn.Module, tuple[Any, ...], dict[str, Any], Any], Any]:
    rows = len(alpha) if alpha.dim() else None

    def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        x = args[0] if args else next(iter(kwargs.values()))
        if rows is not None and x.shape[0] != rows:
            raise WeightsteerError(
                f"alpha has {rows} values but {name} gets {x.shape[0]} rows: give one alpha per row of the "
                "batch (repeat_interleave for several sequences per prompt), or a single number."
            )
        here = alpha.to(x.device)  # the layers of one model may lie on several devices
        if isinstance(output, tuple):
            return (modify(x, output[0], here), *output[1:])
        return modify(x, output, here)

    return hook
