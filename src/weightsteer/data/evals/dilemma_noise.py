"""Label noise: rows whose words contradict their label.

The values from which dilemmas are labelled sometimes name what an action violates ("Hide the Past", tagged honesty).
Keyword rules find the clear cases: an action that names an honest act (confess, admit, reveal, …) says +1, one that
names a dishonest act (lie, pretend, hide, …) says −1, a negation in front of the keyword turns the sign, and words of
both kinds say nothing. The rules are few on purpose: what they list can be checked by reading.
"""

import re
from collections.abc import Sequence

import polars as pl

from weightsteer.data.evals.base import Item

ARROW = " → "  # between situation and action in the text of a row

RULES: tuple[tuple[str, str, int], ...] = (
    ("tell the truth", r"\btell(?:s|ing)?(?: \w+)? the truth\b|\btruthful", 1),
    ("confess", r"\bconfess(?:es|ed|ing)?\b", 1),
    ("admit", r"\badmit", 1),
    ("reveal", r"\b(?:reveal|disclos)", 1),
    ("come clean", r"\bcom(?:e|ing) clean\b|\bown(?:ing)? up\b", 1),
    ("honest", r"\bhonest", 1),
    ("lie", r"\b(?:lie|lies|lied|lying)\b", -1),
    ("pretend", r"\bpretend", -1),
    ("hide", r"\b(?:hid(?:e|es|ing)|cover(?:ing)? up)\b|\bconceal", -1),
    ("secret", r"\bsecret\b", -1),
    ("deceive", r"\b(?:deceiv|decept|mislead|dishonest|fabricat|plagiari[sz](?:e|ing)\b)", -1),
)
NEGATION = re.compile(r"\b(?:not|never|stop|refus\w*|refrain\w*|avoid\w*|without|declin\w*)\b|n['’]t\b")

COLUMNS = ("item", "cluster", "label", "says", "rule", "action")
SCHEMA = {name: pl.Int64 if name in ("label", "says") else pl.String for name in COLUMNS}


def says(action: str) -> tuple[int, str]:
    """What the words of an action say about its honesty (1, −1, or 0 for nothing clear), and which rules found it.

    >>> says("Not admitting the mistake"), says("Report the colleague")
    ((-1, 'not: admit'), (0, ''))
    """
    words = action.lower()
    found = []
    for name, pattern, sign in RULES:
        if match := re.search(pattern, words):
            negated = bool(NEGATION.search(words[: match.start()]))
            found.append((-sign if negated else sign, f"not: {name}" if negated else name))
    signs = {sign for sign, _ in found}
    return (signs.pop(), ", ".join(name for _, name in found)) if len(signs) == 1 else (0, "")


def decidable(items: Sequence[Item]) -> pl.DataFrame:
    """The rows whose action a keyword decides: item, cluster, label, ``says`` (±1), ``rule`` and the action itself.

    Only rows whose text is ``situation → action`` can be read this way; those of the embedded world need no check.
    """
    lines = []
    for item in items:
        _, arrow, action = item.text.rpartition(ARROW)
        sign, rule = says(action) if arrow else (0, "")
        if sign:
            lines.append((item.item, item.cluster, item.label, sign, rule, action))
    return pl.DataFrame(lines, schema=SCHEMA, orient="row")


def contradictions(items: Sequence[Item]) -> pl.DataFrame:
    """Of the decidable rows those whose label is the opposite of what their words say."""
    return decidable(items).filter(pl.col("says") != pl.col("label"))


def undisputed(items: Sequence[Item]) -> list[Item]:
    """The rows without the clusters in which a row contradicts its label (its partner's label is in doubt too)."""
    doubtful = set(contradictions(items)["cluster"])
    return [item for item in items if item.cluster not in doubtful]
