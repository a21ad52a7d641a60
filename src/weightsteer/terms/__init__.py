"""The structured forms a weight delta is made of.

The delta of one module is a formal sum ``dW = Σ_i c_i T_i`` (`Sum`). The terms T_i are immutable and hold fp32
tensors; the coefficients c_i are Python floats, and the algebra of vectors touches nothing else. So ``v − v``
cancels to nothing (not to rounding), ``(v·2)·½`` is v itself, and no dense matrix is formed unless
``delta()`` is called.

Another form is another subclass of `Term`: it is then saved, loaded, added to the others and applied. A form
that depends on the base weight refers to that of the model it was made on (`BaseWeight`).

Letters: d_out and d_in are the features of the module, W its weight in the base model, x its input, y its output,
r a rank, b the rows of a batch, α the strength.
"""

from weightsteer.terms.base_weight import BaseWeight
from weightsteer.terms.bias import Bias
from weightsteer.terms.dense import Dense
from weightsteer.terms.lowrank import LowRank
from weightsteer.terms.modifiers import per_row
from weightsteer.terms.modules import linear_shape, matrix_shape
from weightsteer.terms.rotated import Butterfly, Rotated
from weightsteer.terms.scaled import ColumnScale, RowScale
from weightsteer.terms.term import InputModifier, Modifier, Term
from weightsteer.terms.total import Sum, gram

__all__ = [
    "BaseWeight",
    "Bias",
    "Butterfly",
    "ColumnScale",
    "Dense",
    "InputModifier",
    "LowRank",
    "Modifier",
    "Rotated",
    "RowScale",
    "Sum",
    "Term",
    "gram",
    "linear_shape",
    "matrix_shape",
    "per_row",
]
