"""Fine-tune one branch: an adapter, or some of the weights, on a frozen base.

Two branches trained with one seed differ in their answers alone: the initial adapter, the order of the rows,
the split and the rows left out are the same, so what they have in common cancels in ``θ⁺ − θ⁻``.
"""

from pathlib import Path
from typing import Any

import peft
import polars as pl
from pydantic import BaseModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from weightsteer import adapters
from weightsteer.models import base_record, decoder_layers
from weightsteer.training.loop import Loss, fit
from weightsteer.training.recipes import Recipe
from weightsteer.training.rows import Side, digest, rows_of
from weightsteer.training.trainee import trainee, write


class TrainingRecord(BaseModel):
    """The content of ``training.json``, which is written next to the adapter."""

    base: dict[str, Any]
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
    parameters: int
    """how many numbers were trained"""
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
    """Train one branch on its answers and save it as a PEFT folder, or for ``full`` as a checkpoint.

    A row is the question and the answer; the persona that produced the answer is left out. The loss is the
    mean negative log-likelihood of the answer tokens and the end of sequence, in nats. ``model`` stays as it
    is, bit for bit (see `weightsteer.training.trainee`).

    Args:
        pairs: as :func:`weightsteer.data.pairs.curate` returns them; at least prompt, response_pos and
            response_neg.
        folder: where the adapter or the checkpoint is written, with a ``training.json`` next to it; the same
            arguments give the same bytes on the same machine.

    Raises:
        WeightsteerError: unfit pairs, an adapter that does not fit the model or did not reach its modules, or a
            loss that is not finite.
    """
    family = adapters.get(adapter)
    rows = rows_of(model, tokenizer, pairs, side, recipe, seed)
    with trainee(model, family, recipe, seed) as trained:
        run = fit(trained.network, rows, recipe, seed, title=f"training: {side}", shown=shown)
        record = TrainingRecord(
            base=base_record(model),
            behavior=" + ".join(sorted(pairs["behavior"].unique())) if "behavior" in pairs.columns else "",
            side=side,
            adapter=adapter,
            recipe=recipe,
            seed=seed,
            data=digest(pairs),
            rows={"train": len(rows.train), "validation": len(rows.validation), "too_long": rows.too_long},
            answer_tokens=sum(row.length - row.start for row in rows.train),
            layers=list(recipe.layer_slice(len(decoder_layers(model)[1]))),
            modules=trained.modules,
            parameters=trained.parameters,
            losses=run.losses,
            best_step=run.step,
            stopped_early=run.stopped,
            peft=peft.__version__,
        )
        trained.save(folder)
        # last: a folder with a record is complete
        write(folder / "training.json", record.model_dump_json(indent=2))
    return record
