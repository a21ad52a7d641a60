"""Contrastive pairs: generate them, judge them, audit them."""

from weightsteer.pairs.audit import REASONS, AuditReport, Branch, curate, kept, leaks
from weightsteer.pairs.grid import generate
from weightsteer.pairs.judge import Judge, SelfJudge
from weightsteer.pairs.sampling import Sampling, default_sampling

__all__ = [
    "REASONS",
    "AuditReport",
    "Branch",
    "Judge",
    "Sampling",
    "SelfJudge",
    "curate",
    "default_sampling",
    "generate",
    "kept",
    "leaks",
]
