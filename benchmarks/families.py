"""What each adapter family is: its exact form, its size, how far steering is from PEFT's own logits, what it costs.

    python benchmarks/families.py --out docs/families.md

On the embedded model, with the settings of the preset "pocket" and branches whose parameters are moved by noise, so
that every one of them counts. The logits are those of the positive branch: the vector of the pair is added to the
negative branch's, and PEFT (for full fine-tunes, the checkpoint itself) computes the same branch unmerged in fp32.
"""

import sys
import tempfile
import warnings
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro
from overhead import overhead, settings
from peft import PeftModel
from safetensors import safe_open
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel
from vectors import random_branches

from weightsteer import WeightVector, adapters, load_model, steer

# noise of this size moves the logits by nats; the small parameters of these families need more of it
NOISE = {"ia3": 0.3, "delora": 0.1, "oft": 0.1, "boft": 0.1, "bias": 0.3}


@dataclass(frozen=True)
class Options:
    """Measure every adapter family on the embedded model."""

    rows: int = 8
    tokens: int = 64
    repeats: int = 9
    out: Path | None = None
    """Write the table to this page."""


@torch.no_grad()
def logits(model: torch.nn.Module, ids: Tensor) -> Tensor:
    found: Tensor = model(input_ids=ids).logits
    return found


def branch_logits(model: PreTrainedModel, folder: Path, ids: Tensor) -> Tensor:
    """What PEFT makes of a branch, unmerged; for a full fine-tune, what its checkpoint computes."""
    if not (folder / "adapter_config.json").is_file():
        return logits(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval(), ids)
    return logits(PeftModel.from_pretrained(deepcopy(model), str(folder)).eval(), ids)


def parameters(folder: Path) -> int:
    """Numbers that one branch holds on disk."""
    adapter, checkpoint = folder / "adapter_model.safetensors", folder / "model.safetensors"
    file = adapter if adapter.is_file() else checkpoint
    with safe_open(file, framework="pt") as tensors:
        return sum(tensors.get_tensor(key).numel() for key in tensors.keys())  # noqa: SIM118 (no mapping)


def line(model: PreTrainedModel, family: str, options: Options, place: Path) -> str:
    ids = torch.randint(5, model.config.vocab_size, (options.rows, options.tokens))
    positive, negative = random_branches(model, family, settings(family, "pocket"), place, NOISE.get(family, 0.02))
    pair = WeightVector.from_adapters(positive, negative, model)
    start = WeightVector.from_branch(negative, model)
    expected = branch_logits(model, positive, ids)
    with steer(model, {start: 1.0, pair: 1.0}):
        error = (logits(model, ids) - expected).abs().max()
    moved = (expected - branch_logits(model, negative, ids)).abs().max()
    size = pair.save(place / "vector.safetensors").stat().st_size
    cost = overhead(model, pair, ids, options.repeats)
    return (
        f"| `{family}` | {adapters.get(family).form} | {parameters(positive):,} | {size / 1024:,.0f} KiB "
        f"| {error:.0e} of {moved:.1f} | {cost:.2f}× |"
    )


def main(options: Options) -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    model, _ = load_model("pocket", device="cpu")
    torch.manual_seed(0)
    lines = []
    for family in adapters.families():
        with tempfile.TemporaryDirectory() as place:
            lines.append(line(model, family, options, Path(place)))
        print(lines[-1], flush=True)
    page = f"""\
# The adapter families

`python benchmarks/families.py {" ".join(sys.argv[1:])}` wrote this table.

The difference `dW = θ⁺ − θ⁻` of two branches is computed from the adapters' own parameters, in fp32, in the form that
the family gives it; a dense matrix is formed only by `v.delta(name)`. *Δlogit*: the largest difference between the
logits of the positive branch as PEFT computes them, unmerged in fp32 (for `full`: as the checkpoint does), and as
steering from the negative branch by α = 1 gives them; behind it, how far the two branches are apart.
*Parameters*: of one branch.
*File*: the saved vector. *Cost*: time of a steered forward pass over an unsteered one, with a strength per row.
All on `pocket` ({sum(p.numel() for p in model.parameters()):,} parameters, 4 layers), each family on the modules it
adapts, with its settings of the preset `pocket`. Matrices as small as these take a rotation (OFT, BOFT) in full, large
ones block by block.

| family | exact form | parameters | file | max Δlogit | cost |
|---|---|--:|--:|--:|--:|
{chr(10).join(lines)}

At real model shapes the steered pass costs relatively less: see `benchmarks/results/overhead.md`. How
the learning rates were chosen: [recipes](recipes.md). What is not exact is refused, with the reason: variants of LoRA
that PEFT combines by other rules (`lora_bias`, KaSA, aLoRA, …), `modules_to_save`, trained biases, randomised initial
factors, and quantised bases under the forms that multiply the base weight.
"""
    if options.out:
        options.out.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main(tyro.cli(Options))
