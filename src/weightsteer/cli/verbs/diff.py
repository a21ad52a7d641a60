"""``weightsteer diff``: the vector."""

from pathlib import Path
from typing import TYPE_CHECKING

from weightsteer.cli.verb import TRAIN, Verb

if TYPE_CHECKING:
    from weightsteer.experiments.sweep.config import RunConfig


def _diff(config: "RunConfig", out: Path, positive: Path | None, negative: Path | None) -> None:
    from weightsteer.experiments.sweep.replicate import difference
    from weightsteer.vector import WeightVector

    for artifact in difference(config, out, positive=positive, negative=negative):
        print(repr(WeightVector.load(artifact.path / "vector.safetensors")))
        print(artifact.place / "vector.safetensors")


VERB = Verb(
    "the weight vector: the exact difference of the two branches",
    "weightsteer diff --behavior honesty --seed 0",
    _diff,
    TRAIN,
    {
        "positive": (Path | None, None, "PEFT folder or checkpoint of your own; needs --negative as well."),
        "negative": (Path | None, None, "PEFT folder or checkpoint of your own, trained on the opposite."),
    },
)
