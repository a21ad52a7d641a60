"""Contrastive pairs: generate them, judge them, audit them."""

from weightsteer.data.pairs.audit import REASONS, AuditReport, Branch, curate, kept, leaks
from weightsteer.data.pairs.cut import Cut, whole_sentences
from weightsteer.data.pairs.grid import generate
from weightsteer.data.pairs.judge import Judge, SelfJudge
from weightsteer.inference.sampling import Sampling, default_sampling

__all__ = [
    "REASONS",
    "AuditReport",
    "Branch",
    "Cut",
    "Judge",
    "Sampling",
    "SelfJudge",
    "curate",
    "default_sampling",
    "generate",
    "kept",
    "leaks",
    "whole_sentences",
]
