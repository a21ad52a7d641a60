"""Does it steer what it is named after? The answer in words, with the evidence."""

from weightsteer.audit.covariates import covariates_of
from weightsteer.audit.headline import _PHRASES as _PHRASES  # every verdict of a line, which the console must know
from weightsteer.audit.headline import headline, headline_strengths, intervention, listed
from weightsteer.audit.nuisance import nuisances
from weightsteer.audit.transfer import transfer
from weightsteer.audit.vectors import Audit, audit
from weightsteer.formatting import estimate, number, share, signed
from weightsteer.stats.verdict import PMASS_GATE, label, verdict

__all__ = [
    "PMASS_GATE",
    "Audit",
    "audit",
    "covariates_of",
    "estimate",
    "headline",
    "headline_strengths",
    "intervention",
    "label",
    "listed",
    "nuisances",
    "number",
    "share",
    "signed",
    "transfer",
    "verdict",
]
