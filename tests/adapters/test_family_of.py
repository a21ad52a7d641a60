"""Which family reads which folder, and what is said when none does."""

import pytest
from tiny import LINEAR, tiny

from weightsteer import adapters
from weightsteer.errors import WeightsteerError
from weightsteer.models import decoder_layers

CONFIGS = {
    "lora": {"peft_type": "LORA"},
    "rslora": {"peft_type": "LORA", "use_rslora": True},
    "dora": {"peft_type": "LORA", "use_dora": True, "use_rslora": True},
    "pissa": {"peft_type": "LORA", "init_lora_weights": "pissa_niter_4", "use_rslora": True},
    "delora": {"peft_type": "DELORA"},
    "oft": {"peft_type": "OFT"},
    "boft": {"peft_type": "BOFT"},
    "ia3": {"peft_type": "IA3"},
    "bias": {"peft_type": "BEFT"},
    "full": {"model_type": "qwen3"},
}


@pytest.mark.parametrize("name", CONFIGS)
def test_configurations_find_their_family(name):
    """LoRA's variants share a PEFT type; read as plain LoRA each would be another delta."""
    assert adapters.family_of(CONFIGS[name]).name == name


def test_every_family_describes_itself():
    """The tables of the documentation, and training, read these."""
    _, layers = decoder_layers(tiny("qwen3")[0])
    assert set(CONFIGS) == set(adapters.families())
    for name in adapters.families():
        family = adapters.get(name)
        assert family.form
        assert "\n" not in family.form
        assert set(family.recipe.get("fork", {})) <= {"layers"}, "the published rate is the same for every family"
        assert set(family.targets(layers, [0, 1])) <= set(LINEAR)
    assert adapters.get("ia3").targets(layers, [1]) == ["k_proj", "v_proj", "down_proj"]
    assert adapters.get("bias").targets(layers, [1]) == ["down_proj"]


def test_misspelt_and_unknown_types_name_the_nearest():
    """A typo, or a type that is no weight change at all, must not end in a KeyError."""
    with pytest.raises(WeightsteerError, match="did you mean 'lora'"):
        adapters.get("lroa")
    with pytest.raises(WeightsteerError, match=r"unknown PEFT type 'LOHA'; did you mean 'LORA'.*not been written down"):
        adapters.family_of({"peft_type": "LOHA"})
    with pytest.raises(WeightsteerError, match="PROMPT_TUNING is not supported, for it adds virtual tokens"):
        adapters.family_of({"peft_type": "PROMPT_TUNING"})
    with pytest.raises(WeightsteerError, match="unknown PEFT type 'None'"):
        adapters.family_of({})


def test_layers_without_the_modules_of_a_family_are_told():
    """An architecture with other names must not be trained on nothing."""
    _, layers = decoder_layers(tiny("qwen3")[0])
    for layer in layers:
        for part, names in (("mlp", ["down_proj"]), ("self_attn", ["k_proj", "v_proj"])):
            for name in names:
                delattr(getattr(layer, part), name)
    for name in ("ia3", "bias"):
        with pytest.raises(WeightsteerError, match=r"down_proj.* but the chosen layers have only gate_proj, o_proj"):
            adapters.get(name).targets(layers, [1])
    with pytest.raises(WeightsteerError, match="nothing to adapt"):
        adapters.get("lora").targets(layers, [])


def test_a_new_family_is_one_class():
    """The most specific family reads an adapter, whatever the order of registration."""
    try:

        @adapters.register("test-variant")
        class Variant(type(adapters.get("lora"))):
            def fit(self, config):
                return 9 * bool(config.get("use_dora"))

        assert "test-variant" in adapters.families()
        assert adapters.family_of({"peft_type": "LORA", "use_dora": True}).name == "test-variant"
        assert adapters.family_of({"peft_type": "LORA", "use_dora": False}).name == "lora"
    finally:
        adapters.registry.remove("test-variant")
