"""Models: load, name and hash them, render chats to token ids, find the tokens of a choice."""

from weightsteer.models.chat import render_chat
from weightsteer.models.choices import choice_ids
from weightsteer.models.hashing import weight_hash
from weightsteer.models.identity import base_record, check_base, described, family, model_name
from weightsteer.models.layers import decoder_layers, layer_index
from weightsteer.models.loading import DTYPES, load_model

__all__ = [
    "DTYPES",
    "base_record",
    "check_base",
    "choice_ids",
    "decoder_layers",
    "described",
    "family",
    "layer_index",
    "load_model",
    "model_name",
    "render_chat",
    "weight_hash",
]
