"""The YAML of a behaviour's file, read within limits of its size, its depth, and what its aliases stand for.

A few lines of YAML can stand for billions of values (aliases of aliases), for a value that contains itself, or for more
levels than a parser has room for. So the file is read once as a stream of events, which costs its own length alone.
"""

from pathlib import Path
from typing import Any

import yaml

from weightsteer.errors import WeightsteerError
from weightsteer.files import read_text

LARGEST = 1_000_000
"""Bytes of a file of a behaviour; the shipped ones have less than 10,000."""
DEEPEST = 20
"""Levels of lists and mappings; a behaviour has 4."""
MOST = 200_000
"""Values, counting what an alias stands for each time."""


def read_yaml(path: Path) -> tuple[yaml.Node | None, Any]:
    """The nodes of a file, which know their lines, and its data.

    Raises:
        WeightsteerError: it cannot be read, is too large, or is not YAML of a behaviour: the line is named.
    """
    text = read_text(path, "behaviour file", LARGEST)
    try:
        _check(text, path)
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        _refuse_repeated_keys(root, path)
        return root, _Loader(text).get_single_data()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise _mistake(
            path, mark, f"not valid YAML: {error.problem or error.context}. Quote texts that contain ': ' or '#'."
        ) from error
    except yaml.YAMLError as error:
        raise WeightsteerError(f"{path}: not valid YAML: {error}.") from error


class _Loader(yaml.SafeLoader):
    """Names the line of a value that looks like a date or a number and is none."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (ValueError, OverflowError, TypeError) as error:
            raise yaml.constructor.ConstructorError(
                None, None, f"{error}; put it in quotes", node.start_mark
            ) from error


def _check(text: str, path: Path) -> None:
    """Refuse what is nested too deeply or stands for too many values, without building any of it."""
    sizes: dict[str, int] = {}  # of what an anchor names, once it has ended
    open_: list[tuple[str | None, int]] = []  # anchor of each open collection, and the count where it began
    count = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in sizes:
                raise _mistake(path, event.start_mark, f"the alias *{event.anchor} stands for itself, or for nothing.")
            count += sizes[event.anchor]
        elif isinstance(event, yaml.CollectionStartEvent):
            open_.append((event.anchor, count))
            count += 1
            if len(open_) > DEEPEST:
                raise _mistake(path, event.start_mark, f"nested more than {DEEPEST} levels deep.")
        elif isinstance(event, yaml.ScalarEvent):
            count += 1
            if event.anchor:
                sizes[event.anchor] = 1
            try:
                event.value.encode()
            except UnicodeEncodeError as error:
                raise _mistake(path, event.start_mark, "half of a character (a lone surrogate).") from error
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = open_.pop()
            if anchor:
                sizes[anchor] = count - before
        if count > MOST:
            raise _mistake(path, event.start_mark, f"more than {MOST:,} values, counting those of aliases.")


def _refuse_repeated_keys(node: yaml.Node | None, path: Path) -> None:
    # YAML parsers keep the last of two equal keys without a word: half of a file would vanish.
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise _mistake(path, key.start_mark, "the name of a field is a text, not a list or a mapping.")
            if key.value in seen:
                raise WeightsteerError(
                    f"{path}, line {key.start_mark.line + 1}, field {key.value}: the field is given twice."
                )
            seen.add(key.value)
            _refuse_repeated_keys(value, path)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            _refuse_repeated_keys(value, path)


def _mistake(path: Path, mark: Any, problem: str) -> WeightsteerError:
    line = f", line {mark.line + 1}" if mark is not None else ""
    return WeightsteerError(f"{path}{line}: {problem}")
