"""What the settings of all experiments share: they are frozen, checked, and a mistake in them is one message."""

import math
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError

from weightsteer.errors import WeightsteerError, unknown


class Settings(BaseModel):
    """Frozen fields with a description each. The same object is parsed from flags and from ``run.json``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

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


def _strengths(given: tuple[float, ...]) -> tuple[float, ...]:
    if not all(map(math.isfinite, given)):
        raise ValueError("strengths are finite numbers")
    if len(set(given)) != len(given):
        raise ValueError("a strength is given twice")
    # Sorted, with 0, and without -0.0: the order in which strengths are given changes no result.
    return tuple(sorted({alpha + 0.0 for alpha in given} | {0.0}))


def _seeds(given: tuple[int, ...]) -> tuple[int, ...]:
    if not given or len(set(given)) != len(given) or min(given) < 0:
        raise ValueError("give at least one, and none twice: seeds are distinct integers from 0 on")
    return given


Names = Annotated[tuple[str, ...], AfterValidator(_distinct)]
"""At least one name, and none twice."""
Seeds = Annotated[tuple[int, ...], AfterValidator(_seeds)]
"""Distinct seeds from 0 on, at least one."""
Strengths = Annotated[tuple[float, ...], AfterValidator(_strengths)]
"""Finite and distinct strengths α, sorted, with 0 among them."""
