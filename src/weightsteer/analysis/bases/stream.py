"""The residual stream of a model: which modules read it, which write to it, and through which norms.

A block reads the stream through a norm: its modules see ``g ∘ s / rms(s)`` of a state s, with the gain g. So a
direction b of the stream is the direction ``g ∘ b`` of their inputs, and a reader with weight W reads the stream with
``W diag(g)``. What o_proj and down_proj put out is added to the stream (in Gemma 2 and 3 through a norm of its own with
gain g, so that the direction b of the stream is ``b / g`` of their outputs).

Known by name are the modules of the decoders of the Llama family: Llama, Mistral, Qwen2, Qwen3, Gemma and others.
"""

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from weightsteer.analysis.bases.leading import orthonormal
from weightsteer.analysis.basis import Side
from weightsteer.errors import WeightsteerError
from weightsteer.models import decoder_layers
from weightsteer.terms import linear_shape

ATTENTION_READERS = ("q_proj", "k_proj", "v_proj")
MLP_READERS = ("gate_proj", "up_proj")
WRITERS = ("o_proj", "down_proj")

# rows of an embedding in fp64 at a time
_ROWS = 8192


@dataclass(frozen=True, eq=False)
class StreamModule:
    """One module at the stream.

    Attributes:
        name: its path.
        layer: its block.
        module: the module.
        norm: the path of the norm between the stream and the module; empty where there is none.
        gain: of that norm, (d,) fp64.
    """

    name: str
    layer: int
    module: nn.Module = field(repr=False)
    norm: str
    gain: Tensor = field(repr=False)

    @property
    def role(self) -> str:
        """The last part of its path: ``o_proj``."""
        return self.name.rsplit(".", 1)[-1]


@dataclass(frozen=True, eq=False)
class Stream:
    """The modules at the residual stream of a model.

    Attributes:
        width: d.
        blocks: the paths of the blocks, in order.
        readers, writers: the modules in the blocks.
        embedding: the table (V, d) that begins the stream.
        unembedding: the weight (V, d) that reads the end of it; the embedding itself where they are tied.
        final_gain: (d,) of the norm in front of the unembedding.
    """

    width: int
    blocks: list[str]
    readers: list[StreamModule]
    writers: list[StreamModule]
    embedding: Tensor = field(repr=False)
    unembedding: Tensor = field(repr=False)
    final_gain: Tensor = field(repr=False)

    @classmethod
    def of(cls, model: PreTrainedModel) -> "Stream":
        """Find them.

        Raises:
            WeightsteerError: the blocks have other modules than those that are known.
        """
        prefix, blocks = decoder_layers(model)
        width = int(model.config.get_text_config().hidden_size)
        readers: list[StreamModule] = []
        writers: list[StreamModule] = []
        for layer, block in enumerate(blocks):
            norms = _norms(block, f"{prefix}.{layer}")
            through = {norm: gain(block.get_submodule(norm), width) for norm in norms if norm}
            through[""] = torch.ones(width, dtype=torch.float64)
            for path, module in block.named_modules():
                role = path.rsplit(".", 1)[-1]
                if role not in (*ATTENTION_READERS, *MLP_READERS, *WRITERS):
                    continue
                of_mlp = role in (*MLP_READERS, "down_proj")
                norm = norms[2 * (role in WRITERS) + of_mlp]
                at = norm and f"{prefix}.{layer}.{norm}"
                projection = StreamModule(f"{prefix}.{layer}.{path}", layer, module, at, through[norm])
                (writers if role in WRITERS else readers).append(projection)
            here = {projection.role for projection in (*readers, *writers) if projection.layer == layer}
            if missing := {*ATTENTION_READERS, *MLP_READERS, *WRITERS} - here:
                raise WeightsteerError(
                    f"{prefix}.{layer} ({type(block).__name__}) has no {', '.join(sorted(missing))}, so it is not "
                    "known what reads and writes the residual stream. Supported are decoders with the modules of Llama."
                )
        embedding, head = model.get_input_embeddings().weight, model.get_output_embeddings().weight
        assert isinstance(embedding, Tensor)
        assert isinstance(head, Tensor)
        body = model.get_submodule(prefix.rpartition(".")[0])
        final = getattr(body, "norm", None)
        end = gain(final, width) if isinstance(final, nn.Module) else torch.ones(width, dtype=torch.float64)
        names = [f"{prefix}.{layer}" for layer in range(len(blocks))]
        return cls(width, names, readers, writers, embedding, head, end)

    def at_modules(self, directions: Tensor | Mapping[int, Tensor], side: Side) -> dict[str, Tensor]:
        """Directions of the stream as directions of the modules: the outputs of writers, or the inputs of readers.

        Args:
            directions: (d, k) for the whole stream, or by depth: 0 is the embedding, l + 1 what block l puts out. The
                readers of block l see depth l, its writers make depth l + 1; at a depth that is missing they have none.
        """
        found: dict[str, Tensor] = {}
        seen: dict[tuple[int, str], Tensor] = {}
        for projection in self.writers if side == "output" else self.readers:
            depth = projection.layer + (side == "output")
            columns = directions if isinstance(directions, Tensor) else directions.get(depth)
            if columns is None:
                continue
            key = (id(columns), projection.norm)
            if key not in seen:
                turned = columns / projection.gain[:, None] if side == "output" else columns * projection.gain[:, None]
                seen[key] = orthonormal(turned) if projection.norm else columns
            found[projection.name] = seen[key]
        return found


def matrix(module: nn.Module, name: str) -> Tensor:
    """The weight (d_out, d_in) of a linear module, fp64 on the CPU.

    Raises:
        WeightsteerError: it is quantised, wrapped, or not in memory.
    """
    shape, weight = linear_shape(module), getattr(module, "weight", None)
    if not isinstance(weight, Tensor) or shape is None or weight.is_meta or not weight.is_floating_point():
        raise WeightsteerError(
            f"{name} ({type(module).__name__}) holds no plain matrix, so it has no subspaces that could be read: load "
            "the base model unquantised, unwrapped and without offloading."
        )
    found = weight.detach().to("cpu", torch.float64)
    return found.T if isinstance(module, Conv1D) else found


def table_gram(table: Tensor) -> Tensor:
    """``Eᵀ E`` (d, d) in fp64 of a table (V, d), some rows at a time: V may be 150,000."""
    total = torch.zeros(table.shape[1], table.shape[1], dtype=torch.float64)
    for start in range(0, len(table), _ROWS):
        rows = table.detach()[start : start + _ROWS].to("cpu", torch.float64)
        total += rows.T @ rows
    return total


def _norms(block: nn.Module, name: str) -> tuple[str, str, str, str]:
    """The norms in front of attention and MLP, and behind them ("" for none)."""
    has = {child for child, _ in block.named_children()}
    if {"input_layernorm", "pre_feedforward_layernorm", "post_feedforward_layernorm"} <= has:
        return "input_layernorm", "pre_feedforward_layernorm", "post_attention_layernorm", "post_feedforward_layernorm"
    if {"input_layernorm", "post_attention_layernorm"} <= has:
        return "input_layernorm", "post_attention_layernorm", "", ""
    raise WeightsteerError(
        f"{name} ({type(block).__name__}) has the submodules {', '.join(sorted(has))}; which norms are between the "
        "residual stream and its modules is known for decoders built like Llama or Gemma only."
    )


def gain(norm: nn.Module, width: int) -> Tensor:
    """(d,) fp64, measured: what a norm makes of ±1, whose mean is 0 and whose root mean square is 1.

    The parameter itself would have to be read differently for each class: Gemma's gain is 1 + w.
    """
    probe = torch.ones(width)
    probe[1::2] = -1.0
    with torch.no_grad():
        own = deepcopy(norm).to("cpu", torch.float32)
        return ((own(probe[None]) - own(-probe[None]))[0] / 2 * probe).double()
