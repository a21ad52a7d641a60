"""The ablation experiment: the vectors of a configuration, their bases, the plans, and one table over all of them."""

import sys
from collections.abc import Sequence
from pathlib import Path

from weightsteer.errors import WeightsteerError, same_name, unknown
from weightsteer.experiments.ablation.config import Options
from weightsteer.experiments.ablation.report import AnalysisReport, VectorOf
from weightsteer.experiments.ablation.stages import Ablations, Alignment, Subject
from weightsteer.experiments.stages.vector import VectorFile
from weightsteer.experiments.sweep.config import RunConfig
from weightsteer.experiments.sweep.experiment import Family, SweepExperiment
from weightsteer.files import printable, safe_name
from weightsteer.registry import PLANS
from weightsteer.runtime import Artifact, Experiment, Stage, Step, Unit, run


def ablate(
    config: RunConfig,
    out: Path,
    options: Options,
    plans: Sequence[str],
    *,
    vector: Path | None = None,
    others: Sequence[Path] = (),
) -> Artifact:
    """Measure the plans for every vector of the configuration, or for one of a file, and write the page.

    Args:
        plans: names of plans, or ``all``.
        vector: a file to take apart instead of the vectors that the configuration makes.
        others: files of vectors to be compared with, for the plan ``shared``.

    Raises:
        WeightsteerError: an unknown plan, a mistake in the configuration or its files.
    """
    return run(AblationExperiment(config, options, plans, vector, others), out)


def subspace(
    config: RunConfig, out: Path, options: Options, *, vector: Path | None = None, others: Sequence[Path] = ()
) -> Artifact:
    """The alignment of every vector with the bases, on a page.

    Raises:
        WeightsteerError: an unknown basis, a mistake in the configuration or its files.
    """
    return run(SubspaceExperiment(config, options, vector, others), out)


class Analysis(Experiment):
    """Vectors that are taken apart: those of a configuration, or one of a file.

    Args:
        vector: the file.
        others: files of vectors to be compared with.

    Raises:
        WeightsteerError: one file for several behaviours or families, two files of one name.
    """

    def __init__(self, config: RunConfig, options: Options, vector: Path | None, others: Sequence[Path]) -> None:
        # without what a comparison adds: only vectors are taken apart
        self.sweep = SweepExperiment(config.model_copy(update={"compare": False}), vector)
        self.config, self.options = config, options
        if vector is not None and len(self.sweep.families) > 1:
            raise WeightsteerError("one vector is of one behaviour and one adapter family: name one of each.")
        if same := same_name((str(path), path.stem) for path in others):
            raise WeightsteerError(
                "{first} and {second} would both be called {name!r}, and one would be lost: rename one of the "
                "files.".format(**same)
            )
        self._others = {printable(path.stem): VectorFile.of(self.sweep.model, path, "--others") for path in others}
        self.needs_pairs = False

    def check(self) -> None:
        self.sweep.check()
        _check_bases(self.options.bases)

    def first(self) -> Unit:
        steps = {
            place: Step(stage, place)
            for family in self.sweep.families
            for name, stage in self._items(family).items()
            for place in [self.sweep.folder_of(family) / f"items-{safe_name(name)}"]
        }
        folder = self.sweep.folder_of(self.sweep.families[0])
        given = [Step(stage, folder / f"other-{safe_name(name)}") for name, stage in self._others.items()]
        return Unit("all seeds", (*steps.values(), *given), self.sweep.detailed)

    def plan(self) -> list[tuple[Family, int]]:
        """Every family with its seeds."""
        return [(family, seed) for family in self.sweep.families for seed in self.sweep.seeds_of(family)]

    def subject(self, family: Family, seed: int) -> Subject:
        """One vector with what its analysis is made from: among others, the other vectors of its behaviour."""
        siblings = {
            f"{other.adapter}, seed {its}": self.sweep.vector(other, its)
            for other, its in self.plan()
            if other.behavior.name == family.behavior.name and (other, its) != (family, seed)
        }
        pairs = self.sweep.pairs(family.behavior, seed) if self.needs_pairs else None
        items = self._items(family)
        others: dict[str, Stage] = {**siblings, **self._others}
        return Subject(self.sweep.model, self.sweep.vector(family, seed), pairs, items, others, seed)

    def unit(self, family: Family, seed: int, stages: dict[str, Stage]) -> Unit:
        """The vector of a family and seed, and what is made of it."""
        steps = [*self.sweep.making(family, seed)[1]]
        steps += [self.sweep.step(stage, family, seed, name) for name, stage in stages.items()]
        return Unit(self.sweep.unit_name(family, seed), tuple(steps), self.sweep.detailed)

    def report(
        self, ablations: dict[str, tuple[Stage, ...]], alignments: dict[str, tuple[Stage, ...]], name: str
    ) -> Step:
        """The page over all vectors."""
        sweep = self.sweep
        vectors = tuple(
            VectorOf(family.behavior.name, family.behavior.digest, family.adapter, seed, sweep.vector(family, seed))
            for family, seed in self.plan()
        )
        config = self.config.model_copy(update={"seeds": sweep.seeds}).model_dump(mode="json")
        stage = AnalysisReport(sweep.model, vectors, ablations, alignments, self.options, config, self.config.resamples)
        return Step(stage, sweep.joined_folder() / safe_name(name))

    def _items(self, family: Family) -> dict[str, Stage]:
        """The first evaluation of a behaviour is its own axis; others are measured when they are asked for."""
        items = self.sweep.items(family.behavior)
        return items if self.config.evals else dict(list(items.items())[:1])


class AblationExperiment(Analysis):
    """The plans, measured for every vector."""

    def __init__(
        self,
        config: RunConfig,
        options: Options,
        plans: Sequence[str],
        vector: Path | None = None,
        others: Sequence[Path] = (),
    ) -> None:
        super().__init__(config, options, vector, others)
        wanted = _plans(plans)
        self.needs_pairs = "projection" in wanted and _needs_pairs(options.bases)
        if "shared" in wanted and len(self.plan()) + len(self._others) < 2:
            if "all" not in plans:
                raise WeightsteerError(
                    "the plan shared compares vectors of one base, and there is only one: give others with --others "
                    "FILE.safetensors, or run several seeds or adapter families."
                )
            wanted.remove("shared")
            print(f"{'':<10} plan shared left out: there is one vector, and the plan compares several", file=sys.stderr)
        self.plans = ("whole", *wanted)
        self.page_name = f"where-{'-'.join(plans)}"

    def units(self) -> Sequence[Unit]:
        return [
            self.unit(family, seed, {f"ablations-{plan}": stage for plan, stage in self._stages(family, seed).items()})
            for family, seed in self.plan()
        ]

    def page(self) -> Step:
        found: dict[str, tuple[Stage, ...]] = {}
        for family, seed in self.plan():
            found[family.name] = (*found.get(family.name, ()), *self._stages(family, seed).values())
        return self.report(found, {}, self.page_name)

    def _stages(self, family: Family, seed: int) -> dict[str, Stage]:
        subject = self.subject(family, seed)
        return {
            plan: Ablations(
                subject, plan, self.options, self.config.alphas, "" if plan == "whole" else PLANS.source(plan)
            )
            for plan in self.plans
        }


class SubspaceExperiment(Analysis):
    """The alignment of every vector with bases."""

    def __init__(
        self, config: RunConfig, options: Options, vector: Path | None = None, others: Sequence[Path] = ()
    ) -> None:
        super().__init__(config, options, vector, others)
        self.needs_pairs = _needs_pairs(options.bases)

    def units(self) -> Sequence[Unit]:
        return [self.unit(family, seed, {"alignment": self._stage(family, seed)}) for family, seed in self.plan()]

    def page(self) -> Step:
        found: dict[str, tuple[Stage, ...]] = {}
        for family, seed in self.plan():
            found[family.name] = (*found.get(family.name, ()), self._stage(family, seed))
        return self.report({}, found, "subspace")

    def _stage(self, family: Family, seed: int) -> Stage:
        return Alignment(self.subject(family, seed), self.options.bases, max(self.options.ranks))


def _plans(plans: Sequence[str]) -> list[str]:
    from weightsteer.analysis.plans import get, names

    if "all" in plans:
        return names()
    for name in plans:
        get(name)
    return list(dict.fromkeys(plans))


def _check_bases(names: Sequence[str]) -> None:
    """Refuse a misspelt basis before anything is trained."""
    from weightsteer.analysis.bases import registry

    for name in names:
        kind, at, side = name.partition("@")
        for one in kind.split("&"):
            registry.get(one.strip())
        if at and side not in ("input", "output", "both"):
            raise unknown("side of a basis", side, ("input", "output", "both"))


def _needs_pairs(names: Sequence[str]) -> bool:
    from weightsteer.analysis.bases import kinds

    known = kinds()
    single = [one.strip() for name in names for one in name.partition("@")[0].split("&")]
    return any("pairs" in known[name].needs for name in single if name in known)
