"""What is checked before an adapter folder is read as a weight difference; the same for every PEFT family.

PEFT applies several variants of its adapters by other rules than their tensors suggest, and merges some wrongly
without a word. So a setting is accepted only when its effect on the weights is known.
"""

from collections.abc import Collection, Mapping, Sequence
from types import SimpleNamespace

from peft import PEFT_TYPE_TO_CONFIG_MAPPING
from peft.tuners.tuners_utils import check_target_module_exists
from torch import nn

from weightsteer.adapters.folder import AdapterFolder
from weightsteer.errors import WeightsteerError
from weightsteer.models.experts import inside, routed

# Settings of every family that say which modules an adapter is in, or nothing about the weights.
COMMON = frozenset(
    {
        "auto_mapping",
        "base_model_name_or_path",
        "bias",
        "exclude_modules",
        "fan_in_fan_out",
        "inference_mode",
        "init_weights",
        "layers_pattern",
        "layers_to_transform",
        "peft_type",
        "peft_version",
        "revision",
        "target_modules",
        "task_type",
    }
)
REFUSED = {
    "modules_to_save": "modules_to_save replaces whole modules by trained copies",
    "trainable_token_indices": "trainable_token_indices replaces rows of the embedding",
    "target_parameters": "target_parameters adapts bare parameters, which no module applies on its own",
    "layer_replication": "layer_replication changes the layers of the model itself",
}


def refusal(adapter: AdapterFolder, reason: str) -> WeightsteerError:
    """The error for an adapter whose difference is not known exactly."""
    return WeightsteerError(
        f"{adapter.path}: {reason}. Its weight difference would not be exact, so it is refused; use two adapters "
        "trained without it."
    )


def check_config(adapter: AdapterFolder, known: Collection[str], refused: Mapping[str, str]) -> None:
    """Refuse every setting that changes the weights in a way nobody here computes.

    A setting that is neither known nor refused is harmless only at the value PEFT itself gives it, or when it is off.
    """
    config = adapter.config
    if (bias := config.get("bias", "none")) != "none":
        raise refusal(adapter, f"bias={bias!r} trains the biases of the base model too")
    for key, reason in {**REFUSED, **refused}.items():
        if config.get(key):
            raise refusal(adapter, reason)
    kind = PEFT_TYPE_TO_CONFIG_MAPPING.get(config.get("peft_type"))
    defaults = kind().to_dict() if kind else {}
    for key, value in config.items():
        if key not in COMMON and key not in known and value and value != defaults.get(key):
            raise refusal(
                adapter, f"its configuration sets {key}={value!r}, an option whose effect on the weights is not known"
            )


def check_coverage(adapter: AdapterFolder, found: Collection[str], model: nn.Module) -> None:
    """The file must hold exactly the modules that its configuration would have PEFT adapt in this model."""
    names = [name for name, _ in model.named_modules() if name]
    if missing := sorted(set(found) - set(names)):
        raise WeightsteerError(
            f"{adapter.path}: the model has no module {some(missing)}. The adapter was trained on another "
            f"architecture{f' ({adapter.base_name})' if adapter.base_name else ''}, or the model is wrapped: "
            "pass the base model itself."
        )
    if not adapter.config.get("target_modules"):
        return
    wanted = SimpleNamespace(
        target_modules=adapter.config["target_modules"],
        exclude_modules=adapter.config.get("exclude_modules"),
        layers_to_transform=adapter.config.get("layers_to_transform"),
        layers_pattern=adapter.config.get("layers_pattern"),
    )
    expected = {name for name in names if check_target_module_exists(wanted, name)}
    if lost := sorted(expected - set(found)):
        raise WeightsteerError(
            f"{adapter.path}: the configuration adapts {some(lost)}, but the file holds no tensors for them. "
            "It is incomplete; save or copy the adapter again."
        )


def check_experts(adapter: AdapterFolder, found: Collection[str], model: nn.Module) -> None:
    """Refuse an adapter of a mixture of experts that was, or may have been, meant for its experts too.

    Names such as ``gate_proj`` stand for linear modules where each expert is a module of its own, and for nothing, or
    for shared experts alone, where the experts are one parameter: PEFT then leaves the experts out without a word. So
    an adapter is read when it lists its modules, all of them are in the model, and none is in a block with experts: one
    of the attention alone, say.

    Raises:
        WeightsteerError: it is not one of those.
    """
    if not (experts := routed(model)):
        return
    blocks = {name.rpartition(".")[0] for name in experts}
    alongside = sorted(name for name in found if inside(name, blocks))
    targets = adapter.config.get("target_modules")
    listed = sorted(targets) if isinstance(targets, list) else []
    names = [name for name, _ in model.named_modules()]
    lost = [target for target in listed if not any(f".{name}".endswith(f".{target}") for name in names)]
    if alongside or lost or not listed:
        reason = (
            f"it adapts {some(alongside)}, in the same block as the experts"
            if alongside
            else f"the model has no module called {some(lost)}"
            if lost
            else f"its configuration does not list its modules (target_modules is {targets!r})"
        )
        raise WeightsteerError(
            f"{adapter.path}: {type(model).__name__} is a mixture of experts ({some(experts)}), whose weights no "
            f"vector here can hold, and {reason}: the experts would be left out. Use adapters whose target_modules are "
            "the projections of the attention alone, or a dense model."
        )


def some(names: Sequence[str], most: int = 4) -> str:
    """The first few names for a message, and how many more there are."""
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"
