"""``weightsteer export``: a vector for others."""

from pathlib import Path
from typing import Any

from weightsteer.cli.verb import Verb


def _export(vector: Path, out: Path, **options: Any) -> None:
    from weightsteer.export.command import export_file

    print(export_file(vector, out, **options))


VERB = Verb(
    "write a vector as a LoRA folder that PEFT and vLLM load, or merged into its base model",
    "weightsteer export --vector vector.safetensors --out honesty-lora --model pocket",
    _export,
    (),
    {
        "vector": (Path, ..., "A saved vector."),
        "out": (Path, ..., "Folder to write."),
        "model": (str | None, None, "Its base model, to prove the export on; by default what the vector says."),
        "alpha": (float, 1.0, "Strength to put into the folder."),
        "rank": (int | None, None, "Keep this many singular values per module, when it is not of low rank."),
        "energy": (float | None, None, "Or keep this share of each module's squared norm (--energy 0.99)."),
        "drop_bias": (bool, False, "Leave out what the vector adds to biases, which a LoRA cannot hold."),
        "proof": (bool, True, "Load the folder in plain PEFT and compare logits with the steered model."),
        "merged": (bool, False, "A whole checkpoint, with the vector summed into its weights."),
        "dtype": (str | None, None, "Of the merged weights; that of the base checkpoint when not given."),
        "push": (str | None, None, "Upload to this Hugging Face repository, OWNER/NAME."),
        "private": (bool, False, "Make that repository private."),
    },
)
