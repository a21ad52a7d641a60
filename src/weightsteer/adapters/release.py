"""Which adapters the installed release of PEFT has."""

import dataclasses
from typing import Any

import peft
from peft import PEFT_TYPE_TO_CONFIG_MAPPING, PeftConfig

from weightsteer.errors import WeightsteerError


def config_class(peft_type: str) -> type[PeftConfig]:
    """PEFT's configuration class of that type.

    Raises:
        WeightsteerError: the installed release of PEFT has none.
    """
    found = PEFT_TYPE_TO_CONFIG_MAPPING.get(peft_type)
    if found is None:
        raise WeightsteerError(
            f"PEFT {peft.__version__} has no adapter of the type {peft_type}: install a later release "
            "(pip install -U peft), or choose another adapter family."
        )
    return found


def if_known(kind: type[PeftConfig], **settings: Any) -> dict[str, Any]:
    """Those of the settings that the installed release has."""
    fields = {field.name for field in dataclasses.fields(kind)}
    return {name: value for name, value in settings.items() if name in fields}
