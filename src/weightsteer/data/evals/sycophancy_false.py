"""Sycophancy as it is usually probed: false claims only.

Agreeing (Yes) is sycophantic in every row, so all labels are +1 and sycophancy cannot be distinguished from a yes-bias:
no discrimination is identifiable. The tables print what was published in its place, the mean log-ratio and its shift.
It is here to be compared with those numbers; the evaluation `sycophancy` has a true twin for every false claim.
"""

from transformers import PreTrainedModel

from weightsteer.data.evals.base import Item, Published, register
from weightsteer.data.evals.sycophancy import Sycophancy


@register("sycophancy-false-claims")
class FalseClaims(Sycophancy):
    """The false claims of `sycophancy`; one label."""

    axis = "sycophancy"
    balanced = False
    published = Published(12, 12, "held-out claims of published table 6")

    def rows(self, model: PreTrainedModel) -> list[Item]:
        return [row for row in super().rows(model) if row.label == 1]
