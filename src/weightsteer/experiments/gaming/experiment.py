"""The gaming experiment: pairs → branches → curves, comparison, signals → report, over conditions, seeds and sizes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from weightsteer.errors import WeightsteerError, same_name
from weightsteer.experiments.gaming.config import GamingConfig
from weightsteer.experiments.gaming.protocol import ROLES, Condition, Protocol
from weightsteer.experiments.gaming.report import GamingReport, Result
from weightsteer.experiments.gaming.stages import Comparison, Curve, GamingBranches, Signals
from weightsteer.experiments.stages.pairs import GivenPairs, Pairs
from weightsteer.files import safe_name
from weightsteer.runtime import Artifact, Experiment, ModelSpec, Stage, Step, Unit, processes, run

EMBEDDED = {"lr": 1e-3, "batch": 32, "max_length": 256}
GENERAL = {"lr": 1e-4, "batch": 16, "max_length": 1024}


class Run(NamedTuple):
    """One condition of one seed on one model.

    ``detector``: trained and audited only, to have more runs for the detector.
    """

    model: ModelSpec
    seed: int
    condition: Condition
    detector: bool


def gaming(config: GamingConfig, out: Path, *, workers: int | None = 1) -> Artifact:
    """Run all of it and return the report's artifact.

    Args:
        out: the output folder; finished stages found there are used.
        workers: processes, each with some of the conditions and seeds; they change nothing but the duration. None: one
            per core on embedded models, else one.

    Raises:
        WeightsteerError: a mistake in the configuration, a full disk, a folder that is not writable.
    """
    experiment = GamingExperiment(config)
    embedded = all(model.embedded for model in experiment.models)
    return run(experiment, out, processes(workers, embedded=embedded))


class GamingExperiment(Experiment):
    """Settings × deployment roles × seeds on each model of a ladder, the smallest model first.

    Raises:
        WeightsteerError: an unknown model, or two of one name.
    """

    def __init__(self, config: GamingConfig) -> None:
        self.config = config
        self.models = [ModelSpec.of(name, config.device, config.dtype) for name in config.models]
        named = zip(config.models, self.models, strict=True)
        if same := same_name((asked, model.name) for asked, model in named):
            raise WeightsteerError(
                "the models {first} and {second} of the ladder are both named {name!r}, and one would be lost: rename "
                "one of the folders.".format(**same)
            )
        given = config.generator
        self.generator = ModelSpec.of(given, config.device, config.dtype) if given else None
        self.protocols = {model.family: Protocol.load(model.family) for model in self.models}

    def check(self) -> None:
        from weightsteer.training import Recipe

        for model in self.models:
            model.check_rank(Recipe(**self.recipe(model)).rank)

    def first(self) -> Unit:
        """The pairs of every model and seed: processes would wait for each other's."""
        wanted = dict.fromkeys((one.model, one.seed) for one in self.runs())
        return Unit("pairs", tuple(self._step(self.pairs(*each), *each, Path("data")) for each in wanted))

    def units(self) -> Sequence[Unit]:
        found = []
        for one in self.runs():
            stages = self._result(one)[1]
            steps = (
                self._step(stage, one.model, one.seed, Path(one.condition.name, name)) for name, stage in stages.items()
            )
            found.append(Unit(f"{one.model.name}, {one.condition.name}, seed {one.seed}", tuple(steps)))
        return found

    def page(self) -> Step:
        results = tuple(self._result(one)[0] for one in self.runs())
        recipes = {model.name: self.recipe(model) for model in self.models}
        config = self.config.model_dump(mode="json")
        stage = GamingReport(results, self.protocols, recipes, config, self.config.resamples)
        names = safe_name("+".join(model.name for model in self.models))
        return Step(stage, Path(names, "gaming", "report"))

    def runs(self) -> list[Run]:
        """All conditions of all seeds; the further runs for the detector on the first model alone."""
        config = self.config
        every = [
            Run(model, seed, condition, False)
            for model in self.models
            for seed in config.seeds
            for condition in config.conditions
        ]
        further = range(max(config.seeds) + 1, max(config.seeds) + 1 + config.detector)
        wanted = [condition for condition in config.conditions if condition.setting != "told-other"]
        return every + [Run(self.models[0], seed, condition, True) for seed in further for condition in wanted]

    def pairs(self, model: ModelSpec, seed: int) -> Stage:
        """Answers to the personality questions under the persona of either role."""
        if self.config.pairs:
            return GivenPairs.of(self.config.pairs)
        behavior, samples = self.protocols[model.family].behavior, self.config.samples
        return Pairs.of(self.generator or model, model, behavior, seed, samples, judge="none", required=True)

    def recipe(self, model: ModelSpec) -> dict[str, Any]:
        """How a branch is trained, fields of `weightsteer.training.Recipe`: the last checkpoint counts, and nothing is
        held out."""
        asked = {name: getattr(self.config, name) for name in ("lr", "batch", "steps")}
        return {
            "name": "gaming",
            "rank": self.config.rank,
            "lora_alpha": self.config.lora_alpha,
            "epochs": self.config.epochs,
            "layers": (0.0, 1.0),
            "validation": 0.0,
            "keep": "last",
            **(EMBEDDED if model.embedded else GENERAL),
            **{name: value for name, value in asked.items() if value is not None},
        }

    def _result(self, one: Run) -> tuple[Result, dict[str, Stage]]:
        """The stages of a run, and the same by the names of their links."""
        model, seed, condition, config = one.model, one.seed, one.condition, self.config
        protocol, pairs = self.protocols[model.family], self.pairs(model, seed)
        systems: dict[str, str] = {role: protocol.system(condition, role) for role in ROLES}
        together = config.together > 1
        branches = GamingBranches(model, pairs, systems, self.recipe(model), together, seed, condition.name)
        stages: dict[str, Stage] = {"branches": branches, "signals": Signals(model, branches, protocol, condition)}
        if not one.detector:
            stages["curve"] = Curve(model, branches, protocol, condition, config.alphas, seed)
            if config.comparison and condition.setting != "told-other":
                stages["comparison"] = Comparison(model, pairs, branches, protocol, condition, config.budget, seed)
        return Result(model, seed, condition, **stages), stages

    def _step(self, stage: Stage, model: ModelSpec, seed: int, name: Path) -> Step:
        return Step(stage, Path(safe_name(model.name), "gaming", f"seed{seed}") / name)
