"""Does it steer what it is named after? The answer in words, with the evidence."""

from weightsteer.audit.covariates import covariates_of
from weightsteer.audit.headline import headline, intervention
from weightsteer.audit.nuisance import nuisances
from weightsteer.audit.transfer import transfer
from weightsteer.audit.vectors import Audit, audit
from weightsteer.stats.verdict import PMASS_GATE

__all__ = [
    "PMASS_GATE",
    "Audit",
    "audit",
    "covariates_of",
    "headline",
    "intervention",
    "nuisances",
    "transfer",
]
