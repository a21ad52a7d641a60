"""The stages of an experiment, one function each: what it is made from, the code it runs, and how it is made.

Importing this file is cheap and so is a finished stage: torch and the model are loaded by the first stage that
has to be made. The code of a stage counts as its own function here plus the modules it names
(`weightsteer.runtime.store.code_digest`).
"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from weightsteer.errors import WeightsteerError
from weightsteer.experiments.sweep.config import ROWS, evaluation_name
from weightsteer.experiments.sweep.lab import Lab
from weightsteer.runtime.store import SCRATCH, Artifact, file_digest, fixed, safe_name

Side = Literal["positive", "negative"]


def pairs(lab: Lab, seed: int) -> Artifact:
    """``pairs.parquet`` (all pairs, those not fit marked), ``audit.json`` and the same for people to read."""
    if lab.config.pairs:
        return given_pairs(lab, Path(lab.config.pairs), seed)
    knobs = lab.config.generation.model_dump(exclude={"data_seed"})
    fixed = lab.config.generation.data_seed
    data_seed = seed if fixed is None else fixed

    def build(work: Path) -> None:
        from weightsteer.data.pairs import SelfJudge, curate, generate

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
    artifact = lab.make(
        "pairs", inputs, ["experiments.sweep.stages:pairs", "data.pairs", "models.loading"], build, seed=seed
    )
    audit = artifact.read_json("audit.json")
    if lab.alone or not artifact.cached:  # several families share the pairs: said once
        for line in (f"{audit['kept']} of {audit['total']} pairs kept", *audit["warnings"]):
            lab.tell(f"{'':<10} {line}")
    return artifact


def given_pairs(lab: Lab, path: Path, seed: int) -> Artifact:
    """Pairs from a file of the user's (Parquet, JSONL or CSV): ``pairs.parquet``, without an audit."""
    wanted = ("prompt", "response_pos", "response_neg")
    if not path.is_file():
        raise WeightsteerError(f"no file of pairs {path}. Make one with `weightsteer data`, or leave out --pairs.")
    path = fixed(path)

    def build(work: Path) -> None:
        import polars

        from weightsteer.data.evals.files import read_records

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
    return lab.make("given-pairs", inputs, ["experiments.sweep.stages:given_pairs"], build, seed=seed, name="pairs")


def branch(lab: Lab, data: Artifact, side: Side, seed: int, *, of: str = "") -> Artifact:
    """One fine-tuned branch and its ``training.json``: a PEFT folder, for ``full`` a checkpoint.

    ``of``: the control that it is a branch of; it only names the link.

    The recipe is keyed by its name, and what a family changes of it by that family's own file: another one's settings
    make nothing here again.
    """
    code = ["experiments.sweep.stages:branch", "training", "models.loading", lab.family_code]

    def build(work: Path) -> None:
        import polars

        from weightsteer.data.pairs import kept
        from weightsteer.training import Recipe, train_branch

        model, tokenizer = lab.models.trained
        frame = kept(polars.read_parquet(data.path / "pairs.parquet"))
        train_branch(
            model,
            tokenizer,
            frame,
            side,
            adapter=lab.adapter,
            recipe=Recipe.load(lab.recipe, lab.adapter, **lab.changes),
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
    return lab.make("branch", inputs, code, build, seed=seed, name=f"{of}-{side}" if of else side)


def vector(lab: Lab, positive: Artifact, negative: Artifact, seed: int, *, of: str = "") -> Artifact:
    """``vector.safetensors`` (θ⁺ − θ⁻) with ``norms.parquet`` (layer, module, norm); see `write_vector`.

    ``of``: the control whose branches these are, instead of the behaviour's.
    """
    told = {"behavior": of or lab.behavior.name, "seed": seed}

    def build(work: Path) -> None:
        from weightsteer.vector import WeightVector

        model, _ = lab.models.trained
        write_vector(WeightVector.from_adapters(positive.path, negative.path, model, metadata=told), work)

    inputs = {"model": lab.on(lab.identity), "positive": positive, "negative": negative, "told": told}
    code = [
        "experiments.sweep.stages:vector",
        "experiments.sweep.stages:write_vector",
        "vector.weight_vector",
        "adapters",
    ]
    return lab.make("vector", inputs, code, build, seed=seed, name=f"{of}-vector" if of else None)


def given_difference(lab: Lab, positive: Path, negative: Path) -> Artifact:
    """The vector of two folders of the user's: PEFT adapters of any family, or full checkpoints of one model."""
    folders = {"positive": positive, "negative": negative}
    for folder in folders.values():
        if not any((folder / name).is_file() for name in ("adapter_config.json", "config.json")):
            raise WeightsteerError(
                f"{folder} is no PEFT folder and no checkpoint: it has neither adapter_config.json nor config.json."
            )
    folders = {side: folder.resolve() for side, folder in folders.items()}  # as `fixed` does for a file

    def build(work: Path) -> None:
        from weightsteer.vector import WeightVector

        model, _ = lab.models.trained
        write_vector(WeightVector.from_adapters(folders["positive"], folders["negative"], model), work)

    def files(folder: Path) -> dict[str, str]:
        kinds = (".json", ".safetensors", ".bin")
        return {path.name: file_digest(path) for path in sorted(folder.iterdir()) if path.suffix in kinds}

    inputs = {"model": lab.on(lab.identity), **{side: files(folder) for side, folder in folders.items()}}
    home = Path(safe_name(lab.identity.name), "given", safe_name(f"{positive.name}-{negative.name}"))
    code = [
        "experiments.sweep.stages:given_difference",
        "experiments.sweep.stages:write_vector",
        "vector.weight_vector",
        "adapters",
    ]
    return lab.make("given-difference", inputs, code, build, name="vector", home=home)


def given_vector(lab: Lab, path: Path, seed: int) -> Artifact:
    """A vector from a file of the user's, checked against the model, in the place of one made here."""
    if not path.is_file():
        raise WeightsteerError(f"no vector {path}. Make one with `weightsteer diff`, or leave out --vector.")
    path = fixed(path)

    def build(work: Path) -> None:
        from weightsteer.vector import WeightVector

        write_vector(WeightVector.load(path, lab.models.trained[0]), work)

    inputs = {"model": lab.on(lab.identity), "file": file_digest(path)}
    code = ["experiments.sweep.stages:given_vector", "experiments.sweep.stages:write_vector", "vector.weight_vector"]
    return lab.make("given-vector", inputs, code, build, seed=seed, name="vector")


def write_vector(made: Any, work: Path) -> None:
    """The vector, where its norm lies, what it says of itself, and the geometry of its branches if it knows them."""
    import re

    import polars

    made.save(work / "vector.safetensors")
    layer = [int(found[0]) if (found := re.findall(r"\.(\d+)\.", name)) else -1 for name in made.names]
    norms = made.norms()
    columns = {"layer": layer, "module": made.names, "norm": [norms[name] for name in made.names]}
    polars.DataFrame(columns).write_parquet(work / "norms.parquet")
    if geometry := made.metadata.get("geometry"):
        (work / "geometry.json").write_text(json.dumps(geometry, indent=1, ensure_ascii=False), encoding="utf-8")
    (work / "vector.txt").write_text(f"{made!r}\n", encoding="utf-8")  # the reading of the geometry is in it


def items(lab: Lab, asked: str) -> tuple[str, Artifact]:
    """The name of an evaluation and its rows for this model as ``items.jsonl``.

    ``asked``: the name of an evaluation, NAME=FILE with rows of the user's for it, or a file alone.
    """
    name, _, file = asked.partition("=")
    own = file or lab.config.data or (name if Path(name).suffix in ROWS else None)
    if own and not Path(own).is_file():
        raise WeightsteerError(f"no file {own!r} with rows for the evaluation {name!r}.")
    given = fixed(Path(own)) if own else None
    shown = evaluation_name(asked)

    def build(work: Path) -> None:
        from weightsteer.data.evals import load, sign
        from weightsteer.inference.choices import choice_table

        model, tokenizer = lab.models.trained
        towards = sign(name, lab.behavior.evaluations)
        alone = given is not None and own == name
        data = None if alone else given
        found = load(str(given) if alone else name, data=data, sign=towards, limit=lab.config.limit).items(model)
        choice_table(tokenizer, [item.choices for item in found])  # refuses what the sweep could not score
        lines = [json.dumps(asdict(item), sort_keys=True) for item in found]
        (work / "items.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")

    inputs = {
        "model": lab.on(lab.identity),
        "evaluation": shown,
        "data": file_digest(given) if given else None,
        "signs": lab.behavior.evaluations,
        "limit": lab.config.limit,
    }
    code = ["experiments.sweep.stages:items", "data.evals", "inference.choices", "pocket.items", "pocket.world"]
    return shown, lab.make("items", inputs, code, build, name=f"items-{safe_name(shown)}")


def samples(lab: Lab, made: Artifact, seed: int) -> Artifact:
    """``samples.json``: likeliest answers to held-out questions of the behaviour at every strength."""
    questions = (lab.behavior.questions.heldout or lab.behavior.questions.train)[: lab.config.prompts]
    tokens = lab.config.answer_tokens or lab.config.generation.max_new_tokens

    def build(work: Path) -> None:
        from dataclasses import replace

        import numpy as np

        from weightsteer.inference.sampling import default_sampling, sample, stop_ids
        from weightsteer.models import render_chat
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
    code = [
        "experiments.sweep.stages:samples",
        "inference.sampling",
        "vector.weight_vector",
        "steering.intervention",
        "models.loading",
    ]
    return lab.make("samples", inputs, code, build, seed=seed)
