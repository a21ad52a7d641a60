"""Kinds of modules and groups of kinds, alone and left out; and single modules for the heat maps."""

from collections.abc import Iterator, Sequence
from functools import partial

from weightsteer.adapters.targets import FEED_FORWARD
from weightsteer.analysis.plans.base import Ablation, PlanInput, kept, register
from weightsteer.analysis.plans.layers import only, without
from weightsteer.vector.selection import kind_of

NAME, CELLS = "modules", "single modules"

# the last components of module paths, as the architectures call them
_QKV = ("q_proj", "k_proj", "v_proj", "qkv_proj", "query_key_value", "c_attn", "query", "key", "value")
_ATTENTION_OUT = ("o_proj", "out_proj", "attn.c_proj", "attention.dense", "self_attention.dense")
_IN_ATTENTION, _IN_MLP = ("attn", "attention"), ("mlp", "feed_forward", "ffn", "moe", "experts")


@register("modules")
def modules(given: PlanInput) -> Iterator[Ablation]:
    """Every group of modules, kind of module and single module alone, and the vector without it."""
    vector = given.vector
    for component, names in groups(vector.names):
        yield from kept(given, NAME, component, partial(only, vector, names))
        yield Ablation(NAME, component, "drop", partial(without, vector, names))
    yield from _cells(given)


def _cells(given: PlanInput) -> Iterator[Ablation]:
    """Every module alone and left out: a map of the vector, without controls. No claim is made of a single cell."""
    vector = given.vector
    if len(vector.names) < 2:
        return
    for name in vector.names:
        yield Ablation(CELLS, name, "keep", partial(only, vector, [name]))
        yield Ablation(CELLS, name, "drop", partial(without, vector, [name]))


def groups(names: Sequence[str]) -> list[tuple[str, list[str]]]:
    """Groups of kinds, then kinds, each with its modules. Those that are the whole vector are left out, and groups that
    are one kind."""
    kinds = sorted({kind_of(name) for name in names})
    named = [
        ("attention", [name for name in names if _inside(name, _IN_ATTENTION)]),
        ("MLP", [name for name in names if _inside(name, _IN_MLP)]),
        ("queries, keys and values", [name for name in names if _ends(name, _QKV)]),
        ("what writes to the residual stream", writers(names)),
        *((kind, [name for name in names if kind_of(name) == kind]) for kind in kinds),
    ]
    # the later word for the same modules is the narrower one
    words = {tuple(chosen): word for word, chosen in named if chosen and len(chosen) < len(names)}
    return [(word, list(chosen)) for chosen, word in words.items()]


def writers(names: Sequence[str]) -> list[str]:
    """The modules whose output is added to the residual stream."""
    return [name for name in names if _ends(name, (*_ATTENTION_OUT, *FEED_FORWARD))]


def _ends(name: str, ends: Sequence[str]) -> bool:
    return any(f".{name}".endswith(f".{end}") for end in ends)


def _inside(name: str, words: Sequence[str]) -> bool:
    return any(word in part for part in kind_of(name).split(".") for word in words)
