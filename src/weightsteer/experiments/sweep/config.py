"""The settings of a run: every field with its default, bounds and meaning.

`RunConfig` holds all of them and is what ``run.json`` repeats. It is put together from the settings of the single steps
(`DataConfig`, `TrainConfig`, …), so that the command of a step offers only the flags that it uses.
"""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, ValidationInfo, field_validator

from weightsteer.errors import WeightsteerError, same_name
from weightsteer.experiments.settings import (
    LARGEST_ALPHA,
    Device,
    Dtype,
    Name,
    Names,
    Resamples,
    Seed,
    Seeds,
    Settings,
    Strengths,
)
from weightsteer.experiments.stages.items import ROWS, evaluation_name
from weightsteer.experiments.stages.vector import file_metadata
from weightsteer.files import parse_json, read_text

ALPHAS = (-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0)
POCKET_SEEDS, GENERAL_SEEDS = (0, 1, 2), (0,)

# The families of the published comparison; `--adapters all` stands for them.
COMPARED = ("lora", "dora", "pissa", "delora", "oft", "boft", "ia3")


def _families(given: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(each for name in given for each in (COMPARED if name == "all" else (name,))))


Families = Annotated[Names, AfterValidator(_families)]
"""Adapter families; ``all`` stands for those of the published comparison."""


Limit = Annotated[int | None, Field(ge=1, description="Maximum number of rows of each evaluation, in whole clusters.")]


class Generation(Settings):
    """How the contrastive pairs are made. Fields without a default: what suits the model."""

    topics: int | None = Field(
        default=None, ge=1, description="Training questions used; all of the behaviour's by default."
    )
    personas: int | None = Field(
        default=None, ge=1, description="Personas on each side; all of the behaviour's by default."
    )
    samples: int = Field(default=10, ge=1, le=100_000, description="Answers per question, persona and side.")
    temperature: float | None = Field(
        default=None, ge=0, le=100, description="Sampling temperature; 0 takes the most likely token."
    )
    top_p: float | None = Field(
        default=None, gt=0, le=1, description="Nucleus sampling: probability mass that is kept."
    )
    top_k: int | None = Field(default=None, ge=0, description="Sample from this many most likely tokens; 0: from all.")
    max_new_tokens: int | None = Field(
        default=None,
        ge=1,
        le=100_000,
        description="Length limit of an answer, in tokens; by default what a few answers suggest.",
    )
    thinking: bool = Field(default=False, description="Let a thinking model think before it answers.")
    judge: Literal["self", "none"] = Field(
        default="self", description="Who removes pairs that do not show their poles."
    )
    judge_margin: float = Field(default=0.0, description="Nats by which an answer must favour its own persona.")
    cut: Literal["sentence", "reject"] | None = Field(
        default=None,
        description="Answers cut at the length limit: kept up to their last whole sentence, or the pair dropped; by "
        "default sentence, but reject on an embedded model.",
    )
    pilot: bool = Field(
        default=True, description="Answer a few questions first, and stop if almost no pair would be kept."
    )
    data_seed: Seed | None = Field(default=None, description="One seed for all data; by default each seed has its own.")


class Training(Settings):
    """How a branch is fine-tuned. Fields that are not given: as in the recipe."""

    recipe: Name | None = Field(
        default=None, description="paper, fork or pocket; pocket for embedded models, else paper."
    )
    rank: int | None = Field(default=None, ge=1, le=65_536, description="Rank r of the adapter.")
    lora_alpha: float | None = Field(default=None, gt=0, description="LoRA alpha; the adapter is scaled by alpha / r.")
    block_size: int | None = Field(default=None, ge=2, description="Side of the rotated blocks of OFT and BOFT.")
    delora_lambda: float | None = Field(default=None, gt=0, description="Initial bound of the change by DeLoRA.")
    lr: float | None = Field(default=None, gt=0, le=1000, description="Peak learning rate.")
    batch: int | None = Field(default=None, ge=1, le=100_000, description="Rows per optimiser step.")
    steps: int | None = Field(default=None, ge=1, description="Maximum number of optimiser steps.")
    epochs: float | None = Field(
        default=None, gt=0, le=1_000_000, description="Maximum number of passes over the data."
    )
    warmup: int | None = Field(default=None, ge=0, description="Warm-up steps.")
    weight_decay: float | None = Field(default=None, ge=0, description="AdamW weight decay.")
    clip: float | None = Field(default=None, gt=0, description="Gradient norm above which gradients are clipped.")
    layers: tuple[float, float] | None = Field(default=None, description="Decoder layers adapted, as two fractions.")
    max_length: int | None = Field(default=None, ge=2, description="Length limit of a row, in tokens.")
    validation: float | None = Field(
        default=None, ge=0, lt=1, description="Share of the pairs held out for validation."
    )
    split: Literal["row", "topic"] | None = Field(default=None, description="What is held out: pairs or questions.")
    eval_every: int | None = Field(
        default=None, ge=1, description="Steps between two evaluations on the held-out pairs."
    )
    patience: int | None = Field(default=None, ge=1, description="Evaluations without improvement before stopping.")
    keep: Literal["best", "last"] | None = Field(default=None, description="Which checkpoint becomes the branch.")


class Calibration(Settings):
    """The side effect at which interventions are compared (`weightsteer.measure.calibrate`)."""

    budget: float | None = Field(
        default=None, gt=0, description="Side effect to reach: 0.5 nats per token, or a capability loss of 0.1."
    )
    budget_kind: Literal["kl", "nll", "capability"] = Field(
        default="kl", description="KL to the base model, increase of the NLL, or loss of p(right) on neutral tasks."
    )
    statistic: Literal["p95", "mean"] | None = Field(
        default=None,
        description="Over tokens; by default p95 of the KL, but the mean on an embedded model (short answers).",
    )
    direction: Literal["base_steered", "steered_base"] = Field(
        default="base_steered", description="KL(base, steered) or KL(steered, base)."
    )
    text: Literal["base", "steered", "given"] = Field(
        default="base", description="Measure the KL on continuations by base or steered model, or on given text."
    )
    tokens: int = Field(
        default=32, ge=1, le=100_000, description="Tokens of continuation, or the last so many of a given text."
    )
    alpha_max: float = Field(default=64.0, gt=0, le=LARGEST_ALPHA, description="Largest strength that is tried.")
    tolerance: float = Field(default=0.05, gt=0, lt=1, description="Accepted relative distance from the budget.")


class ModelConfig(Settings):
    """The model that is trained and measured."""

    model: Name = Field(
        default="pocket",
        description="pocket-s, pocket, pocket-l, smollm2, a .gguf file, a folder, or a Hugging Face id.",
    )
    device: Device | None = Field(default=None, description="cpu, cuda, …; the first GPU by default.")
    dtype: Dtype | None = Field(default=None, description="float32 or bfloat16; the type of the checkpoint by default.")


class PairsConfig(ModelConfig):
    """How contrastive pairs are made."""

    generator: Name | None = Field(default=None, description="Model that writes the pairs; by default the one trained.")
    suffixes: Name | None = Field(
        default=None, description="JSON pool of branching suffixes: its questions; with --text given, its texts."
    )
    generation: Generation = Generation()


class DataConfig(PairsConfig):
    """The contrastive pairs of behaviours × seeds."""

    behavior: Names = Field(default=("honesty",), description="Shipped behaviours, or YAML files.")
    seeds: Seeds | None = Field(default=None, description="Training seeds; 0 1 2 on an embedded model, else 0.")


class VectorConfig(PairsConfig):
    """How a vector is made."""

    pairs: Name | None = Field(default=None, description="Pairs to train on, made elsewhere: Parquet, JSONL or CSV.")
    training: Training = Training()


class TrainConfig(VectorConfig, DataConfig):
    """The vectors of behaviours × adapter families × seeds."""

    adapter: Families = Field(default=("lora",), description="Adapter families; all: the seven that are compared.")


class RowsConfig(Settings):
    """The evaluations that a vector is measured on."""

    evals: tuple[Name, ...] | None = Field(
        default=None,
        min_length=1,
        description="Evaluations, or NAME=FILE with your own rows; by default those the behaviour names.",
    )
    data: Name | None = Field(default=None, description="Rows (JSONL or CSV) for the one evaluation that is measured.")

    @field_validator("evals")
    @classmethod
    def _evals(cls, evals: tuple[str, ...] | None) -> tuple[str, ...] | None:
        for name, _, file in (asked.partition("=") for asked in evals or ()):
            if file and Path(name).suffix in ROWS:
                raise ValueError(
                    f"{name}={file} names two files, and one would be lost; before = stands the name of an evaluation"
                )
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


class MeasureConfig(RowsConfig):
    """How a vector is measured, and what it is compared with."""

    alphas: Strengths = Field(default=ALPHAS, description="Strengths; 0 is always among them.")
    limit: Limit = None
    control: bool | None = Field(
        default=None, description="Also sweep controls: at least a random vector; by default with --compare alone."
    )
    smallest: float = Field(
        default=0.1, ge=0, description="Smallest effect of interest in nats: what is smaller is called negligible."
    )
    compare: bool = Field(
        default=False, description="Also activation vectors, prompts, all controls, damage, and equal side effects."
    )
    draws: int = Field(
        default=5, ge=1, le=10_000, description="Random vectors per vector and seed at equal side effects."
    )
    prompts: int = Field(default=4, ge=0, description="Held-out questions answered at each strength for the report.")
    answer_tokens: int | None = Field(
        default=None, ge=1, le=100_000, description="Length limit of these answers; by default max_new_tokens."
    )
    resamples: Resamples = 10_000
    calibration: Calibration = Calibration()


class RunConfig(MeasureConfig, TrainConfig):
    """Behaviours × adapter families × seeds on one model; one of each of the first two for `replicate`."""

    @classmethod
    def read(cls, path: Path) -> Self:
        """The configuration in a ``run.json`` (or a JSON file of the bare fields).

        Raises:
            WeightsteerError: no such file, not JSON (its line is named), or an unknown field.
        """
        try:
            content: Any = parse_json(read_text(Path(path), "configuration", 10_000_000))
        except ValueError as error:
            raise WeightsteerError(f"{path} is not JSON: {error}.") from error
        fields = content.get("config", content) if isinstance(content, dict) else content
        if not isinstance(fields, dict):
            raise WeightsteerError(f"{path} holds no configuration: an object of fields is expected.")
        return cls.checked(fields, str(path))


def of_vector(
    config: RunConfig,
    vector: Path | None,
    *,
    behavior: tuple[str, ...] | None = None,
    adapter: tuple[str, ...] | None = None,
    seeds: tuple[int, ...] | None = None,
) -> tuple[RunConfig, list[str]]:
    """The configuration under which a vector from a file is measured, and notes for the user.

    Adapter family, behaviour and seed are those that the file records, so that ``run.json`` and the report describe
    what was measured. A file that records none of them leaves the configuration as it is.

    Args:
        config: the run, apart from the three fields below.
        vector: file that `WeightVector.save` wrote; None when the vectors are those of the run. A file that cannot be
            read is left to the stage that loads it.
        behavior: asked for explicitly. It wins over the file, with a note: a vector may be measured on another
            behaviour than its own.
        adapter, seeds: asked for explicitly. They are facts of the file, so they must agree with it.

    Raises:
        WeightsteerError: ``adapter`` or ``seeds`` contradict the file, or its behaviour is no shipped one and no other
            is given.
    """
    recorded = file_metadata(vector) if vector else {}
    family, seed, name = (recorded.get(each) for each in ("adapter", "seed", "behavior"))
    if name == "unnamed":  # a vector that was not made by a run: its seed is a default as well
        name = seed = None
    asked = {"behavior": behavior, "adapter": adapter, "seeds": seeds}
    changes: dict[str, Any] = {field: value for field, value in asked.items() if value is not None}
    notes: list[str] = []
    if isinstance(family, str) and family != "unknown":
        if adapter not in (None, (family,)):
            raise WeightsteerError(f"{vector} was made with {family}, which --adapter contradicts: leave it out.")
        if _registered(family):
            changes["adapter"] = (family,)
    if isinstance(seed, int):
        if seeds is not None and seed not in seeds:
            raise WeightsteerError(f"{vector} was made with seed {seed}, which --seeds contradicts: leave it out.")
        changes["seeds"] = (seed, *(each for each in seeds or () if each != seed))  # the first one is the vector's
    if isinstance(name, str):
        if behavior is None:
            known = next((each for each in config.behavior if _behavior_name(each) == name), None)
            changes["behavior"] = (known or _shipped_behavior(name, vector),)
        elif name not in map(_behavior_name, behavior):
            notes.append(f"{vector} was made for the behaviour {name!r}; it is measured on {', '.join(behavior)}")
    return RunConfig.checked({**config.model_dump(), **changes}, "command line"), notes


def _registered(family: str) -> bool:
    if family in COMPARED:  # to look up the others takes an import of seconds
        return True
    from weightsteer import adapters

    try:
        adapters.get(family)
    except WeightsteerError:
        return False
    return True


def _behavior_name(asked: str) -> str:
    """The name of a behaviour that is asked for by its name or its file."""
    if Path(asked).suffix not in (".yaml", ".yml"):
        return asked
    from weightsteer.data.behaviors import Behavior

    return Behavior.load(asked).name


def _shipped_behavior(name: str, vector: Path | None) -> str:
    from weightsteer.data.behaviors.spec import names

    if name in {*names("general"), *names("pocket")}:
        return name
    raise WeightsteerError(
        f"{vector} was made for the behaviour {name!r}, which is not a shipped one. Give its YAML file, or another "
        "behaviour to measure the vector on, with --behavior."
    )
