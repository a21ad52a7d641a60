"""From flags to a command: tyro reads the fields of the settings, their types, defaults and descriptions."""

import inspect
from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, get_args, get_origin

import tyro
from pydantic_core import PydanticUndefined
from tyro.constructors import MISSING_NONPROP, ConstructorRegistry, StructConstructorSpec, StructFieldSpec

from weightsteer.cli import commands
from weightsteer.experiments.settings import Settings
from weightsteer.experiments.sweep.config import RunConfig

ALIASES = {
    "adapter": ("--adapters",),
    "alphas": ("--coeffs",),
    "behavior": ("--behaviors",),
    "evals": ("--eval",),
    "plan": ("--plans",),
    "seeds": ("--seed",),
}
"""Other spellings of a flag, by the name of its field."""


def parse(name: str, arguments: Sequence[str]) -> commands.Command:
    """The command of this name with its flags, ready to be called.

    Raises:
        WeightsteerError: a value that the settings refuse, or a file of ``--config`` that cannot be read.
        SystemExit: help was asked for (0), or tyro explained an unknown flag or a value of another type (2).
    """
    command = commands.named(name)
    default: Any = MISSING_NONPROP
    if issubclass(command, commands.RunCommand):
        early = ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
        early.add_argument("--config", nargs="?")
        if file := early.parse_known_args(arguments)[0].config:
            default = command.repeating(RunConfig.read(Path(file)))
    parsed: commands.Command = tyro.cli(
        command,
        default=default,
        args=arguments,
        prog=f"weightsteer {name}",
        description=inspect.getdoc(command),
        config=(tyro.conf.OmitArgPrefixes, tyro.conf.DisallowNone),
        registry=_registry,
    )
    return parsed


_registry = ConstructorRegistry()


@_registry.struct_rule
def _settings(info: Any) -> StructConstructorSpec | None:
    """How tyro sees settings: as it sees any pydantic model, with our aliases, and mistakes explained in our words."""
    kind = info.type
    if not (isinstance(kind, type) and issubclass(kind, Settings)):
        return None

    def construct(**given: Any) -> Settings:
        return kind.checked(given, "command line")

    construct.__doc__ = kind.__doc__
    fields = []
    for name, field in kind.model_fields.items():
        default = getattr(info.default, name) if isinstance(info.default, kind) else field.get_default()
        shown = tyro.conf.arg(aliases=ALIASES.get(name))
        if default is None:  # the description says what happens then
            shown = tyro.conf.arg(aliases=ALIASES.get(name), metavar=_metavar(field.annotation), help_behavior_hint="")
        kind_shown: Any = Annotated[(field.annotation, *field.metadata, shown)]
        fields.append(
            StructFieldSpec(
                name,
                kind_shown,
                MISSING_NONPROP if default is PydanticUndefined else default,
                field.description,
            )
        )
    return StructConstructorSpec(construct, tuple(fields))


def _metavar(kind: Any) -> str:
    """INT for ``int | None``, INT [INT ...] for ``tuple[int, ...] | None``, {a,b} for a choice."""
    kind = _plain(next(each for each in get_args(kind) if each is not NoneType))
    parts: list[Any] = [each if each is ... else _plain(each) for each in get_args(kind)]
    if get_origin(kind) is Literal:
        return "{" + ",".join(parts) + "}"
    if parts:
        name = parts[0].__name__.upper()
        return f"{name} [{name} ...]" if parts[1] is ... else f"{name} {name}"
    return str(kind.__name__.upper())


def _plain(kind: Any) -> Any:
    """A type without the bounds and descriptions that are attached to it."""
    return _plain(get_args(kind)[0]) if get_origin(kind) is Annotated else kind
