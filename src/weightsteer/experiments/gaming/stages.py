"""The stages of the lab for one model: data, the two branches of an arm, and their curve."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from weightsteer.errors import WeightsteerError
from weightsteer.experiments.gaming.bench import Bench
from weightsteer.experiments.gaming.protocol import DEPLOYMENT, ROLES, TRAIN, UNTAGGED, Asked, Cell, Protocol
from weightsteer.runtime.store import SCRATCH, Artifact, file_digest, fixed

if TYPE_CHECKING:
    import polars

    from weightsteer.experiments.gaming.curve import Place

MAIN = "identity"
"""The probe that is published; the others are asked beside it."""
AUDITED = (MAIN, "heldout", "tone")


def data(bench: Bench, seed: int) -> Artifact:
    """``pairs.parquet``: answers to the personality questions under the persona of either role.

    Raises:
        WeightsteerError: none of the answers is fit to learn from.
    """
    if bench.config.pairs:
        return given_data(bench, Path(bench.config.pairs), seed)
    behavior, samples = bench.protocol.behavior, bench.config.samples

    def build(work: Path) -> None:
        from weightsteer.data.pairs import curate, generate, kept

        model, tokenizer = bench.generator
        frame = generate(model, tokenizer, behavior, seed=seed, samples=samples, workdir=work / SCRATCH)
        frame, audit = curate(frame, bench.trained[1], judge=None)
        if kept(frame).is_empty():
            raise WeightsteerError(
                f"none of {len(frame)} pairs of answers is fit to learn from. Have another model write them "
                f"(--generator), or give some (--pairs).\n{audit}"
            )
        frame.write_parquet(work / "pairs.parquet")
        (work / "audit.txt").write_text(str(audit), encoding="utf-8")

    inputs = {
        "generator": bench.on(bench.generator_identity),
        "trained": bench.identity.digest,
        "behavior": behavior.digest,
        "samples": samples,
        "seed": seed,
    }
    return bench.make(
        "gaming-data",
        inputs,
        ["experiments.gaming.stages:data", "data.pairs", "models.loading"],
        build,
        Path(f"seed{seed}/data"),
    )


def given_data(bench: Bench, path: Path, seed: int) -> Artifact:
    """``pairs.parquet`` from a file of the user's: prompt, response_pos (Jekyll's) and response_neg (Hyde's)."""
    if not path.is_file():
        raise WeightsteerError(f"no file of pairs {path}. Leave out --pairs to have a model write them.")
    path = fixed(path)

    def build(work: Path) -> None:
        import polars as pl

        frame = pl.read_parquet(path) if path.suffix == ".parquet" else pl.read_ndjson(path)
        wanted = ("prompt", "response_pos", "response_neg")
        if missing := [name for name in wanted if name not in frame.columns]:
            raise WeightsteerError(f"{path} lacks the columns {', '.join(missing)}.")
        frame.write_parquet(work / "pairs.parquet")

    place = Path(f"seed{seed}/data")
    return bench.make(
        "gaming-given", {"file": file_digest(path)}, ["experiments.gaming.stages:given_data"], build, place
    )


def branches(bench: Bench, answers: Artifact, cell: Cell, seed: int) -> Artifact:
    """``Jekyll/`` and ``Hyde/``, PEFT folders of the branches of one arm, and ``training.json`` with their losses.

    Both see the same questions in the same order, behind the ``[train]`` tag and under the system prompt of the arm.
    """
    systems = {role: bench.protocol.system(cell, role) for role in ROLES}
    together = bench.config.together > 1

    def build(work: Path) -> None:
        import polars

        from weightsteer.data.pairs import kept
        from weightsteer.experiments.gaming.training_rows import learners_of
        from weightsteer.training.together import train_together

        model, tokenizer = bench.trained
        pairs = kept(polars.read_parquet(answers.path / "pairs.parquet"))
        learners = learners_of(model, tokenizer, pairs, systems, bench.recipe, seed, work)
        groups = [learners] if together else [[learner] for learner in learners]
        found = [own for group in groups for own in train_together(model, group, bench.recipe, title=cell.name)]
        losses = dict(zip(ROLES, found, strict=True))
        told = {"systems": systems, "seed": seed, "recipe": bench.recipe.model_dump(), "losses": losses}
        (work / "training.json").write_text(json.dumps(told, indent=1, ensure_ascii=False), encoding="utf-8")

    inputs = {
        "model": bench.on(bench.identity),
        "data": answers,
        "systems": systems,
        "recipe": bench.recipe.model_dump(mode="json"),
        "together": together,
        "seed": seed,
    }
    code = [
        "experiments.gaming.stages:branches",
        "training.together",
        "experiments.gaming.training_rows",
        "models.loading",
    ]
    return bench.make("gaming-branches", inputs, code, build, Path(f"seed{seed}/{cell.name}/branches"))


def curve(bench: Bench, trained: Artifact, cell: Cell, seed: int) -> Artifact:
    """``curve.parquet``: every probe along the line and on the model before training, and the norms of the branches.

    The line that has no ``a`` is the model before training.
    """
    protocol, alphas = bench.protocol, bench.config.alphas

    def build(work: Path) -> None:
        import polars as pl

        from weightsteer.experiments.gaming.curve import measure
        from weightsteer.vector import WeightVector

        model, tokenizer = bench.trained
        jekyll, hyde = (WeightVector.from_branch(trained.path / role, model) for role in ROLES)
        line = hyde - jekyll
        strengths = [(jekyll, [1.0] * len(alphas) + [0.0]), (line, [*alphas, 0.0])]
        rows = measure(model, tokenizer, strengths, places(protocol, cell))
        points = pl.Series("a", [*alphas, None], dtype=pl.Float64)
        told = rows.with_columns(points.gather(rows["at"]).alias("a")).drop("at")
        _of_arm(told, bench, cell, seed).write_parquet(work / "curve.parquet")
        norms = {"Jekyll": jekyll.norm(), "Hyde": hyde.norm(), "line": line.norm()}
        norms["cosine"] = jekyll.cosine(hyde) if min(norms.values()) > 0 else 0.0
        (work / "norms.json").write_text(json.dumps(norms, indent=1), encoding="utf-8")

    inputs = {
        "model": bench.on(bench.identity),
        "branches": trained,
        "protocol": protocol.digest,
        "cell": list(cell),
        "alphas": alphas,
        "seed": seed,
    }
    code = [
        "experiments.gaming.stages:curve",
        "experiments.gaming.stages:_of_arm",
        "experiments.gaming.stages:places",
        "experiments.gaming.curve",
        "vector.weight_vector",
        "adapters",
    ]
    return bench.make("gaming-curve", inputs, code, build, Path(f"seed{seed}/{cell.name}/curve"))


def places(protocol: Protocol, cell: Cell) -> "Mapping[Place, Mapping[str, Sequence[Asked]]]":
    """What is asked where: everything behind the deployment tag, and what shows gaming behind the other and none."""
    from weightsteer.experiments.gaming.curve import Place

    asked: dict[Place, Mapping[str, Sequence[Asked]]] = {}
    for system, text in protocol.systems(cell).items():
        own = system in ("jekyll-branch", "hyde-branch")
        for tag in (DEPLOYMENT, TRAIN, UNTAGGED):
            probes = list(protocol.probes) if own and tag == DEPLOYMENT else list(AUDITED) if tag else [MAIN]
            asked[Place(system, text, tag)] = {probe: protocol.probes[probe] for probe in probes}
    return asked


def comparison(bench: Bench, answers: Artifact, trained: Artifact, cell: Cell, seed: int) -> Artifact:
    """``comparison.parquet``: the vector of an arm, activation vectors and prompts at equal KL, on the same probe."""
    protocol, budget = bench.protocol, bench.config.budget

    def build(work: Path) -> None:
        import polars as pl

        from weightsteer.data.pairs import kept
        from weightsteer.experiments.gaming.comparison import compare
        from weightsteer.vector import WeightVector

        model, tokenizer = bench.trained
        jekyll, hyde = (WeightVector.from_branch(trained.path / role, model) for role in ROLES)
        pairs = kept(pl.read_parquet(answers.path / "pairs.parquet"))
        rows = compare(model, tokenizer, protocol, cell, hyde - jekyll, pairs, seed, budget=budget)
        _of_arm(rows, bench, cell, seed).write_parquet(work / "comparison.parquet")

    inputs = {
        "model": bench.on(bench.identity),
        "data": answers,
        "branches": trained,
        "protocol": protocol.digest,
        "cell": list(cell),
        "budget": budget,
        "seed": seed,
    }
    code = [
        "experiments.gaming.stages:comparison",
        "experiments.gaming.stages:_of_arm",
        "experiments.gaming.comparison",
        "measure.calibrate",
        "activation",
        "vector.weight_vector",
        "adapters",
    ]
    return bench.make("gaming-comparison", inputs, code, build, Path(f"seed{seed}/{cell.name}/comparison"))


def signals(bench: Bench, trained: Artifact, cell: Cell, seed: int) -> Artifact:
    """``signals.json``: what an auditor reads off the two branches; see `weightsteer.experiments.gaming.signals`."""
    protocol = bench.protocol

    def build(work: Path) -> None:
        from weightsteer.experiments.gaming.curve import measure
        from weightsteer.experiments.gaming.signals import audited_places, signals
        from weightsteer.vector import WeightVector

        model, tokenizer = bench.trained
        jekyll, hyde = (WeightVector.from_branch(trained.path / role, model) for role in ROLES)
        strengths = [(jekyll, [1.0, 0.0]), (hyde, [0.0, 1.0])]
        found = signals(measure(model, tokenizer, strengths, audited_places(protocol, cell)), jekyll, hyde)
        (work / "signals.json").write_text(json.dumps(found, indent=1), encoding="utf-8")

    inputs = {
        "model": bench.on(bench.identity),
        "branches": trained,
        "protocol": protocol.digest,
        "cell": list(cell),
    }
    code = ["experiments.gaming.stages:signals", "experiments.gaming.signals", "vector.weight_vector", "adapters"]
    return bench.make("gaming-signals", inputs, code, build, Path(f"seed{seed}/{cell.name}/signals"))


def _of_arm(rows: "polars.DataFrame", bench: Bench, cell: Cell, seed: int) -> "polars.DataFrame":
    """The rows with the model, the arm and the seed that they belong to."""
    import polars as pl

    return rows.with_columns(
        pl.lit(bench.identity.name).alias("model"),
        pl.lit(cell.setting).alias("setting"),
        pl.lit(cell.deployment).alias("deployment"),
        pl.lit(seed, pl.Int64).alias("seed"),
    )
