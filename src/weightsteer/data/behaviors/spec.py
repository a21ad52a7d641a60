"""A behaviour: two poles, the personas that show them, and the questions that make them differ."""

import hashlib
import json
import os
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    StringConstraints,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from weightsteer.data.behaviors.files import BEHAVIORS
from weightsteer.data.behaviors.text import read_yaml
from weightsteer.errors import WeightsteerError, unknown

Text = Annotated[str, StringConstraints(strict=True, strip_whitespace=True, min_length=1)]
Name = Annotated[str, StringConstraints(strict=True, pattern=r"^[a-z0-9][a-z0-9_-]*$", max_length=100)]


def _distinct(texts: list[str]) -> list[str]:
    seen: set[str] = set()
    for number, text in enumerate(texts, start=1):
        if text in seen:
            raise ValueError(f"entry {number} repeats an earlier one: {text!r}")
        seen.add(text)
    return texts


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Pole(_Strict):
    """One side of a behaviour: its name and the system prompts under which a model shows it."""

    pole: Text
    personas: list[Text] = Field(min_length=1)

    _no_repeats = field_validator("personas")(_distinct)


class Questions(_Strict):
    """User turns to which the two poles answer differently; the held-out ones never meet the training."""

    train: list[Text] = Field(min_length=1)
    heldout: list[Text] = Field(default_factory=list)

    _no_repeats = field_validator("train", "heldout")(_distinct)

    @model_validator(mode="after")
    def _disjoint(self) -> Self:
        shared = sorted(set(self.train) & set(self.heldout))
        if shared:
            raise ValueError(f"the same question is in train and in heldout: {shared[0]!r}")
        return self


class PromptPair(_Strict):
    """Two system prompts that say the opposite in the same form."""

    positive: Text
    negative: Text


class Prompts(_Strict):
    """Engineered system prompts to compare with, several wordings of each kind.

    ``embody`` asks for the value itself, ``inject`` only for the concept to be brought up.
    """

    embody: list[PromptPair] = Field(default_factory=list)
    inject: list[PromptPair] = Field(default_factory=list)

    @field_validator("embody", "inject")
    @classmethod
    def _no_repeats(cls, pairs: list[PromptPair]) -> list[PromptPair]:
        # wordings are resampled as if they were drawn: one given twice would pass for two
        _distinct([pair.positive for pair in pairs])
        _distinct([pair.negative for pair in pairs])
        return pairs


class Behavior(_Strict):
    """A behaviour, named after its positive pole: a positive strength means more of that pole.

    ``evaluations`` maps the name of an evaluation to +1 or -1: the sign that turns its labels into labels of
    this behaviour (``sycophancy: -1`` in *honesty* because agreeing with a false claim is the dishonest
    answer). ``in_distribution`` is the one that asks what the pairs teach, if there is one: where it is swept,
    effects on the others are also given as a share of the effect on it.
    """

    name: Name
    about: list[Text] = Field(default_factory=list)
    positive: Pole
    negative: Pole
    questions: Questions
    prompts: Prompts = Field(default_factory=Prompts)
    evaluations: dict[Name, Literal[1, -1]] = Field(default_factory=dict)
    in_distribution: Name | None = None

    _named: bool = PrivateAttr(default=False)

    @field_validator("negative")
    @classmethod
    def _mirrors(cls, negative: Pole, info: ValidationInfo) -> Pole:
        # A pair is made from the personas of one index, so each needs its counterpart.
        positive = info.data.get("positive")
        if positive is not None:
            ours, theirs = len(positive.personas), len(negative.personas)
            if ours != theirs:
                raise ValueError(
                    f"{theirs} personas here and {ours} on the positive side; persona i of one side is "
                    "paired with persona i of the other, so write equally many"
                )
            if positive.pole == negative.pole:
                raise ValueError(f"both poles are called {negative.pole!r}")
        return negative

    @classmethod
    def load(cls, name_or_path: str | Path, *, family: str = "general") -> Self:
        """A behaviour by name, or a YAML file by path.

        Args:
            name_or_path: a name from `names`, or a path that ends in ``.yaml`` or ``.yml``.
            family: of the model, ``general`` or ``pocket``: which of the files of that name is read.

        Raises:
            WeightsteerError: no such name (the nearest one is suggested) or file, or a file with a mistake (its line
                and field are named).
        """
        text = str(name_or_path)
        named = isinstance(name_or_path, str) and text in BEHAVIORS.names()
        path = BEHAVIORS.file(text, family) if named else Path(name_or_path)
        if path.suffix not in (".yaml", ".yml"):
            raise unknown("behavior", text, names(family))
        behavior = cls._read(path)
        if named and behavior.name != text:
            raise WeightsteerError(f"{path}: the behaviour {text!r} names itself {behavior.name!r}; use one name.")
        behavior._named = named
        return behavior

    @classmethod
    def _read(cls, path: Path) -> Self:
        if not os.path.exists(path):  # Path.exists raises for a name that is too long
            raise WeightsteerError(
                f"no behaviour file {path}. Give the path of a YAML file or one of: {', '.join(names())}."
            )
        root, data = read_yaml(path)
        if not isinstance(data, dict):
            raise WeightsteerError(
                f"{path}, line 1: a behaviour is a mapping with the fields {', '.join(cls.model_fields)}."
            )
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            raise WeightsteerError(_explain(error, root, path)) from error

    def for_model(self, model: Any) -> "Behavior":
        """The counterpart written for the family of ``model`` when there is one, else this behaviour.

        A behaviour that was loaded from a path stays as it is: its author chose the model.
        """
        from weightsteer.models import family

        return Behavior.load(self.name, family=family(model)) if self._named else self

    @property
    def digest(self) -> str:
        """blake2b-128 over the canonical JSON of all fields: part of the identity of data made from it."""
        content = json.dumps(self.model_dump(mode="json"), sort_keys=True, ensure_ascii=False)
        return hashlib.blake2b(content.encode(), digest_size=16).hexdigest()


def names(family: str = "general") -> list[str]:
    """The behaviours that `Behavior.load` knows by name for a family of models."""
    return BEHAVIORS.family_names(family)


def _explain(error: ValidationError, root: yaml.Node | None, path: Path) -> str:
    """Every mistake on its own line, with the line of the file and the name of the field."""
    lines = []
    for detail in error.errors(include_url=False):
        location = tuple(part for part in detail["loc"] if part != "[key]")
        message = detail["msg"].removeprefix("Value error, ")
        if detail["type"] == "string_type":
            message += "; put it in quotes"
        if detail["type"] == "extra_forbidden":
            message = f"unknown field; known here: {', '.join(_siblings(location))}"
        lines.append(f"{path}, line {_line(root, location)}, field {_dotted(location)}: {message}")
    return "\n".join(lines)


def _siblings(location: tuple[int | str, ...]) -> list[str]:
    inner: dict[str, type[_Strict]] = {"positive": Pole, "negative": Pole, "questions": Questions, "prompts": Prompts}
    owner = inner.get(str(location[0]), Behavior) if len(location) > 1 else Behavior
    if owner is Prompts and len(location) > 2:
        owner = PromptPair
    return list(owner.model_fields)


def _dotted(location: tuple[int | str, ...]) -> str:
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
    return text.lstrip(".") or "(file)"


def _line(node: yaml.Node | None, location: tuple[int | str, ...]) -> int:
    """The line (from 1) of the deepest part of ``location`` that the file contains."""
    line = 0
    for part in location:
        if isinstance(node, yaml.MappingNode):
            entry = next(((key, value) for key, value in node.value if key.value == str(part)), None)
            if entry is None:
                break
            line, node = entry[0].start_mark.line, entry[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = node.start_mark.line
        else:
            break
    return line + 1
