"""Write a vector as a LoRA folder that PEFT and vLLM load, prove that it is the vector, and say what it is."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peft import LoraConfig
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from weightsteer.errors import WeightsteerError
from weightsteer.export import hub
from weightsteer.export.card import adapter_card
from weightsteer.export.factors import LeftOut, factors
from weightsteer.export.folder import as_json, finished
from weightsteer.export.proof import Difference, Probe, Proof, compare, default_probe, prove
from weightsteer.terms import LowRank, Sum, linear_shape
from weightsteer.vector.compatibility import check_compatible
from weightsteer.vector.file import replace

if TYPE_CHECKING:
    from weightsteer.vector import WeightVector


@dataclass(frozen=True)
class ExportReport:
    """What `export_peft` wrote. ``print(report)`` fits one screen.

    Attributes:
        folder: the path of the folder.
        alpha: the strength that is in it.
        rank: of the LoRA; the same for all modules.
        modules: how many are adapted.
        left_out: what a truncation or `drop_bias` left out; None when the export is exact.
        cost: |Δlogit| between the vector and the export on the probe, when something was left out and a model
            was there to tell.
        proof: that plain PEFT reads the vector from the folder; None without a model.
        url: on the hub, when it was pushed.
    """

    folder: Path
    alpha: float
    rank: int
    modules: int
    left_out: LeftOut | None
    cost: Difference | None
    proof: Proof | None
    url: str | None = None

    def __str__(self) -> str:
        lines = [f"a LoRA of rank {self.rank} on {self.modules} modules, the vector at α = {self.alpha:g}"]
        if self.left_out is None:
            lines.append("exact: nothing of the vector is lost")
        else:
            lines.append(f"not exact: {self.left_out.energy:.3%} of ‖dW‖² is lost")
            lines += [f"  {name}  {share:.3%}" for name, share in self.left_out.worst(5).items()]
            if self.left_out.bias:
                lines.append(f"  biases of norm {self.left_out.bias:.4g} are left out")
            if self.cost:
                lines.append(f"  |Δlogit| it makes on the probe: max {self.cost.max:.3g}, mean {self.cost.mean:.3g}")
        if self.proof is None:
            lines.append("not proved: no model was given to load it into")
        else:
            lines.append(
                f"proved in plain PEFT: max |Δlogit| {self.proof.logits.max:.1e} of {self.proof.tolerance:.1e} allowed "
                f"(the vector itself moves logits by up to {self.proof.effect.max:.3g})"
            )
        return "\n".join([*lines, *([self.url] if self.url else []), str(self.folder)])


def export_peft(
    vector: "WeightVector",
    folder: str | Path,
    *,
    alpha: float = 1.0,
    rank: int | None = None,
    energy: float | None = None,
    drop_bias: bool = False,
    model: PreTrainedModel | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
    probe: Probe | None = None,
    push: str | None = None,
    private: bool = False,
) -> ExportReport:
    """Write a PEFT LoRA folder that is ``α·dW``; of rank 2r, and exact, for two branches of rank r.

    The scale is 1 (``lora_alpha = r``), the rank is the same everywhere (smaller ones are padded with zeros),
    every module is named in full: nothing is left to patterns, which not every runtime reads. The folder also
    gets a model card and, given a model, the proof that plain PEFT gives its logits. Same vector, same bytes.

    Args:
        vector: what to export.
        folder: made, or replaced when it holds an earlier export; never left half-written.
        alpha: the strength to put into the folder.
        rank: for vectors that are not of low rank, and to make others smaller: keep this many singular values
            per module.
        energy: instead of a rank: keep as few as hold this share of ``‖dW_i‖²`` in each module.
        drop_bias: leave out what the vector adds to biases, which a plain LoRA cannot hold.
        model: the base model; with it the folder is proved, and what a truncation does to logits is measured.
        tokenizer: renders the default probe as chats.
        probe: prompts as token ids, instead of the default ones.
        push: upload to this hub repository (owner/name) at the end.
        private: make that repository private.

    Raises:
        WeightsteerError: the vector is not of low rank and neither rank nor energy is given; it adds to biases;
            it touches modules that no LoRA adapts (embeddings, norms); the folder cannot be written, holds
            something else, or is not proved; or the push fails, after the folder was finished.
    """
    if not math.isfinite(alpha):
        raise WeightsteerError(f"alpha is {alpha}; give a finite strength.")
    if push is not None:
        hub.check(push)
    if model is not None:
        check_compatible(vector, model)
    _check_adaptable(vector, model)
    scaled = vector * alpha if alpha != 1 else vector
    found, left_out = factors(scaled, rank=rank, energy=energy, drop_bias=drop_bias)
    shown = type(vector)({name: Sum(term.shape, [(1.0, term)]) for name, term in found.items()}, vector.metadata)
    cost = proof = None
    width = max(1, *(term.rank for term in found.values()))
    record = {"digest": vector.digest, "alpha": alpha, "metadata": vector.metadata}
    with finished(Path(folder), record) as partial:
        replace(partial / "adapter_model.safetensors", save(_tensors(found, width), {"format": "pt"}))
        replace(partial / "adapter_config.json", as_json(_config(vector, list(found), width)))
        if model is not None:
            prompts = default_probe(model, tokenizer) if probe is None else probe
            proof = prove(partial, scaled if left_out is None else shown, model, prompts)
            _check_proof(proof)
            if left_out is not None:
                cost = compare(scaled, shown, model, prompts)
            replace(partial / "proof.json", as_json(_evidence(vector, alpha, proof, left_out, cost)))
        card = adapter_card(
            vector,
            alpha=alpha,
            rank=width,
            modules=len(found),
            norm=shown.norm(),
            left_out=left_out,
            cost=cost,
            proof=proof,
            place=push,
        )
        replace(partial / "README.md", card.encode())
    url = hub.push(Path(folder), push, private=private) if push is not None else None
    return ExportReport(Path(folder), alpha, width, len(found), left_out, cost, proof, url)


def _check_adaptable(vector: "WeightVector", model: PreTrainedModel | None) -> None:
    """A LoRA adapts linear modules. Whether a module is one, the model knows; a delta in full leaves it open."""
    for name, term in vector.terms.items():
        if model is None and any(part.form == "dense" for _, part in term.terms):
            raise WeightsteerError(
                f"the vector holds the delta of {name} in full, and only its base model can tell whether that is a "
                "linear module: pass model=..."
            )
        module: nn.Module | None = model.get_submodule(name) if model is not None else None
        if module is not None and linear_shape(module) is None:
            raise WeightsteerError(
                f"{name} is a {type(module).__name__}, and a LoRA that every runtime reads adapts linear modules only. "
                "Leave it out with v.drop(...), or merge the vector into a checkpoint (--merged)."
            )


def _tensors(found: Mapping[str, LowRank], width: int) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for name, term in found.items():
        padding = width - term.rank
        key = f"base_model.model.{name}"
        tensors[f"{key}.lora_A.weight"] = functional.pad(term.A, (0, 0, 0, padding)).contiguous()
        tensors[f"{key}.lora_B.weight"] = functional.pad(term.B, (0, padding)).contiguous()
    return tensors


def _config(vector: "WeightVector", names: list[str], width: int) -> dict[str, Any]:
    config = LoraConfig(
        r=width,
        lora_alpha=width,
        target_modules=names,
        task_type="CAUSAL_LM",
        base_model_name_or_path=vector.metadata.get("base", {}).get("name"),
        inference_mode=True,
    )
    # sets in a fixed order: the order of a set of strings changes from run to run
    return {key: sorted(value) if isinstance(value, set) else value for key, value in config.to_dict().items()}


def _check_proof(proof: Proof) -> None:
    if not proof.passed:
        raise WeightsteerError(
            f"the export is not proved, so it was not kept: in plain PEFT its logits differ from those of the steered "
            f"model by up to {proof.logits.max:.2e} ({proof.tolerance:.1e} is allowed), and its deltas from the "
            f"vector's by {proof.weights:.2e} of their size. Check that the model is unchanged since it was loaded, "
            "and that this PEFT release is one that weightsteer supports."
        )


def _evidence(
    vector: "WeightVector", alpha: float, proof: Proof, left_out: LeftOut | None, cost: Difference | None
) -> dict[str, Any]:
    """proof.json."""
    record: dict[str, Any] = {"vector": vector.digest, "alpha": alpha, **proof.record()}
    if left_out is not None:
        record["left_out"] = left_out.record()
    if cost is not None:
        record["cost"] = {"max": cost.max, "mean": cost.mean}
    return record
