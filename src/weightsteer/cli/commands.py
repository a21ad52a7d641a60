"""The commands: each is a class whose fields are its flags, and which calls what it is about and prints the result.

The name of a class is that of its command, and its docstring the text of ``--help``. The settings of a step come from
the experiment that it belongs to, so a command offers only the flags that it uses.
"""

import sys
from abc import abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import Field
from tyro.conf import Positional

from weightsteer.cli import output
from weightsteer.errors import WeightsteerError
from weightsteer.experiments.ablation.config import AblationConfig, AlignmentConfig
from weightsteer.experiments.gaming.config import GamingConfig
from weightsteer.experiments.settings import LARGEST_ALPHA, Dtype, Name, Names, Resamples, Seeds, Settings
from weightsteer.experiments.sweep.config import (
    Calibration,
    DataConfig,
    Families,
    Limit,
    MeasureConfig,
    ModelConfig,
    RowsConfig,
    RunConfig,
    TrainConfig,
    VectorConfig,
    of_vector,
)
from weightsteer.files import printable

if TYPE_CHECKING:
    from weightsteer.runtime.store import Store as ArtifactStore

Kind = Literal["evals", "behaviors", "adapters", "bases", "plans", "controls", "models"]
Workers = Annotated[int | None, Field(ge=1, description="Processes; one per core on embedded models, else one.")]
Others = Annotated[tuple[Path, ...], Field(description="Vectors of the same base model, to compare with.")]


class Command(Settings):
    """The flags of one command."""

    @abstractmethod
    def __call__(self) -> None:
        """Do it, and print what came of it."""


def named(name: str) -> type[Command]:
    """The class of a command: ``Eval`` for ``eval``, ``PocketBuild`` for ``pocket build``."""
    found: type[Command] = globals()[name.title().replace(" ", "")]
    return found


class RunCommand(Command):
    """A command that computes some stages of a run."""

    out: Path = Field(default=Path("out"), description="Folder of all artifacts.")
    config: Path | None = Field(default=None, description="A run.json to repeat; other flags change it.")

    own: ClassVar[frozenset[str]] = frozenset()
    """Fields with the name of a field of `RunConfig` that mean something else here, or are decided later."""

    @classmethod
    def repeating(cls, run: RunConfig) -> Self:
        """The command with the settings of an earlier run as its defaults."""
        names = (cls.model_fields.keys() & RunConfig.model_fields.keys()) - cls.own
        return cls(**{name: getattr(run, name) for name in names})

    def run(self, **changes: Any) -> RunConfig:
        """All settings of the run: these flags, and for the others ``--config`` or the defaults."""
        names = (type(self).model_fields.keys() & RunConfig.model_fields.keys()) - self.own
        base = RunConfig.read(self.config) if self.config else RunConfig()
        given = {name: getattr(self, name) for name in names}
        return RunConfig.checked({**base.model_dump(), **given, **changes}, "command line")


class VectorCommand(RunCommand):
    """A command about vectors: that of a file, or those that the run makes.

    A file records the adapter family, the behaviour and the seed of its vector, and these decide; see `of_vector`.
    """

    vector: Path | None = Field(default=None, description="File of a vector; by default those that the run makes.")
    behavior: Names | None = Field(default=None, description="Behaviours or YAML files; by default the vector's.")
    adapter: Families | None = Field(default=None, description="Adapter families; by default the vector's.")
    seeds: Seeds | None = Field(default=None, description="Training seeds; by default the vector's.")

    own = frozenset({"behavior", "adapter", "seeds"})

    def run(self, **changes: Any) -> RunConfig:
        """All settings of the run, as the file of the vector has them where it records them."""
        config, notes = of_vector(
            super().run(**changes), self.vector, behavior=self.behavior, adapter=self.adapter, seeds=self.seeds
        )
        for note in notes:
            print(printable(note), file=sys.stderr)
        return config


class Replicate(RunCommand, RunConfig):
    """Make the pairs, train both branches, take their difference, sweep it, and write a report.

    Example:
      weightsteer replicate --model pocket --behavior honesty --seeds 0 1 2
    """

    def __call__(self) -> None:
        from weightsteer.experiments.sweep.replicate import replicate

        report = replicate(self.run(), self.out)
        output.report(report.path, report.place)


class Sweep(RunCommand, RunConfig):
    """Compare behaviours × adapter families × seeds with activation vectors, prompts and controls, in one report.

    Example:
      weightsteer sweep --behavior honesty --adapters all --seeds 0 1 2
    """

    compare: bool = Field(
        default=True, description="Also activation vectors, prompts, all controls, damage, and equal side effects."
    )
    workers: Workers = None

    def __call__(self) -> None:
        from weightsteer.experiments.sweep.replicate import replicate

        report = replicate(self.run(), self.out, workers=self.workers)
        output.report(report.path, report.place)


class Data(RunCommand, DataConfig):
    """Make contrastive pairs: the same questions answered under both poles, judged and audited.

    Example:
      weightsteer data --behavior honesty --seed 0 --samples 10
    """

    def __call__(self) -> None:
        from weightsteer.data.pairs.audit import AuditReport
        from weightsteer.experiments.sweep.replicate import pairs

        for artifact in pairs(self.run(), self.out):
            output.say(AuditReport.model_validate(artifact.read_json("audit.json")))
            output.say(artifact.place / "pairs.parquet")


class Train(RunCommand, TrainConfig):
    """Fine-tune the two branches on the pairs.

    Example:
      weightsteer train --behavior honesty --adapter lora --seed 0 --lr 1e-3
    """

    def __call__(self) -> None:
        from weightsteer.experiments.sweep.replicate import train

        for branches in train(self.run(), self.out):
            for branch in branches:
                record = branch.read_json("training.json")
                loss = record["losses"][-1]
                output.say(f"{record['side']}: best step {record['best_step']}, last losses {loss}\n{branch.place}")


class Diff(RunCommand, TrainConfig):
    """Take the exact difference of the two branches: the weight vector.

    Example:
      weightsteer diff --behavior honesty --seed 0
    """

    positive: Path | None = Field(default=None, description="Your PEFT folder or checkpoint; needs --negative as well.")
    negative: Path | None = Field(default=None, description="Your PEFT folder or checkpoint of the opposite behaviour.")

    def __call__(self) -> None:
        from weightsteer.experiments.sweep.replicate import difference
        from weightsteer.vector import WeightVector

        for artifact in difference(self.run(), self.out, positive=self.positive, negative=self.negative):
            output.say(repr(WeightVector.load(artifact.path / "vector.safetensors")))
            output.say(artifact.place / "vector.safetensors")


class Eval(VectorCommand, MeasureConfig, ModelConfig):
    """Measure a vector on held-out rows at several strengths.

    The file of a vector records its adapter family, its behaviour and its seed; the report is filed under them. A flag
    that contradicts the family or the seed is refused. A vector may be measured on another --behavior than its own.

    Example:
      weightsteer eval --vector vector.safetensors --evals dilemmas --alphas -1 0 1
    """

    pairs: str | None = Field(default=None, description="Pairs behind the activation vectors of --compare.")

    def __call__(self) -> None:
        from weightsteer.experiments.sweep.replicate import replicate

        report = replicate(self.run(), self.out, vector=self.vector)
        output.report(report.path, report.place)


class Calibrate(VectorCommand, VectorConfig):
    """Find the strengths at which vectors, activation vectors and prompts have equal side effects.

    Example:
      weightsteer calibrate --behavior honesty --seed 0 --budget 0.5
    """

    baselines: bool = Field(default=True, description="Also activation vectors and prompts.")
    calibration: Calibration = Calibration()

    def __call__(self) -> None:
        import polars

        from weightsteer.experiments.sweep.page.strengths import calibration_table
        from weightsteer.experiments.sweep.replicate import calibrations
        from weightsteer.report.console import terminal

        found = calibrations(self.run(), self.out, vector=self.vector, baselines=self.baselines)
        table = polars.concat([polars.read_parquet(each.path / "calibration.parquet") for each in found])
        terminal(120).print(calibration_table(table))
        for each in found:
            output.say(each.place / "calibration.parquet")


class Subspace(VectorCommand, AlignmentConfig, RowsConfig, VectorConfig):
    """Measure the share of a vector in each subspace of its model, compared with random subspaces.

    Example:
      weightsteer subspace --behavior honesty --seed 0 --dimensions 8
    """

    others: Others = ()
    limit: Limit = None

    def __call__(self) -> None:
        from weightsteer.experiments.ablation.console import print_alignment, print_published
        from weightsteer.experiments.ablation.run import subspace

        report = subspace(self.run(), self.out, self.options, vector=self.vector, others=self.others)
        print_alignment(report.path)
        print_published(report.path)
        output.say(report.place / "report.html")


class Ablate(VectorCommand, AblationConfig, RowsConfig, VectorConfig):
    """Take a vector apart: which layers, modules, directions and subspaces carry its effect.

    Example:
      weightsteer ablate --plan all --behavior honesty --seed 0
    """

    others: Others = ()

    own = VectorCommand.own | {"alphas", "limit", "draws", "resamples"}

    def __call__(self) -> None:
        from weightsteer.experiments.ablation.console import print_ablations
        from weightsteer.experiments.ablation.run import ablate

        config = self.run(alphas=self.alphas, limit=self.limit, resamples=self.resamples)
        report = ablate(config, self.out, self.options, self.plan, vector=self.vector, others=self.others)
        print_ablations(report.path)
        output.say(report.place / "report.html")


class Attribute(VectorCommand, RowsConfig, VectorConfig):
    """Say which layers and modules the effect of a vector comes from, to first order, and what a random one would do.

    One backward pass over the rows of an evaluation gives the slope of the effect at α = 0 for every module, its null
    of random directions with the same norm, and the largest slope that any direction with this norm has. What modules
    do together at larger strengths is measured by ablate.

    Example:
      weightsteer attribute --behavior honesty --seeds 0 --evals dilemmas
    """

    limit: Limit = None

    def __call__(self) -> None:
        import polars

        from weightsteer.experiments.sweep.page.attribution import attribution_tables
        from weightsteer.experiments.sweep.replicate import nulls
        from weightsteer.report.console import terminal

        found = nulls(self.run(), self.out, vector=self.vector)
        for table in attribution_tables(
            polars.concat([polars.read_parquet(each.path / "null.parquet") for each in found])
        ):
            terminal().print(table)
        for each in found:
            output.say(each.place / "null.parquet")


class Gaming(Command, GamingConfig):
    """Run the training-gaming experiment: whether steering reveals what a model hides during training.

    Example:
      weightsteer gaming --model pocket
    """

    out: Path = Field(default=Path("out"), description="Folder of all artifacts.")
    workers: Workers = None

    def __call__(self) -> None:
        from weightsteer.experiments.gaming import gaming

        config = GamingConfig.checked(self.model_dump(exclude={"out", "workers"}))
        report = gaming(config, self.out, workers=self.workers)
        output.say((report.path / "conclusion.md").read_text(encoding="utf-8"))
        output.say(report.place / "report.html")


class Report(Command):
    """Write one report over the rows of several runs.

    Example:
      weightsteer report --rows out/pocket/honesty/lora/report mine.parquet --out joined
    """

    rows: tuple[Path, ...] = Field(description="Report folders, or Parquet files of rows.")
    out: Path = Field(default=Path("report"), description="Folder to write.")
    resamples: Resamples = 10_000

    def __call__(self) -> None:
        from weightsteer.experiments.sweep.replicate import joined_report

        output.report(joined_report(self.rows, self.out, resamples=self.resamples).parent)


class Export(Command):
    """Write a vector as a LoRA folder that PEFT and vLLM load, or merged into its base model.

    Example:
      weightsteer export --vector vector.safetensors --out honesty-lora --model pocket
    """

    vector: Path = Field(description="A saved vector.")
    out: Path = Field(description="Folder to write.")
    model: Name | None = Field(default=None, description="Base model of the proof; by default the one the file names.")
    alpha: float = Field(
        default=1.0, ge=-LARGEST_ALPHA, le=LARGEST_ALPHA, description="Strength to put into the folder."
    )
    rank: int | None = Field(default=None, ge=1, description="Keep this many singular values per module.")
    energy: float | None = Field(
        default=None, gt=0, le=1, description="Or keep this share of each module's squared norm, as 0.99."
    )
    drop_bias: bool = Field(default=False, description="Leave out changes of biases, which a LoRA cannot hold.")
    proof: bool = Field(default=True, description="Load the folder in PEFT and compare logits with the steered model.")
    merged: bool = Field(default=False, description="A whole checkpoint, with the vector added to its weights.")
    dtype: Dtype | None = Field(
        default=None, description="Type of the merged weights; by default that of the base model."
    )
    push: Name | None = Field(default=None, description="Upload to this Hugging Face repository, OWNER/NAME.")
    private: bool = Field(default=False, description="Make that repository private.")

    def __call__(self) -> None:
        from weightsteer.export.command import export_file

        output.say(export_file(**{name: getattr(self, name) for name in type(self).model_fields}))


class List(Command):
    """List what there is to choose from, in one line each; everything when no kind is named.

    Example:
      weightsteer list evals
    """

    kinds: Annotated[tuple[Kind, ...], Positional] = Field(
        default=("evals", "behaviors", "adapters", "bases", "plans", "controls", "models"), description="What to list."
    )

    def __call__(self) -> None:
        from weightsteer.cli.catalogue import catalogue

        for kind in self.kinds:
            output.table(kind, ("name", "what it is", "from"), catalogue(kind))


class Store(Command):
    """Show what is stored in an output folder: how large it is, and from what it was made.

    --prune removes artifacts of older keys (made by another version of the code), what interrupted runs left, and
    damaged artifacts. Without it, nothing is removed.

    Example:
      weightsteer store --out out
    """

    out: Path = Field(default=Path("out"), description="Folder of all artifacts.")
    prune: bool = Field(default=False, description="Remove what no current run uses, after listing it.")

    def __call__(self) -> None:
        store = _store(self.out)
        found = store.listing()
        unused = [entry for entry in found if entry.state != "current"]
        if not self.prune:
            output.stored(found, "stored")
        output.stored(unused, "to be removed" if self.prune else "of these, --prune would remove")
        if self.prune:
            print(f"freed {output.size(store.prune(unused))}")


class StoreVerify(Command):
    """Read every artifact of an output folder and compare it with its record: inputs with key, files with digest.

    The exit code is 2 when one is not as it was written; the next run makes it again.

    Example:
      weightsteer store verify --out out
    """

    out: Path = Field(default=Path("out"), description="Folder of all artifacts.")

    def __call__(self) -> None:
        read, damaged = _store(self.out).verify()
        print(f"{read - len(damaged)} of {read} artifacts are as they were written")
        if damaged:
            listed = "\n".join(f"  {path}: {flaw}" for path, flaw in damaged)
            raise WeightsteerError(
                f"{len(damaged)} of {read} artifacts are damaged:\n{listed}\nA run that needs them makes them again; "
                "`weightsteer store --prune` removes them."
            )


def _store(out: Path) -> "ArtifactStore":
    from weightsteer.runtime.store import Store

    if not out.is_dir():
        raise WeightsteerError(f"there is no folder {out}; name an output folder with --out.")
    return Store(out)


class PocketBuild(Command):
    """Train an embedded model from random weights; an interrupted build goes on from its checkpoint.

    Example:
      weightsteer pocket build --size pocket --out my-pocket
    """

    size: str = Field(description="pocket-s, pocket or pocket-l.")
    out: Path | None = Field(default=None, description="Folder to write; named after the size by default.")
    steps: int | None = Field(default=None, ge=1, description="Optimiser steps; by default what the size needs.")
    resume: bool = Field(default=True, description="Go on from a checkpoint in the folder.")

    def __call__(self) -> None:
        from weightsteer.pocket.build import build

        output.say(build(self.size, self.out or Path(self.size), steps=self.steps, resume=self.resume))


class PocketScore(Command):
    """Print the scorecard of an embedded model: facts, personas, arithmetic.

    Example:
      weightsteer pocket score --model pocket
    """

    model: str = Field(default="pocket", description="pocket-s, pocket, pocket-l, or the folder of a build.")
    card: Path | None = Field(default=None, description="Also write the model card to this file.")

    def __call__(self) -> None:
        from weightsteer.pocket.card import model_card, table
        from weightsteer.pocket.score import score

        measured = score(self.model)
        output.say(table(measured))
        if self.card is not None:
            self.card.write_text(model_card(self.model, measured), encoding="utf-8")
            output.say(self.card)
