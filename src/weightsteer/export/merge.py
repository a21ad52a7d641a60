"""Sum a vector into the weights of a model: ``W ← W + α·dW``, in fp32, with one cast at the end."""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from weightsteer.errors import WeightsteerError, unknown
from weightsteer.export.realised import CastWarning, MergeReport, Realised
from weightsteer.models import DTYPES
from weightsteer.terms import Sum
from weightsteer.vector.compatibility import check_compatible

if TYPE_CHECKING:
    from weightsteer.vector import WeightVector

Holder = tuple[nn.Module, str]
"""A module and the attribute under which it keeps a parameter."""

_SUMMABLE = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class _Target:
    """A parameter to be written: the weight or the bias of ``name``, and every module that keeps it."""

    name: str
    kind: Literal["weight", "bias"]
    holders: Sequence[Holder]

    @property
    def module(self) -> nn.Module:
        return self.holders[0][0]

    @property
    def parameter(self) -> Tensor:
        module, key = self.holders[0]
        return getattr(module, key)

    def step(self, term: Sum, alpha: float) -> Tensor:
        """``α·dW`` the way the module stores the parameter, on its device."""
        delta = term.delta() if self.kind == "weight" else term.bias_delta()
        assert delta is not None
        if self.kind == "weight" and isinstance(self.module, Conv1D):
            delta = delta.T
        parameter = self.parameter
        return alpha * delta.reshape(parameter.shape).to(parameter.device, _sum_dtype(parameter))


@torch.no_grad()
def merge_into(
    vector: "WeightVector", model: nn.Module, alpha: float = 1.0, dtype: torch.dtype | str | None = None
) -> MergeReport:
    """Write ``W + α·dW`` into the model, in place: each sum in fp32, then one cast.

    For models that will be saved or served. There is no way back but the original checkpoint, and half
    precision rounds small vectors away: to steer, `weightsteer.steer` is exact and leaves the weights alone.
    The dense delta is formed for one module at a time. A vector whose delta depends on the base weight
    (DoRA, IA3, OFT, BOFT) refers to the weights it was made on: once these have been merged into, it cannot be
    applied again.

    Args:
        vector: what to add.
        model: its base model, or another fine-tune of the same architecture.
        alpha: the strength.
        dtype: of the result. None keeps that of each weight; otherwise every floating-point parameter of the
            model is cast to it, also where nothing is added.

    Returns:
        The realised gain ``<W' − W, α·dW> / ‖α·dW‖²``, the relative error ``‖W' − W − α·dW‖ / ‖α·dW‖`` and the
        share of entries that did not change, per module and in total.

    Warns:
        CastWarning: the cast ate the vector (gain below 0.99, or error above 0.1).

    Raises:
        WeightsteerError: a module is missing, has another shape, is quantised, has no bias for a bias delta,
            or shares its weight with a module that should not change; the sum overflows the dtype; or a delta
            cannot be had (its base weight changed). The model is unchanged then.
    """
    wanted = _dtype(dtype)
    check_compatible(vector, model)
    if not math.isfinite(alpha):
        raise WeightsteerError(f"alpha is {alpha}; give a finite strength.")
    plan = _plan(vector, model)
    _check_overflow(vector, plan, alpha, wanted)
    realised: dict[str, Realised] = {}
    for name, targets in plan.items():
        # both steps before the first write: a delta that depends on the base weight reads that weight
        steps = [target.step(vector.terms[name], alpha) for target in targets]
        realised[name] = sum(
            (_write(target, step, wanted) for target, step in zip(targets, steps, strict=True)), Realised()
        )
    dtypes = {target.parameter.dtype for targets in plan.values() for target in targets}
    if wanted is not None:
        for parameter, holders in _held(model):
            if parameter.dtype in _SUMMABLE and parameter.dtype != wanted:
                _replace(holders, parameter.to(wanted))
    report = MergeReport(alpha, ", ".join(sorted(str(each).removeprefix("torch.") for each in dtypes)), realised)
    if report.warning:
        warnings.warn(report.warning, CastWarning, stacklevel=3)  # 2 is the wrapper of no_grad
    return report


def _dtype(dtype: torch.dtype | str | None) -> torch.dtype | None:
    if isinstance(dtype, str):
        if dtype not in DTYPES:
            raise unknown("dtype", dtype, DTYPES)
        return DTYPES[dtype]
    if dtype is not None and dtype not in _SUMMABLE:
        raise unknown("dtype", str(dtype).removeprefix("torch."), DTYPES)
    return dtype


def _plan(vector: "WeightVector", model: nn.Module) -> dict[str, list[_Target]]:
    """What has to be written, each parameter once. Everything that can be refused is refused here."""
    holders = {id(parameter): held for parameter, held in _held(model)}
    paths = {id(module): name for name, module in model.named_modules()}
    modules = dict(model.named_modules())
    plan: dict[str, list[_Target]] = {}
    planned: set[int] = set()
    for name, term in vector.terms.items():
        for base in term.bases:
            base.weight  # noqa: B018 -- raises when the base weight is not there, or is no longer what it was
        kinds: list[Literal["weight", "bias"]] = []
        if any(part.form != "bias" for _, part in term.terms):
            kinds.append("weight")
        if term.bias_delta() is not None:
            kinds.append("bias")
        for kind in kinds:
            parameter = getattr(modules[name], kind, None)
            _check_summable(name, kind, parameter)
            shared = {paths[id(module)] for module, _ in holders[id(parameter)]} - {name}
            for other in sorted(shared):
                if vector.terms.get(other) != term:
                    raise WeightsteerError(
                        f"{name} shares its {kind} with {other}, which would change too. Steer unmerged with "
                        "weightsteer.steer, leave it out with v.drop(...), or untie the two."
                    )
            if id(parameter) not in planned:
                plan.setdefault(name, []).append(_Target(name, kind, holders[id(parameter)]))
                planned.add(id(parameter))
    return plan


def _check_summable(name: str, kind: str, parameter: object) -> None:
    if kind == "bias" and parameter is None:
        raise WeightsteerError(
            f"{name} has no bias, so the bias part of the vector has no place there: a checkpoint of this "
            "architecture would lose it. Steer unmerged with weightsteer.steer, or leave it out with v.drop(...)."
        )
    if not isinstance(parameter, nn.Parameter) or parameter.dtype not in _SUMMABLE:
        raise WeightsteerError(
            f"the {kind} of {name} is quantised, so nothing can be added to it. Steer unmerged with "
            "weightsteer.steer, or load the model unquantised."
        )
    if parameter.device.type == "meta":
        raise WeightsteerError(
            f"the {kind} of {name} is not in memory (offloaded to disk): load the model without offloading."
        )


def _check_overflow(
    vector: "WeightVector", plan: dict[str, list[_Target]], alpha: float, wanted: torch.dtype | None
) -> None:
    """No entry of the sum exceeds ``max|W| + |α| ‖dW‖``, and that must fit into half precision."""
    for name, targets in plan.items():
        for target in targets:
            dtype = wanted or target.parameter.dtype
            if dtype != torch.float16:  # the others reach as far as fp32
                continue
            reach = float(target.parameter.abs().max()) + abs(alpha) * vector.terms[name].norm()
            if reach > torch.finfo(dtype).max:
                raise WeightsteerError(
                    f"at alpha {alpha:g} the {target.kind} of {name} could overflow float16, whose largest number "
                    "is 65504. Take a smaller alpha, or merge in bfloat16 or float32."
                )


def _write(target: _Target, step: Tensor, wanted: torch.dtype | None) -> Realised:
    parameter = target.parameter
    dtype = wanted or parameter.dtype
    before = parameter.to(step.dtype, copy=True)
    after = (before + step).to(dtype)
    if dtype == parameter.dtype:
        parameter.copy_(after)
    else:
        _replace(target.holders, after)
    return Realised.of(before, step, after.to(step.dtype), before.to(dtype).to(step.dtype))


def _replace(holders: Sequence[Holder], values: Tensor) -> None:
    """New values of another dtype, in every module that shares the parameter."""
    module, key = holders[0]
    fresh = nn.Parameter(values, requires_grad=getattr(module, key).requires_grad)
    for module, key in holders:
        setattr(module, key, fresh)


def _held(model: nn.Module) -> list[tuple[nn.Parameter, list[Holder]]]:
    """Every parameter of the model once, with all modules that keep it (several for tied weights)."""
    held: dict[int, tuple[nn.Parameter, list[Holder]]] = {}
    for module in model.modules():
        for key, parameter in module.named_parameters(recurse=False, remove_duplicate=False):
            held.setdefault(id(parameter), (parameter, []))[1].append((module, key))
    return list(held.values())


def _sum_dtype(parameter: Tensor) -> torch.dtype:
    return torch.float64 if parameter.dtype == torch.float64 else torch.float32
