"""The sweep experiment: pairs → two branches → their difference → sweeps → samples → report, over seeds.

A finished stage is not made again, a changed field makes again exactly what depends on it, and an interrupted run goes
on where it was.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from weightsteer.data.behaviors import Behavior
from weightsteer.errors import WeightsteerError, same_name
from weightsteer.experiments.stages.branch import Branch, Side
from weightsteer.experiments.stages.items import Items, evaluation_name
from weightsteer.experiments.stages.pairs import GivenPairs, Pairs
from weightsteer.experiments.stages.vector import Vector, VectorFile
from weightsteer.experiments.sweep.config import GENERAL_SEEDS, POCKET_SEEDS, RunConfig
from weightsteer.experiments.sweep.entries import ActivationEntries, Entries, PromptEntries, VectorEntries
from weightsteer.experiments.sweep.measures import Capability, Damage, RandomNull, Samples, Sweep
from weightsteer.experiments.sweep.report import Report, Result
from weightsteer.experiments.sweep.side_effects import Calibration, Matched, Strengths
from weightsteer.experiments.sweep.trained import ACTIVATIONS, CONTROL_PAIRS, Activations, ControlPairs
from weightsteer.files import digest_of, safe_name
from weightsteer.registry import ADAPTERS
from weightsteer.runtime import Artifact, Experiment, ModelSpec, Stage, Step, Unit
from weightsteer.runtime.inputs import InputFile

Baseline = Literal["activation", "prompt"]
BASELINES: tuple[Baseline, ...] = ("activation", "prompt")


@dataclass(frozen=True)
class Family:
    """The vectors of one behaviour and one adapter family, or in their place what they are compared with.

    Attributes:
        adapter: the adapter family; in a baseline, the first one of the run.
        lead: the first family of the run, with which is made what all families share.
    """

    behavior: Behavior
    adapter: str
    lead: str
    baseline: Baseline | None = None

    @property
    def entry(self) -> str:
        """The adapter family, or the kind of the baseline."""
        return self.baseline or self.adapter

    @property
    def name(self) -> str:
        """What tells its vectors from others."""
        return f"{self.behavior.name}, {self.entry}"


class SweepExperiment(Experiment):
    """Behaviours × adapter families × seeds on one model, against activation vectors, prompts and controls.

    Args:
        vector: a file to measure in the place of the vectors that the configuration makes.

    Raises:
        WeightsteerError: unknown model or behaviour, two behaviours of one name, no such file.
    """

    def __init__(self, config: RunConfig, vector: Path | None = None) -> None:
        self.config = config
        self.vector_file = vector
        self.model = ModelSpec.of(config.model, config.device, config.dtype)
        given = config.generator
        self.generator = ModelSpec.of(given, config.device, config.dtype) if given else self.model
        self.folder = Path(safe_name(self.model.name))
        self.suffixes: InputFile | None = None
        if config.suffixes:
            self.suffixes = InputFile.of(config.suffixes, f"there is no pool of suffixes {config.suffixes!r}.")
        behaviors = [(asked, self._behavior(asked)) for asked in config.behavior]
        # as folders: two names that differ in signs alone would share them
        if same := same_name((asked, safe_name(behavior.name)) for asked, behavior in behaviors):
            raise WeightsteerError(
                "the behaviors {first} and {second} are both named {name!r}, and one would be lost: change `name:` in "
                "one of the files, or run them into different folders with --out.".format(**same)
            )
        lead = config.adapter[0]
        self.families = [Family(behavior, name, lead) for _, behavior in behaviors for name in config.adapter]
        self.baselines = [
            Family(behavior, lead, lead, kind) for _, behavior in behaviors for kind in BASELINES if config.compare
        ]
        self.detailed = (len(config.behavior), len(config.adapter)) == (1, 1) and not config.compare
        self.recipe = config.training.recipe or ("pocket" if self.model.embedded else "paper")
        self.changes = config.training.model_dump(exclude={"recipe"}, exclude_none=True)

    def _behavior(self, asked: str) -> Behavior:
        """A behaviour, with the questions of the pool of suffixes where one is given."""
        behavior = Behavior.load(asked, family=self.model.family)
        if self.suffixes is None:
            return behavior
        from weightsteer.data.suffixes import asking, read_suffixes

        return asking(behavior, read_suffixes(self.suffixes.path))

    @property
    def _texts(self) -> InputFile | None:
        """The pool on which the KL is read, where it is read on given text."""
        return self.suffixes if self.config.calibration.text == "given" else None

    def check(self) -> None:
        """Refuse a misspelt recipe or family before anything is made, not after minutes of generation."""
        from weightsteer.training import Recipe

        for adapter in self.config.adapter:
            self.model.check_rank(Recipe.load(self.recipe, adapter, **self.changes).rank)

    @property
    def control(self) -> bool:
        """Whether controls are swept. Without a comparison the null of random directions takes their place."""
        return self.config.compare if self.config.control is None else self.config.control

    @property
    def seeds(self) -> tuple[int, ...]:
        """The training seeds."""
        return self.config.seeds or (POCKET_SEEDS if self.model.embedded else GENERAL_SEEDS)

    def seeds_of(self, family: Family) -> tuple[int, ...]:
        """The seeds of a family: a prompt is not trained, its wordings are its seeds; a file is one vector."""
        if family.baseline == "prompt":
            return (0,)
        return self.seeds[:1] if self.vector_file and family.baseline is None else self.seeds

    def first(self) -> Unit:
        steps = {
            place: Step(stage, place)
            for family in [*self.families, *self.baselines]
            for name, stage in self.items(family.behavior).items()
            for place in [self.folder_of(family) / f"items-{safe_name(name)}"]
        }
        return Unit("all seeds", tuple(steps.values()), self.detailed)

    def units(self) -> Sequence[Unit]:
        return [
            Unit(self.unit_name(family, seed), tuple(self.result(family, seed)[1]), self.detailed)
            for family, seed in self._plan()
        ]

    def nulls(self) -> list[Step]:
        """The null of random directions of all vectors, for each behaviour and evaluation: they share its gradient."""
        steps = []
        for behavior in {family.behavior.name: family.behavior for family in self.families}.values():
            plan = [each for each in self._plan() if each[0].behavior == behavior and each[0].baseline != "prompt"]
            entries = tuple(self.entries(family, seed).without_strengths for family, seed in plan)
            place = self.joined_folder() / (safe_name(behavior.name) if len(self.config.behavior) > 1 else "")
            for name, rows in self.items(behavior).items():
                steps.append(Step(RandomNull(self.model, entries, rows, name), place / f"null-{safe_name(name)}"))
        return steps

    def last(self) -> tuple[Step, ...]:
        return (*self.nulls(), self.page())

    def page(self) -> Step:
        results = tuple(self.result(family, seed)[0] for family, seed in self._plan())
        items = {name: stage for family in self.families for name, stage in self.items(family.behavior).items()}
        training = self.config.training.model_copy(update={"recipe": self.recipe})
        config = self.config.model_copy(update={"seeds": self.seeds, "training": training})
        stage = Report(
            self.model,
            self.generator,
            results,
            tuple(step.stage for step in self.nulls()),
            items,
            config.model_dump(mode="json"),
            self.config.resamples,
            self.config.smallest,
        )
        # a vector from a file has reports of its own: they replace none of another vector, of other rows or strengths
        name = f"report-{stage.signature[:8]}" if self.vector_file else "report"
        return Step(stage, self.joined_folder() / name)

    def joined_folder(self) -> Path:
        """The folder of what is made over all families."""
        behaviors = dict.fromkeys(safe_name(family.behavior.name) for family in self.families)
        adapters = dict.fromkeys(safe_name(family.adapter) for family in self.families)
        return self.folder / _joined(behaviors) / _joined(adapters)

    def unit_name(self, family: Family, seed: int) -> str:
        """What lines about one seed of a family begin with."""
        return f"seed {seed}" if self.detailed else f"{family.name}, seed {seed}"

    def items(self, behavior: Behavior) -> dict[str, Stage]:
        """The rows of every evaluation of a behaviour, by its name.

        Raises:
            WeightsteerError: there is none, or one file is given for several.
        """
        asked = self.evaluations(behavior)
        if not asked:
            raise WeightsteerError(
                f"the behaviour {behavior.name!r} names no evaluations: add some to its file, or give --evals."
            )
        if self.config.data and len(asked) != 1:
            raise WeightsteerError(
                f"--data gives rows for one evaluation, but {', '.join(asked)} are run: "
                f"name one with --evals, or write --evals {asked[0]}=FILE."
            )
        return {
            evaluation_name(one): Items.of(
                self.model, one, behavior.evaluations, data=self.config.data, limit=self.config.limit
            )
            for one in asked
        }

    def evaluations(self, behavior: Behavior) -> tuple[str, ...]:
        """The evaluations that are asked for, or those that the behaviour names."""
        return self.config.evals or tuple(behavior.evaluations)

    def pairs(self, behavior: Behavior, seed: int) -> Stage:
        """The pairs that the branches of a seed are trained on."""
        if self.config.pairs:
            return GivenPairs.of(self.config.pairs)
        options = self.config.generation.model_dump(exclude={"data_seed"})
        fixed = self.config.generation.data_seed
        return Pairs.of(self.generator, self.model, behavior, seed if fixed is None else fixed, **options)

    def branch(self, adapter: str, pairs: Stage, side: Side, seed: int) -> Branch:
        """One branch of a family."""
        return Branch(self.model, pairs, side, adapter, self.recipe, seed, self.changes, ADAPTERS.source(adapter))

    def branches(self, family: Family, seed: int) -> dict[Side, Stage]:
        """Both branches of a family."""
        pairs = self.pairs(family.behavior, seed)
        sides: tuple[Side, ...] = ("positive", "negative")
        return {side: self.branch(family.adapter, pairs, side, seed) for side in sides}

    def vector(self, family: Family, seed: int) -> Stage:
        """The vector of a family and seed, or that of the file."""
        if self.vector_file is not None:
            return VectorFile.of(self.model, self.vector_file)
        return Vector(self.model, **self.branches(family, seed), behavior=family.behavior.name, seed=seed)

    def controls(self, family: Family, seed: int) -> dict[str, tuple[Stage, Branch, Branch, Vector]]:
        """The pairs, branches and vectors of the controls that are trained, by kind."""
        found: dict[str, tuple[Stage, Branch, Branch, Vector]] = {}
        for kind in CONTROL_PAIRS:
            pairs = ControlPairs(self.model, family.behavior, self.pairs(family.behavior, seed), kind, seed)
            positive = self.branch(family.lead, pairs, "positive", seed)
            negative = self.branch(family.lead, pairs, "negative", seed)
            found[kind] = pairs, positive, negative, Vector(self.model, positive, negative, kind, seed)
        return found

    def entries(self, family: Family, seed: int) -> Entries:
        """What is measured together for one seed of a family."""
        if family.baseline == "prompt":
            return PromptEntries(self.model, family.behavior)
        if family.baseline == "activation":
            pairs = self.pairs(family.behavior, seed)
            fitted = Activations(self.model, pairs, family.behavior, seed, ACTIVATIONS, self.suffixes)
            return ActivationEntries(self.model, fitted, tuple(ACTIVATIONS), self.config.alphas)
        vector, config = self.vector(family, seed), self.config
        if not (config.compare and self.control):
            return VectorEntries(self.model, vector, config.alphas, seed, self.control)
        made = self.vector_file is None
        branches: Mapping[Side, Stage] = self.branches(family, seed) if made else {}
        trained = {kind: of[-1] for kind, of in self.controls(family, seed).items()} if made else {}
        return VectorEntries(self.model, vector, config.alphas, seed, True, True, config.draws, branches, trained)

    def calibration(self, family: Family, seed: int) -> Calibration:
        """The strengths of equal side effects of one seed of a family."""
        return Calibration(self.model, self.entries(family, seed).calibrated, self._calibration, self._texts)

    def making(self, family: Family, seed: int) -> tuple[dict[str, Any], list[Step]]:
        """What one seed of a family is made of, under the names of a `Result`, and the same as steps in their order."""
        steps: list[Step] = []

        def at(stage: Stage, name: str, owner: Family = family) -> Stage:
            steps.append(self.step(stage, owner, seed, name))
            return stage

        if family.baseline == "prompt":
            return {}, steps
        if family.baseline == "activation":
            known: dict[str, Any] = {"pairs": at(self.pairs(family.behavior, seed), "pairs")}
            entries = self.entries(family, seed)
            assert isinstance(entries, ActivationEntries)
            at(entries.vectors, "activations")
            return known, steps
        if self.vector_file is not None:
            return {"vector": at(self.vector(family, seed), "vector")}, steps
        known = {
            "pairs": at(self.pairs(family.behavior, seed), "pairs"),
            "branches": tuple(at(each, side) for side, each in self.branches(family, seed).items()),
            "vector": at(self.vector(family, seed), "vector"),
        }
        if self.config.compare and self.control:
            lead = Family(family.behavior, family.lead, family.lead)
            trained = self.controls(family, seed)
            for kind, stages in trained.items():
                for stage, name in zip(stages, ("pairs", "positive", "negative", "vector"), strict=True):
                    at(stage, f"{kind}-{name}", lead)
            known["nuisances"] = {kind: stages[-1] for kind, stages in trained.items()}
        return known, steps

    def result(self, family: Family, seed: int) -> tuple[Result, list[Step]]:
        """All stages of one seed of a family, and the same as steps in their order."""
        known, steps = self.making(family, seed)

        def at(stage: Stage, name: str) -> Stage:
            steps.append(self.step(stage, family, seed, name))
            return stage

        behavior, config = family.behavior, self.config
        entries, items = self.entries(family, seed), self.items(behavior)
        known["sweeps"] = {
            name: at(Sweep(self.model, entries, rows, name), f"sweep-{safe_name(name)}") for name, rows in items.items()
        }
        if config.compare:
            calibration = at(self.calibration(family, seed), "calibration")
            strengths = at(Strengths(self.model, entries, calibration, self._calibration, self._texts), "strengths")
            known["strengths"] = strengths
            known["matched"] = {
                name: at(Matched(self.model, entries, strengths, rows, name), f"matched-{safe_name(name)}")
                for name, rows in items.items()
            }
            known["damage"] = at(Damage(self.model, entries), "damage")
            known["capability"] = at(Capability(self.model, entries), "capability")
        if family.baseline is None:
            questions = (behavior.questions.heldout or behavior.questions.train)[: config.prompts]
            tokens = config.answer_tokens or config.generation.max_new_tokens
            samples = Samples(self.model, known["vector"], tuple(questions), config.alphas, tokens, seed)
            known["samples"] = at(samples, "samples")
        names = (behavior.name, behavior.digest, behavior.in_distribution, family.adapter, family.entry)
        return Result(*names, seed, **known), steps

    def step(self, stage: Stage, family: Family, seed: int, name: str) -> Step:
        """A stage in the folder of one seed of a family."""
        notes = _kept if isinstance(stage, Pairs) else None
        return Step(stage, self.folder_of(family) / f"seed{seed}" / name, notes)

    @cached_property
    def _calibration(self) -> dict[str, Any]:
        """The options of `weightsteer.measure.calibrate.calibrate`."""
        chosen = self.config.calibration.model_dump()
        if chosen["statistic"] is None and chosen["budget_kind"] == "kl" and self.model.embedded:
            # the answers of these models have a few tokens each: the p95 over them is that of a dozen
            chosen["statistic"] = "mean"
        return chosen

    def _plan(self) -> list[tuple[Family, int]]:
        # seeds vary fastest: processes begin with different pairs, and do not wait for each other's
        return [(family, seed) for family in [*self.families, *self.baselines] for seed in self.seeds_of(family)]

    def folder_of(self, family: Family) -> Path:
        """The folder of a family, below the output folder."""
        return self.folder / safe_name(family.behavior.name) / safe_name(family.entry)


def _joined(names: Iterable[str]) -> str:
    """Folder names as one, which ends in a digest where it would be too long."""
    joined = "+".join(names)
    return joined if len(joined) <= 200 else f"{joined[:191]}-{digest_of(joined)[:8]}"


def _kept(artifact: Artifact) -> Iterator[str]:
    """How many pairs were kept, and what the audit warns of."""
    audit = artifact.read_json("audit.json")
    yield f"{audit['kept']} of {audit['total']} pairs kept"
    yield from audit["warnings"]
