"""A basis: what it promises of its columns, its random twin, its file."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from weightsteer.analysis.basis import Basis, random_columns
from weightsteer.errors import WeightsteerError

NAMES = ["model.layers.10.o_proj", "model.layers.2.o_proj", "model.layers.2.q_proj"]


def drawn(width=12, rank=3, seed=0):
    return random_columns(width, rank, torch.Generator().manual_seed(seed)).float().contiguous()


def basis(**changes):
    shared = drawn()
    vectors = {NAMES[0]: shared, NAMES[1]: shared, NAMES[2]: drawn(8, 2, 1)}
    fields = {"name": "stream", "side": "output", "origin": "drawn for a test", "vectors": vectors}
    return Basis(**{**fields, **changes})


def test_modules_come_in_the_order_of_layers():
    """Heat maps by layer would be shuffled."""
    made = basis()
    assert made.names == ["model.layers.2.o_proj", "model.layers.2.q_proj", "model.layers.10.o_proj"]
    assert [made.rank(name) for name in made.names] == [3, 2, 3]
    assert made.width("model.layers.2.q_proj") == 8


def test_columns_that_are_not_orthonormal_are_refused():
    """B Bᵀ would not be a projection, and shares of energy could exceed 1."""
    for bad in (2 * drawn(), torch.ones(4, 2), torch.full((4, 2), torch.nan), torch.zeros(4, 1)):
        with pytest.raises(WeightsteerError, match=r"stream.*layers\.0\.up.*not orthonormal"):
            basis(vectors={"layers.0.up": bad})
    for bad in (torch.eye(3)[:, :0], torch.eye(3)[:2], torch.ones(3)):
        with pytest.raises(WeightsteerError, match="has shape"):
            basis(vectors={"layers.0.up": bad})
    with pytest.raises(WeightsteerError, match="unknown side 'out'"):
        basis(side="out")
    with pytest.raises(WeightsteerError, match="no module"):
        basis(vectors={})


def test_the_file_gives_the_basis_back_and_stores_shared_columns_once(tmp_path):
    """A stored basis is reused for months: another subspace, side or origin under its name would not be noticed."""
    made = basis(base={"name": "tiny", "hash": "0" * 32}, made_from=frozenset({"b", "a"}))
    path = made.save(tmp_path / "deep" / "basis.safetensors")
    loaded = Basis.load(path)
    assert loaded.digest == made.digest
    for name in ("name", "side", "origin", "base", "made_from", "names"):
        assert getattr(loaded, name) == getattr(made, name)
    assert all(torch.equal(loaded.vectors[name], made.vectors[name]) for name in NAMES)
    assert len(load_file(path)) == 2
    assert path.read_bytes() == loaded.save(tmp_path / "again.safetensors").read_bytes()


def test_the_digest_is_of_side_modules_and_columns():
    """It keys stored results: two different subspaces must never share it, two names for one subspace must."""
    made = basis()
    others = [basis(side="input"), made.keep("o_proj"), made.first(1), made.matched_random(0)]
    assert len({made.digest, *(other.digest for other in others)}) == 5
    assert basis(name="other", origin="elsewhere").digest == made.digest


def test_a_damaged_or_foreign_file_is_refused(tmp_path):
    """With a clear message and not with a wrong subspace."""
    with pytest.raises(WeightsteerError, match="there is no file"):
        Basis.load(tmp_path / "absent.safetensors")
    other = tmp_path / "other.safetensors"
    save_file({"a": torch.zeros(2)}, other)
    with pytest.raises(WeightsteerError, match="no basis"):
        Basis.load(other)
    path = basis().save(tmp_path / "basis.safetensors")
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(WeightsteerError, match="damaged"):
        Basis.load(path)
    made = basis()
    save_file(
        {"0": drawn(seed=5), "1": drawn(8, 2, 1)},
        path,
        {
            "weightsteer-basis": json.dumps(
                {
                    "version": 1,
                    "name": "x",
                    "side": "output",
                    "origin": "",
                    "base": {},
                    "made_from": [],
                    "digest": made.digest,
                    "modules": [names for _, names in made.groups],
                }
            )
        },
    )
    with pytest.raises(WeightsteerError, match="not those that were saved"):
        Basis.load(path)


def test_the_random_twin_matches_ranks_and_sharing():
    """A null with other ranks, or with independent draws where the basis has one, has another spread."""
    made = basis(made_from=frozenset({"a"}))
    twin = made.matched_random(3)
    assert [twin.vectors[name].shape for name in twin.names] == [made.vectors[name].shape for name in made.names]
    assert len(twin.groups) == 2
    assert twin.name == "stream-random"
    assert not twin.made_from
    assert twin.digest == made.matched_random(3).digest != made.matched_random(4).digest


def test_random_subspaces_are_uniform():
    """The expected share of any direction is k/d; a biased draw would move every null."""
    unit = torch.zeros(10, dtype=torch.float64)
    unit[0] = 1.0
    generator = torch.Generator().manual_seed(0)
    shares = torch.stack([(random_columns(10, 3, generator).T @ unit).square().sum() for _ in range(500)])
    # Beta(3/2, 7/2): mean 0.3, standard deviation 0.187; three standard errors
    assert abs(float(shares.mean()) - 0.3) < 3 * 0.187 / 500**0.5


def test_keep_and_first_select_without_changing_the_basis():
    """The order of columns is their importance, so fewer of them must be the leading ones."""
    made = basis()
    assert made.keep("o_proj").names == ["model.layers.2.o_proj", "model.layers.10.o_proj"]
    smaller = made.first(2)
    assert {smaller.rank(name) for name in smaller.names} == {2}
    assert all(torch.equal(smaller.vectors[name], made.vectors[name][:, :2]) for name in made.names)
    assert made.first(99).digest == made.digest
    with pytest.raises(WeightsteerError, match="rank 0"):
        made.first(0)
    with pytest.raises(WeightsteerError, match="no module"):
        made.keep("k_proj")
    with pytest.raises(WeightsteerError, match="unknown module"):
        made.rank("model.layers.3.o_proj")
