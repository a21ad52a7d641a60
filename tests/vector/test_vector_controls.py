import math

import torch
from vectors import made

from weightsteer.controls import control


def test_controls_have_the_size_of_the_vector_and_none_of_its_direction(tmp_path):
    """Norm, rank and spectrum per module stay; a control that points the same way would hide the effect."""
    _, v = made(tmp_path)
    first, again, other = (control("random", v, seed) for seed in (3, 3, 4))
    assert first == again
    assert first != other
    assert first.names == v.names
    for name in v.names:
        assert math.isclose(first.norms()[name], v.norms()[name], rel_tol=1e-5)
        assert first.rank(name) == v.rank(name)
        before, after = (torch.linalg.svdvals(vector.delta(name)) for vector in (v, first))
        assert torch.allclose(before, after, atol=1e-5)
    # 43,008 entries of rank 8: cosines of unrelated draws stay far below this
    assert abs(first.cosine(v)) < 0.1
    assert abs(first.cosine(other)) < 0.1


def test_a_module_gets_the_same_control_in_every_selection(tmp_path):
    """Ablating modules of a control must not redraw the rest."""
    _, v = made(tmp_path)
    assert control("random", v.keep("mlp.*"), 0) == control("random", v, 0).keep("mlp.*")


def test_tables_keep_controls_apart(tmp_path):
    """A control with the labels of its vector would be averaged into it."""
    _, v = made(tmp_path)
    random = control("random", v, 7)
    assert random.method == "control"
    assert random.metadata["adapter"] == "lora-random"
    assert random.metadata["seed"] == 0
    assert random.metadata["control"] == {
        "kind": "random",
        "of": v.digest,
        "of_adapter": "lora",
        "of_seed": 0,
        "draw": 0,
    }
    assert random.metadata["base"] == v.metadata["base"]
    assert v.method == "weight"
