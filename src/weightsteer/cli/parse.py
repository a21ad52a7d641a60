"""From flags to the keyword arguments of a verb, with the configuration of a run among them."""

from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_origin

from weightsteer.cli.verb import Verb

if TYPE_CHECKING:
    from weightsteer.experiments.sweep.config import RunConfig


def parse(name: str, verb: Verb, arguments: list[str]) -> dict[str, Any]:
    """Flags to keyword arguments of the verb: ``config`` (when it takes knobs of a run) and its own flags."""
    import tyro
    from pydantic import create_model

    from weightsteer.experiments.sweep.config import RunConfig

    repeated, arguments = (
        _config_file(arguments, RunConfig.model_validate(verb.defaults)) if verb.knobs else (RunConfig(), arguments)
    )
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


def _config_file(arguments: list[str], default: "RunConfig") -> "tuple[RunConfig, list[str]]":
    """The configuration that ``--config FILE`` names, else the default; and the other arguments."""
    from weightsteer.experiments.sweep.config import RunConfig

    for index, argument in enumerate(arguments):
        if argument == "--config" and index + 1 < len(arguments):
            return RunConfig.read(Path(arguments[index + 1])), arguments[:index] + arguments[index + 2 :]
        if argument.startswith("--config="):
            found = RunConfig.read(Path(argument.partition("=")[2]))
            return found, arguments[:index] + arguments[index + 1 :]
    return default, arguments
