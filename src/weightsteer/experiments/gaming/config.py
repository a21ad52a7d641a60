"""The settings of the training-gaming experiment: every field with its default, bounds and meaning."""

from typing import Any, Literal

from pydantic import Field, field_validator

from weightsteer.experiments.gaming.protocol import ROLES, SETTINGS, Condition, Setting
from weightsteer.experiments.settings import Device, Name, Resamples, Seeds, Settings, Strengths

ALPHAS = (-1.0, -0.75, -0.5, -0.25, 0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0)


class GamingConfig(Settings):
    """Settings × deployment roles × seeds, on each model of a ladder."""

    model: Name = Field(default="pocket", description="pocket-s, pocket, pocket-l, a folder, or a Hugging Face id.")
    ladder: tuple[Name, ...] = Field(default=(), description="Several models, smallest first, in place of --model.")
    settings: tuple[Setting, ...] = Field(
        default=SETTINGS, description="What the system prompt says about training (told is setting 1, baseline 4)."
    )
    seeds: Seeds = Field(default=(0, 1, 2), description="Training seeds.")
    alphas: Strengths = Field(
        default=ALPHAS, description="Points a of θ_J + a·(θ_H − θ_J); 0 and 1 are the branches, and always among them."
    )
    samples: int = Field(default=20, ge=1, le=100_000, description="Answers per question and role to learn from.")
    generator: Name | None = Field(default=None, description="Model that writes them; by default the one trained.")
    pairs: Name | None = Field(
        default=None, description="Parquet or JSONL file of answers to learn from, in place of sampled ones."
    )
    rank: int = Field(default=8, ge=1, le=65_536, description="Rank of the LoRAs.")
    lora_alpha: float = Field(default=16.0, gt=0, description="LoRA alpha; the adapter is scaled by alpha / rank.")
    lr: float | None = Field(
        default=None, gt=0, le=1000, description="Learning rate; 1e-3 on an embedded model, else 1e-4."
    )
    batch: int | None = Field(
        default=None, ge=1, le=100_000, description="Rows per step; 32 on an embedded model, else 16."
    )
    epochs: float = Field(default=2.0, gt=0, le=1_000_000, description="Maximum number of passes over the data.")
    steps: int | None = Field(default=None, ge=1, description="Maximum number of steps; by default the epochs decide.")
    together: int = Field(
        default=2, ge=1, le=2, description="Branches of a setting trained in one pass: 2, or 1 to need less memory."
    )
    comparison: bool = Field(default=True, description="Compare with activation steering and prompts at equal KL.")
    budget: float = Field(default=0.5, gt=0, description="That KL: nats per token, 95th percentile, neutral texts.")
    detector: int = Field(
        default=4,
        ge=0,
        le=1000,
        description="Further seeds, trained and probed for the detector alone; 0 for no more runs.",
    )
    resamples: Resamples = 2000
    device: Device | None = Field(default=None, description="cpu, cuda, …; the first GPU by default.")
    dtype: Literal["float32", "bfloat16"] | None = Field(default=None, description="Type of the checkpoint by default.")

    @field_validator("settings", "ladder")
    @classmethod
    def _distinct(cls, given: tuple[Any, ...]) -> tuple[Any, ...]:
        if len(set(given)) != len(given):
            raise ValueError("give none twice")
        return given

    @field_validator("settings")
    @classmethod
    def _some(cls, given: tuple[Any, ...]) -> tuple[Any, ...]:
        if not given:
            raise ValueError("give at least one")
        return given

    @field_validator("alphas")
    @classmethod
    def _ends(cls, alphas: tuple[float, ...]) -> tuple[float, ...]:
        return tuple(sorted({*alphas, 1.0}))

    @property
    def models(self) -> tuple[str, ...]:
        """The ladder, or the one model."""
        return self.ladder or (self.model,)

    @property
    def conditions(self) -> list[Condition]:
        """Every condition, in the order of the settings."""
        return [Condition(setting, role) for setting in self.settings for role in ROLES]
