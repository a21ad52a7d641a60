"""How a branch is trained: the published settings as presets, every one of them a knob.

A setting comes from the first of these that has it: what the user changes, what the adapter family says for the
preset (``AdapterFamily.recipe``), the preset. Families need different learning rates: one rate for all of them
compares how well it happens to fit. `docs/recipes.md` shows how the families' own settings were chosen.
"""

from math import ceil
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from weightsteer import adapters
from weightsteer.errors import WeightsteerError, unknown


class Recipe(BaseModel):
    """Settings of one fine-tune (AdamW, linear warm-up, then linear decay to zero)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    rank: int = Field(ge=1)
    lora_alpha: float = Field(gt=0)
    """LoRA's own alpha: the adapter is scaled by lora_alpha / rank. Not the steering strength."""
    block_size: int | None = Field(None, ge=2)
    """Side of the blocks that OFT and BOFT rotate; it has to divide the inputs of every adapted module."""
    delora_lambda: float | None = Field(None, gt=0)
    """DeLoRA's bound of the change of a weight when training starts; it is trained too."""
    lr: float = Field(gt=0)
    batch: int = Field(ge=1)
    steps: int | None = Field(None, ge=1)
    epochs: float | None = Field(None, gt=0)
    """Training ends with whichever of ``steps`` and ``epochs`` is reached first."""
    warmup: int = Field(5, ge=0)
    weight_decay: float = Field(0.01, ge=0)
    clip: float = Field(1.0, gt=0)
    """largest norm of a gradient"""
    layers: tuple[float, float] = (0.3, 0.8)
    """Slice of the decoder layers, as fractions of their number."""
    max_length: int = Field(ge=2)
    """Longer rows (prompt and answer, in tokens) are left out: a cut answer would have no end to learn."""
    validation: float = Field(ge=0, lt=1)
    """share of the pairs held out"""
    split: Literal["row", "topic"] = "row"
    """What is held out: single pairs, or whole questions."""
    eval_every: int = Field(10, ge=1)
    patience: int | None = Field(None, ge=1)
    """Stop after this many evaluations without improvement; None: never."""
    keep: Literal["best", "last"] = "best"
    """Which checkpoint is saved: that of the lowest validation loss, or the last."""

    @field_validator("layers")
    @classmethod
    def _slice(cls, layers: tuple[float, float]) -> tuple[float, float]:
        if not 0 <= layers[0] < layers[1] <= 1:
            raise ValueError("two fractions 0 ≤ from < to ≤ 1 are needed")
        return layers

    @model_validator(mode="after")
    def _ends(self) -> Self:
        if self.steps is None and self.epochs is None:
            raise ValueError("give steps or epochs: the training has to end")
        return self

    @classmethod
    def load(cls, name: str, adapter: str = "lora", **changes: Any) -> Self:
        """A preset by name as an adapter family needs it, with some settings changed.

        Raises:
            WeightsteerError: an unknown preset, family or setting, or a value out of range.
        """
        if name not in PRESETS:
            raise unknown("recipe", name, PRESETS)
        for setting in changes:
            if setting not in cls.model_fields or setting == "name":
                raise unknown("setting of a recipe", setting, set(cls.model_fields) - {"name"})
        try:
            return cls(name=name, **{**PRESETS[name], **adapters.get(adapter).recipe.get(name, {}), **changes})
        except ValidationError as error:
            problems = [
                f"{'.'.join(map(str, detail['loc'])) or 'recipe'}: {detail['msg'].removeprefix('Value error, ')}"
                for detail in error.errors(include_url=False)
            ]
            raise WeightsteerError(f"the recipe {name!r} cannot take these settings: {'; '.join(problems)}.") from error

    def total_steps(self, rows: int) -> int:
        """Optimiser steps for this many training rows."""
        by_epochs = ceil(self.epochs * ceil(rows / self.batch)) if self.epochs is not None else None
        return min(limit for limit in (self.steps, by_epochs) if limit is not None)

    def layer_slice(self, count: int) -> range:
        """The decoder layers to adapt: 0.3 and 0.8 of 28 layers are 8 … 21.

        Raises:
            WeightsteerError: the slice contains no layer of so small a model.
        """
        chosen = range(round(self.layers[0] * count), round(self.layers[1] * count))
        if not chosen:
            raise WeightsteerError(
                f"the slice {self.layers[0]}–{self.layers[1]} of {count} layers is empty. Use a wider one, such as 0–1."
            )
        return chosen


# "paper": the steering vectors of Fierro & Roger (arXiv 2511.05408, table 1): lr 1e-5 and alpha 16; the rate
# of 2e-4 and the alpha of 64 that are often taken for it belong to its task fine-tunes, and are those of the
# preset "fork", which trains every family at one rate: no family changes that rate.
PRESETS: dict[str, dict[str, Any]] = {
    "paper": {
        "rank": 32,
        "lora_alpha": 16,
        "lr": 1e-5,
        "batch": 8,
        "steps": 100,
        "layers": (0.0, 1.0),
        "max_length": 4096,
        "validation": 0.05,
        "eval_every": 20,
        "patience": 2,
    },
    "fork": {
        "rank": 32,
        "lora_alpha": 64,
        "block_size": 8,
        "delora_lambda": 15,
        "lr": 2e-4,
        "batch": 16,
        "epochs": 1,
        "max_length": 512,
        "validation": 0.1,
        "keep": "last",
    },
    # for the embedded models: short answers, few and small layers
    "pocket": {
        "rank": 8,
        "lora_alpha": 16,
        "lr": 3e-3,
        "batch": 32,
        "steps": 60,
        "layers": (0.0, 1.0),
        "max_length": 256,
        "validation": 0.1,
        "patience": 3,
    },
}
