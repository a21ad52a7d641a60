"""Which modules of a model: their order, layer and kind, and the patterns that select them."""

from collections.abc import Iterable
from fnmatch import fnmatchcase

from weightsteer.errors import WeightsteerError

Pattern = str | int | Iterable[str | int]
"""Modules: a glob on the path or its end ("*.mlp.*", "down_proj"), a layer number, or several of these."""


def listed(pattern: Pattern) -> list[str | int]:
    """The single patterns.

    >>> listed("mlp.*"), listed(range(2))
    (['mlp.*'], [0, 1])
    """
    return [pattern] if isinstance(pattern, str | int) else list(pattern)


def matching(names: Iterable[str], pattern: Pattern) -> set[str]:
    """The names that match.

    Raises:
        WeightsteerError: one of the patterns matches nothing, which is a mistake: a selection that selects nothing
            would be reported as one that does not matter.
    """
    names = list(names)
    matched: set[str] = set()
    for one in listed(pattern):
        found = {name for name in names if _matches(name, one)}
        if not found:
            raise WeightsteerError(
                f"no module of this vector matches {one!r}. It has, for instance, {names[0]}; a pattern is a layer "
                'number, or a glob on the path or its end, such as "*.mlp.*" or "down_proj".'
            )
        matched |= found
    return matched


def _matches(name: str, pattern: str | int) -> bool:
    if isinstance(pattern, int):
        return layer_of(name) == pattern
    return fnmatchcase(name, pattern) or fnmatchcase(name, f"*.{pattern}")


def layer_of(name: str) -> int | None:
    """The first number in a module path, which is the layer in every decoder; None outside the layers.

    >>> layer_of("model.layers.3.mlp.down_proj"), layer_of("lm_head")
    (3, None)
    """
    return next((int(part) for part in name.split(".") if part.isdigit()), None)


def kind_of(name: str) -> str:
    """What a module is in its layer: the path below the layer, without the numbers of experts.

    >>> kind_of("model.layers.3.mlp.down_proj"), kind_of("model.embed_tokens")
    ('mlp.down_proj', 'embed_tokens')
    """
    parts = name.split(".")
    inside = next((parts[index + 1 :] for index, part in enumerate(parts) if part.isdigit()), [])
    return ".".join(part for part in inside if not part.isdigit()) or parts[-1]


def natural(name: str) -> list[tuple[int, str]]:
    """Sort key: layer 9 before layer 10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in name.split(".")]
