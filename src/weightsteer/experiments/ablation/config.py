"""The settings of an ablation and of an alignment: every field with its default, bounds and meaning."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import AfterValidator, Field

from weightsteer.experiments.settings import Name, Resamples, Settings, Strengths

BASES = ("activation-pca", "activation-pca@input", "activation-pca@both", "persona-contrast", "residual-write")
"""Subspaces that ablations project on by default."""

ALIGNED = (
    *("activation-pca@both", "activation-pca-block", "persona-contrast@both", "task-difference@both"),
    *("residual-write", "residual-read@input", "readout", "readout-weak", "weights-top@both", "weights-weak@both"),
    *("suppressed", "amplified", "write-not-read"),
)
"""Subspaces whose share of the vector is reported by default."""

Rank = Annotated[int, Field(ge=1, le=65_536)]
Ranks = Annotated[tuple[Rank, ...], AfterValidator(lambda given: tuple(sorted(set(given))))]


@dataclass(frozen=True)
class Options:
    """How a vector is taken apart.

    Attributes:
        bases: to project on, as ``name``, ``name@input`` or ``name@both``.
        ranks: of the curves.
        draws: random vectors behind each control of the whole vector.
        texts: neutral texts for the damage.
    """

    bases: tuple[str, ...]
    ranks: tuple[int, ...]
    draws: int
    texts: int


class AblationConfig(Settings):
    """Which terms, modules and subspaces of a vector are ablated, and how the rest is measured."""

    plan: tuple[Name, ...] = Field(
        default=("all",), description="projection, norms, layers, modules, coordinates, shared, or all."
    )
    bases: tuple[Name, ...] = Field(
        default=BASES, description="Subspaces to project on: NAME, NAME@input or NAME@both."
    )
    ranks: Ranks = Field(default=(1, 2, 4, 8, 16, 32), description="Ranks of the subspaces.")
    alphas: Strengths = Field(
        default=(-1.0, 0.0, 1.0), description="Strengths. A few are enough: every ablation is swept at each of them."
    )
    limit: int = Field(default=128, ge=1, description="Maximum number of rows of each evaluation, in whole clusters.")
    draws: int = Field(
        default=10, ge=0, le=10_000, description="Random vectors behind each control of the whole vector."
    )
    texts: int = Field(default=16, ge=0, description="Neutral texts on which damage is measured.")
    resamples: Resamples = 2000

    @property
    def options(self) -> Options:
        """Those of the settings that the ablations themselves depend on."""
        return Options(self.bases, self.ranks, self.draws, self.texts)


class AlignmentConfig(Settings):
    """The subspaces that a vector is compared with."""

    bases: tuple[Name, ...] = Field(default=ALIGNED, description="Subspaces: NAME, NAME@input or NAME@both.")
    dimensions: Rank = Field(default=8, description="Rank of the subspaces.")

    @property
    def options(self) -> Options:
        """The same, in the form that ablations have."""
        return Options(self.bases, (self.dimensions,), 0, 0)
