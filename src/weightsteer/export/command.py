"""``weightsteer export``: from the file of a vector to a folder, with the base model loaded for it."""

import warnings
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from weightsteer.errors import WeightsteerError
from weightsteer.export import hub
from weightsteer.export.checkpoint import CheckpointReport, export_merged
from weightsteer.export.peft_folder import ExportReport, export_peft
from weightsteer.export.realised import CastWarning
from weightsteer.files import fixed
from weightsteer.models import load_model
from weightsteer.vector import WeightVector


def export_file(
    vector: Path,
    out: Path,
    *,
    model: str | None = None,
    alpha: float = 1.0,
    rank: int | None = None,
    energy: float | None = None,
    drop_bias: bool = False,
    proof: bool = True,
    merged: bool = False,
    dtype: str | None = None,
    push: str | None = None,
    private: bool = False,
) -> ExportReport | CheckpointReport:
    """Export a saved vector as a LoRA folder, proved in fp32 on its base model, or merged into that model.

    Args:
        vector: file that `WeightVector.save` wrote.
        out: folder to write.
        model: name or folder of the base model; what the vector says by default.
        alpha: strength to put into the folder.
        rank, energy, drop_bias: what may be left out, see `export_peft`.
        proof: False writes a LoRA folder without loading the base model, and says so in its card.
        merged: a whole checkpoint instead of a LoRA.
        dtype: of the merged weights; that of the base checkpoint by default.
        push, private: upload to the hub.

    Raises:
        WeightsteerError: options that exclude each other; the base model cannot be had; or what `export_peft` and
            `export_merged` raise.
    """
    if merged and (rank is not None or energy is not None or drop_bias):
        raise WeightsteerError("--merged sums the whole vector; --rank, --energy and --drop-bias belong to a LoRA.")
    if dtype is not None and not merged:
        raise WeightsteerError("--dtype is that of merged weights (--merged); a LoRA folder is always in fp32.")
    if private and push is None:
        raise WeightsteerError("--private is about the repository that --push OWNER/NAME names; give that too.")
    if push is not None:
        hub.check(push)  # before a large model is loaded
    if vector.is_file():
        vector = fixed(vector)  # read for its base and again for its tensors
    if merged:
        base, tokenizer = _base(vector, model, "auto")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", CastWarning)  # the report says it
            return export_merged(
                WeightVector.load(vector, base),
                out,
                base,
                tokenizer,
                alpha=alpha,
                dtype=dtype,
                push=push,
                private=private,
            )
    options: dict[str, Any] = {"alpha": alpha, "rank": rank, "energy": energy, "drop_bias": drop_bias}
    options |= {"push": push, "private": private}
    if not proof:
        return export_peft(WeightVector.load(vector), out, **options)
    base, tokenizer = _base(vector, model, "float32")
    return export_peft(WeightVector.load(vector, base), out, model=base, tokenizer=tokenizer, **options)


def _base(vector: Path, model: str | None, dtype: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    name = model or WeightVector.load(vector).metadata.get("base", {}).get("name")
    if name is None:
        raise WeightsteerError(f"{vector} does not name its base model; give it with --model.")
    try:
        return load_model(name, dtype=dtype)
    except WeightsteerError as error:
        if model is not None:
            raise
        raise WeightsteerError(
            f"the base model of the vector is needed, to prove the export or to merge into: {error}\nSay with --model "
            "where it is, or write a LoRA folder without a proof (--no-proof)."
        ) from error
