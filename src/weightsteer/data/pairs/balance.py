"""Pairs whose sides differ in nothing but the behaviour: as often Yes and No, and as long, on both.

A by-product that the two sides do not differ in cannot become part of ``θ⁺ − θ⁻``. What a side says is never changed:
answers are matched and dropped.
"""

import random
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import polars as pl
from transformers import PreTrainedTokenizerBase

from weightsteer.data.pairs.audit import kept
from weightsteer.errors import WeightsteerError

TOLERANCE = 0.1

_WORD = re.compile(r"[^\W_]+")

_Match = tuple[int, int]
"""Two rows: the one whose positive answer and the one whose negative answer make the pair."""


@dataclass(frozen=True)
class Sides:
    """What the two sides of some pairs are like, (positive, negative).

    Attributes:
        yes, no: share of the answers that begin with this word.
        tokens: mean length.
    """

    yes: tuple[float, float]
    no: tuple[float, float]
    tokens: tuple[float, float]

    def __str__(self) -> str:
        (y, v), (n, m), (t, u) = self.yes, self.no, self.tokens
        return f"Yes {y:.2f} / {v:.2f}, No {n:.2f} / {m:.2f}, tokens {t:.1f} / {u:.1f}"


@dataclass(frozen=True)
class Balance:
    """What balancing did.

    Attributes:
        total, kept: pairs before and after.
        lengths: dropped because no answer of the other side to the same question was as long.
        words: dropped because more pairs had, say, Yes against No than No against Yes.
        rematched: pairs whose two answers come from different ones of the pairs given.
        before, after: the two sides.
        lost: questions of which no pair is left.
    """

    total: int
    kept: int
    lengths: int
    words: int
    rematched: int
    before: Sides
    after: Sides
    lost: tuple[str, ...]

    def __str__(self) -> str:
        lines = [
            f"{self.kept} of {self.total} pairs kept, {self.rematched} of them matched anew",
            f"  dropped for their length: {self.lengths}; for Yes and No: {self.words}",
            f"  before (positive / negative): {self.before}",
            f"  after:                        {self.after}",
        ]
        if self.kept < self.total / 2:
            lines.append("  warning: more than half was dropped; the vector of what is left is noisier")
        if self.lost:
            lines.append(f"  warning: no pair is left of {len(self.lost)} questions, such as {self.lost[0]!r}")
        return "\n".join(lines)


def balanced(
    pairs: pl.DataFrame,
    tokenizer: PreTrainedTokenizerBase | None = None,
    *,
    words: bool = True,
    lengths: bool = True,
    tolerance: float = TOLERANCE,
    seed: int = 0,
) -> tuple[pl.DataFrame, Balance]:
    """The pairs to train on, cut down to sides that are equally long and say Yes and No equally often.

    Lengths: a pair stays if the lengths of its answers differ by no more than the tolerance. The answers of the others
    are matched anew with answers of the other side to the same question (those with the same first word first): a
    branch learns from the answers of its side, so it does not matter which persona gave them.

    Words: of the pairs that begin with Yes on the positive and No on the negative side, as many stay as there are of
    the opposite sort; so for Yes and No against any other beginning. The shares are then equal, exactly.

    Args:
        pairs: as `weightsteer.data.pairs.curate` returns them; those rejected are left out.
        tokenizer: to count tokens with, if the pairs do not tell them (``tokens_pos``, ``tokens_neg``).
        words, lengths: what is balanced.
        tolerance: largest difference of two matched lengths, as a share of the longer one.
        seed: of the choice of what is dropped.

    Returns:
        Lines as given (what belongs to no side is that of the positive answer), and what was done.

    Raises:
        WeightsteerError: nothing is left; the lengths are not known.
    """
    if not 0 <= tolerance < 1:
        raise WeightsteerError(f"the tolerance is a share in [0, 1), not {tolerance}.")
    pairs = _counted(kept(pairs), tokenizer)
    if not len(pairs):
        raise WeightsteerError("there are no pairs to balance: all of them were rejected.")
    rng = random.Random(f"balanced/{seed}")
    own = [(index, index) for index in range(len(pairs))]
    matched = _equally_long(pairs, tolerance, rng) if lengths else own
    if not matched:
        raise WeightsteerError(
            "no answers of the two sides to one question are of like length, so pairs of equal length cannot be made "
            "of these. Ask both personas for answers of the same length, generate more samples, or raise the tolerance."
        )
    first = {side: [_first(text) for text in pairs[f"response_{side}"]] for side in ("pos", "neg")}
    chosen = _equal_words(matched, first["pos"], first["neg"], rng) if words else matched
    if not chosen:
        raise WeightsteerError(
            "one side always says Yes where the other says No, so a yes-bias and the behaviour are one in these pairs "
            "and no choice of them separates the two. Add questions to which the behaviour answers the other way round "
            "(true claims as well as false ones), or ask open questions."
        )
    frame = _taken(pairs, sorted(chosen))
    return frame, Balance(
        total=len(pairs),
        kept=len(frame),
        lengths=len(pairs) - len(matched),
        words=len(matched) - len(chosen),
        rematched=sum(i != j for i, j in chosen),
        before=_sides(pairs),
        after=_sides(frame),
        lost=tuple(sorted(set(pairs["prompt"]) - set(frame["prompt"]))),
    )


def _counted(pairs: pl.DataFrame, tokenizer: PreTrainedTokenizerBase | None) -> pl.DataFrame:
    if {"tokens_pos", "tokens_neg"} <= set(pairs.columns):
        return pairs
    if tokenizer is None:
        raise WeightsteerError(
            "the pairs have no columns tokens_pos and tokens_neg; give the tokenizer to count the tokens."
        )
    counts = {
        f"tokens_{side}": [
            len(ids) for ids in tokenizer(pairs[f"response_{side}"].to_list(), add_special_tokens=False)["input_ids"]
        ]
        for side in ("pos", "neg")
    }
    return pairs.with_columns(**{name: pl.Series(values, dtype=pl.Int64) for name, values in counts.items()})


def _equally_long(pairs: pl.DataFrame, tolerance: float, rng: random.Random) -> list[_Match]:
    pos, neg = pairs["tokens_pos"].to_list(), pairs["tokens_neg"].to_list()
    first = {side: [_first(text) for text in pairs[f"response_{side}"]] for side in ("pos", "neg")}

    def alike(i: int, j: int) -> bool:
        return abs(pos[i] - neg[j]) <= tolerance * max(pos[i], neg[j])

    groups: dict[str, list[int]] = {}
    for index, prompt in enumerate(pairs["prompt"]):
        groups.setdefault(prompt, []).append(index)
    matched: list[_Match] = []
    for group in groups.values():
        fitting = [index for index in group if alike(index, index)]
        matched += [(index, index) for index in fitting]
        rest = sorted(set(group) - set(fitting))
        rng.shuffle(rest)
        left, right = list(rest), list(rest)
        for word in ("yes", "no", "", None):  # None: whatever is left, of any beginning
            i_s = sorted((i for i in left if word in (None, first["pos"][i])), key=pos.__getitem__)
            j_s = sorted((j for j in right if word in (None, first["neg"][j])), key=neg.__getitem__)
            while i_s and j_s:
                if alike(i_s[0], j_s[0]):
                    matched.append((i_s[0], j_s[0]))
                    left.remove(i_s.pop(0))
                    right.remove(j_s.pop(0))
                elif pos[i_s[0]] < neg[j_s[0]]:
                    i_s.pop(0)
                else:
                    j_s.pop(0)
    return matched


def _equal_words(matched: Sequence[_Match], pos: Sequence[str], neg: Sequence[str], rng: random.Random) -> list[_Match]:
    sorts: dict[tuple[str, str], list[_Match]] = {}
    for i, j in matched:
        sorts.setdefault((pos[i], neg[j]), []).append((i, j))
    chosen: list[_Match] = []
    for (ours, theirs), group in sorts.items():
        many = len(group) if ours == theirs else min(len(group), len(sorts.get((theirs, ours), [])))
        chosen += rng.sample(group, many)
    return chosen


def _taken(pairs: pl.DataFrame, chosen: Iterable[_Match]) -> pl.DataFrame:
    rows, others = zip(*chosen, strict=True)
    theirs = [name for name in pairs.columns if name.endswith("_neg") and f"{name[:-4]}_pos" in pairs.columns]
    other = pairs[list(others)]
    return pairs[list(rows)].with_columns(**{name: other[name] for name in theirs})


def _first(answer: str) -> str:
    """``yes``, ``no``, or nothing: what an answer begins with (behind the thinking, if there was any)."""
    found = _WORD.search(answer.rsplit("</think>", 1)[-1])
    word = found[0].lower() if found else ""
    return word if word in ("yes", "no") else ""


def _sides(pairs: pl.DataFrame) -> Sides:
    counts = [Counter(_first(text) for text in pairs[f"response_{side}"]) for side in ("pos", "neg")]
    n = len(pairs)
    return Sides(
        yes=(counts[0]["yes"] / n, counts[1]["yes"] / n),
        no=(counts[0]["no"] / n, counts[1]["no"] / n),
        tokens=(sum(pairs["tokens_pos"]) / n, sum(pairs["tokens_neg"]) / n),
    )
