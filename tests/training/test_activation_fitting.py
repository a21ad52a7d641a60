"""From pairs to a vector: the split, the length, the increments, the chosen layer, and a direction that is known."""

import polars as pl
import pytest
import torch
from captured import QUESTIONS, hidden_states, pairs, passing
from tiny import tiny
from torch import Tensor
from vectors import batch

import weightsteer as ws
from weightsteer.activation import ActivationVector
from weightsteer.activation.methods import names
from weightsteer.data.pairs import generate
from weightsteer.errors import WeightsteerError
from weightsteer.models import decoder_layers
from weightsteer.training import activation as fitting
from weightsteer.training.activation import capture_pairs, fit_activation
from weightsteer.training.layer_choice import choose_layer


def planted(model, tokenizer) -> Tensor:
    """Make the embeddings of Yes and No differ along one axis; with blocks that add nothing that is the truth."""
    axis = torch.nn.functional.normalize(torch.randn(32, generator=torch.Generator().manual_seed(3)), dim=0)
    weight = model.get_input_embeddings().weight
    yes, no = (tokenizer(word, add_special_tokens=False)["input_ids"] for word in ("Yes", "No"))
    with torch.no_grad():
        weight[no] = weight[yes] - 2 * axis
    return axis


def test_from_pairs_is_the_difference_of_means() -> None:
    """The whole way from a frame to a direction, against the model's own hidden states token by token."""
    model, tokenizer = tiny("llama")
    v = fit_activation(model, tokenizer, pairs(), layers=2, scale="raw", shown=False)
    sides = []
    rows = capture_pairs(model, tokenizer, pairs(), [2], shown=False).pairs
    for side in (rows.positive, rows.negative):
        states = [hidden_states(model, torch.tensor([row.ids]))[3][0, row.start : -1].mean(0) for row in side]
        sides.append(torch.stack(states).mean(0))
    torch.testing.assert_close(v.directions["model.layers.2"], sides[0] - sides[1], atol=1e-4, rtol=1e-4)
    metadata = v.metadata
    assert (metadata["behavior"], metadata["adapter"], v.method) == ("honesty", "diffmean", "activation")
    assert (metadata["fit"]["pairs"], metadata["fit"]["held_out"], metadata["base"]["name"]) == (10, 0, "tiny-llama")


@pytest.mark.parametrize("method", ["diffmean", "pca", "probe"])
def test_a_planted_direction_is_recovered_and_steers(method: str) -> None:
    """Where the answer is known, every method that claims to find it does, and its sign is the right one."""
    model, tokenizer = passing()
    axis = planted(model, tokenizer)
    frame = pairs([("Yes", "No")])
    v = fit_activation(model, tokenizer, frame, method=method, layers=1, scale="unit", shown=False)
    assert float(v.directions["model.layers.1"] @ axis) > 0.99
    yes, no = (tokenizer(word, add_special_tokens=False)["input_ids"] for word in ("Yes", "No"))
    ids = batch()
    with torch.no_grad(), ws.steer(model, v, torch.tensor([-3.0, 0.0, 1.0, 3.0])):
        out = model(input_ids=ids[:1].repeat(4, 1)).logits[:, -1]
    shift = (out[:, yes] - out[:, no]).squeeze(1)
    assert shift.diff().gt(0).all()


def test_lengths() -> None:
    """α counts residual norms, or activations, or unit steps: a factor off is another experiment."""
    model, tokenizer = tiny("qwen3")
    made = {
        scale: fit_activation(model, tokenizer, pairs(), layers=[1, 3], scale=scale, shown=False).norms()
        for scale in ("residual", "raw", "unit")
    }
    rows = capture_pairs(model, tokenizer, pairs(), [1, 3], shown=False).pairs
    for name, layer in (("model.layers.1", 1), ("model.layers.3", 3)):
        seen = []

        def read(module, args, output, row_norms=seen):
            row_norms.append((output[0] if isinstance(output, tuple) else output)[0].norm(dim=-1))

        handle = decoder_layers(model)[1][layer].register_forward_hook(read)
        with torch.no_grad():
            for row in (*rows.positive, *rows.negative):
                model(input_ids=torch.tensor([row.ids]))
        handle.remove()
        means = [
            norms[row.start : -1].mean() for norms, row in zip(seen, (*rows.positive, *rows.negative), strict=True)
        ]
        assert made["residual"][name] == pytest.approx(float(torch.stack(means).mean()), rel=1e-4)
        assert made["unit"][name] == pytest.approx(1.0)
        assert made["raw"][name] not in (pytest.approx(1.0), pytest.approx(made["residual"][name]))


def test_increments_reproduce_the_shift_of_each_depth() -> None:
    """Additions pile up in the residual stream: without increments the last layers get the sum of all below."""
    model, tokenizer = passing()
    whole = fit_activation(model, tokenizer, pairs(), layers="all", shown=False)
    parts = fit_activation(model, tokenizer, pairs(), layers="all", incremental=True, shown=False)
    ids = batch()
    before = hidden_states(model, ids)
    with ws.steer(model, parts, 0.5):
        after = hidden_states(model, ids)
    for layer, direction in enumerate(whole.directions.values()):
        if layer < 3:  # the model's own record of the last layer is normalised
            expected = before[layer + 1] + 0.5 * direction
            torch.testing.assert_close(after[layer + 1], expected, atol=1e-4, rtol=1e-4)
    running = torch.stack(list(parts.directions.values())).double().cumsum(0)
    torch.testing.assert_close(running.float(), torch.stack(list(whole.directions.values())), atol=1e-5, rtol=1e-5)
    gaps = fit_activation(model, tokenizer, pairs(), layers=[0, 2], incremental=True, shown=False)
    added = gaps.directions["model.layers.0"] + gaps.directions["model.layers.2"]
    torch.testing.assert_close(added, whole.directions["model.layers.2"], atol=1e-5, rtol=1e-5)


def test_repe_as_published_brings_its_settings() -> None:
    """The published baseline would be fitted like ours: at one chosen layer, on answers, with α in residual norms."""
    model, tokenizer = tiny("qwen3", layers=10)
    v = fit_activation(model, tokenizer, pairs(), method="repe-published", shown=False)
    assert v.layers == [3, 4, 5, 6, 7]
    assert list(v.norms().values()) == pytest.approx([1.0] * 5, abs=1e-5)
    fit = v.metadata["fit"]
    assert (fit["at"], fit["scale"], fit["held_out"]) == ("prompt", "unit", 0)
    same = fit_activation(
        model, tokenizer, pairs(), method="repe-centered", layers=v.layers, at="prompt", scale="unit", shown=False
    )
    assert v == same
    bare = fit_activation(model, tokenizer, pairs(), method="repe-published", personas=False, layers=4, shown=False)
    assert (bare.layers, bare.metadata["fit"]["at"]) == ([4], "last")


def test_the_best_layer_wins_and_scores_are_odd() -> None:
    """A candidate that pushes the wrong way must lose to one that does nothing, and both to the right one."""
    model, tokenizer = passing()
    axis = planted(model, tokenizer)
    frame = pairs([("Yes", "No")])

    def at(layer: int, direction: Tensor) -> ActivationVector:
        return ActivationVector({f"model.layers.{layer}": direction}, {})

    other = torch.linalg.svd(axis[None]).Vh[1]
    candidates = {0: at(0, -axis), 1: at(1, 0 * other), 2: at(2, axis), 3: at(3, 0.5 * axis)}
    choice = choose_layer(model, tokenizer, candidates, frame, alpha=0.3, shown=False)
    assert choice.layer == 2
    assert choice.scores[1] == 0.0
    assert choice.scores[2] > choice.scores[3] > 0.0
    assert choice.scores[0] == pytest.approx(-choice.scores[2], abs=1e-5)


def test_layers_are_chosen_on_held_out_questions_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """A layer chosen on what the vector was fitted to is chosen for its memory; the split is whole questions."""
    model, tokenizer = tiny("qwen3")
    seen: dict[str, list[set[str]]] = {"fitted": [], "chosen": []}
    capturing, choosing = fitting.capture_pairs, fitting.choose_layer

    def spied_capture(model, tokenizer, frame, *args, **options):
        seen["fitted"].append(set(frame["prompt"]))
        return capturing(model, tokenizer, frame, *args, **options)

    def spied_choice(model, tokenizer, candidates, frame, **options):
        seen["chosen"].append(set(frame["prompt"]))
        return choosing(model, tokenizer, candidates, frame, **options)

    monkeypatch.setattr(fitting, "capture_pairs", spied_capture)
    monkeypatch.setattr(fitting, "choose_layer", spied_choice)
    v = fit_activation(model, tokenizer, pairs(), validation=0.4, shown=False)
    assert len(v.layers) == 1
    (fitted,), (chosen,) = seen.values()
    assert fitted | chosen == set(QUESTIONS)
    assert not fitted & chosen
    assert len(chosen) == 2
    scores = v.metadata["fit"]["choice"]["scores"]
    assert max(scores, key=scores.__getitem__) == str(v.layers[0])
    assert fit_activation(model, tokenizer, pairs(), validation=0.4, shown=False) == v


def test_split_follows_the_seed_and_keeps_questions_together() -> None:
    """Samples of one question on both sides would make every choice look good."""
    train, held = fitting.split(pairs(), 0.2, seed=0)
    assert len(train) + len(held) == 10
    assert len(held) == 2
    assert not set(train["prompt"]) & set(held["prompt"])
    shuffled = pairs().sample(fraction=1.0, shuffle=True, seed=1)
    assert set(fitting.split(shuffled, 0.2, seed=0)[1]["prompt"]) == set(held["prompt"])
    assert len({fitting.split(pairs(), 0.2, seed=seed)[1]["prompt"][0] for seed in range(8)}) > 1


@pytest.mark.parametrize("method", names())
def test_every_method_fits(method: str) -> None:
    """All methods go through the same door and name themselves in the tables."""
    model, tokenizer = tiny("gemma")
    answers = [("Yes", "No"), ("the truth", "stones and bread"), ("Yes, yes", "winter")]
    v = fit_activation(model, tokenizer, pairs(answers), method=method, layers=[0, 2], at="last", shown=False)
    assert v.metadata["adapter"] == method
    assert v.layers == [0, 2]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"method": "diffmeen"}, "did you mean 'diffmean'"),
        ({"scale": "big"}, "unknown scale 'big'"),
        ({"layers": "best"}, "unknown choice of layers 'best'"),
        ({"layers": 9}, "layers of this model are 0 to 3"),
        ({"layers": [1], "incremental": True}, "several layers"),
        ({"incremental": True}, "several layers"),
        ({"validation": 1.0}, "between 0 and 1"),
        ({"pairs": pairs().drop("prompt")}, "lack the columns prompt;"),
        ({"pairs": pairs().filter(pl.col("prompt") == QUESTIONS[0])}, "single question"),
        ({"pairs": pairs([("Yes", "Yes")]), "layers": 1, "personas": False}, "finds no direction at layer 1"),
    ],
)
def test_mistakes(options: dict, says: str) -> None:
    """Each mistake is told with the next step, before hours are spent on a large model."""
    model, tokenizer = tiny("qwen3")
    with pytest.raises(WeightsteerError, match=says):
        fit_activation(model, tokenizer, options.pop("pairs", pairs()), shown=False, **options)


def test_honesty_of_the_embedded_model() -> None:
    """The claim itself, where the truth is known: from open factual questions to dilemmas, both ways, without bias."""
    model, tokenizer = ws.load_model("pocket")
    behavior = ws.Behavior.load("honesty").for_model(model)
    frame = generate(model, tokenizer, behavior, samples=1, shown=False)
    v = fit_activation(model, tokenizer, frame, shown=False)
    dilemmas = ws.evals.load("dilemmas", limit=100)
    table = ws.summarize(ws.sweep(model, tokenizer, v, dilemmas, [-0.5, 0.5], shown=False), resamples=100)
    effects = dict(zip(table["alpha"], table["discrimination"], strict=True))
    assert effects[0.5] > 0.7
    assert effects[-0.5] < -0.3
    assert table["bias"].abs().max() < 0.4
    assert table["pmass"].min() > 0.95
