"""The prompts of a calibration: one half to find the strength, the other, on other topics, to audit it."""

import hashlib
import re
from collections import defaultdict
from collections.abc import Sequence

from transformers import PreTrainedModel

from weightsteer.data.evals.base import Item
from weightsteer.data.evals.capability import neutral_items
from weightsteer.data.evals.neutral import Text, neutral_texts
from weightsteer.errors import WeightsteerError

PROMPTS = 48
Asked = Text | Item
"""What is put to the model: a conversation to go on with, or the row of a task."""
_POLITE = re.compile(r"^(?:(?:please|tell me|can you|could you)\W+)+")


def chosen_prompts(
    model: PreTrainedModel,
    prompts: Sequence[Text] | Sequence[Item] | None,
    audit_prompts: Sequence[Text] | Sequence[Item] | None,
    *,
    tasks: bool,
) -> tuple[Sequence[Asked], Sequence[Asked]]:
    """Those to calibrate on and those to audit on, without a cluster in common; the arguments are those of `calibrate`.

    Args:
        tasks: the budget is read on rows of tasks, else on texts.

    Raises:
        WeightsteerError: they overlap, are not what the budget is read on, or cannot be split.
    """
    calibrated: Sequence[Asked]
    audited: Sequence[Asked]
    if audit_prompts is not None:
        if prompts is None:
            raise WeightsteerError("audit_prompts are given without prompts: give both, or neither.")
        calibrated, audited = prompts, audit_prompts
    elif prompts is not None:
        calibrated, audited = halves(prompts)
    elif tasks:
        calibrated, audited = halves(neutral_items(model))
    else:
        calibrated, audited = halves(neutral_texts(model), PROMPTS)
    wanted = Item if tasks else Text
    if not all(isinstance(one, wanted) for one in (*calibrated, *audited)):
        kind = "capability" if tasks else "kl or nll"
        takes = "rows of a task (weightsteer.data.evals.Item)" if tasks else "texts (evals.neutral.Text)"
        raise WeightsteerError(f"a budget of {kind} is read on {takes}: give these as prompts, or none.")
    check_disjoint(calibrated, audited)
    return calibrated, audited


def halves(texts: Sequence[Asked], limit: int | None = None) -> tuple[list[Asked], list[Asked]]:
    """Two sets of prompts without a cluster in common, alike in their kinds of questions.

    Clusters of one kind are put in the order of their hashed names and dealt to the two halves in turn. Each half is
    ordered so that its first prompts cover all kinds: a part of it is a stratified sample too.

    Args:
        limit: at most so many prompts in each half; None for all.

    Raises:
        WeightsteerError: fewer than two clusters.
    """
    clusters: dict[str, list[Asked]] = defaultdict(list)
    for text in texts:
        clusters[text.cluster].append(text)
    if len(clusters) < 2:
        raise WeightsteerError(
            "the prompts form one cluster, so they cannot be split into prompts to calibrate on and others to audit "
            "on: give more, or give audit_prompts."
        )
    kinds: dict[str, list[str]] = defaultdict(list)
    for cluster in sorted(clusters, key=_hashed):
        kinds[kind(clusters[cluster][0])].append(cluster)
    # Round by round over the kinds; every other cluster of a kind goes to the other half. Kinds with an odd number of
    # clusters begin in turn with either half.
    dealt: tuple[list[tuple[int, str]], list[tuple[int, str]]] = ([], [])
    start = 0
    for name in sorted(kinds):
        for index, cluster in enumerate(kinds[name]):
            dealt[(start + index) % 2].append((index // 2, cluster))
        start += len(kinds[name]) % 2
    first, second = (
        [text for _, cluster in sorted(half, key=lambda one: one[0]) for text in clusters[cluster]][:limit]
        for half in dealt
    )
    return first, second


def kind(text: Asked) -> str:
    """What is asked for, by the first word of the last turn without its polite beginning: how, what, why, say …"""
    asked = text.messages[-1]["content"] if text.messages else ""
    words = re.findall(r"\w+", _POLITE.sub("", asked.lower()))
    return words[0] if words else ""


def check_disjoint(prompts: Sequence[Asked], audit: Sequence[Asked]) -> None:
    """Refuse an audit on what the strength was found on."""
    for name, of in (
        ("item", [{text.item for text in half} for half in (prompts, audit)]),
        ("cluster", [{text.cluster for text in half} for half in (prompts, audit)]),
        (
            "conversation",
            [{str((text.messages, text.messages or text.text)) for text in half} for half in (prompts, audit)],
        ),
    ):
        if shared := of[0] & of[1]:
            raise WeightsteerError(
                f"the {name} {min(shared)!r} is among the prompts and the audit prompts: an audit needs others."
            )
    for half in (prompts, audit):
        if len({text.item for text in half}) < max(1, len(half)):
            raise WeightsteerError(
                "give at least one prompt to calibrate on and one to audit, each an item of its own."
            )


def _hashed(name: str) -> bytes:
    return hashlib.blake2b(name.encode(), digest_size=8).digest()
