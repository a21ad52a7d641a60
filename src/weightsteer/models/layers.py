"""The decoder layers of a model, and which of them a module lies in."""

from torch import nn
from transformers import PreTrainedModel

from weightsteer.errors import WeightsteerError


def decoder_layers(model: PreTrainedModel) -> tuple[str, nn.ModuleList]:
    """The module path and the list of the decoder layers, e.g. ``("model.layers", …)``.

    Raises:
        WeightsteerError: no list (or more than one) has as many entries as the config has hidden layers.
    """
    expected = getattr(model.config.get_text_config(), "num_hidden_layers", None)
    found = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList)
        and len(module) == expected
        and not any(word in name for word in ("vision", "visual", "audio"))
        # a list of experts or heads inside a layer can be as long as the list of layers
        and not any(part.isdigit() for part in name.split("."))
    ]
    if len(found) != 1:
        raise WeightsteerError(
            f"cannot tell which modules of {type(model).__name__} are its {expected} decoder layers "
            f"(candidates: {', '.join(name for name, _ in found) or 'none'}). "
            "Architectures with one plain list of decoder layers are supported."
        )
    return found[0]


def layer_index(module_name: str, prefix: str) -> int | None:
    """The decoder layer a module lies in, or None when it lies outside the layers.

    >>> layer_index("model.layers.3.mlp.down_proj", "model.layers"), layer_index("lm_head", "model.layers")
    (3, None)
    """
    rest = module_name.removeprefix(prefix + ".")
    head = rest.split(".", 1)[0]
    return int(head) if rest != module_name and head.isdigit() else None
