"""The sweep engine: an intervention at many strengths over the rows of an evaluation, α as a batch dimension.

A row is rendered once. Rows that begin alike are packed into one sequence in which the common beginning is
once (`weightsteer.inference.prefixes`). Hidden states below the first steered layer do not depend on α, so they are
computed once and then repeated for the K strengths; above, one forward pass carries every (row, α) pair, each
with its own α; the last layer and the output embedding work at the answer positions alone
(`weightsteer.inference.answers`). Rows are sorted by length and filled to a token budget, and the unsteered model
is computed once for all interventions (`weightsteer.measure.sweeping`).

The result equals the plain way (merge W + α·dW in fp32, one full forward per row and α) up to rounding.
"""

from weightsteer.measure.rows import SCHEMA
from weightsteer.measure.sweeping import sweep

__all__ = ["SCHEMA", "sweep"]
