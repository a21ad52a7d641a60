"""What the settings of all experiments share: they are frozen, checked, and a mistake in them is one message."""

import math
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from weightsteer.errors import WeightsteerError, unknown

DTYPES = ("float32", "bfloat16", "float16", "auto")

LARGEST_ALPHA = 10_000.0
"""Of any strength that is asked for; calibration stays far below."""


class Settings(BaseModel):
    """Frozen fields with a description each. The same object is parsed from flags and from ``run.json``."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @classmethod
    def checked(cls, fields: Any, where: str = "") -> Self:
        """The settings made of ``fields``.

        Args:
            fields: a mapping from names to values; groups of settings are mappings themselves.
            where: what the fields come from, for the message: a file, or the command line.

        Raises:
            WeightsteerError: a mistake in the fields; the message names the field.
        """
        try:
            return cls.model_validate(fields)
        except ValidationError as error:
            raise WeightsteerError(cls._explained(error, where)) from error

    @classmethod
    def _explained(cls, error: ValidationError, where: str) -> str:
        first = error.errors(include_url=False)[0]
        *groups, name = [str(part) for part in first["loc"]] or ["(file)"]
        if first["type"] == "extra_forbidden":
            group: type[BaseModel] = cls
            for each in groups:
                group = type(cls.model_fields[each].default)
            message = str(unknown("field", name, group.model_fields))
            return f"{where}: {message}" if where else message
        message = f"{'.'.join([*groups, name])}: {first['msg'].removeprefix('Value error, ')}."
        return f"{where}, {message}" if where else message


def _distinct(given: tuple[Any, ...]) -> tuple[Any, ...]:
    if not given or len(set(given)) != len(given):
        raise ValueError("give at least one, and none twice")
    return given


def _named(given: str) -> str:
    if not given.strip():
        raise ValueError("a name is empty")
    return given


def _dtype(given: str) -> str:
    if given not in DTYPES:
        raise ValueError(str(unknown("dtype", given, DTYPES)))
    return given


def _strengths(given: tuple[float, ...]) -> tuple[float, ...]:
    if not given:
        raise ValueError("give at least one")
    if not all(map(math.isfinite, given)):
        raise ValueError("strengths are finite numbers")
    if any(abs(alpha) > LARGEST_ALPHA for alpha in given):
        raise ValueError(f"no strength is above {LARGEST_ALPHA:g}: the sums of a model overflow there")
    if len(set(given)) != len(given):
        raise ValueError("a strength is given twice")
    # Sorted, with 0, and without -0.0: the order in which strengths are given changes no result.
    return tuple(sorted({alpha + 0.0 for alpha in given} | {0.0}))


def _seeds(given: tuple[int, ...]) -> tuple[int, ...]:
    if not given or len(set(given)) != len(given):
        raise ValueError("give at least one, and none twice: seeds are distinct")
    return given


Name = Annotated[str, AfterValidator(_named)]
"""A name or a path."""
Names = Annotated[tuple[Name, ...], AfterValidator(_distinct)]
"""At least one name, and none twice."""
Seed = Annotated[int, Field(ge=0, lt=2**32)]
"""What every generator of random numbers accepts."""
Seeds = Annotated[tuple[Seed, ...], AfterValidator(_seeds)]
"""Distinct seeds from 0 on, at least one."""
Resamples = Annotated[int, Field(ge=100, le=1_000_000, description="Bootstrap resamples behind each interval.")]
"""With fewer than a hundred the ends of a 95% interval are single draws."""
Device = Annotated[
    str,
    Field(pattern=r"^(cpu|(cuda|mps|xpu|npu|hpu)(:\d{1,2})?)$", description="cpu, cuda, …; the first GPU by default."),
]
Dtype = Annotated[str, AfterValidator(_dtype)]
"""Of weights; ``auto`` for that of the checkpoint."""
Strengths = Annotated[tuple[float, ...], AfterValidator(_strengths)]
"""Finite and distinct strengths α, sorted, with 0 among them."""
