"""Random vectors of every adapter family, made as a user makes one: the difference of two saved branches."""

import tempfile
from pathlib import Path

import torch
from transformers import PreTrainedModel

from weightsteer import WeightVector, adapters
from weightsteer.training import Recipe
from weightsteer.training.trainee import trainee


def random_vector(model: PreTrainedModel, family: str, recipe: Recipe, size: float = 0.02) -> WeightVector:
    """The difference of two random branches.

    Raises:
        WeightsteerError: the installed PEFT or the model has no place for this family.
    """
    with tempfile.TemporaryDirectory() as place:
        return WeightVector.from_adapters(*random_branches(model, family, recipe, Path(place), size), model)


def random_branches(
    model: PreTrainedModel, family: str, recipe: Recipe, place: Path, size: float = 0.02
) -> tuple[Path, Path]:
    """Two saved branches whose parameters were moved from a common start by normal noise."""
    folders = place / "positive", place / "negative"
    for seed, folder in enumerate(folders):
        generator = torch.Generator().manual_seed(seed)
        with trainee(model, adapters.get(family), recipe, seed=0) as branch, torch.no_grad():
            for parameter in branch.network.parameters():
                if parameter.requires_grad:
                    noise = torch.randn(parameter.shape, generator=generator)
                    parameter += size * noise.to(parameter.device, parameter.dtype)
            branch.save(folder)
    return folders
