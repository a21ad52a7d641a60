"""Write the model with a vector merged into it as a checkpoint of its own."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from weightsteer.export import hub
from weightsteer.export.card import checkpoint_card, facts_of
from weightsteer.export.folder import as_json, finished
from weightsteer.export.merge import merge_into
from weightsteer.export.proof import Difference, between, default_probe, logits
from weightsteer.export.realised import MergeReport
from weightsteer.steering import steer
from weightsteer.vector.file import replace

if TYPE_CHECKING:
    from weightsteer.vector import WeightVector


@dataclass(frozen=True)
class CheckpointReport:
    """What `export_merged` wrote: the folder, the report of the merge, |Δlogit| against unmerged steering, the
    address on the hub if it was pushed."""

    folder: Path
    merge: MergeReport
    cost: Difference
    url: str | None = None

    def __str__(self) -> str:
        lines = [
            str(self.merge),
            f"logits against unmerged steering: max |Δ| {self.cost.max:.3g}, mean |Δ| {self.cost.mean:.3g}",
        ]
        return "\n".join([*lines, *([self.url] if self.url else []), str(self.folder)])


def export_merged(
    vector: "WeightVector",
    folder: str | Path,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    alpha: float = 1.0,
    dtype: torch.dtype | str | None = None,
    push: str | None = None,
    private: bool = False,
) -> CheckpointReport:
    """Merge the vector into the model (in place: see `merge_into`) and save both model and tokenizer.

    The folder also gets ``merge.json`` (realised gain and error of every module, and |Δlogit| between the merged model
    and the one steered unmerged) and a model card.

    Args:
        vector: what to merge.
        folder: made, or replaced when it holds an earlier export.
        model: the base model, which is changed.
        tokenizer: saved with the model; renders the prompts on which logits are compared.
        alpha: the strength.
        dtype: of the checkpoint; None keeps that of each weight.
        push: upload to this hub repository (owner/name) at the end.
        private: make that repository private.

    Raises:
        WeightsteerError: what `merge_into` raises; or the folder cannot be written, or holds something else.
    """
    if push is not None:
        hub.check(push)
    with finished(Path(folder), {"digest": vector.digest, "alpha": alpha, "metadata": vector.metadata}) as partial:
        # first: where the delta depends on the base weight, the vector ends with the merge
        facts, prompts = facts_of(vector), default_probe(model, tokenizer)
        with steer(model, vector, alpha, other_base=True):
            expected = logits(model, prompts)
        report = merge_into(vector, model, alpha, dtype)
        cost = between(logits(model, prompts), expected)
        model.save_pretrained(partial)
        tokenizer.save_pretrained(partial)
        evidence = {**report.record(), "vector": vector.digest, "logits": {"max": cost.max, "mean": cost.mean}}
        replace(partial / "merge.json", as_json(evidence))
        replace(partial / "README.md", checkpoint_card(vector, facts, report, cost).encode())
    url = hub.push(Path(folder), push, private=private) if push is not None else None
    return CheckpointReport(Path(folder), report, cost, url)
