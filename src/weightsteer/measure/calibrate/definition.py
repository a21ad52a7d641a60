"""What a calibrated strength means: every setting that decides the number, with a hash.

A strength is comparable only with others of the same definition, so its id is in every row.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal

from weightsteer.measure.calibrate.prompts import Asked

BudgetKind = Literal["kl", "nll", "capability"]
Statistic = Literal["p95", "mean"]
Direction = Literal["base_steered", "steered_base"]
Source = Literal["base", "steered", "given"]

UNITS: dict[BudgetKind, str] = {"kl": "nats per token", "nll": "nats per token", "capability": "probability"}


@dataclass(frozen=True)
class Definition:
    """The settings of one calibration.

    Attributes:
        kind: ``kl``: KL divergence per token to the base model; ``nll``: rise of the NLL per token of written texts;
            ``capability``: loss of the probability of the right choice on neutral tasks.
        statistic: over all tokens of all prompts, pooled; over all rows of the tasks.
        direction: ``base_steered`` is KL(p₀ ‖ p_α), ``steered_base`` KL(p_α ‖ p₀); None without a KL.
        text: whose continuation is read, or the texts as they are given; None without a KL: texts are then read as they
            were written.
        tokens: at most so many tokens of continuation, or the last so many of a given text; None without a KL.
        budget: in nats, of a capability in probability; None for an intervention that has no strength, and is measured
            instead.
        tolerance: relative; how near the budget a strength has to come.
        prompts, audit_prompts: digests of the conversations and texts.
    """

    kind: BudgetKind
    statistic: Statistic
    direction: Direction | None
    text: Source | None
    tokens: int | None
    budget: float | None
    tolerance: float
    prompts: str
    audit_prompts: str

    @property
    def hash(self) -> str:
        """blake2b-64 (hex) of all settings."""
        return hashlib.blake2b(json.dumps(asdict(self), sort_keys=True).encode(), digest_size=8).hexdigest()

    @property
    def id(self) -> str:
        """What a reader wants to know, and the hash of everything."""
        unit = UNITS[self.kind].split()[0].removesuffix("s")
        words = [self.kind, self.statistic, "fixed" if self.budget is None else f"{self.budget:g}-{unit}"]
        if self.kind == "kl":
            words += [f"{self.direction}", f"{self.text}-text", f"{self.tokens}-tokens"]
        return " ".join([*words, self.hash])


def digest(prompts: Sequence[Asked]) -> str:
    """blake2b-64 (hex) of what is put to the model, in this order."""
    contents = [asdict(text) for text in prompts]
    return hashlib.blake2b(json.dumps(contents, sort_keys=True).encode(), digest_size=8).hexdigest()
