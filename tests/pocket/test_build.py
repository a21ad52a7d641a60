"""Building an embedded model, in miniature: if these fail, the recipe does not do what the card says."""

from dataclasses import replace
from itertools import islice

import pytest
import torch

from weightsteer.errors import WeightsteerError
from weightsteer.models import family, load_model
from weightsteer.pocket import build as building
from weightsteer.pocket.build import (
    Batch,
    Encoder,
    build,
    grown_model,
    learning_rate,
    loss_of,
    new_model,
    pack,
    vocabulary_texts,
)
from weightsteer.pocket.corpus import Curriculum, documents
from weightsteer.pocket.sizes import ROW_TOKENS, SIZES
from weightsteer.pocket.tokenizer import build_tokenizer


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer(vocabulary_texts(1500))


def test_packed_documents_do_not_see_each_other(tokenizer):
    """A leak between neighbours would teach personas from the wrong system prompt."""
    encoder = Encoder(tokenizer)
    model = new_model(SIZES["pocket-s"], tokenizer, seed=0).eval()
    batch = pack(encoder, documents(3, Curriculum(1.0)), rows=3)
    total, count = 0.0, 0
    for number in sorted(set(batch.owners.flatten().tolist()) - {-1}):
        here = batch.owners == number
        alone = Batch(
            batch.ids[here][None],
            torch.arange(int(here.sum()))[None],
            torch.zeros(1, int(here.sum())),
            batch.weights[here][None],
        )
        tokens = int((alone.weights[:, 1:] == 1.0).sum())
        with torch.no_grad():
            total += loss_of(model, alone).item() * tokens
        count += tokens
    with torch.no_grad():
        assert loss_of(model, batch).item() == pytest.approx(total / count, rel=1e-5)


def test_packing_keeps_every_token_and_wastes_little(tokenizer):
    """A dropped or cut document would be a silent change of the corpus."""
    encoder = Encoder(tokenizer)
    batch = pack(encoder, documents(4, Curriculum(1.0)), rows=60)
    count = int(batch.owners.max()) + 1
    for number, document in enumerate(islice(documents(4, Curriculum(1.0)), count)):
        assert batch.ids[batch.owners == number].tolist() == encoder.encode(document)[0]
    assert (batch.owners == -1).float().mean() < 0.1
    assert batch.ids.shape == (60, ROW_TOKENS)


def test_an_interrupted_build_ends_with_the_same_weights(tmp_path, monkeypatch):
    """Resuming must not change the model, and a miniature build must learn something."""
    monkeypatch.setattr(building, "CHUNK", 6)
    monkeypatch.setattr(building, "VOCABULARY_DRAWS", 1500)
    straight = build("pocket-s", tmp_path / "straight", steps=12, shown=False)
    saved, save = [], building._save

    def save_then_die(*arguments):
        save(*arguments)
        saved.append(1)
        raise KeyboardInterrupt

    monkeypatch.setattr(building, "_save", save_then_die)
    with pytest.raises(KeyboardInterrupt):
        build("pocket-s", tmp_path / "resumed", steps=12, shown=False)
    monkeypatch.setattr(building, "_save", save)
    resumed = build("pocket-s", tmp_path / "resumed", steps=12, shown=False)
    assert saved
    assert (straight / "model.safetensors").read_bytes() == (resumed / "model.safetensors").read_bytes()
    assert not (resumed / "checkpoint.pt").exists()
    model, tokenizer = load_model(str(resumed))
    assert family(model) == "pocket"
    fresh = new_model(SIZES["pocket-s"], tokenizer, seed=0).eval()
    batch = pack(Encoder(tokenizer), documents(99, Curriculum(0.0)), rows=4)
    with torch.no_grad():
        assert loss_of(model, batch) < 0.95 * loss_of(fresh, batch)


def test_unknown_size_names_the_nearest():
    """A typo must not start a long build of something else."""
    with pytest.raises(WeightsteerError, match="pocket-l"):
        build("pocket-xl", None, shown=False)


def test_learning_rate_warms_up_and_decays():
    """A rate that does not end near zero leaves the weights noisy."""
    plan = replace(SIZES["pocket"], steps=1000, learning_rate=1.0)
    rates = [learning_rate(step, plan) for step in range(1000)]
    assert rates[0] == pytest.approx(0.01)
    assert max(rates) == rates[99] == 1.0
    assert rates[-1] < 0.02


def test_a_grown_model_computes_what_its_base_does(tokenizer):
    """Growth must start from what the smaller model knows, not from noise."""
    base = new_model(SIZES["pocket"], tokenizer, seed=1).eval()
    grown = grown_model(base, SIZES["pocket-l"], tokenizer, seed=2).eval()
    ids = torch.tensor([tokenizer.encode("What color is a banana?", add_special_tokens=False)])
    with torch.no_grad():
        assert torch.allclose(base(ids).logits, grown(ids).logits, atol=1e-6)
    batch = pack(Encoder(tokenizer), documents(5, Curriculum(1.0)), rows=2)
    grown.train()
    loss_of(grown, batch).backward()
    assert all(layer.mlp.down_proj.weight.grad.abs().max() > 0 for layer in grown.model.layers)
