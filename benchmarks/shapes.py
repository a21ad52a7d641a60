"""Randomly initialised models of real shapes, a stand-in tokenizer, and rows of real lengths.

Speed does not depend on what the weights say, so nothing is downloaded. The rows are those of DailyDilemmas when the
file is there (``../shared/data/daily_dilemmas``), otherwise generated ones of the same statistics of length.
"""

import random
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast, Qwen3Config

from weightsteer.data.evals import Item, load, user_turn
from weightsteer.data.evals.dilemmas import ANSWER_PREFIX, PROMPT

DILEMMAS = Path(__file__).parents[2] / "shared" / "data" / "daily_dilemmas" / "honesty_pairs.jsonl"

# the layout of Qwen3's chat template with its thinking switched off
_CHAT = """\
{%- for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>\\n' }}{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n<think>\\n\\n</think>\\n\\n' }}{%- endif %}"""


def qwen3_0_6b(layers: int = 28, vocabulary: int = 151_936) -> PreTrainedModel:
    """Random fp32 weights in the shape of Qwen/Qwen3-0.6B, or of its first layers."""
    config = Qwen3Config(
        vocab_size=vocabulary,
        hidden_size=1024,
        intermediate_size=3072,
        num_hidden_layers=layers,
        num_attention_heads=16,
        num_key_value_heads=8,
        head_dim=128,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
    )
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.name_or_path = "qwen3-0.6b-shape"
    return model.eval().requires_grad_(False)


def dilemmas(model: PreTrainedModel, rows: int | None = None) -> list[Item]:
    """About so many rows (None: all), both actions of each dilemma, in the order of the file."""
    if DILEMMAS.exists():
        return load("dilemmas", data=DILEMMAS, limit=rows).items(model)
    return list(_generated(rows or 874))


def _generated(rows: int) -> Iterator[Item]:
    """Situations of 54 ± 8 words and actions of 4 ± 1.5, as in DailyDilemmas."""
    draw = random.Random(0)
    starts, middles, ends = ("re", "con", "de", "pro"), ("lat", "sist", "mand"), ("e", "ing", "or")
    words = [f"{a}{b}{c}" for a in starts for b in middles for c in ends]

    def text(mean: float, deviation: float) -> str:
        return " ".join(draw.choices(words, k=max(1, round(draw.gauss(mean, deviation)))))

    for dilemma in range(rows // 2):
        situation = text(54, 8)
        for label, side in ((1, "to_do"), (-1, "not_to_do")):
            prompt = PROMPT.format(situation=situation, action=text(4, 1.5))
            yield Item(f"{dilemma}-{side}", str(dilemma), label, user_turn(prompt), answer_prefix=ANSWER_PREFIX)


def tokenizer_for(items: Sequence[Item]) -> PreTrainedTokenizerFast:
    """A byte-level BPE trained on the rows themselves: about as many tokens per word as a large vocabulary gives."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=20_000,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = [item.messages[-1]["content"] for item in items]
    tokenizer.train_from_iterator([*texts, *["Yes No"] * 50], trainer)
    made = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<|endoftext|>", eos_token="<|im_end|>")
    made.chat_template = _CHAT
    return made
