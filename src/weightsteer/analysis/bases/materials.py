"""What bases are made from, read once: the weights of a model, the states of its contrast, weight vectors.

Several bases made from one `Materials` share what is expensive: the Gram matrices of all readers and writers of the
stream, and the states at the probe pairs. Weights are read one module at a time.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import polars as pl
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from weightsteer.analysis.bases.stream import Stream, matrix, table_gram
from weightsteer.data.evals.base import Item
from weightsteer.data.pairs import kept
from weightsteer.data.pairs.encoding import Pairs, encode
from weightsteer.errors import WeightsteerError
from weightsteer.inference.capture import HookPoint, ReadAt, capture
from weightsteer.models import base_record, check_base
from weightsteer.steering import steer

if TYPE_CHECKING:
    from weightsteer.vector import WeightVector

PROBES = 256
"""At most so many pairs are run: principal directions of few ranks need no more, and memory stays bounded."""


class Sides(NamedTuple):
    """States (n, d) fp64 at one place; row i of both belongs to pair i."""

    positive: Tensor
    negative: Tensor

    @property
    def differences(self) -> Tensor:
        return self.positive - self.negative


@dataclass(eq=False)
class Materials:
    """What there is to make bases from. Each kind says what it needs.

    Attributes:
        model: the base model.
        tokenizer, pairs: contrastive pairs (`weightsteer.data.pairs`) for bases of activations, and the tokenizer to
        render
            them with.
        vector: a weight vector, for bases of its own subspaces.
        vectors: several, for what they share.
        items: the rows that will be measured; a probe pair whose prompt is among them is refused.
        seed: of random bases, and of which pairs are probes where there are more than `PROBES`.
    """

    model: PreTrainedModel | None = None
    tokenizer: PreTrainedTokenizerBase | None = None
    pairs: pl.DataFrame | None = None
    vector: "WeightVector | None" = None
    vectors: Sequence["WeightVector"] = ()
    items: Sequence[Item] = ()
    seed: int = 0
    _states: dict[tuple[bool, bool], dict[HookPoint, Sides]] = field(default_factory=dict, repr=False)
    _shifts: dict[HookPoint, Tensor] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if self.pairs is not None and self.items:
            check_disjoint(self.pairs, self.items)
        if self.model is not None:
            for vector in (*self._one, *self.vectors):
                check_base(vector.metadata, self.model)

    @property
    def base_model(self) -> PreTrainedModel:
        assert self.model is not None
        return self.model

    @cached_property
    def base(self) -> dict[str, Any]:
        """Name and hash of the base model, from the model itself or from a vector; empty when unknown."""
        if self.model is not None:
            return base_record(self.model)
        given = [*self._one, *self.vectors]
        known = given[0].metadata.get("base", {}) if given else {}
        return {key: known[key] for key in ("name", "hash") if key in known}

    @property
    def _one(self) -> "list[WeightVector]":
        return [] if self.vector is None else [self.vector]

    def made_from(self, needs: Sequence[str]) -> frozenset[str]:
        """The digests of the terms of the vectors that a kind with these needs is made from."""
        used = [*(self._one if "vector" in needs else []), *(self.vectors if "vectors" in needs else [])]
        return frozenset(term.digest for vector in used for total in vector.terms.values() for _, term in total.terms)

    @cached_property
    def stream(self) -> Stream:
        return Stream.of(self.base_model)

    @cached_property
    def reading(self) -> Tensor:
        """``Σ M Mᵀ / ‖M‖²`` (d, d) over all readers, with ``M = (W diag(g))ᵀ``; the unembedding is one of them.

        Each has unit norm: otherwise the wide matrices of the MLP would dominate.
        """
        stream = self.stream
        head = table_gram(stream.unembedding) * stream.final_gain[:, None] * stream.final_gain
        total = head / head.trace()
        for projection in stream.readers:
            weight = matrix(projection.module, projection.name) * projection.gain
            total += weight.T @ weight / weight.square().sum()
        return total

    @cached_property
    def writing(self) -> Tensor:
        """The same over all writers with ``M = diag(g) W``, g of a norm behind them; the embedding is one of them."""
        stream = self.stream
        begin = table_gram(stream.embedding)
        total = begin / begin.trace()
        for projection in stream.writers:
            weight = matrix(projection.module, projection.name) * projection.gain[:, None]
            total += weight @ weight.T / weight.square().sum()
        return total

    def states(self, points: Sequence[HookPoint], *, answers: bool, personas: bool) -> dict[HookPoint, Sides]:
        """Both sides of the probe pairs at some hook points; see `weightsteer.inference.capture`.

        Args:
            answers: at the tokens of the answer; otherwise at the last token of the prompt.
            personas: each side under its own system prompt.
        """
        assert self.pairs is not None
        known = self._states.setdefault((answers, personas), {})
        if missing := [point for point in dict.fromkeys(points) if point not in known]:
            rows = self.encoded(personas=personas)
            at: ReadAt = "answer" if answers else "prompt"
            found = capture(self.base_model, [*rows.positive, *rows.negative], missing, at=at, shown=False)
            n = len(rows.positive)
            known |= {point: Sides(own.values[:n].double(), own.values[n:].double()) for point, own in found.items()}
        return {point: known[point] for point in points}

    def encoded(self, *, personas: bool) -> Pairs:
        """The probe pairs as token ids."""
        assert self.tokenizer is not None
        return encode(self.base_model, self.tokenizer, self._probes, personas=personas)

    def shifts(self, places: Sequence[HookPoint]) -> dict[HookPoint, Tensor]:
        """(2n, d) fp64: by how much the vector moves the states of the answers of the probe pairs, from α = −1 to 1.

        The answers of both sides, without personas, as rows of an evaluation have none.
        """
        assert self.vector is not None
        if missing := [place for place in dict.fromkeys(places) if place not in self._shifts]:
            rows = self.encoded(personas=False)
            moved = []
            for alpha in (1.0, -1.0):
                with steer(self.base_model, self.vector, alpha):
                    moved.append(capture(self.base_model, [*rows.positive, *rows.negative], missing, shown=False))
            up, down = moved
            self._shifts |= {place: up[place].values.double() - down[place].values.double() for place in missing}
        return {place: self._shifts[place] for place in places}

    @property
    def stream_points(self) -> list[HookPoint]:
        """Where the stream is read: before the first block, and behind each. Entry l is depth l."""
        blocks = self.stream.blocks
        return [HookPoint(blocks[0], "input"), *(HookPoint(block, "output") for block in blocks)]

    @property
    def personas(self) -> bool:
        """Whether the pairs know the system prompts they were made under."""
        return self.pairs is not None and {"sys_prompt_pos", "sys_prompt_neg"} <= set(self.pairs.columns)

    @cached_property
    def _probes(self) -> pl.DataFrame:
        assert self.pairs is not None
        probes = kept(self.pairs)
        return probes.sample(PROBES, seed=self.seed) if len(probes) > PROBES else probes


def check_disjoint(pairs: pl.DataFrame, items: Sequence[Item]) -> None:
    """Refuse probe pairs that are also evaluation rows: a subspace found on them would fit what it is tested on.

    Raises:
        WeightsteerError: a prompt is the text of an item, or of one of its turns.
    """
    measured = {_plain(text) for item in items for text in (item.text, *(turn["content"] for turn in item.messages))}
    shared = sorted({prompt for prompt in pairs["prompt"] if _plain(prompt) in measured})
    if shared:
        raise WeightsteerError(
            f"{len(shared)} of the prompts of the probe pairs are evaluation rows as well, for instance "
            f"{shared[0][:80]!r}: a basis fitted on them cannot be judged by them. Leave these pairs out."
        )


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())
