"""One fine-tuned branch."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

from weightsteer.runtime.models import ModelSpec
from weightsteer.runtime.stage import Runner, Stage

Side = Literal["positive", "negative"]


@dataclass(frozen=True)
class Branch(Stage):
    """A PEFT folder (a checkpoint for the family ``full``) and its ``training.json``.

    Attributes:
        pairs: a stage that makes ``pairs.parquet``.
        recipe: name of the recipe.
        changes: what is changed of the recipe, see `weightsteer.training.Recipe`.
        source: digest of the code of the adapter family, where that is from another distribution.
    """

    name: ClassVar[str] = "branch"

    model: ModelSpec
    pairs: Stage
    side: Side
    adapter: str
    recipe: str
    seed: int
    changes: Mapping[str, Any] = field(default_factory=dict)
    source: str = ""

    def build(self, work: Path, runner: Runner) -> None:
        import polars

        from weightsteer.data.pairs import kept
        from weightsteer.training import Recipe, train_branch

        pairs = runner.make(self.pairs)
        train_branch(
            *runner.model(self.model),
            kept(polars.read_parquet(pairs.path / "pairs.parquet")),
            self.side,
            adapter=self.adapter,
            recipe=Recipe.load(self.recipe, self.adapter, **self.changes),
            seed=self.seed,
            folder=work,
        )
