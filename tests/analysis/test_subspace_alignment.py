"""The published subspace alignment against a dense singular value decomposition, module by module."""

import pytest
import torch
from contrasts import random_vector
from tiny import tiny

from weightsteer.analysis.subspace_alignment import subspace_alignment
from weightsteer.errors import WeightsteerError


@pytest.mark.parametrize("arch", ["qwen3", "llama"])
def test_the_block_is_that_of_the_leading_directions_on_both_sides(arch):
    """A share of one side alone is ten times as large, and would pass for the published number."""
    model, _ = tiny(arch, layers=2)
    vector = random_vector(model)
    found = {(by, group): line for by, group, *line in subspace_alignment(vector, model).rows()}
    inside, energy = 0.0, 0.0
    for name, total in vector.terms.items():
        W, dW = model.get_submodule(name).weight.double(), total.delta().double()
        U, _, V = torch.linalg.svd(W, full_matrices=False)
        k = max(1, int(0.1 * min(W.shape)))
        block = float((U[:, :k].T @ dW @ V[:k].T).square().sum())
        _, own_k, top, expected, weak, weak_expected = found["module", name]
        assert own_k == k
        assert top == pytest.approx(block / float(dW.square().sum()), rel=1e-6)
        assert expected == pytest.approx(k * k / W.numel())
        inside, energy = inside + block, energy + float(dW.square().sum())
        if name.endswith(("o_proj", "down_proj")):
            last = torch.linalg.svd(model.get_output_embeddings().weight.double()).Vh[-1]
            assert weak == pytest.approx(float((last @ dW).square().sum() / dW.square().sum()), rel=1e-6)
            assert weak_expected == pytest.approx(1 / 32)
        else:
            assert weak is None
    assert found["all", "all"][2] == pytest.approx(inside / energy, rel=1e-6)


def test_a_vector_outside_the_blocks_has_no_alignment():
    """A table without lines would say nothing of why."""
    model, _ = tiny("qwen3", layers=1)
    vector = random_vector(model)
    with pytest.raises(WeightsteerError, match="no module that reads or writes"):
        subspace_alignment(0.0 * vector, model)
