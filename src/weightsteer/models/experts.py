"""Mixtures of experts: which modules hold weights that see only the tokens routed to them.

A layer of experts sends each token through a few of many small networks. Their weights mostly lie in one parameter of
three dimensions (``experts.gate_up_proj``, of shape (experts, d_out, d_in)), which is no linear module, so adapters of
linear modules pass over it without a word; where each expert is a module of its own, its input holds some tokens of
some rows, so one strength per row cannot be applied to it.
"""

import re
from collections.abc import Iterable

from torch import nn

# What the architectures of transformers call them. Shared experts see every token: they are modules like any other.
_EXPERTS = re.compile(r"(?!.*shared).*experts?", re.IGNORECASE)
_BLOCK = re.compile(r".*M[oO][eE](Layer|Block)?")


def routed(root: nn.Module) -> list[str]:
    """Paths, below ``root``, of the modules that hold routed experts, in the order of the modules.

    >>> block = nn.ModuleDict({"experts": nn.ModuleList([nn.Linear(2, 2)]), "shared_expert": nn.Linear(2, 2)})
    >>> routed(nn.ModuleDict({"mlp": block, "gate_proj": nn.Linear(2, 2)}))
    ['mlp.experts']
    """
    found: list[str] = []
    blocks: list[str] = []
    for name, module in root.named_modules():
        if not name or inside(name, found) or next(module.parameters(), None) is None:
            continue
        kind = type(module).__name__
        if _EXPERTS.fullmatch(name.rsplit(".", 1)[-1]) or _EXPERTS.fullmatch(kind):
            found.append(name)
        elif _BLOCK.fullmatch(kind):
            blocks.append(name)
    # a block in which nothing is called experts holds them under other names
    return found + [name for name in blocks if not any(inside(one, [name]) for one in found)]


def among_experts(path: str) -> bool:
    """Whether a module path leads into the experts of a layer, judged by its names alone.

    >>> among_experts("model.layers.0.mlp.experts.3.up_proj"), among_experts("model.layers.0.mlp.shared_expert.up_proj")
    (True, False)
    """
    return any(_EXPERTS.fullmatch(part) for part in path.split("."))


def inside(path: str, modules: Iterable[str]) -> bool:
    """Whether a module is one of these, or lies in one.

    >>> inside("mlp.experts.0.up_proj", ["mlp.experts"]), inside("mlp.experts_2", ["mlp.experts"])
    (True, False)
    """
    return any(path == module or path.startswith(f"{module}.") for module in modules)
