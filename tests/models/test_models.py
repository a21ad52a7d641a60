"""Loading, naming, hashing, rendering and choice tokens."""

import hashlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from tiny import tiny, tiny_tokenizer
from torch import nn

from weightsteer.errors import WeightsteerError
from weightsteer.models import (
    choice_ids,
    decoder_layers,
    family,
    layer_index,
    load_model,
    model_name,
    render_chat,
    weight_hash,
)

USER = [{"role": "user", "content": "Is it so?"}]
SYSTEM = [{"role": "system", "content": " Be kind. "}, *USER]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A saved tiny model with its tokenizer."""
    model, tokenizer = tiny("qwen3", layers=2)
    model.save_pretrained(tmp_path / "mine")
    tokenizer.save_pretrained(tmp_path / "mine")
    return tmp_path / "mine"


def test_a_folder_loads_ready_for_inference(folder: Path) -> None:
    """Dropout would make scores random, and gradients would double the memory."""
    model, tokenizer = load_model(str(folder), device="cpu")
    assert not model.training
    assert not any(p.requires_grad for p in model.parameters())
    assert model.dtype == torch.float32
    assert model_name(model) == "mine"
    assert family(model) == "general"
    assert weight_hash(model) == weight_hash(tiny("qwen3", layers=2)[0])
    assert render_chat(tokenizer, USER) == render_chat(tiny_tokenizer("qwen3"), USER)
    assert load_model(str(folder), device="cpu", dtype="bfloat16")[0].dtype == torch.bfloat16


def test_an_embedded_model_is_its_own_family(folder: Path) -> None:
    """Behaviours and rows of the wrong world would be put to it."""
    model, _ = load_model(str(folder), device="cpu")
    model.config.weightsteer_pocket = "pocket"
    model.save_pretrained(folder)
    assert family(load_model(str(folder), device="cpu")[0]) == "pocket"


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("poket", "did you mean 'pocket'"),
        ("pocket_l", "did you mean 'pocket-l'"),
        ("./nothing/here", "existing folder"),
        ("some-owner/some-model", "local cache"),
    ],
)
def test_an_unknown_model_says_what_to_do(name: str, told: str) -> None:
    """A typo would end in a long network error."""
    with pytest.raises(WeightsteerError, match=told):
        load_model(name)


def test_a_tokenizer_without_chat_template_is_refused_at_load(folder: Path) -> None:
    """It would fail in the middle of a run, after the pairs were generated."""
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(WeightsteerError, match="no chat template"):
        load_model(str(folder))
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = None
    with pytest.raises(WeightsteerError, match="no chat template"):
        render_chat(tokenizer, USER)


def test_damaged_files_are_an_error_in_words(folder: Path) -> None:
    """An interrupted download would end in a traceback."""
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(WeightsteerError, match="cannot load the model"):
        load_model(str(folder), device="cpu")
    (folder / "config.json").write_text("{")
    with pytest.raises(WeightsteerError, match="cannot load the model"):
        load_model(str(folder), device="cpu")


def test_an_unknown_device_is_refused(folder: Path) -> None:
    """PyTorch would raise an assertion error after the weights were read."""
    with pytest.raises(WeightsteerError, match="unknown device 'gpu'"):
        load_model(str(folder), device="gpu")
    if not torch.cuda.is_available():
        with pytest.raises(WeightsteerError, match="no usable CUDA GPU"):
            load_model(str(folder), device="cuda:0")


def test_an_unknown_dtype_is_refused(folder: Path) -> None:
    """PyTorch would raise an attribute error."""
    with pytest.raises(WeightsteerError, match="did you mean 'bfloat16'"):
        load_model(str(folder), dtype="bfloat")


def test_weight_hash_is_what_it_says() -> None:
    """Vectors would be refused on their own base, or accepted on another."""
    model, _ = tiny("qwen3", layers=1)
    outer = hashlib.blake2b(digest_size=16)
    for name, parameter in sorted(model.named_parameters()):
        inner = hashlib.blake2b(f"{name}\0{tuple(parameter.shape)}\0".encode(), digest_size=16)
        inner.update(parameter.detach().numpy().astype("<f4").tobytes())
        outer.update(inner.digest())
    assert weight_hash(model) == outer.hexdigest()
    with torch.no_grad():
        model.model.layers[0].mlp.up_proj.weight[3, 5] += np.float32(1e-6)
    assert weight_hash(model) != outer.hexdigest()


def test_weight_hash_ignores_load_dtype_and_adapters() -> None:
    """A bf16 checkpoint loaded in fp32, or with an adapter attached, would look like another base."""
    model, _ = tiny("qwen3", layers=1)
    half = tiny("qwen3", layers=1)[0].to(torch.bfloat16)
    expected = weight_hash(half)
    assert weight_hash(half.to(torch.float32)) == expected
    plain = weight_hash(model)
    config = LoraConfig(r=2, target_modules=["q_proj", "up_proj"], modules_to_save=["lm_head"])
    adapted = get_peft_model(model, config)
    assert weight_hash(adapted) == plain


def test_decoder_layers_are_found_or_refused() -> None:
    """Layers would be counted in the wrong list: experts, a vision tower."""
    model, _ = tiny("qwen3", layers=3)
    prefix, layers = decoder_layers(model)
    assert prefix == "model.layers"
    assert layers is model.model.layers
    prefix, _ = decoder_layers(get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj"])))
    assert prefix == "base_model.model.model.layers"

    class Odd(nn.Module):
        def __init__(self, lists: int) -> None:
            super().__init__()
            text = SimpleNamespace(num_hidden_layers=2)
            self.config = SimpleNamespace(get_text_config=lambda: text)
            for i in range(lists):
                setattr(self, f"list_{i}", nn.ModuleList([nn.Identity(), nn.Identity()]))
            self.vision_tower = nn.ModuleList([nn.Identity(), nn.Identity()])

    assert decoder_layers(Odd(1))[0] == "list_0"
    for lists in (0, 2):
        with pytest.raises(WeightsteerError, match="cannot tell which modules of Odd"):
            decoder_layers(Odd(lists))


def test_layer_index() -> None:
    """A vector would be taken to start at another layer than it does."""
    assert layer_index("model.layers.13.mlp.down_proj", "model.layers") == 13
    assert layer_index("model.layers.2", "model.layers") == 2
    for outside in ("lm_head", "model.norm", "model.layers", "other.model.layers.1", "model.layers_x.1"):
        assert layer_index(outside, "model.layers") is None


def rendered(arch: str, *args: object, **kwargs: object) -> str:
    tokenizer = tiny_tokenizer(arch)
    return str(tokenizer.decode(render_chat(tokenizer, *args, **kwargs)))  # type: ignore[arg-type]


def test_render_chat_ends_with_the_answer_prefix() -> None:
    """The choice would be read at another position than where the answer goes on."""
    text = rendered("qwen3", USER, answer_prefix="My answer: **")
    assert text == (
        "<|im_start|>user\nIs it so?<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\nMy answer: **"
    )


def test_render_chat_never_doubles_the_bos() -> None:
    """Two BOS tokens shift every score a little, silently."""
    tokenizer = tiny_tokenizer("llama")
    assert render_chat(tokenizer, USER).count(tokenizer.bos_token_id) == 1


def test_thinking_is_closed_by_the_special_token_unless_wanted() -> None:
    """A thinking model would be scored in the middle of its thoughts."""
    tokenizer = tiny_tokenizer("qwen3")
    close = tokenizer.convert_tokens_to_ids("</think>")
    assert render_chat(tokenizer, USER).count(close) == 1
    assert render_chat(tokenizer, USER, thinking=True).count(close) == 0
    # a template that always opens the block, and has no switch
    tokenizer.chat_template = "{{ messages[0]['content'] }}{% if add_generation_prompt %}:<think>\n{% endif %}"
    assert tokenizer.decode(render_chat(tokenizer, USER, answer_prefix="A")) == ("Is it so?:<think>\n\n</think>\n\nA")
    assert tokenizer.decode(render_chat(tokenizer, USER, thinking=True)) == "Is it so?:<think>\n"


def test_a_missing_system_role_goes_to_the_first_user_turn() -> None:
    """Personas would be dropped without a word, and both branches would be the same."""
    assert rendered("qwen3", SYSTEM).startswith("<|im_start|>system\n Be kind. <|im_end|>")
    assert rendered("gemma", SYSTEM).startswith("<bos><|im_start|>user\nBe kind.\n\nIs it so?<|im_end|>")
    tokenizer = tiny_tokenizer("gemma")
    # a template that silently skips system messages
    tokenizer.chat_template = "{% for m in messages if m['role'] != 'system' %}[{{ m['content'] }}]{% endfor %}"
    assert tokenizer.decode(render_chat(tokenizer, SYSTEM)) == "[Be kind.\n\nIs it so?]"
    assert tokenizer.decode(render_chat(tokenizer, SYSTEM[:1])) == "[ Be kind. ]"


def test_a_conversation_the_template_refuses_is_an_error() -> None:
    """A jinja traceback tells a user nothing."""
    tokenizer = tiny_tokenizer("gemma")
    tokenizer.chat_template = "{{ raise_exception('Roles must alternate') }}"
    for messages in (USER, SYSTEM):
        with pytest.raises(WeightsteerError, match="Roles must alternate"):
            render_chat(tokenizer, messages)


def test_choice_ids_are_all_spellings_and_no_others() -> None:
    """Mass would be missed, or "Yes," counted as an answer of its own."""
    tokenizer = tiny_tokenizer()
    tokens = tokenizer.convert_ids_to_tokens(choice_ids(tokenizer, "Yes"))
    assert sorted(tokens) == sorted(t for t in tokenizer.get_vocab() if t.lstrip("Ġ").lower() == "yes")
    assert len(tokens) >= 3
    assert choice_ids(tokenizer, " yes ") == choice_ids(tokenizer, "YES")
    with pytest.raises(WeightsteerError, match="'perhaps' is not a single token"):
        choice_ids(tokenizer, "perhaps")


def test_choice_ids_know_every_boundary_mark() -> None:
    """Vocabularies of other families mark the beginning of a word differently."""

    class Marked:
        """A vocabulary of raw tokens; decodes the byte-level spelling of "да"."""

        tokens = ("Yes", "▁Yes", "##yes", "ĠYES", "Ċyes", " yes", "Yes,", "▁▁Yes", "yesterday", None, "ĠÐ´Ð°")

        def __len__(self) -> int:
            return len(self.tokens)

        def convert_ids_to_tokens(self, ids: list[int]) -> list[str | None]:
            return [self.tokens[i] for i in ids]

        def decode(self, ids: list[int]) -> str:
            return " да" if ids == [10] else str(self.tokens[ids[0]])

    marked = Marked()
    assert choice_ids(marked, "yes") == [0, 1, 2, 3, 4, 5]
    assert choice_ids(marked, "Да") == [10]


def test_logits_of_unmarked_padding_do_not_reach_the_answer() -> None:
    """The engine pads on the right without a mask: that is only sound when the model is causal."""
    for arch in ("qwen3", "gemma3_text", "mistral"):
        model, tokenizer = tiny(arch)
        ids = render_chat(tokenizer, USER)
        padded = torch.tensor([ids + ids[:7]])
        with torch.no_grad():
            full = model(padded).logits[0, len(ids) - 1]
            alone = model(torch.tensor([ids])).logits[0, -1]
        torch.testing.assert_close(full, alone, atol=1e-5, rtol=1e-5)
