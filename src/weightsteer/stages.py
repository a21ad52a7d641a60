"""The stages of an experiment, one function each: what it is made from, the code it runs, and how it is made.

Importing this file is cheap and so is a finished stage: torch and the model are loaded by the first stage that
has to be made. The code of a stage counts as its own function here plus the modules it names
(`weightsteer.store.code_digest`).
"""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from weightsteer.config import RunConfig
from weightsteer.errors import WeightsteerError
from weightsteer.lab import Lab
from weightsteer.store import SCRATCH, Artifact, file_digest, has_module, safe_name, versions

Side = Literal["positive", "negative"]


def pairs(lab: Lab, seed: int) -> Artifact:
    """``pairs.parquet`` (all pairs, those not fit marked), ``audit.json`` and the same for people to read."""
    if lab.config.pairs:
        return given_pairs(lab, Path(lab.config.pairs), seed)
    knobs = lab.config.generation.model_dump(exclude={"data_seed"})
    fixed = lab.config.generation.data_seed
    data_seed = seed if fixed is None else fixed

    def build(work: Path) -> None:
        from weightsteer.pairs import SelfJudge, curate, generate

        model, tokenizer = lab.models.generator
        asked = {name: value for name, value in knobs.items() if not name.startswith("judge")}
        frame = generate(model, tokenizer, lab.behavior, seed=data_seed, workdir=work / SCRATCH, **asked)
        judge = SelfJudge(model, tokenizer, margin=knobs["judge_margin"]) if knobs["judge"] == "self" else None
        frame, audit = curate(frame, lab.models.trained[1], judge=judge)
        frame.write_parquet(work / "pairs.parquet")
        (work / "audit.json").write_text(audit.model_dump_json(indent=1), encoding="utf-8")
        (work / "audit.txt").write_text(str(audit), encoding="utf-8")

    inputs = {
        "generator": lab.on(lab.models.generator_identity),
        "trained": lab.identity.digest,
        "behavior": lab.behavior.digest,
        "knobs": knobs,
        "seed": data_seed,
    }
    artifact = lab.make("pairs", inputs, ["stages:pairs", "pairs", "models"], build, seed=seed)
    audit = artifact.read_json("audit.json")
    for line in (f"{audit['kept']} of {audit['total']} pairs kept", *audit["warnings"]):
        print(f"{'':<10} {line}", file=sys.stderr)
    return artifact


def given_pairs(lab: Lab, path: Path, seed: int) -> Artifact:
    """Pairs from a file of the user's (Parquet, JSONL or CSV): ``pairs.parquet``, without an audit."""
    wanted = ("prompt", "response_pos", "response_neg")
    if not path.is_file():
        raise WeightsteerError(f"no file of pairs {path}. Make one with `weightsteer data`, or leave out --pairs.")

    def build(work: Path) -> None:
        import polars

        from weightsteer.evals.files import read_records

        if path.suffix == ".parquet":
            try:
                frame = polars.read_parquet(path)
            except polars.exceptions.PolarsError as error:
                raise WeightsteerError(f"{path} is not a readable Parquet file: {error}") from error
        else:
            records = read_records(path)
            told = [{name: record.text(name) for name in wanted} | dict(record.fields) for record in records]
            frame = polars.DataFrame(told, infer_schema_length=None)
        if missing := [name for name in wanted if name not in frame.columns]:
            raise WeightsteerError(f"{path} lacks the columns {', '.join(missing)}.")
        frame.write_parquet(work / "pairs.parquet")

    inputs = {"file": file_digest(path)}
    return lab.make("given-pairs", inputs, ["stages:given_pairs"], build, seed=seed, name="pairs")


def branch(lab: Lab, data: Artifact, side: Side, seed: int) -> Artifact:
    """One fine-tuned branch: a PEFT folder and ``training.json``. ``side``: positive or negative."""
    code = ["stages:branch", "training", "models", _family_code(lab.adapter)]

    def build(work: Path) -> None:
        import polars

        from weightsteer.pairs import kept
        from weightsteer.training import Recipe, train_branch

        model, tokenizer = lab.models.trained
        frame = kept(polars.read_parquet(data.path / "pairs.parquet"))
        train_branch(
            model,
            tokenizer,
            frame,
            side,
            adapter=lab.adapter,
            recipe=Recipe.load(lab.recipe, **lab.changes),
            seed=seed,
            folder=work,
        )

    inputs = {
        "model": lab.on(lab.identity),
        "pairs": data,
        "side": side,
        "adapter": lab.adapter,
        "recipe": lab.recipe,
        "changes": lab.changes,
        "seed": seed,
    }
    return lab.make("branch", inputs, code, build, seed=seed, name=side)


def given_branch(lab: Lab, folder: Path, side: Side, seed: int) -> Artifact:
    """A PEFT folder of the user's in the place of a branch trained here."""
    if not (folder / "adapter_config.json").is_file():
        raise WeightsteerError(f"{folder} is no PEFT folder: it has no adapter_config.json.")
    files = sorted(path for path in folder.iterdir() if path.suffix in (".json", ".safetensors", ".bin"))

    def build(work: Path) -> None:
        import shutil

        for path in files:
            shutil.copyfile(path, work / path.name)

    inputs = {"files": {path.name: file_digest(path) for path in files}}
    return lab.make("given-branch", inputs, ["stages:given_branch"], build, seed=seed, name=side)


def vector(lab: Lab, positive: Artifact, negative: Artifact, seed: int) -> Artifact:
    """``vector.safetensors`` (θ⁺ − θ⁻) and ``norms.parquet`` (layer, module, norm)."""
    # What a branch of the user's was trained for, only its own record can tell.
    told = {"behavior": lab.behavior.name, "seed": seed} if positive.stage == "branch" else {}

    def build(work: Path) -> None:
        from weightsteer.vector import WeightVector

        made = WeightVector.from_adapters(positive.path, negative.path, lab.models.trained[0], metadata=told)
        made.save(work / "vector.safetensors")
        write_norms(made, work / "norms.parquet")

    inputs = {"model": lab.on(lab.identity), "positive": positive, "negative": negative, "told": told}
    code = ["stages:vector", "stages:write_norms", "vector", "adapters"]
    return lab.make("vector", inputs, code, build, seed=seed)


def given_vector(lab: Lab, path: Path, seed: int) -> Artifact:
    """A vector from a file of the user's, checked against the model, in the place of one made here."""
    if not path.is_file():
        raise WeightsteerError(f"no vector {path}. Make one with `weightsteer diff`, or leave out --vector.")

    def build(work: Path) -> None:
        from weightsteer.vector import WeightVector

        made = WeightVector.load(path, lab.models.trained[0])
        made.save(work / "vector.safetensors")
        write_norms(made, work / "norms.parquet")

    inputs = {"model": lab.on(lab.identity), "file": file_digest(path)}
    code = ["stages:given_vector", "stages:write_norms", "vector"]
    return lab.make("given-vector", inputs, code, build, seed=seed, name="vector")


def write_norms(made: Any, path: Path) -> None:
    import re

    import polars

    layer = [int(found[0]) if (found := re.findall(r"\.(\d+)\.", name)) else -1 for name in made.names]
    norms = made.norms()
    columns = {"layer": layer, "module": made.names, "norm": [norms[name] for name in made.names]}
    polars.DataFrame(columns).write_parquet(path)


def items(lab: Lab, asked: str) -> tuple[str, Artifact]:
    """The name of an evaluation and its rows for this model as ``items.jsonl``.

    ``asked``: the name of an evaluation, NAME=FILE with rows of the user's for it, or a file alone.
    """
    name, _, file = asked.partition("=")
    given = file or lab.config.data or (name if Path(name).suffix in (".jsonl", ".csv") else None)
    if given and not Path(given).is_file():
        raise WeightsteerError(f"no file {given!r} with rows for the evaluation {name!r}.")
    shown = Path(name).stem if given == name else name
    sign = lab.behavior.evaluations.get(name, 1)

    def build(work: Path) -> None:
        from weightsteer.evals import load
        from weightsteer.scoring import choice_table

        model, tokenizer = lab.models.trained
        data = given if given != name else None
        found = load(name, data=data, sign=sign, limit=lab.config.limit).items(model)
        choice_table(tokenizer, [item.choices for item in found])  # refuses what the sweep could not score
        lines = [json.dumps(asdict(item), sort_keys=True) for item in found]
        (work / "items.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")

    inputs = {
        "model": lab.on(lab.identity),
        "evaluation": shown,
        "data": file_digest(Path(given)) if given else None,
        "sign": sign,
        "limit": lab.config.limit,
    }
    code = ["stages:items", "evals", "scoring"]
    return shown, lab.make("items", inputs, code, build, name=f"items-{safe_name(shown)}")


def swept(lab: Lab, made: Artifact, rows: Artifact, name: str, seed: int) -> Artifact:
    """``rows.parquet``: the vector and its random control over one evaluation's rows at every strength."""
    control = lab.config.control

    def build(work: Path) -> None:
        from weightsteer.engine import sweep
        from weightsteer.evals.files import FileRows
        from weightsteer.vector import WeightVector

        model, tokenizer = lab.models.trained
        steering = WeightVector.load(made.path / "vector.safetensors", model)
        chosen = [steering, steering.randomized(seed)] if control else [steering]
        evaluation = FileRows(data=rows.path / "items.jsonl")
        evaluation.name = name
        frame = sweep(model, tokenizer, chosen, evaluation, lab.config.alphas)
        frame.write_parquet(work / "rows.parquet")

    inputs = {
        "model": lab.on(lab.identity),
        "vector": made,
        "items": rows,
        "alphas": lab.config.alphas,
        "evaluation": name,
        "control": seed if control else None,
    }
    code = ["stages:swept", "engine", "vector", "models"]
    return lab.make("sweep", inputs, code, build, seed=seed, name=f"sweep-{safe_name(name)}")


def samples(lab: Lab, made: Artifact, seed: int) -> Artifact:
    """``samples.json``: likeliest answers to held-out questions of the behaviour at every strength."""
    questions = (lab.behavior.questions.heldout or lab.behavior.questions.train)[: lab.config.prompts]
    tokens = lab.config.answer_tokens or lab.config.generation.max_new_tokens

    def build(work: Path) -> None:
        from dataclasses import replace

        import numpy as np

        from weightsteer.models import render_chat
        from weightsteer.pairs.sampling import default_sampling, sample, stop_ids
        from weightsteer.progress import progress
        from weightsteer.steering import steer
        from weightsteer.vector import WeightVector

        model, tokenizer = lab.models.trained
        steering = WeightVector.load(made.path / "vector.safetensors", model)
        greedy = replace(default_sampling(model), temperature=0.0)
        greedy = replace(greedy, max_new_tokens=tokens or greedy.max_new_tokens)
        prompts = [render_chat(tokenizer, [{"role": "user", "content": text}]) for text in questions]
        unused = np.zeros((len(prompts), greedy.max_new_tokens))
        told = []
        with progress("samples", len(lab.config.alphas)) as advance:
            for alpha in lab.config.alphas if questions else ():
                with steer(model, steering, alpha):
                    owners = range(len(prompts))
                    drawn = sample(model, prompts, owners, unused, greedy, stop_ids(model, tokenizer))
                for question, ids in zip(questions, drawn, strict=True):
                    text = tokenizer.decode(ids, skip_special_tokens=True).strip()
                    told.append({"prompt": question, "alpha": alpha, "seed": seed, "text": text})
                advance(1)
        (work / "samples.json").write_text(json.dumps(told, indent=1, ensure_ascii=False), encoding="utf-8")

    inputs = {
        "model": lab.on(lab.identity),
        "vector": made,
        "questions": questions,
        "alphas": lab.config.alphas,
        "tokens": tokens,
        "seed": seed,
    }
    code = ["stages:samples", "pairs.sampling", "vector", "steering", "models"]
    return lab.make("samples", inputs, code, build, seed=seed)


def _family_code(adapter: str) -> str:
    """The adapter family's own file: a new family must not make the others train again."""
    return f"adapters.{adapter}" if has_module(f"adapters.{adapter}") else "adapters"


@dataclass(frozen=True)
class Leg:
    """All that one seed of one lab has brought forth."""

    lab: Lab
    seed: int
    pairs: Artifact | None
    vector: Artifact
    sweeps: dict[str, Artifact]
    samples: Artifact

    @property
    def name(self) -> str:
        """What tells its vector from those of other labs."""
        return f"{self.lab.behavior.name}, {self.lab.adapter}"


def report(legs: Sequence[Leg], rows: Mapping[str, Artifact], config: RunConfig, home: Path) -> Artifact:
    """``rows.parquet``, ``summary.csv``, ``run.json``, ``report.html`` and its charts, over all legs."""
    first = legs[0].lab

    def build(work: Path) -> None:
        import polars

        from weightsteer.report import write_report

        tidy = polars.concat(
            [polars.read_parquet(s.path / "rows.parquet") for leg in legs for s in leg.sweeps.values()]
        )
        tidy.write_parquet(work / "rows.parquet")
        run = described(legs, config)
        (work / "run.json").write_text(json.dumps(run, indent=1, ensure_ascii=False), encoding="utf-8")
        norms = [
            polars.read_parquet(leg.vector.path / "norms.parquet").select(
                polars.lit(leg.name).alias("vector"), polars.lit(leg.seed).alias("seed"), "layer", "module", "norm"
            )
            for leg in legs
        ]
        lines = [line for rows_of in rows.values() for line in (rows_of.path / "items.jsonl").open(encoding="utf-8")]
        told = [json.loads(line) for line in lines]
        several = len({leg.name for leg in legs}) > 1
        audits = {
            f"{leg.name}, seed {leg.seed}" if several else f"seed {leg.seed}": leg.pairs.read_json("audit.json")
            for leg in legs
            if leg.pairs and (leg.pairs.path / "audit.json").exists()
        }
        write_report(
            work,
            tidy,
            run=run,
            samples=[line | {"vector": leg.name} for leg in legs for line in leg.samples.read_json("samples.json")],
            norms=polars.concat(norms),
            texts={row["item"]: row["text"] for row in told},
            pairs_audit=audits or None,
            resamples=config.resamples,
        )

    inputs = {
        "legs": [
            {"pairs": leg.pairs, "vector": leg.vector, "sweeps": leg.sweeps, "samples": leg.samples} for leg in legs
        ],
        "items": dict(rows),
        "run": described(legs, config),
    }
    return first.make("report", inputs, ["stages:report", "stages:described", "stages:Leg", "report"], build, home=home)


def described(legs: Sequence[Leg], config: RunConfig) -> dict[str, Any]:
    """What ``run.json`` tells: the configuration that repeats the run, and digests of what it was made from."""
    lab = legs[0].lab
    training = config.training.model_copy(update={"recipe": lab.recipe})
    resolved = config.model_copy(update={"seeds": lab.seeds, "training": training})
    return {
        "config": resolved.model_dump(mode="json"),
        "versions": versions(),
        "model": asdict(lab.models.trained_identity),
        "generator": asdict(lab.models.generator_identity),
        "behaviors": {leg.lab.behavior.name: leg.lab.behavior.digest for leg in legs},
        "vectors": [
            {
                "behavior": leg.lab.behavior.name,
                "adapter": leg.lab.adapter,
                "seed": leg.seed,
                "pairs": leg.pairs and leg.pairs.digest,
                "vector": leg.vector.digest,
                "sweeps": {name: artifact.digest for name, artifact in leg.sweeps.items()},
            }
            for leg in legs
        ],
    }
