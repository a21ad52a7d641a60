"""Hooks: what is active on a module, and the one forward that carries it out.

A steered module gets a ``forward`` of its own, around the one of its class. Every effect is computed from the
module's raw input and own output, and added. So several vectors, and nested contexts, add exactly, in any order and
any mix of families; with a forward hook each, the second would take the output of the first for ``W x``. Hooks that
others set see the steered output, whenever they were set.

And compiled models notice. ``torch.compile`` guards the ``forward`` of a module, so a graph made without steering is
not used while the module is steered; hooks set after compiling are passed over in silence.

And each pass asks whether it is a pass of the context that steers (`weightsteer.steering.claims`).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from threading import RLock
from types import MethodType
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from weightsteer.errors import WeightsteerError
from weightsteer.steering.claims import Claim
from weightsteer.terms import InputModifier, Modifier


@dataclass(frozen=True, eq=False)
class Effect:
    """One intervention at one module, with its strength () or (b,), and the claim of the context that steers."""

    name: str
    modify: Modifier
    modify_input: InputModifier | None
    alpha: Tensor
    claim: Claim

    def strength(self, x: Tensor) -> Tensor:
        """The strength on the device of x (layers may be on several), checked against the rows of x."""
        if self.alpha.dim() and len(self.alpha) != len(x):
            raise WeightsteerError(
                f"alpha has {len(self.alpha)} values but {self.name} gets {len(x)} rows: give one alpha per row of the "
                "batch (repeat_interleave for several sequences per prompt), or a single number."
            )
        return self.alpha if self.alpha.device == x.device else self.alpha.to(x.device)


@dataclass(frozen=True, eq=False)
class _Hook:
    """What a module was given: the ``forward`` set on it (not on its class) before, if any, and the effects."""

    before: Callable[..., Any] | None
    effects: tuple[Effect, ...]


_hooks: WeakKeyDictionary[nn.Module, _Hook] = WeakKeyDictionary()
_lock = RLock()  # a context may end in another thread than the one that entered it


def add(module: nn.Module, effect: Effect) -> Callable[[], None]:
    """Put an effect on a module; what is returned takes it away again, in whatever order."""
    with _lock:
        hook = _hooks.get(module) or _Hook(vars(module).get("forward"), ())
        _set(module, replace(hook, effects=(*hook.effects, effect)))

    def remove() -> None:
        with _lock:
            hook = _hooks[module]
            _set(module, replace(hook, effects=tuple(other for other in hook.effects if other is not effect)))

    return remove


def _set(module: nn.Module, hook: _Hook) -> None:
    """Give a module the forward for some effects; without any, what it had before."""
    if hook.effects:
        # bound, so that the forward of a copied module gets the copy, and does not run on the original's weights
        module.forward = MethodType(_forward(module, hook), module)
        _hooks[module] = hook
        return
    del _hooks[module]
    if hook.before is None:
        del module.forward
    else:
        module.forward = hook.before


def _forward(owner: nn.Module, hook: _Hook) -> Callable[..., Any]:
    before, effects = hook.before, hook.effects
    claims = tuple(dict.fromkeys(effect.claim for effect in effects))
    alone = effects[0] if len(effects) == 1 else None
    through_input = alone.modify_input if alone else None

    def forward(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        def run(*args: Any, **kwargs: Any) -> Any:
            return type(module).forward(module, *args, **kwargs) if before is None else before(*args, **kwargs)

        if module is not owner:  # a copy, which would stay steered for ever
            return run(*args, **kwargs)
        for claim in claims:
            claim.check()
        x = args[0] if args else next(iter(kwargs.values()))
        if alone is not None and through_input is not None and _wide(x):
            other = through_input(x, alone.strength(x))
            return run(other, *args[1:], **kwargs) if args else run(**{**kwargs, next(iter(kwargs)): other})
        output = run(*args, **kwargs)
        own = output[0] if isinstance(output, tuple) else output
        y = own
        for effect in effects:
            y = effect.modify(x, own, y, effect.strength(x))
        return (y, *output[1:]) if isinstance(output, tuple) else y

    return forward


def _wide(x: Tensor) -> bool:
    """Whether x may be changed in place of the output: half precision (autocast too) would round it once more."""
    return x.dtype in (torch.float32, torch.float64) and not torch.is_autocast_enabled(x.device.type)
