"""What a run is: every knob, its default and its meaning. The same object is parsed from flags and from run.json."""

import json
import math
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from weightsteer.errors import WeightsteerError, same_name, unknown
from weightsteer.experiments.stages.items import ROWS, evaluation_name

ALPHAS = (-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0)
POCKET_SEEDS, GENERAL_SEEDS = (0, 1, 2), (0,)

# The families of the published comparison; `--adapters all` stands for them.
COMPARED = ("lora", "dora", "pissa", "delora", "oft", "boft", "ia3")


class _Knobs(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Generation(_Knobs):
    """How the contrastive pairs are made. None: what suits the model (`weightsteer.data.pairs`)."""

    topics: int | None = Field(default=None, description="Training questions used; all of the behaviour's by default.")
    personas: int | None = Field(default=None, description="Personas a side; all of the behaviour's by default.")
    samples: int = Field(default=10, description="Answers per question, persona and side.")
    temperature: float | None = Field(default=None, description="Sampling temperature; 0 takes the likeliest token.")
    top_p: float | None = Field(default=None, description="Nucleus mass.")
    top_k: int | None = Field(default=None, description="Likeliest tokens considered; 0: all.")
    max_new_tokens: int | None = Field(default=None, description="Longest answer, in tokens.")
    thinking: bool = Field(default=False, description="Let a thinking model think before it answers.")
    judge: Literal["self", "none"] = Field(default="self", description="Who keeps the pairs that show their poles.")
    judge_margin: float = Field(default=0.0, description="Nats by which an answer must favour its own persona.")
    data_seed: int | None = Field(default=None, description="One seed for all data; by default each seed has its own.")


class Training(_Knobs):
    """How a branch is fine-tuned. None: what the recipe says (`weightsteer.training.Recipe`)."""

    recipe: str | None = Field(
        default=None, description="paper, fork or pocket; pocket for embedded models, else paper."
    )
    rank: int | None = Field(default=None, description="Rank r of the adapter.")
    lora_alpha: float | None = Field(default=None, description="LoRA alpha; the adapter is scaled by alpha / r.")
    block_size: int | None = Field(default=None, description="Side of the rotated blocks of OFT and BOFT.")
    delora_lambda: float | None = Field(default=None, description="DeLoRA's bound of the change, at the start.")
    lr: float | None = Field(default=None, description="Peak learning rate.")
    batch: int | None = Field(default=None, description="Rows per optimiser step.")
    steps: int | None = Field(default=None, description="Optimiser steps at most.")
    epochs: float | None = Field(default=None, description="Passes over the data at most.")
    warmup: int | None = Field(default=None, description="Warm-up steps.")
    weight_decay: float | None = Field(default=None, description="AdamW weight decay.")
    clip: float | None = Field(default=None, description="Largest norm of a gradient.")
    layers: tuple[float, float] | None = Field(default=None, description="Decoder layers adapted, as two fractions.")
    max_length: int | None = Field(default=None, description="Longest row, in tokens.")
    validation: float | None = Field(default=None, description="Share of the pairs held out for validation.")
    split: Literal["row", "topic"] | None = Field(default=None, description="What is held out: pairs or questions.")
    eval_every: int | None = Field(default=None, description="Steps between two evaluations on the pairs held out.")
    patience: int | None = Field(default=None, description="Evaluations without improvement before stopping.")
    keep: Literal["best", "last"] | None = Field(default=None, description="Which checkpoint becomes the branch.")


class Calibration(_Knobs):
    """At which side effects interventions are compared (`weightsteer.measure.calibrate`)."""

    budget: float | None = Field(
        default=None, gt=0, description="Side effect to hit: 0.5 nats per token, or a capability lost (0.1)."
    )
    budget_kind: Literal["kl", "nll", "capability"] = Field(
        default="kl", description="KL to the base, rise of the NLL, or loss of p(right) on neutral tasks."
    )
    statistic: Literal["p95", "mean"] | None = Field(
        default=None,
        description="Over all tokens; p95 of the KL, on an embedded model the mean: its answers are short.",
    )
    direction: Literal["base_steered", "steered_base"] = Field(
        default="base_steered", description="KL(base, steered) or KL(steered, base)."
    )
    text: Literal["base", "steered"] = Field(default="base", description="Whose continuations the KL is read on.")
    tokens: int = Field(default=32, ge=1, description="Tokens of continuation.")
    alpha_max: float = Field(default=64.0, gt=0, description="No larger strength is tried.")
    tolerance: float = Field(default=0.05, gt=0, lt=1, description="Relative; how near the budget is near enough.")


class RunConfig(_Knobs):
    """Behaviours × adapter families × seeds on one model; one of each of the first two for `replicate`."""

    model: str = Field(default="pocket", description="pocket-s, pocket, pocket-l, a folder, or a Hugging Face id.")
    behavior: tuple[str, ...] = Field(default=("honesty",), description="Shipped behaviours, or YAML files.")
    adapter: tuple[str, ...] = Field(default=("lora",), description="Adapter families; all: the seven compared ones.")
    seeds: tuple[int, ...] | None = Field(
        default=None, description="Training seeds; 0 1 2 on an embedded model, else 0."
    )
    alphas: tuple[float, ...] = Field(default=ALPHAS, description="Strengths; 0 is always among them.")
    evals: tuple[str, ...] | None = Field(
        default=None, description="Evaluations, or NAME=FILE with your own rows; by default those the behaviour names."
    )
    data: str | None = Field(default=None, description="Rows (JSONL or CSV) for the one evaluation that is run.")
    limit: int | None = Field(default=None, description="At most so many rows of each evaluation, in whole clusters.")
    pairs: str | None = Field(default=None, description="Pairs to train on, made elsewhere: Parquet, JSONL or CSV.")
    generator: str | None = Field(default=None, description="Model that writes the pairs; by default the one trained.")
    control: bool = Field(default=True, description="Also sweep controls: at least a random vector of the same norms.")
    compare: bool = Field(
        default=False, description="Also activation vectors, prompts, all controls, damage and equal side effects."
    )
    draws: int = Field(default=5, ge=1, description="Random vectors per vector and seed at equal side effects.")
    prompts: int = Field(default=4, description="Held-out questions answered at each strength for the report.")
    answer_tokens: int | None = Field(default=None, description="Longest such answer; by default max_new_tokens.")
    resamples: int = Field(default=10_000, description="Bootstrap resamples behind each interval.")
    device: str | None = Field(default=None, description="cpu, cuda, …; the first GPU by default.")
    dtype: str | None = Field(default=None, description="float32 or bfloat16; what the checkpoint has by default.")
    generation: Generation = Generation()
    training: Training = Training()
    calibration: Calibration = Calibration()

    @field_validator("behavior", "adapter")
    @classmethod
    def _names(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if not names or len(set(names)) != len(names):
            raise ValueError("give at least one name, and none twice")
        return names

    @field_validator("adapter")
    @classmethod
    def _families(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        known = [each for name in names for each in (COMPARED if name == "all" else (name,))]
        return tuple(dict.fromkeys(known))

    @field_validator("evals")
    @classmethod
    def _evals(cls, evals: tuple[str, ...] | None) -> tuple[str, ...] | None:
        for name, _, file in (asked.partition("=") for asked in evals or ()):
            if file and Path(name).suffix in ROWS:
                raise ValueError(f"{name}={file} names two files, and one would be lost; before = stands an evaluation")
        if found := same_name((asked, evaluation_name(asked)) for asked in evals or ()):
            if found["first"] == found["second"]:
                raise ValueError(f"{found['first']} is given twice; give it once")
            raise ValueError(
                "{first} and {second} would both be measured as {name!r}, and one would be lost; give each in a run of "
                "its own, or as a file that has a name of its own".format(**found)
            )
        return evals

    @field_validator("data")
    @classmethod
    def _data(cls, data: str | None, info: ValidationInfo) -> str | None:
        for asked in info.data.get("evals") or () if data else ():
            if "=" in asked or Path(asked).suffix in ROWS:
                raise ValueError(
                    f"{data} would be lost, as --evals {asked} brings rows of its own; leave out --data, or name an "
                    "evaluation without a file"
                )
        return data

    @field_validator("seeds")
    @classmethod
    def _seeds(cls, seeds: tuple[int, ...] | None) -> tuple[int, ...] | None:
        if seeds is not None and (not seeds or len(set(seeds)) != len(seeds) or min(seeds) < 0):
            raise ValueError("seeds are distinct integers from 0 on, at least one")
        return seeds

    @field_validator("alphas")
    @classmethod
    def _alphas(cls, alphas: tuple[float, ...]) -> tuple[float, ...]:
        if not all(map(math.isfinite, alphas)):
            raise ValueError("strengths are finite numbers")
        if len(set(alphas)) != len(alphas):
            raise ValueError("a strength is given twice")
        # Sorted, with 0, and without -0.0: so that the order of typing is no knob.
        return tuple(sorted({alpha + 0.0 for alpha in alphas} | {0.0}))

    @classmethod
    def checked(cls, fields: Any, where: str) -> Self:
        """The configuration made of ``fields``; a mistake in them is a :class:`WeightsteerError` that names it."""
        try:
            return cls.model_validate(fields)
        except ValidationError as error:
            raise _explained(error, cls, where) from error

    @classmethod
    def read(cls, path: Path) -> Self:
        """The configuration in a ``run.json`` (or a JSON file of the bare fields).

        Raises:
            WeightsteerError: no such file, not JSON (its line is named), or a field nobody knows.
        """
        try:
            content: Any = json.loads(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise WeightsteerError(f"cannot read the configuration {path}: {error.strerror}.") from error
        except ValueError as error:
            raise WeightsteerError(f"{path} is not JSON: {error}.") from error
        fields = content.get("config", content) if isinstance(content, dict) else content
        if not isinstance(fields, dict):
            raise WeightsteerError(f"{path} holds no configuration: an object of fields is expected.")
        return cls.checked(fields, str(path))


_GROUPS: dict[str, type[BaseModel]] = {"generation": Generation, "training": Training, "calibration": Calibration}


def _explained(error: ValidationError, model: type[BaseModel], where: str) -> WeightsteerError:
    first = error.errors(include_url=False)[0]
    *groups, name = [str(part) for part in first["loc"]] or ["(file)"]
    if first["type"] == "extra_forbidden":
        for group in groups:
            model = _GROUPS.get(group, model)
        return WeightsteerError(f"{where}: {unknown('field', name, model.model_fields)}")
    told = first["msg"].removeprefix("Value error, ")
    return WeightsteerError(f"{where}, {'.'.join([*groups, name])}: {told}.")
