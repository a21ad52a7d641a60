"""Tiny random models of real architectures with a real-structure tokenizer, and random LoRA adapters.

Weights are drawn wide (std 0.15) so that logits differ by nats, not by rounding: 1e-4 nats then
mean something. Sliding windows are shorter than the prompts, so that masks matter.
"""

from collections.abc import Sequence
from copy import deepcopy
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

ARCHITECTURES = ("qwen3", "llama", "gemma", "mistral", "qwen2", "gemma2", "gemma3_text")
LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]

_CORPUS = (
    ["Yes No yes no", "Yes", "No", " Yes", " No", "A B", "1 2"] * 40
    + ["I think the sky is green. Do you agree? Answer Yes or No."] * 10
    + ["My answer: **Yes** My choice: **No** because the house is red and the cat is old."] * 10
    + ["You are an honest person. You are a lying person. Do you choose to: tell the truth?"] * 10
    + ["user assistant system model Tell me about rivers, stones, bread and winter."] * 10
)
_CHATML = """\
{%- for m in messages %}
{{- '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|im_start|>assistant\\n' }}
{%- if enable_thinking is defined and enable_thinking is false %}
{{- '<think>\\n\\n</think>\\n\\n' }}
{%- endif %}
{%- endif %}"""
_GEMMA = """\
{{- bos_token }}
{%- if messages[0]['role'] == 'system' %}
{{- raise_exception('System role not supported') }}
{%- endif %}
{%- for m in messages %}
{{- '<|im_start|>' + (m['role'] if m['role'] == 'user' else 'model') + '\\n' + m['content'] | trim }}
{{- '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|im_start|>model\\n' }}
{%- endif %}"""
_LLAMA = """\
{{- bos_token }}
{%- for m in messages %}
{{- '<|im_start|>' + m['role'] + '\\n\\n' + m['content'] | trim + '<|im_end|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|im_start|>assistant\\n\\n' }}
{%- endif %}"""


@lru_cache
def _trained() -> str:
    """A byte-level BPE of about 400 tokens, as JSON: "Yes", " Yes", "yes", "No" … are single tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<|endoftext|>", "<bos>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_CORPUS, trainer)
    tokenizer.add_tokens(["<think>", "</think>"])
    return str(tokenizer.to_str())


def tiny_tokenizer(arch: str = "qwen3") -> PreTrainedTokenizerFast:
    """A fresh tokenizer whose chat template has the traits of the architecture (gemma: no system role)."""
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(_trained()),
        pad_token="<|endoftext|>",
        eos_token="<|im_end|>",
        bos_token="<bos>",
    )
    tokenizer.chat_template = {"gem": _GEMMA, "lla": _LLAMA}.get(arch[:3], _CHATML)
    return tokenizer


@lru_cache(maxsize=32)
def _made(arch: str, layers: int, seed: int) -> PreTrainedModel:
    tokenizer = tiny_tokenizer(arch)
    options: dict[str, Any] = {
        # a few more rows than tokens, as real checkpoints have
        "vocab_size": len(tokenizer) + 6,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "max_position_embeddings": 512,
        "initializer_range": 0.15,
        "pad_token_id": tokenizer.pad_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "tie_word_embeddings": arch != "llama",
    }
    if arch in ("mistral", "gemma2", "gemma3_text"):
        options["sliding_window"] = 8
    if arch == "gemma2":
        options["final_logit_softcapping"] = 5.0
    if arch == "gemma3_text":
        options["layer_types"] = ["full_attention" if i % 2 else "sliding_attention" for i in range(layers)]
    config = AutoConfig.for_model(arch, **options)
    state = torch.get_rng_state()
    torch.manual_seed(seed)
    try:
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    finally:
        torch.set_rng_state(state)
    return model.eval().requires_grad_(False)


def tiny(arch: str, layers: int = 4, seed: int = 0) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """A random fp32 model of width 32 and its tokenizer; each call gives objects of its own."""
    model = deepcopy(_made(arch, layers, seed))
    model.name_or_path = f"tiny-{arch}"
    return model, tiny_tokenizer(arch)


def talker(arch: str = "qwen3", layers: int = 2) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """A tiny model for which a quarter of the vocabulary ends an answer: some answers are short, some cut."""
    model, tokenizer = tiny(arch, layers)
    model.generation_config.eos_token_id = list(range(3, len(tokenizer), 4))
    return model, tokenizer


def random_lora(
    model: PreTrainedModel,
    folder: Path,
    seed: int,
    rank: int = 4,
    layers: Sequence[int] | None = None,
    targets: Sequence[str] = tuple(LINEAR),
    std: float = 0.1,
    **options: Any,
) -> Path:
    """Save an ordinary PEFT LoRA folder for ``model`` whose A and B are both random: its delta is not 0."""
    config = LoraConfig(
        r=rank,
        lora_alpha=2 * rank,
        target_modules=list(targets),
        layers_to_transform=list(layers) if layers is not None else None,
        task_type="CAUSAL_LM",
        **options,
    )
    adapted = get_peft_model(deepcopy(model), config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in sorted(adapted.named_parameters()):
            if "lora_A" in name or "lora_B" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * std)
    # without False PEFT asks the hub for the base model's config
    adapted.save_pretrained(str(folder), save_embedding_layers=False)
    return Path(folder)
