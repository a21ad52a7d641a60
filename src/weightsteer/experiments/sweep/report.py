"""The last stage of a sweep: one page over all vectors and seeds, and what they are compared with."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from weightsteer.experiments.stages.items import Items
from weightsteer.experiments.stages.vector import load_vector
from weightsteer.runtime.models import ModelSpec
from weightsteer.runtime.stage import Runner, Stage
from weightsteer.runtime.store import Artifact
from weightsteer.versions import versions

if TYPE_CHECKING:
    import polars

    from weightsteer.data.evals import Item


@dataclass(frozen=True)
class Result:
    """The stages of one seed of one vector, or of what vectors are compared with.

    Attributes:
        behavior: its name; ``behavior_digest`` the digest of its content.
        in_distribution: the evaluation that asks what its pairs teach, where it names one.
        adapter: the family; in a baseline, that of the first family of the run.
        entry: the family, or the kind of the baseline: ``activation`` or ``prompt``.
    """

    behavior: str
    behavior_digest: str
    in_distribution: str | None
    adapter: str
    entry: str
    seed: int
    sweeps: Mapping[str, Stage]
    pairs: Stage | None = None
    branches: tuple[Stage, ...] = ()
    vector: Stage | None = None
    nuisances: Mapping[str, Stage] = field(default_factory=dict)
    samples: Stage | None = None
    strengths: Stage | None = None
    matched: Mapping[str, Stage] = field(default_factory=dict)
    damage: Stage | None = None
    capability: Stage | None = None

    @property
    def name(self) -> str:
        """What tells its vector from others on the page."""
        return f"{self.behavior}, {self.entry}"


@dataclass(frozen=True)
class Report(Stage):
    """``rows.parquet`` (and as CSV), ``summary.csv``, ``run.json``, ``report.html`` and its charts, over all results.

    Attributes:
        generator: the model that wrote the pairs.
        nulls: of all vectors, one stage for each behaviour and evaluation.
        items: the rows of every evaluation, by its name.
        config: the configuration that repeats the run.
        resamples: of the bootstrap.
        smallest: the smallest effect of interest, nats.
    """

    name: ClassVar[str] = "report"

    model: ModelSpec
    generator: ModelSpec
    results: tuple[Result, ...]
    nulls: tuple[Stage, ...]
    items: Mapping[str, Stage]
    config: Mapping[str, Any]
    resamples: int
    smallest: float

    def build(self, work: Path, runner: Runner) -> None:
        from weightsteer.audit import covariates_of
        from weightsteer.experiments.sweep.page import write_report

        results = self.results
        rows = _joined(runner, [each for result in results for each in result.sweeps.values()], "rows.parquet")
        assert rows is not None
        rows.write_parquet(work / "rows.parquet")
        items = self._rows_of(runner)
        run = self._record(runner, items)
        compared: dict[str, Any] = {}
        if any(result.strengths for result in results):
            compared = {
                "matched": _joined(runner, [one for each in results for one in each.matched.values()], "rows.parquet"),
                "calibration": _joined(runner, [each.strengths for each in results], "strengths.parquet"),
                "damage": _joined(runner, [each.damage for each in results], "damage.parquet"),
                "capability": _joined(runner, [each.capability for each in results], "capability.parquet"),
                "covariates": covariates_of(items),
                "cosines": self._cosines(runner),
                "trained_on": {
                    each.behavior: each.in_distribution for each in results if each.in_distribution in self.items
                },
            }
        write_report(
            work,
            rows,
            run=run,
            samples=[
                line | {"vector": result.name}
                for result in results
                if result.samples
                for line in runner.make(result.samples).read_json("samples.json")
            ],
            norms=self._norms(runner),
            texts={row.item: row.text for rows_of in items.values() for row in rows_of},
            noise=self._noise(items),
            pairs_audit=self._audits(runner) or None,
            branches=[line for result in results for line in _trained(result, runner)],
            null=_joined(runner, self.nulls, "null.parquet"),
            smallest=self.smallest,
            resamples=self.resamples,
            **compared,
        )

    def _rows_of(self, runner: Runner) -> "dict[str, list[Item]]":
        """The rows of every evaluation."""
        from weightsteer.data.evals.files import own_rows, read_records

        files = {name: read_records(runner.make(stage).path / "items.jsonl") for name, stage in self.items.items()}
        return {name: own_rows(records) or [] for name, records in files.items()}

    def _noise(self, items: "Mapping[str, Sequence[Item]]") -> "polars.DataFrame | None":
        """The dilemmas whose words decide whether an action is honest, with the label that is about honesty."""
        import polars

        from weightsteer.data.evals import registry
        from weightsteer.data.evals.dilemma_noise import decidable

        frames = []
        for name, (registered, turn) in self._registered().items():
            if registry.get(registered).axis == "dilemmas":
                found = decidable(items[name]).with_columns(polars.col("label") * turn)
                frames.append(found.select(polars.lit(name).alias("eval"), "*"))
        return polars.concat(frames) if frames else None

    def _evaluations(self, items: "Mapping[str, Sequence[Item]]") -> dict[str, dict[str, Any]]:
        """How many rows of which label every evaluation has, and how many the published set of that name."""
        from weightsteer.data.evals import label_balance, registry

        known = {} if self.model.embedded else self._registered()
        record: dict[str, dict[str, Any]] = {}
        for name, rows in items.items():
            balance = label_balance(rows)
            record[name] = {"rows": len(rows), "positives": balance[1], "negatives": balance[-1]}
            registered, turn = known.get(name, (None, 1))
            if registered and (published := registry.get(registered).published):
                record[name]["published"] = str(published.turned(turn))
        return record

    def _registered(self) -> dict[str, tuple[str, int]]:
        """The evaluations that are known by name, each with the sign of its labels."""
        from weightsteer.data.evals import sign

        return {
            name: (stage.registered, sign(stage.registered, stage.signs))
            for name, stage in self.items.items()
            if isinstance(stage, Items) and stage.registered
        }

    def _audits(self, runner: Runner) -> dict[str, Any]:
        """The audit of the pairs of every seed: one for all families, which learn from the same pairs."""
        several = len({result.behavior for result in self.results}) > 1
        found: dict[str, Any] = {}
        for result in self.results:
            pairs = runner.make(result.pairs) if result.pairs else None
            if pairs and (pairs.path / "audit.json").exists():
                name = f"{result.behavior}, seed {result.seed}" if several else f"seed {result.seed}"
                found[name] = pairs.read_json("audit.json")
        return found

    def _norms(self, runner: Runner) -> "polars.DataFrame | None":
        """``vector, seed, layer, module, norm`` of all weight vectors."""
        import polars

        frames = [
            polars.read_parquet(runner.make(result.vector).path / "norms.parquet").select(
                polars.lit(result.name).alias("vector"),
                polars.lit(result.seed).alias("seed"),
                "layer",
                "module",
                "norm",
            )
            for result in self.results
            if result.vector
        ]
        return polars.concat(frames) if frames else None

    def _cosines(self, runner: Runner) -> dict[Any, dict[str, float]]:
        """Of every weight vector with the nuisance vectors of its seed."""
        from weightsteer.audit.cosines import cosines_with

        vectors = [runner.make(result.vector) for result in self.results if result.vector]
        nuisances = [runner.make(each) for result in self.results for each in result.nuisances.values()]
        distinct = {each.key: each for each in nuisances}.values()
        return cosines_with(
            [load_vector(each, runner, self.model) for each in vectors],
            [load_vector(each, runner, self.model) for each in distinct],
        )

    def _record(self, runner: Runner, items: "Mapping[str, Sequence[Item]]") -> dict[str, Any]:
        """The content of ``run.json``: the configuration that repeats the run, and digests of what it was made from."""
        return {
            "config": dict(self.config),
            "versions": versions(),
            "model": _identity(self.model),
            "generator": _identity(self.generator),
            "behaviors": {result.behavior: result.behavior_digest for result in self.results},
            "evaluations": self._evaluations(items),
            "vectors": [
                {
                    "behavior": result.behavior,
                    "adapter": result.adapter,
                    "seed": result.seed,
                    "pairs": result.pairs and runner.make(result.pairs).digest,
                    "vector": runner.make(result.vector).digest,
                    "sweeps": {name: runner.make(stage).digest for name, stage in result.sweeps.items()},
                }
                for result in self.results
                if result.vector
            ],
        }


def _identity(model: ModelSpec) -> dict[str, str]:
    return {"name": model.name, "family": model.family, "digest": model.digest}


def _joined(runner: Runner, stages: Sequence[Stage | None], file: str) -> "polars.DataFrame | None":
    import polars

    frames = [polars.read_parquet(runner.make(stage).path / file) for stage in stages if stage]
    return polars.concat(frames) if frames else None


def _trained(result: Result, runner: Runner) -> Iterator[dict[str, Any]]:
    """For each branch of the vector: what was trained, and how well it came to fit the pairs held out."""
    for stage in result.branches:
        branch: Artifact = runner.make(stage)
        record = branch.read_json("training.json")
        kept = next(line for line in record["losses"] if line["step"] == record["best_step"])
        yield {
            "behavior": result.behavior,
            "adapter": result.adapter,
            "vector": result.name,
            "seed": result.seed,
            "side": record["side"],
            "parameters": record["parameters"],
            "train": kept["train"],
            "validation": kept["validation"],
        }
