"""What a comparison trains or fits beside the vectors: activation vectors, and the pairs of trained controls."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from weightsteer.data.behaviors import Behavior
from weightsteer.runtime.inputs import InputFile
from weightsteer.runtime.models import ModelSpec
from weightsteer.runtime.stage import Runner, Stage

CONTROL_PAIRS = ("shuffled-label", "yes")
"""The controls that are trained, once per behaviour and seed, with the first family of a run."""

ACTIVATIONS: Mapping[str, Mapping[str, Any]] = {
    "diffmean": {"method": "diffmean"},
    "diffmean-all": {"method": "diffmean", "layers": "all", "incremental": True},
    "pca": {"method": "pca"},
    "repe-centered": {"method": "repe-centered"},
    "repe-published": {"method": "repe-published"},
    "probe": {"method": "probe"},
}
"""The activation vectors of a comparison, as options of `weightsteer.training.activation.fit_activation`; by name."""


@dataclass(frozen=True)
class Activations(Stage):
    """``<name>.safetensors``: activation vectors fitted to the pairs of the branches.

    Attributes:
        vectors: options of `weightsteer.training.activation.fit_activation`, by the name of the vector.
        suffixes: a pool on which ``repe-published`` is read, as published; None: on the pairs.
    """

    name: ClassVar[str] = "activations"

    model: ModelSpec
    pairs: Stage
    behavior: Behavior
    seed: int
    vectors: Mapping[str, Mapping[str, Any]]
    suffixes: InputFile | None = None

    def build(self, work: Path, runner: Runner) -> None:
        import polars

        from weightsteer.data.pairs import kept
        from weightsteer.data.suffixes import read_suffixes, suffix_pairs
        from weightsteer.training.activation import fit_activation

        model, tokenizer = runner.model(self.model)
        frame = kept(polars.read_parquet(runner.make(self.pairs).path / "pairs.parquet"))
        personas = "sys_prompt_pos" in frame.columns
        for name, options in self.vectors.items():
            metadata = {"adapter": name, "behavior": self.behavior.name}
            fitted: dict[str, Any] = {"pairs": frame, "personas": personas, **options}
            if self.suffixes and options["method"] == "repe-published":
                pool = read_suffixes(self.suffixes.path)
                fitted |= {"pairs": suffix_pairs(self.behavior, pool), "personas": True, "at": "last"}
            made = fit_activation(model, tokenizer, seed=self.seed, metadata=metadata, **fitted)
            made.save(work / f"{name}.safetensors")


@dataclass(frozen=True)
class ControlPairs(Stage):
    """``pairs.parquet`` that the branches of a control learn from."""

    name: ClassVar[str] = "control-pairs"

    model: ModelSpec
    behavior: Behavior
    pairs: Stage
    kind: str
    seed: int

    def build(self, work: Path, runner: Runner) -> None:
        import polars

        from weightsteer import controls
        from weightsteer.data.pairs import kept

        model, _ = runner.model(self.model)
        own = kept(polars.read_parquet(runner.make(self.pairs).path / "pairs.parquet"))
        made = controls.control_pairs(self.kind, model, self.behavior, self.seed, own)
        made.write_parquet(work / "pairs.parquet")
