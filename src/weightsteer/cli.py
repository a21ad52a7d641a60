"""The command line: parse, call, print. Heavy imports happen inside the verbs, after their flags are understood."""

import os
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_origin

from weightsteer import __version__
from weightsteer.errors import WeightsteerError, unknown

if TYPE_CHECKING:
    from weightsteer.config import RunConfig

MISTAKE, INTERRUPTED = 2, 130

_DATA = ("model", "behavior", "seeds", "generator", "device", "dtype", "generation")
_TRAIN = (*_DATA, "adapter", "pairs", "training")
_MEASURE = ("alphas", "evals", "data", "limit", "control", "prompts", "answer_tokens", "resamples")


@dataclass(frozen=True)
class Verb:
    """One verb: what it does in a line, the knobs of a run it takes, its own flags, and what it calls."""

    summary: str
    example: str
    call: Callable[..., None]
    knobs: tuple[str, ...] = ()
    flags: dict[str, tuple[Any, Any, str]] | None = None
    """by name: type, default (``...``: required), help"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0 done, 2 a mistake (one message on standard error), 130 Ctrl-C."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        return _run(arguments)
    except WeightsteerError as error:
        return _told(str(error))
    except KeyboardInterrupt:
        print("\ninterrupted; run the same command again to go on from here", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # the reader of our output, head or less, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        from weightsteer.store import explain

        explained = explain(error, Path(getattr(error, "filename", None) or "."), " ".join(arguments[:1]))
        if explained is None:
            raise
        return _told(str(explained))


def _told(message: str) -> int:
    print(f"weightsteer: {message}", file=sys.stderr)
    return MISTAKE


def _run(arguments: list[str]) -> int:
    name, *rest = arguments or ["--help"]
    if name in ("-h", "--help", "help"):
        print(overview())
        return 0
    if name == "--version":
        print(__version__)
        return 0
    verbs = VERBS
    if name == "pocket" and rest and rest[0] in POCKET_VERBS:
        name, *rest = f"pocket {rest[0]}", *rest[1:]
        verbs = {f"pocket {each}": verb for each, verb in POCKET_VERBS.items()}
    elif name == "pocket":
        if rest and rest[0] not in ("-h", "--help"):
            raise unknown("verb of weightsteer pocket", rest[0], POCKET_VERBS)
        print(_listed("weightsteer pocket VERB", POCKET_VERBS))
        return 0
    if name not in verbs:
        raise unknown("verb", name, [*VERBS, "pocket"])
    quiet()
    verb = verbs[name]
    told = _parse(name, verb, rest)
    verb.call(**told)
    return 0


def overview() -> str:
    """What ``weightsteer --help`` prints."""
    pocket = Verb("build the embedded models, or measure what they know", "", print)
    return (
        "weightsteer: steering vectors in weight space, measured honestly.\n\n"
        + _listed("weightsteer VERB", {**VERBS, "pocket": pocket})
        + "\n\nStart with:\n  weightsteer replicate\n"
        "It needs no network and no GPU: it runs on an embedded model and ends with a report.\n"
        "Artifacts lie under out/<model>/<behavior>/<adapter>/seed<k>/; what is finished is not made again."
    )


def _listed(usage: str, verbs: dict[str, Verb]) -> str:
    lines = [f"  {name:<10} {verb.summary}" for name, verb in verbs.items()]
    return "\n".join([f"usage: {usage} [--flags]      {usage} --help lists its flags", "", *lines])


def quiet() -> None:
    """No warnings of libraries about their own future: progress and mistakes are what a user has to see."""
    warnings.simplefilter("ignore", FutureWarning)
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def _parse(name: str, verb: Verb, arguments: list[str]) -> dict[str, Any]:
    """Flags to keyword arguments of the verb: ``config`` (when it takes knobs of a run) and its own flags."""
    import tyro
    from pydantic import create_model

    from weightsteer.config import RunConfig

    repeated, arguments = _config_file(arguments) if verb.knobs else (RunConfig(), arguments)
    fields: dict[str, Any] = {}
    for knob in verb.knobs:
        field = RunConfig.model_fields[knob]
        fields[knob] = _flag(field.annotation, getattr(repeated, knob), field.description, _ALIASES.get(knob))
    for flag, (kind, default, text) in (verb.flags or {}).items():
        fields[flag] = _flag(kind, default, text)
    if verb.knobs:
        fields["out"] = _flag(Path, Path("out"), "Folder of all artifacts.")
        fields["config"] = _flag(str | None, None, "A run.json to repeat; other flags change it.")
    parsed = tyro.cli(
        create_model("Flags", **fields),
        args=arguments,
        prog=f"weightsteer {name}",
        description=f"{verb.summary[0].upper()}{verb.summary[1:]}.\n\nExample:\n  {verb.example}",
        config=(tyro.conf.OmitArgPrefixes,),
    )
    told = {field: getattr(parsed, field) for field in fields}
    if verb.knobs:
        told.pop("config")
        knobs = {knob: _plain(told.pop(knob)) for knob in verb.knobs}
        told["config"] = RunConfig.checked({**repeated.model_dump(), **knobs}, "command line")
    return told


_ALIASES = {"seeds": ("--seed",), "evals": ("--eval",), "adapter": ("--adapters",)}


def _flag(kind: Any, default: Any, text: str | None, aliases: tuple[str, ...] | None = None) -> tuple[Any, Any]:
    """A field of the flags. A default of None is not shown: the help text says what happens instead."""
    import tyro
    from pydantic import BaseModel, Field, create_model

    if isinstance(default, BaseModel):
        group = type(default)
        inner: dict[str, Any] = {
            name: _flag(field.annotation, getattr(default, name), field.description)
            for name, field in group.model_fields.items()
        }
        flags = create_model(group.__name__, __doc__=group.__doc__, **inner)
        return flags, Field(default=flags())
    metavar = _metavar(kind) if default is None else None
    hint = "" if default is None else None
    shown = tyro.conf.arg(help=text, aliases=aliases, metavar=metavar, help_behavior_hint=hint)
    return Annotated[kind, shown], Field(default=default)


def _metavar(kind: Any) -> str:
    """INT for ``int | None``, INT [INT ...] for ``tuple[int, ...] | None``, {a,b} for a choice."""
    kind = next(each for each in get_args(kind) if each is not NoneType)
    parts = get_args(kind)
    if get_origin(kind) is Literal:
        return "{" + ",".join(parts) + "}"
    if parts:
        name = parts[0].__name__.upper()
        return f"{name} [{name} ...]" if parts[1] is ... else f"{name} {name}"
    return str(kind.__name__.upper())


def _plain(value: Any) -> Any:
    return value.model_dump() if hasattr(value, "model_dump") else value


def _config_file(arguments: list[str]) -> "tuple[RunConfig, list[str]]":
    """The configuration that ``--config FILE`` names, else the defaults; and the other arguments."""
    from weightsteer.config import RunConfig

    for index, argument in enumerate(arguments):
        if argument == "--config" and index + 1 < len(arguments):
            return RunConfig.read(Path(arguments[index + 1])), arguments[:index] + arguments[index + 2 :]
        if argument.startswith("--config="):
            found = RunConfig.read(Path(argument.partition("=")[2]))
            return found, arguments[:index] + arguments[index + 1 :]
    return RunConfig(), arguments


def _data(config: "RunConfig", out: Path) -> None:
    from weightsteer.replicate import pairs

    for artifact in pairs(config, out):
        print((artifact.path / "audit.txt").read_text(encoding="utf-8"))
        print(artifact.place / "pairs.parquet")


def _train(config: "RunConfig", out: Path) -> None:
    from weightsteer.replicate import train

    for positive, negative in train(config, out):
        for branch in (positive, negative):
            record = branch.read_json("training.json")
            loss = record["losses"][-1]
            print(f"{record['side']}: best step {record['best_step']}, last losses {loss}\n{branch.place}")


def _diff(config: "RunConfig", out: Path, positive: Path | None, negative: Path | None) -> None:
    from weightsteer.replicate import difference

    for artifact in difference(config, out, positive=positive, negative=negative):
        print((artifact.path / "vector.txt").read_text(encoding="utf-8"), end="")
        print(artifact.place / "vector.safetensors")


def _eval(config: "RunConfig", out: Path, vector: Path | None) -> None:
    from weightsteer.replicate import replicate

    _show(replicate(config, out, vector=vector).place)


def _replicate(config: "RunConfig", out: Path) -> None:
    from weightsteer.replicate import replicate

    _show(replicate(config, out).place)


def _sweep(config: "RunConfig", out: Path, workers: int | None) -> None:
    from weightsteer.lab import ModelIdentity
    from weightsteer.replicate import replicate

    if workers is None:
        workers = _cores() if ModelIdentity.of(config.model).family == "pocket" else 1
    _show(replicate(config, out, workers=workers).place)


def _cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _report(rows: tuple[Path, ...], out: Path, resamples: int) -> None:
    from weightsteer.replicate import joined_report

    _show(joined_report(rows, out, resamples=resamples).parent)


def _show(folder: Path) -> None:
    import polars
    from rich.console import Console

    from weightsteer.audit import headline_strengths
    from weightsteer.report import summary_table

    console = Console()
    if not console.is_terminal:  # a file or a pipe has no width of its own
        console = Console(width=100)
    summary = polars.read_csv(folder / "summary.csv", infer_schema_length=None)
    vectors = summary.filter(polars.col("method") != "control")
    several = vectors["adapter"].n_unique() > 1
    if several:  # to be compared at a glance; the rest is in the report
        summary = vectors.filter(polars.col("alpha").is_in(headline_strengths(summary)))
    console.print(summary_table(summary))
    if several:
        print("All strengths, the controls, and the sizes of the vectors beside their effects:")
    print(folder / "report.html")


def _export(vector: Path, out: Path, **options: Any) -> None:
    from weightsteer.export.command import export_file

    print(export_file(vector, out, **options))


def _pocket_build(size: str, out: Path | None, steps: int | None, resume: bool) -> None:
    from weightsteer.pocket.build import build

    print(build(size, out or Path(size), steps=steps, resume=resume))


def _pocket_score(model: str, card: Path | None) -> None:
    from weightsteer.pocket.card import model_card, table
    from weightsteer.pocket.score import score

    measured = score(model)
    print(table(measured))
    if card is not None:
        card.write_text(model_card(model, measured), encoding="utf-8")
        print(card)


VERBS = {
    "replicate": Verb(
        "all of it: pairs, training, difference, sweep, report",
        "weightsteer replicate --model pocket --behavior honesty --seeds 0 1 2",
        _replicate,
        (*_TRAIN, *_MEASURE),
    ),
    "data": Verb(
        "contrastive pairs: the same questions answered under both poles, judged and audited",
        "weightsteer data --behavior honesty --seed 0 --samples 10",
        _data,
        _DATA,
    ),
    "train": Verb(
        "fine-tune the two branches on the pairs",
        "weightsteer train --behavior honesty --adapter lora --seed 0 --lr 1e-3",
        _train,
        _TRAIN,
    ),
    "diff": Verb(
        "the weight vector: the exact difference of the two branches",
        "weightsteer diff --behavior honesty --seed 0",
        _diff,
        _TRAIN,
        {
            "positive": (Path | None, None, "PEFT folder or checkpoint of your own; needs --negative as well."),
            "negative": (Path | None, None, "PEFT folder or checkpoint of your own, trained on the opposite."),
        },
    ),
    "eval": Verb(
        "measure a vector on held-out rows at several strengths",
        "weightsteer eval --vector vector.safetensors --evals dilemmas --alphas -1 0 1",
        _eval,
        (*_TRAIN, *_MEASURE),
        {"vector": (Path | None, None, "Vector to measure; made from the other flags when not given.")},
    ),
    "sweep": Verb(
        "behaviours × adapter families × seeds, in one report",
        "weightsteer sweep --behavior honesty --adapters all --seeds 0 1 2",
        _sweep,
        (*_TRAIN, *_MEASURE),
        {"workers": (int | None, None, "Processes at work; one per core on an embedded model, else one.")},
    ),
    "report": Verb(
        "one report over the rows of several runs",
        "weightsteer report --rows out/pocket/honesty/lora/report mine.parquet --out joined",
        _report,
        (),
        {
            "rows": (tuple[Path, ...], ..., "Report folders, or Parquet files of rows."),
            "out": (Path, Path("report"), "Folder to write."),
            "resamples": (int, 10_000, "Bootstrap resamples behind each interval."),
        },
    ),
    "export": Verb(
        "write a vector as a LoRA folder that PEFT and vLLM load, or merged into its base model",
        "weightsteer export --vector vector.safetensors --out honesty-lora --model pocket",
        _export,
        (),
        {
            "vector": (Path, ..., "A saved vector."),
            "out": (Path, ..., "Folder to write."),
            "model": (str | None, None, "Its base model, to prove the export on; by default what the vector says."),
            "alpha": (float, 1.0, "Strength to put into the folder."),
            "rank": (int | None, None, "Keep this many singular values per module, when it is not of low rank."),
            "energy": (float | None, None, "Or keep this share of each module's squared norm (--energy 0.99)."),
            "drop_bias": (bool, False, "Leave out what the vector adds to biases, which a LoRA cannot hold."),
            "proof": (bool, True, "Load the folder in plain PEFT and compare logits with the steered model."),
            "merged": (bool, False, "A whole checkpoint, with the vector summed into its weights."),
            "dtype": (str | None, None, "Of the merged weights; that of the base checkpoint when not given."),
            "push": (str | None, None, "Upload to this Hugging Face repository, OWNER/NAME."),
            "private": (bool, False, "Make that repository private."),
        },
    ),
}

POCKET_VERBS = {
    "build": Verb(
        "train an embedded model from nothing; goes on from its checkpoint",
        "weightsteer pocket build --size pocket --out my-pocket",
        _pocket_build,
        (),
        {
            "size": (str, ..., "pocket-s, pocket or pocket-l."),
            "out": (Path | None, None, "Folder to write; named after the size by default."),
            "steps": (int | None, None, "Optimiser steps; by default what the size needs."),
            "resume": (bool, True, "Go on from a checkpoint in the folder."),
        },
    ),
    "score": Verb(
        "the scorecard of an embedded model: facts, personas, arithmetic",
        "weightsteer pocket score --model pocket",
        _pocket_score,
        (),
        {
            "model": (str, "pocket", "pocket-s, pocket, pocket-l, or the folder of a build."),
            "card": (Path | None, None, "Also write the model card to this file."),
        },
    ),
}
