"""What a calibrated strength means: every setting that decides the number, with a hash.

A strength is comparable only with others of the same definition, so its id stands in every row.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal

from weightsteer.evals.neutral import Text

BudgetKind = Literal["kl", "nll"]
Statistic = Literal["p95", "mean"]
Direction = Literal["base_steered", "steered_base"]
Source = Literal["base", "steered"]


@dataclass(frozen=True)
class Definition:
    """The settings of one calibration.

    Attributes:
        kind: ``kl``: KL divergence per token to the base model; ``nll``: rise of the NLL per token of written texts.
        statistic: over all tokens of all prompts, pooled.
        direction: ``base_steered`` is KL(p₀ ‖ p_α), ``steered_base`` KL(p_α ‖ p₀); None for the NLL.
        text: whose continuation is read; None for the NLL, which is read on the texts as they were written.
        tokens: at most so many tokens of continuation; None for the NLL.
        budget: in nats; None for an intervention that has no strength, and is measured instead.
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
        told = [self.kind, self.statistic, "fixed" if self.budget is None else f"{self.budget:g}-nat"]
        if self.kind == "kl":
            told += [f"{self.direction}", f"{self.text}-text", f"{self.tokens}-tokens"]
        return " ".join([*told, self.hash])


def digest(prompts: Sequence[Text]) -> str:
    """blake2b-64 (hex) of what is put to the model, in this order."""
    contents = [[text.item, text.cluster, text.text, list(text.messages)] for text in prompts]
    return hashlib.blake2b(json.dumps(contents, sort_keys=True).encode(), digest_size=8).hexdigest()
