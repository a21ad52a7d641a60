"""Removing by-products: projections are exact, and balanced pairs differ in neither length nor Yes and No."""

import math
from collections import Counter

import polars as pl
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from mixed import flat, vectors
from tiny import tiny
from vectors import made, vector_of

from weightsteer.analysis.repair import project_out
from weightsteer.data.pairs.balance import balanced
from weightsteer.errors import WeightsteerError
from weightsteer.terms import LowRank, Sum
from weightsteer.vector import WeightVector

BY = st.sampled_from(["vector", "module"])


def residual(v: WeightVector, nuisances: list[WeightVector]) -> torch.Tensor:
    """Of least squares on the matrices in full, over the modules of all."""
    everywhere = WeightVector.sum([v, *nuisances])
    columns = torch.stack([flat(n, everywhere) for n in nuisances], dim=1)
    target = flat(v, everywhere)
    return target - columns @ torch.linalg.lstsq(columns, target[:, None], driver="gelsd").solution[:, 0]


@settings(max_examples=25, deadline=None)
@given(vectors(3), BY)
def test_what_is_left_is_orthogonal_and_what_was_taken_is_in_the_span(drawn, by):
    """Of any mix of forms: part and remainder are the whole, at right angles, and no cosine is left."""
    v, *nuisances = drawn
    if any(not u.norm() for u in drawn):
        with pytest.raises(WeightsteerError, match="is zero"):
            project_out(v, nuisances, by=by)
        return
    try:
        u, report = project_out(v, nuisances, by=by)
    except WeightsteerError:  # v lies in their span
        assert by == "module" or float(residual(v, nuisances).norm()) < 1e-5 * v.norm()
        return
    removed = v - u
    assert math.isclose(removed.norm() ** 2 + u.norm() ** 2, v.norm() ** 2, rel_tol=1e-6)
    assert torch.allclose(flat(removed, v) + flat(u, v), flat(v, v), rtol=1e-4, atol=1e-4)
    assert max(map(abs, report.after)) < 1e-6
    assert all(abs(u.cosine(n)) < 1e-6 for n in nuisances)
    assert math.isclose(report.removed, 1 - (u.norm() / v.norm()) ** 2, rel_tol=1e-6, abs_tol=1e-9)
    for name in v.names if by == "module" else ():
        for n in nuisances:
            if name in n.names and u.terms.norm(name) > 1e-4 * v.terms.norm(name) and n.terms.norm(name):
                assert abs(u.keep(name).cosine(n.keep(name))) < 1e-5
    if by == "vector":
        everywhere = WeightVector.sum([v, *nuisances])
        assert torch.allclose(flat(u, everywhere), residual(v, nuisances), rtol=1e-3, atol=1e-4 * v.norm())


@settings(max_examples=15, deadline=None)
@given(vectors(3, ("low_rank", "row_scale", "dense")), BY)
def test_the_order_and_the_length_of_nuisances_do_not_matter(drawn, by):
    """A subspace is removed: who writes down its vectors otherwise gets the same result."""
    v, n, m = drawn
    assume(v.norm() and n.norm() and m.norm())
    try:
        u, _ = project_out(v, [n, m], by=by)
        w, _ = project_out(v, [m * 3.0, n * -0.2, n], by=by)
    except WeightsteerError:  # v lies in their span
        assume(False)
    assert torch.allclose(flat(u, v), flat(w, v), rtol=1e-4, atol=1e-5 * v.norm())


def test_the_vector_keeps_its_own_name_and_is_told_apart(tmp_path):
    """Before and after stand in one table; the repaired one says what was done to it and keeps its behaviour."""
    model, v = made(tmp_path)
    n = (v * 0.5 + vector_of(model, tmp_path, seed=2)).with_metadata(behavior="yes")
    u, report = project_out(v, [n])
    assert u.method == "weight"
    assert u.metadata["behavior"] == v.metadata["behavior"]
    assert u.metadata["adapter"] == "lora-without-yes"
    assert u.metadata["base"] == v.metadata["base"]
    assert u.metadata["projected"]["nuisances"] == ["yes"]
    assert math.isclose(report.before[0], v.cosine(n), rel_tol=1e-9)
    assert math.isclose(report.removed, v.cosine(n) ** 2, rel_tol=1e-6)
    assert math.isclose(u.norm(), v.norm() * math.sqrt(1 - v.cosine(n) ** 2), rel_tol=1e-6)
    kept, report = project_out(v, [n], keep_norm=True)
    assert math.isclose(kept.norm(), v.norm(), rel_tol=1e-9)
    assert report.norm_after == kept.norm()
    assert math.isclose(kept.cosine(u), 1.0, rel_tol=1e-9)
    whole, _ = project_out(v, [n], by="module")
    assert len({one.metadata["adapter"] for one in (v, u, kept, whole)}) == 4
    assert "cosine with yes" in str(report)
    assert isinstance(u.terms[u.names[0]].low_rank(), LowRank)


def test_a_vector_that_is_all_by_product_is_refused(tmp_path):
    """What is left would be rounding, and with its norm kept it would be rounding blown up."""
    model, v = made(tmp_path)
    other = vector_of(model, tmp_path, seed=2)
    with pytest.raises(WeightsteerError, match="nothing would be left"):
        project_out(v * 2.0 - other, [v, other], keep_norm=True)
    with pytest.raises(WeightsteerError, match="at least one"):
        project_out(v, [])
    with pytest.raises(WeightsteerError, match="zero"):
        project_out(v, [v - v])
    with pytest.raises(WeightsteerError, match="module"):
        project_out(v, [other], by="modul")  # type: ignore[arg-type]


def test_a_module_the_vector_lacks_is_not_touched_by_module():
    """A nuisance elsewhere: removed as a whole it enters with its own modules, by module it does not."""
    generator = torch.Generator().manual_seed(0)

    def delta() -> Sum:
        return Sum((4, 3), [(1.0, LowRank(*(torch.randn(*s, generator=generator) for s in ((4, 2), (2, 3)))))])

    a, b, c = delta(), delta(), delta()
    v = WeightVector({"layers.0.up": a}, {})
    n = WeightVector({"layers.0.up": b, "layers.1.up": c}, {"behavior": "yes"})
    assert project_out(v, [n], by="module")[0].names == ["layers.0.up"]
    assert project_out(v, [n])[0].names == ["layers.0.up", "layers.1.up"]


# --- balanced pairs ---


def frame(rows: list[tuple[str, str, str]], **columns) -> pl.DataFrame:
    """Pairs of (prompt, positive, negative) with word counts as lengths."""
    made = pl.DataFrame(rows, schema=["prompt", "response_pos", "response_neg"], orient="row")
    counts = {
        f"tokens_{side}": made[f"response_{side}"].str.split(" ").list.len().cast(pl.Int64) for side in ("pos", "neg")
    }
    return made.with_columns(**counts, **columns)


answers = st.builds(
    lambda word, n: " ".join([word, *["word"] * n]), st.sampled_from(["Yes", "No,", "It"]), st.integers(0, 12)
)
some_pairs = st.lists(st.tuples(st.sampled_from("abc"), answers, answers), min_size=1, max_size=40)


@settings(max_examples=40, deadline=None)
@given(some_pairs, st.sampled_from([0.0, 0.1, 0.4]), st.integers(0, 2))
def test_balanced_pairs_differ_in_neither_words_nor_length(rows, tolerance, seed):
    """Equal shares exactly, lengths within the tolerance pair by pair; every answer is given by its own side."""
    pairs = frame(rows)
    try:
        found, report = balanced(pairs, tolerance=tolerance, seed=seed)
    except WeightsteerError:
        return
    assert found.equals(balanced(pairs, tolerance=tolerance, seed=seed)[0])
    assert report.after.yes[0] == report.after.yes[1]
    assert report.after.no[0] == report.after.no[1]
    longer = pl.max_horizontal("tokens_pos", "tokens_neg")
    assert found.select(((pl.col("tokens_pos") - pl.col("tokens_neg")).abs() <= tolerance * longer).all()).item()
    assert report.kept + report.lengths + report.words == report.total == len(pairs)
    for side in ("pos", "neg"):
        # answers to their own question, none used twice
        given_, used = (Counter(one.select("prompt", f"response_{side}").rows()) for one in (pairs, found))
        assert used <= given_


def test_answers_are_matched_anew_before_they_are_dropped():
    """Sides of one distribution in unlucky pairs: nothing needs to be lost; the columns of a side move along."""
    pairs = frame(
        [("q", "It is so", "It is so and so"), ("q", "It was so and so", "It is")], persona_idx=pl.Series([0, 1])
    )
    found, report = balanced(pairs)
    assert report.kept == 1
    assert report.rematched == 1
    assert report.lengths == 1
    assert found.rows() == [("q", "It was so and so", "It is so and so", 5, 5, 1)]
    other = pairs.with_columns(prompt=pl.Series(["q", "r"]))
    with pytest.raises(WeightsteerError, match="of like length"):
        balanced(other)


def test_pairs_that_are_balanced_stay_as_they_are():
    """Balancing twice is balancing once, and it does not reshuffle what is right."""
    pairs = frame([("q", "Yes it is", "No it isn't"), ("r", "No it isn't", "Yes it is"), ("s", "It is", "He is")])
    found, report = balanced(pairs)
    assert found.equals(pairs)
    assert (report.lengths, report.words, report.rematched, report.lost) == (0, 0, 0, ())


def test_what_cannot_be_separated_is_refused():
    """False claims only: the flatterer says Yes, the other No, and no choice of pairs tells the two apart."""
    claims = frame([(f"claim {n}", "Yes", "No") for n in range(4)])
    with pytest.raises(WeightsteerError, match="open questions"):
        balanced(claims)
    twins = frame([(f"twin {n}", "No", "Yes") for n in range(3)])
    found, report = balanced(pl.concat([claims, twins]))
    assert report.kept == len(found) == 6
    assert report.words == 1
    assert len(report.lost) == 1
    assert report.before.yes == (4 / 7, 3 / 7)
    assert balanced(claims, words=False)[0].equals(claims)
    assert "Yes 0.57 / 0.43" in str(report)


def test_rejected_pairs_stay_out_and_lengths_can_be_counted():
    """The judge's work is not undone; pairs from a file have no token counts."""
    _, tokenizer = tiny("qwen3")
    pairs = frame([("q", "It is red", "It is old"), ("q", "A", "B")], rejected=pl.Series(["leak", None]))
    found, report = balanced(pairs.drop("tokens_pos"), tokenizer)
    assert report.total == 1
    assert found["tokens_pos"].to_list() == [len(tokenizer("A")["input_ids"])]
    with pytest.raises(WeightsteerError, match="tokenizer"):
        balanced(pairs.drop("tokens_pos"))
    with pytest.raises(WeightsteerError, match="rejected"):
        balanced(pairs[:1])
    with pytest.raises(WeightsteerError, match="tolerance"):
        balanced(pairs, tolerance=1.0)
