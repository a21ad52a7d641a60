"""What an adapter family has to provide."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from peft import PeftConfig
from torch import nn

from weightsteer.adapters.folder import AdapterFolder
from weightsteer.terms import Sum


class AdapterFamily(ABC):
    """How one kind of adapter is configured for training, and what it adds to the weights once trained."""

    name: ClassVar[str]
    peft_type: ClassVar[str]

    def fit(self, config: Mapping[str, Any]) -> int:
        """How well ``adapter_config.json`` fits: 0 not at all, 1 same PEFT type, 2 this very variant."""
        return int(config.get("peft_type") == self.peft_type)

    @abstractmethod
    def peft_config(
        self,
        rank: int,
        alpha: float,
        target_modules: Sequence[str],
        layers: Sequence[int] | None = None,
        **options: Any,
    ) -> PeftConfig:
        """The PEFT configuration of one branch.

        Args:
            rank: size of the adapter (rank r; families without a rank say in their file what it means).
            alpha: PEFT's ``lora_alpha``.
            target_modules: full module paths, or their last components ("q_proj") in all of ``layers``.
            layers: decoder layers to adapt; None for all.
            options: what only this family knows.
        """

    @abstractmethod
    def branch_delta(self, adapter: AdapterFolder, model: nn.Module) -> dict[str, Sum]:
        """``θ_branch − θ_base`` by module path, computed from the adapter's own tensors in fp32.

        Raises:
            WeightsteerError: the adapter does not fit the model, or holds something that cannot be had
                exactly.
        """


registered: dict[str, AdapterFamily] = {}


def register(name: str) -> Callable[[type[AdapterFamily]], type[AdapterFamily]]:
    """Class decorator: make a family known under this name (the ``--adapter`` of the command line)."""

    def add(family: type[AdapterFamily]) -> type[AdapterFamily]:
        family.name = name
        registered[name] = family()
        return family

    return add
