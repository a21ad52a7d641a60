"""Models: load, name and hash them, render chats to token ids, find the tokens of a choice."""

from weightsteer.models.loading import (
    choice_ids,
    decoder_layers,
    family,
    layer_index,
    load_model,
    model_name,
    render_chat,
    weight_hash,
)

__all__ = [
    "choice_ids",
    "decoder_layers",
    "family",
    "layer_index",
    "load_model",
    "model_name",
    "render_chat",
    "weight_hash",
]
