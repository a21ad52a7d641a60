"""Paired, clustered, multi-seed statistics of a sweep.

A row is one evaluation item scored under one intervention at one strength; everything here is computed from a frame of
such rows. `summarize` says what each intervention does, `compare` which of two does more and whether the difference is
distinguishable from 0, `frontier` what it costs.
"""

from weightsteer.stats.compare import compare
from weightsteer.stats.correction import LEVEL, benjamini_hochberg, holm
from weightsteer.stats.frontier import at_equal_damage, frontier
from weightsteer.stats.informedness import WEAKNESSES, one_sign, reading, surgical_informedness
from weightsteer.stats.null import null_of_draws
from weightsteer.stats.pairing import GROUP, REQUIRED, changed_side, flips, paired
from weightsteer.stats.rates import wilson
from weightsteer.stats.strengths import MATCHED, Selection, headline_strengths, select
from weightsteer.stats.table import summarize

__all__ = [
    "GROUP",
    "LEVEL",
    "MATCHED",
    "REQUIRED",
    "WEAKNESSES",
    "Selection",
    "at_equal_damage",
    "benjamini_hochberg",
    "changed_side",
    "compare",
    "flips",
    "frontier",
    "headline_strengths",
    "holm",
    "null_of_draws",
    "one_sign",
    "paired",
    "reading",
    "select",
    "summarize",
    "surgical_informedness",
    "wilson",
]
