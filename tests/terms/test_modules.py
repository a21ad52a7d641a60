import torch
from forms import linear
from torch import nn
from transformers.models.llama.modeling_llama import LlamaRMSNorm
from transformers.pytorch_utils import Conv1D

from weightsteer.terms import linear_shape, matrix_shape, per_row
from weightsteer.terms.modifiers import Copies


def test_matrix_shape_is_that_of_the_map_not_of_the_storage():
    """Conv1D stores (in, out); read as a Linear, GPT-2 would be steered by transposed matrices."""
    assert matrix_shape(nn.Linear(3, 5)) == linear_shape(nn.Linear(3, 5)) == (5, 3)
    assert matrix_shape(Conv1D(5, 3)) == linear_shape(Conv1D(5, 3)) == (5, 3)


def test_other_parameters_have_shapes_of_their_own():
    """Full fine-tunes change tables and gains too."""
    assert matrix_shape(nn.Embedding(3, 5)) == (3, 5)
    assert matrix_shape(LlamaRMSNorm(4)) == matrix_shape(nn.LayerNorm(4)) == (4, 1)
    for module in (nn.GELU(), nn.Sequential(nn.Linear(2, 2)), nn.LayerNorm(4, elementwise_affine=False)):
        assert matrix_shape(module) is None
    assert linear_shape(nn.Embedding(3, 5)) is None


def test_quantised_modules_have_the_shape_of_what_they_compute():
    """A 4-bit module stores a packed column; LoRA vectors fit it all the same."""
    packed = nn.Linear(12, 6)
    packed.weight = nn.Parameter(torch.zeros(36, 1, dtype=torch.uint8), requires_grad=False)
    assert matrix_shape(packed) == (6, 12)


def test_strengths_keep_a_dimension():
    """A 0-d tensor is rounded to the dtype of what it multiplies."""
    x = torch.ones(3, 4, 5, dtype=torch.bfloat16)
    assert per_row(torch.tensor(0.3), x).shape == (1, 1, 1)
    assert per_row(torch.ones(3), x).shape == (3, 1, 1)
    assert (x * per_row(torch.tensor(0.3), x)).dtype == torch.float32


def test_copies_are_made_once_for_a_place():
    """A cast of every factor in every forward pass would cost more than the product itself."""
    factor = torch.ones(4, 4)
    copies, cpu = Copies(factor), torch.device("cpu")
    assert copies(torch.float32, cpu)[0] is factor
    half = copies(torch.bfloat16, cpu)[0]
    assert half.dtype == torch.bfloat16
    assert copies(torch.bfloat16, cpu)[0] is half
    copies.prepare(linear(2, 2).double())
    assert copies(torch.float64, cpu)[0] is copies._placed[0]
    wide = Copies(factor, wide=True)
    wide.prepare(linear(2, 2).bfloat16())
    assert wide(torch.float32, cpu)[0] is factor
