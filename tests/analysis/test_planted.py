"""A known answer: a behaviour of rank 2 planted in one module of a tiny model, among deltas that are larger and idle.

The planted delta is ``D = U C`` with U (d, 2) in the stream and C (2, d_in): in the last layer, at the answer
position, ``C x`` is the label of the row, and U points from the unembedding of No to that of Yes. All else in the
vector is noise, in other modules and layers.
"""

from functools import cache

import pytest
import torch
from tiny import tiny

from weightsteer.analysis import plans
from weightsteer.analysis.ablation import measure, table
from weightsteer.analysis.basis import Basis
from weightsteer.analysis.overlap import overlap
from weightsteer.data.evals import Item, user_turn
from weightsteer.data.evals.base import Evaluation
from weightsteer.data.evals.neutral import Text
from weightsteer.experiments.ablation.reading import verdicts
from weightsteer.models import choice_ids, render_chat, weight_hash
from weightsteer.terms import LowRank, Sum
from weightsteer.vector import WeightVector

PLACE = "model.layers.3.mlp.down_proj"
RANK = 2
NOISE = 0.05
COMPONENTS = ("layer 2", "layer 3", "mlp.gate_proj", "mlp.down_proj")
WORDS = "red green old long house river bread winter stone cat".split()  # noqa: SIM905


class Planted(Evaluation):
    name = "planted"

    def rows(self, model):
        return [
            Item(f"row-{i}", f"row-{i // 2}", 1 if i % 2 else -1, user_turn(f"Is the {w} {v} {i}?"))
            for i, (w, v) in enumerate((w, v) for w in WORDS[:4] for v in WORDS[4:])
        ]


def inputs(model, tokenizer, items):
    """What the place reads at the answer of every row, (n, d_in)."""
    seen = []
    handle = model.get_submodule(PLACE).register_forward_pre_hook(lambda _, x: seen.append(x[0][0, -1].double()))
    with torch.no_grad():
        for item in items:
            model(torch.tensor([render_chat(tokenizer, item.messages, answer_prefix=item.answer_prefix)]))
    handle.remove()
    return torch.stack(seen)


@cache
def planted():
    """The model, its tokenizer, the vector, and the basis of what was planted."""
    model, tokenizer = tiny("qwen3")
    items = Planted().items(model)
    x = inputs(model, tokenizer, items)
    labels = torch.tensor([item.label for item in items], dtype=torch.float64)
    C = torch.linalg.lstsq(x, torch.stack([labels, labels], dim=1), driver="gelsd").solution.T
    head = model.get_output_embeddings().weight.double()
    yes, no = (head[choice_ids(tokenizer, word)].mean(0) for word in ("Yes", "No"))
    generator = torch.Generator().manual_seed(0)
    aside = torch.randn(head.shape[1], generator=generator, dtype=torch.float64) * (yes - no).norm() / 20
    U = torch.stack([yes - no + aside, yes - no - aside], dim=1)
    delta = LowRank(U, C / 8)
    terms = {PLACE: Sum(delta.shape, [(1.0, delta)])}
    size = float(delta.delta().norm())
    for name, module in model.named_modules():
        if name.split(".")[-1] in ("gate_proj", "q_proj", "k_proj") and ".0." not in name:
            d_out, d_in = module.weight.shape
            noise = LowRank(
                torch.randn(d_out, 2, generator=generator), torch.randn(2, d_in, generator=generator) / d_in
            )
            scale = NOISE * size / float(noise.delta().norm())
            terms[name] = Sum((d_out, d_in), [(scale, noise)])
    base = {"name": "tiny", "hash": weight_hash(model), "layers": 4}
    v = WeightVector(terms, {"base": base, "behavior": "planted", "adapter": "lora", "seed": 0})
    columns = torch.linalg.qr(U).Q
    return model, tokenizer, v, Basis("planted", "output", "planted", {PLACE: columns})


@cache
def measured():
    model, tokenizer, v, basis = planted()
    given = plans.PlanInput(v, model, lambda name, side, rank: basis, ("planted",), (-1.0, 1.0), (RANK,), draws=5)
    listed = [one for plan in ("layers", "modules", "projection") for one in plans.ablations(plan, given)]
    listed = [
        *plans.whole(given),
        *(one for one in listed if one.family == "projection" or one.component in COMPONENTS),
    ]
    texts = [Text("text", "the river is long and the bread is old")]
    return table(measure(given, listed, tokenizer, [Planted()], texts, [-1, 0, 1]), resamples=300)


def retained(family, component, how, *, matched=False, control=False):
    lines = measured().filter(family=family, component=component, how=how, matched=matched, control=control, alpha=1.0)
    assert lines.height == 1, (family, component, how)
    return lines.row(0, named=True)


def test_the_planted_subspace_is_found_and_a_random_one_is_not():
    """Overlap is the first thing a reader looks at: it must tell the true subspace from any other."""
    _, _, v, basis = planted()
    found = overlap(v, basis).filter(by="all").row(0, named=True)
    random = overlap(v, basis.matched_random(1)).filter(by="all").row(0, named=True)
    assert found["share"] > 0.999
    assert found["z"] > 5
    assert random["share"] < 0.4
    assert abs(random["z"]) < 3


def test_the_effect_is_retained_where_it_was_planted():
    """Layer, module and subspace: alone they do what the whole vector does, and without them little is left."""
    for family, component in (
        ("layers", "layer 3"),
        ("modules", "mlp.down_proj"),
        ("projection", f"planted, output side, rank {RANK}"),
    ):
        kept, dropped = retained(family, component, "keep"), retained(family, component, "drop")
        assert kept["retained"] == pytest.approx(1.0, abs=0.1), component
        assert abs(dropped["retained"]) < 0.1, component
        assert kept["retained_low"] < kept["retained"] < kept["retained_high"]


def test_a_random_subspace_and_other_places_retain_little():
    """A basis that retains as much as the planted one by chance would make every projection a finding."""
    random = retained("projection", f"planted, output side, rank {RANK}", "keep", matched=True, control=True)
    assert random["draws"] == 5
    assert random["retained"] < 0.7
    assert abs(retained("layers", "layer 2", "keep")["retained"]) < 0.1
    assert abs(retained("modules", "mlp.gate_proj", "keep")["retained"]) < 0.1


def test_what_is_said_to_suffice_and_to_be_needed_is_what_was_planted():
    """The words of the report come from these verdicts alone."""
    said = {one.component: one for one in verdicts(measured()) if one.family in ("layers", "modules")}
    assert said["layer 3"].suffices
    assert said["layer 3"].needed
    assert said["mlp.down_proj"].suffices
    assert said["mlp.down_proj"].needed
    others = [one for component, one in said.items() if component not in ("layer 3", "mlp.down_proj")]
    assert others
    assert not any(one.suffices or one.needed for one in others)


def test_every_line_is_about_the_same_rows():
    """Ablations measured on other rows than the whole vector could not be compared with it."""
    lines = measured()
    assert lines["n"].unique().to_list() == [24]
    assert lines["clusters"].unique().to_list() == [12]
