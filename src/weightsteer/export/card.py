"""The model card of an export: what it is, where it comes from, how to use it, what was proved, what it cannot do.

Nothing in it depends on the day or on the place: the same vector gives the same card.
"""

import json
import re
import shlex
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import yaml

from weightsteer.export.factors import LeftOut
from weightsteer.export.proof import WEIGHT_TOLERANCE, Difference, Proof
from weightsteer.export.realised import MergeReport
from weightsteer.files import printable

if TYPE_CHECKING:
    from weightsteer.vector import WeightVector

_ADAPTER = """
# {behavior}: a steering vector for {base}

A direction in weight space, `dW = θ⁺ − θ⁻`: the difference of two fine-tunes of {base} on opposite sides of
*{behavior}*. This folder is a LoRA of rank {rank} that adds {strength} to {modules} modules. `+dW` steers towards
the behaviour, `−dW` away from it. Made with weightsteer, which also measures what such a vector does and what else it
changes.

## What it is

{facts}

## Use with PEFT

The scale of the adapter is the strength{scale}.

```python
from peft import PeftModel
from peft.helpers import rescale_adapter_scale
from transformers import AutoModelForCausalLM

model = AutoModelForCausalLM.from_pretrained({base_code}, dtype="auto")
model = PeftModel.from_pretrained(model, {place_code})
with rescale_adapter_scale(model, {example:g}):  # any number; outside of the block it is 1
    ...  # model.generate(...)
```

Do not merge it into half-precision weights (`merge_and_unload` in bf16 rounds small vectors away).

## Use with weightsteer

One strength per row of a batch, exactly zero effect at 0, and any number of vectors at once:

```python
import weightsteer as ws
{download}
model, tokenizer = ws.load_model({base_code})
vector = ws.WeightVector.from_branch({source}, model)
with ws.steer(model, vector, alpha={example:g}):
    ...  # model.generate(...)
```

## Use with vLLM and mergekit

Both take a LoRA at its own scale only. For another strength, export again with it (`weightsteer export --alpha 0.5`).

```
vllm serve {base_shell} --enable-lora --max-lora-rank {served_rank} --lora-modules {slug}={place_shell}
```

vLLM then offers `{slug}` next to the base model. In a mergekit configuration the model is {both};
set `dtype: float32`, for the reason above.

## Proof

{proof}
"""

_CHECKPOINT = """
# {base}, steered: {behavior}

The weights of {base} plus {alpha:g} times a steering vector, `W + α·dW`, where `dW = θ⁺ − θ⁻` is the difference of two
fine-tunes on opposite sides of *{behavior}*. Each sum was taken in fp32 and cast once to {dtype}. Made with
weightsteer. It loads as the base model does; the strength cannot be changed any more.

## What it is

{facts}

## What the cast left of the vector

{realised}
"""

_HERE = "path/to/this/folder"
# of the PEFT configuration of a branch; the rest is in the full record
_RECIPE = ("peft_type", "r", "lora_alpha", "use_rslora", "peft_version")

_LIMITS = """
## Limits

- It belongs to the base model above. On another fine-tune of the same architecture its effect is not known.
- It was made from pairs of one behaviour; what else it shifts (agreement, length, refusal) has to be measured:
  `weightsteer eval` does that with balanced labels and confidence intervals.
- Large strengths break the language before they add to the behaviour.
"""


def adapter_card(
    vector: "WeightVector",
    *,
    alpha: float,
    rank: int,
    modules: int,
    norm: float,
    left_out: LeftOut | None,
    cost: Difference | None,
    proof: Proof | None,
    place: str | None,
) -> str:
    """README.md of a LoRA folder. ``norm``: of what the folder holds; ``place``: its hub id, when it goes there."""
    behavior, base = _behavior(vector), _base(vector)
    recommended = vector.metadata.get("recommended_alpha")
    number = recommended if isinstance(recommended, int | float) and alpha else None
    facts = {
        **facts_of(vector),
        "strength in this folder": f"α = {alpha:g}",
        "norm of this folder": f"{norm:.4g}",
        **_losses(left_out, cost),
    }
    return _front(behavior, base, "peft", ["lora"]) + (
        _ADAPTER.format(
            behavior=_prose(behavior),
            base=_prose(base),
            base_code=_code(base),
            base_shell=_shell(base),
            place_code=_code(place or _HERE),
            place_shell=_shell(place or _HERE),
            both=_inline(f"{base}+{place or _HERE}"),
            rank=rank,
            strength="`dW`" if alpha == 1 else f"`{alpha:g}·dW`",
            modules=modules,
            facts=_table(facts),
            scale=f"; this folder is the vector at α = {alpha:g}, so a scale of s means α = {alpha:g}·s"
            if alpha != 1
            else " α",
            download="from huggingface_hub import snapshot_download\n" if place else "",
            source=f"snapshot_download({_code(place)})" if place else _code(_HERE),
            example=number / alpha if number else 1.0,
            served_rank=_served(rank),
            slug=_slug(behavior),
            proof=_proof(proof),
        )
        + _LIMITS
    )


def checkpoint_card(vector: "WeightVector", facts: Mapping[str, str], report: MergeReport, cost: Difference) -> str:
    """README.md of a merged checkpoint. ``facts``: `facts_of` the vector, asked for before it was merged."""
    behavior, base = _behavior(vector), _base(vector)
    facts = {
        **facts,
        "strength": f"α = {report.alpha:g}",
        "logits against unmerged steering": f"max |Δ| {cost.max:.3g}, mean |Δ| {cost.mean:.3g}",
    }
    return _front(behavior, base, "transformers", ["merge"]) + (
        _CHECKPOINT.format(
            behavior=_prose(behavior),
            base=_prose(base),
            alpha=report.alpha,
            dtype=report.dtype,
            facts=_table(facts),
            realised=f"```\n{report}\n```",
        )
        + _LIMITS
    )


def _front(behavior: str, base: str, library: str, tags: list[str]) -> str:
    front = {
        "base_model": base,
        "library_name": library,
        "pipeline_tag": "text-generation",
        "tags": ["weightsteer", "steering-vector", *tags, _slug(behavior)],
    }
    return f"---\n{yaml.safe_dump(front, sort_keys=False, allow_unicode=True)}---\n"


def facts_of(vector: "WeightVector") -> dict[str, str]:
    """What the vector says about itself: where it comes from, how large it is, at which strength it was found good."""
    metadata = vector.metadata
    base = metadata.get("base", {})
    facts = {
        "behaviour": _behavior(vector),
        "adapter family": str(metadata["adapter"]),
        "seed": _text(metadata.get("seeds", metadata["seed"])),
        "base model": f"{_base(vector)} (weights {base.get('hash', 'not recorded')})",
        "modules": f"{len(vector.names)}, {vector.names[0]} to {vector.names[-1]}",
        "norm ‖dW‖": f"{vector.norm():.4g}",
    }
    if gguf := base.get("gguf"):
        types = ", ".join(f"{count} {kind}" for kind, count in gguf["types"].items())
        facts["base weights"] = f"those of {gguf['file']} (SHA-256 {gguf['sha256']}; {types}), {gguf['weights']}"
    recommended = metadata.get("recommended_alpha")
    facts["recommended α"] = _text(recommended) if recommended is not None else "not measured"
    for side, branch in metadata.get("branches", {}).items():
        config = {key: value for key in _RECIPE if (value := branch.get("config", {}).get(key)) is not None}
        settings = "".join(f", {key} {_text(value)}" for key, value in config.items())
        facts[f"{side} branch"] = f"adapter {branch.get('digest', 'not recorded')}{settings}"
    if operations := metadata.get("operations"):
        facts["operations"] = "; ".join(map(str, operations))
    # by layer and by kind of module it has too much for a card
    geometry = {key: value for key, value in (metadata.get("geometry") or {}).items() if not isinstance(value, Mapping)}
    facts |= {f"geometry: {key}": _text(value) for key, value in geometry.items()}
    facts["digest"] = vector.digest
    facts["full record"] = "weightsteer.json"
    return facts


def _losses(left_out: LeftOut | None, cost: Difference | None) -> dict[str, str]:
    if left_out is None:
        return {"exact": "yes, up to fp32 rounding"}
    worst = max(left_out.worst(1).values(), default=0.0)
    facts = {"exact": f"no: {left_out.energy:.3%} of ‖dW‖² is lost, at most {worst:.3%} of a module"}
    if left_out.bias:
        facts["biases left out"] = f"of norm {left_out.bias:.4g}"
    if cost is not None:
        facts["logits against the whole vector"] = f"max |Δ| {cost.max:.3g}, mean |Δ| {cost.mean:.3g} on the probe"
    return facts


def _proof(proof: Proof | None) -> str:
    if proof is None:
        return "Not proved: no base model was given when this was exported."
    return (
        "When this was exported, plain PEFT loaded the folder, and its logits were compared with those of the model\n"
        f"steered by weightsteer, unmerged, on {proof.probe['prompts']} prompts ({proof.probe['tokens']} tokens, "
        f"{proof.model['dtype']}).\n\n"
        + _table(
            {
                "max |Δlogit|": f"{proof.logits.max:.2e} (at most {proof.tolerance:.1e} allowed)",
                "mean |Δlogit|": f"{proof.logits.mean:.2e}",
                "largest relative error of a delta": f"{proof.weights:.2e} (at most {WEIGHT_TOLERANCE:.0e} allowed)",
                "what the vector itself does": f"max |Δlogit| {proof.effect.max:.3g}, mean {proof.effect.mean:.3g}",
                "versions": ", ".join(f"{name} {version}" for name, version in proof.versions.items()),
            }
        )
        + "\n\n`proof.json` has the figures in full."
    )


def _table(facts: Mapping[str, str]) -> str:
    rows = [[_prose(text) for text in fact] for fact in facts.items()]
    return "\n".join(["| | |", "|---|---|", *(f"| {key} | {value} |" for key, value in rows)])


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True)


def _behavior(vector: "WeightVector") -> str:
    return str(vector.metadata["behavior"])


def _base(vector: "WeightVector") -> str:
    return str(vector.metadata.get("base", {}).get("name") or "an unnamed model")


# What a vector's file says is data of whoever made it, and a card is read as Markdown, HTML, Python and shell.
def _prose(text: str) -> str:
    """A text in Markdown, as itself: no tag, no link, no image and no cell of a table begins in it."""
    # an underscore within a word begins nothing
    safe = re.sub(r"([\\`*\[\]{}#!|~]|(?<!\w)_|_(?!\w))", r"\\\1", printable(" ".join(text.split())))
    return safe.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _inline(text: str) -> str:
    """A text as code within a line of Markdown."""
    return f"`{printable(text).replace('`', ' ')}`"


def _code(text: str) -> str:
    """A string literal of Python, on one line."""
    return json.dumps(printable(text), ensure_ascii=False)


def _shell(text: str) -> str:
    """One word of a shell command."""
    return shlex.quote(printable(text))


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "unnamed"


def _served(rank: int) -> int:
    """The smallest of vLLM's values of max_lora_rank that is large enough."""
    return next((each for each in (8, 16, 32, 64, 128, 256, 320, 512) if each >= rank), rank)
