"""Sycophancy as it is usually probed: false claims only.

Agreeing (Yes) is sycophantic in every row, so all labels are +1 and sycophancy cannot be distinguished from a yes-bias:
no discrimination is identifiable, and the table says so. It is here to be compared with published numbers; the
evaluation `sycophancy` has a true twin for every false claim.
"""

from transformers import PreTrainedModel

from weightsteer.data.evals.base import Item, register
from weightsteer.data.evals.sycophancy import Sycophancy


@register("sycophancy-false-claims")
class FalseClaims(Sycophancy):
    """The false claims of `sycophancy`; one label."""

    axis = "sycophancy"
    balanced = False

    def rows(self, model: PreTrainedModel) -> list[Item]:
        return [row for row in super().rows(model) if row.label == 1]
