"""Weight vectors of tiny models, and what they must equal: PEFT's own forward, and weights merged in fp32."""

from copy import deepcopy
from pathlib import Path

import torch
from peft import PeftModel
from tiny import random_lora, tiny
from torch import Tensor
from transformers import PreTrainedModel

from weightsteer.vector import WeightVector

ARCHITECTURES = ("qwen3", "llama", "gemma", "mistral")


def vector_of(model: PreTrainedModel, folder: Path, seed: int = 1, rank: int = 4, **options) -> WeightVector:
    """A contrastive vector of two random LoRAs."""
    return WeightVector.from_adapters(
        random_lora(model, folder / f"positive{seed}", seed=seed, rank=rank, **options),
        random_lora(model, folder / f"negative{seed}", seed=seed + 1000, rank=rank, **options),
        model,
    )


def made(folder: Path, arch: str = "qwen3", **options) -> tuple[PreTrainedModel, WeightVector]:
    model, _ = tiny(arch)
    return model, vector_of(model, folder, **options)


def batch(rows: int = 4, tokens: int = 9, seed: int = 0) -> Tensor:
    return torch.randint(5, 300, (rows, tokens), generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def logits(model: PreTrainedModel, ids: Tensor) -> Tensor:
    return model(input_ids=ids).logits


def peft_logits(model: PreTrainedModel, folder: Path, ids: Tensor) -> Tensor:
    """What plain PEFT, unmerged, makes of an adapter folder."""
    return logits(PeftModel.from_pretrained(deepcopy(model), str(folder)).eval(), ids)


def weights(model: PreTrainedModel) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def same_weights(model: PreTrainedModel, before: dict[str, Tensor]) -> bool:
    """Bit for bit."""
    after = dict(model.named_parameters())
    return after.keys() == before.keys() and all(
        torch.equal(before[name].view(torch.int32), after[name].view(torch.int32)) for name in before
    )


def hooks(model: PreTrainedModel) -> int:
    """Whatever intervenes in a model: hooks, and forwards that are not those of the class."""
    return sum(
        len(module._forward_hooks) + len(module._forward_pre_hooks) + ("forward" in vars(module))
        for module in model.modules()
    )
