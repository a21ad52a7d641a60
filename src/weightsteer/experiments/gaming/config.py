"""What a run of the training-gaming lab is: every knob, its default and its meaning."""

import math
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from weightsteer.errors import WeightsteerError
from weightsteer.experiments.gaming.protocol import ROLES, SETTINGS, Cell, Setting

ALPHAS = (-1.0, -0.75, -0.5, -0.25, 0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0)


class GamingConfig(BaseModel):
    """Settings × deployment roles × seeds, on each model of a ladder; `weightsteer gaming --help` tells every knob."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = "pocket"
    ladder: tuple[str, ...] = ()
    settings: tuple[Setting, ...] = SETTINGS
    seeds: tuple[int, ...] = (0, 1, 2)
    alphas: tuple[float, ...] = ALPHAS
    samples: int = Field(default=20, ge=1)
    generator: str | None = None
    pairs: str | None = None
    rank: int = Field(default=8, ge=1)
    lora_alpha: float = Field(default=16.0, gt=0)
    lr: float | None = Field(default=None, gt=0)
    batch: int | None = Field(default=None, ge=1)
    epochs: float = Field(default=2.0, gt=0)
    steps: int | None = Field(default=None, ge=1)
    together: int = Field(default=2, ge=1, le=2)
    comparison: bool = True
    budget: float = Field(default=0.5, gt=0)
    detector: int = Field(default=4, ge=0)
    resamples: int = Field(default=2000, ge=100)
    device: str | None = None
    dtype: Literal["float32", "bfloat16"] | None = None

    @field_validator("settings", "seeds", "ladder")
    @classmethod
    def _distinct(cls, given: tuple[Any, ...]) -> tuple[Any, ...]:
        if len(set(given)) != len(given):
            raise ValueError("give none twice")
        return given

    @field_validator("settings", "seeds")
    @classmethod
    def _some(cls, given: tuple[Any, ...]) -> tuple[Any, ...]:
        if not given:
            raise ValueError("give at least one")
        return given

    @field_validator("alphas")
    @classmethod
    def _alphas(cls, alphas: tuple[float, ...]) -> tuple[float, ...]:
        if not all(map(math.isfinite, alphas)):
            raise ValueError("points are finite numbers")
        return tuple(sorted({alpha + 0.0 for alpha in alphas} | {0.0, 1.0}))

    @classmethod
    def checked(cls, fields: Any) -> Self:
        """The configuration made of ``fields``; a mistake in them is a `WeightsteerError` that names it."""
        try:
            return cls.model_validate(fields)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(map(str, first["loc"])) or "gaming"
            raise WeightsteerError(f"{where}: {first['msg'].removeprefix('Value error, ')}.") from error

    @property
    def models(self) -> tuple[str, ...]:
        """The ladder, or the one model."""
        return self.ladder or (self.model,)

    @property
    def cells(self) -> list[Cell]:
        """Every arm, in the order of the settings."""
        return [Cell(setting, role) for setting in self.settings for role in ROLES]
