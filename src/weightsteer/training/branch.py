"""Fine-tune one branch: a PEFT adapter on a frozen base.

Two branches trained with one seed differ in their answers alone: the initial adapter, the order of the rows,
the split and the rows left out are the same, so what they have in common cancels in ``θ⁺ − θ⁻``.
"""

import copy
import json
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import peft
import polars as pl
import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from pydantic import BaseModel
from safetensors.torch import save_file
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.pytorch_utils import Conv1D

from weightsteer import adapters
from weightsteer.errors import WeightsteerError
from weightsteer.models import decoder_layers, layer_index, model_name, weight_hash
from weightsteer.training.loop import Loss, fit
from weightsteer.training.recipes import Recipe
from weightsteer.training.rows import Side, digest, rows_of


class TrainingRecord(BaseModel):
    """What ``training.json`` beside the adapter tells."""

    base: dict[str, str]
    behavior: str
    side: Side
    adapter: str
    recipe: Recipe
    seed: int
    data: str
    """digest of the pairs, both sides; equal for the two branches of one vector"""
    rows: dict[str, int]
    """train, validation, too_long"""
    answer_tokens: int
    """in the training rows, ends of sequence included"""
    layers: list[int]
    modules: list[str]
    """adapted in each layer"""
    losses: list[Loss]
    best_step: int
    """the step whose weights are saved"""
    stopped_early: bool
    peft: str


def train_branch(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    pairs: pl.DataFrame,
    side: Side,
    *,
    adapter: str = "lora",
    recipe: Recipe,
    seed: int,
    folder: Path,
    shown: bool = True,
) -> TrainingRecord:
    """Train one branch on its answers and save it as a PEFT folder with a ``training.json``.

    A row is the question and the answer; the persona that produced the answer is left out. The loss is the
    mean negative log-likelihood of the answer tokens and the end of sequence, in nats. ``model`` stays as it
    is: the adapter grows on a copy of its modules that shares its weights.

    Args:
        pairs: as :func:`weightsteer.pairs.curate` returns them; at least prompt, response_pos and
        response_neg. folder: where ``adapter_config.json``, ``adapter_model.safetensors`` and
        ``training.json`` are written;
            the same arguments give the same bytes on the same machine.

    Raises:
        WeightsteerError: unfit pairs, modules that the adapter did not reach, or a loss that is not finite.
    """
    family = adapters.get(adapter)
    prefix, layers = decoder_layers(model)
    chosen = recipe.layer_slice(len(layers))
    targets = _linear_names(layers, chosen)
    rows = rows_of(model, tokenizer, pairs, side, recipe, seed)
    config = family.peft_config(recipe.rank, recipe.lora_alpha, targets, list(chosen))
    with _adapted(model, config, seed) as adapted:
        touched = _coverage(adapted, prefix, chosen, targets)
        run = fit(adapted.get_base_model(), rows, recipe, seed, title=f"training: {side}", shown=shown)
        record = TrainingRecord(
            base={"name": model_name(model), "hash": weight_hash(model)},
            behavior=" + ".join(sorted(pairs["behavior"].unique())) if "behavior" in pairs.columns else "",
            side=side,
            adapter=adapter,
            recipe=recipe,
            seed=seed,
            data=digest(pairs),
            rows={"train": len(rows.train), "validation": len(rows.validation), "too_long": rows.too_long},
            answer_tokens=sum(row.length - row.start for row in rows.train),
            layers=list(chosen),
            modules=touched,
            losses=run.losses,
            best_step=run.step,
            stopped_early=run.stopped,
            peft=peft.__version__,
        )
        _save(adapted, record, folder)
    return record


def _linear_names(layers: nn.ModuleList, chosen: range) -> list[str]:
    """Last name components of all linear projections in the chosen layers, sorted."""
    found = {
        name.rsplit(".", 1)[-1]
        for index in chosen
        for name, module in layers[index].named_modules()
        if isinstance(module, nn.Linear | Conv1D)
    }
    if not found:
        raise WeightsteerError(f"layers {chosen.start}–{chosen.stop - 1} contain no linear projection to adapt.")
    return sorted(found)


@contextmanager
def _adapted(model: PreTrainedModel, config: peft.PeftConfig, seed: int) -> Iterator[peft.PeftModel]:
    """A PEFT model on a copy of the modules of ``model`` that shares its tensors; ``model`` itself stays
    bare."""
    if any(isinstance(module, BaseTunerLayer) for module in model.modules()):
        raise WeightsteerError(
            "the model already carries a PEFT adapter. Train on the base model: unload the adapter first."
        )
    tensors = [*model.parameters(), *model.buffers()]
    flags = [tensor.requires_grad for tensor in tensors]
    bare = copy.deepcopy(model, {id(tensor): tensor for tensor in tensors})
    try:
        # PEFT draws the initial adapter from the global generator: the same one for both branches, and the
        # generator of the caller goes on as if nothing had happened
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            with warnings.catch_warnings():
                # PEFT asks transformers for attributes that are about to be renamed; no user can act on that
                warnings.simplefilter("ignore", FutureWarning)
                adapted = peft.get_peft_model(bare, config).eval()
            yield adapted
    finally:
        for tensor, flag in zip(tensors, flags, strict=True):
            tensor.requires_grad_(flag)


def _coverage(adapted: peft.PeftModel, prefix: str, chosen: range, targets: Sequence[str]) -> list[str]:
    """The projections adapted in every chosen layer, sorted; refuses an adapter that lies anywhere else."""
    found: dict[int | None, set[str]] = {}
    for name, module in adapted.get_base_model().named_modules():
        if isinstance(module, BaseTunerLayer):
            found.setdefault(layer_index(name, prefix), set()).add(name.rsplit(".", 1)[-1])
    outside = sorted(str(layer) for layer in found if layer is None or layer not in chosen)
    missed = [str(layer) for layer in chosen if layer not in found]
    if outside or missed:
        raise WeightsteerError(
            f"PEFT was to adapt {', '.join(targets)} in the layers {chosen.start}–{chosen.stop - 1}, but missed the "
            f"layers {', '.join(missed) or '(none)'} and reached others: {', '.join(outside) or '(none)'}. "
            "This architecture names its layers in a way that PEFT does not follow."
        )
    return sorted(set().union(*found.values()))


def _save(adapted: peft.PeftModel, record: TrainingRecord, folder: Path) -> None:
    """Write the PEFT folder. PEFT's own ``save_pretrained`` leaves sets in no order, and local paths, in
    it."""
    config = next(iter(adapted.peft_config.values())).to_dict()
    config = {key: sorted(value) if isinstance(value, set) else value for key, value in config.items()}
    config |= {"base_model_name_or_path": record.base["name"], "inference_mode": True}
    state = peft.get_peft_model_state_dict(adapted, save_embedding_layers=False)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in sorted(state.items())}
    folder.mkdir(parents=True, exist_ok=True)
    weights = folder / "adapter_model.safetensors"
    save_file(tensors, weights.with_suffix(".partial"), metadata={"format": "pt"})
    os.replace(weights.with_suffix(".partial"), weights)
    _write(folder / "adapter_config.json", json.dumps(config, indent=2, sort_keys=True))
    # last: a folder with a record is complete
    _write(folder / "training.json", record.model_dump_json(indent=2))


def _write(path: Path, text: str) -> None:
    partial = path.with_suffix(".partial")
    partial.write_text(text + "\n", encoding="utf-8")
    os.replace(partial, path)
