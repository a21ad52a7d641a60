"""What an adapter family has to provide."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, TypeVar

from peft import PeftConfig
from torch import Tensor, nn

from weightsteer.adapters.folder import AdapterFolder
from weightsteer.adapters.targets import linear_names
from weightsteer.registry import ADAPTERS, Registry
from weightsteer.terms import Sum

Family = TypeVar("Family", bound="AdapterFamily")


class AdapterFamily(ABC):
    """How one kind of adapter is configured for training, and what it adds to the weights once trained.

    A family of PEFT adapters is a `weightsteer.adapters.peft_family.PeftFamily`, which reads the folders.
    """

    name: ClassVar[str]
    form: ClassVar[str]
    """The exact form of θ_branch − θ_base, in one line."""

    peft_type: ClassVar[str] = ""
    """The ``peft_type`` of its folders; empty when it is no PEFT adapter: then the weights themselves are trained."""

    recipe: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """By recipe: the settings in which this family differs from it, such as its learning rate."""

    changes_base: ClassVar[bool] = False
    """Whether PEFT writes into the base weights when it makes the adapter: train on a copy of them."""

    def fit(self, config: Mapping[str, Any]) -> int:
        """How well a folder's configuration fits: 0 not at all, 1 the same PEFT type, more for a special variant."""
        return int(bool(self.peft_type) and config.get("peft_type") == self.peft_type)

    def targets(self, layers: nn.ModuleList, chosen: Iterable[int]) -> list[str]:
        """Last path components of the modules to adapt in the chosen decoder layers: here, all linear ones.

        Raises:
            WeightsteerError: these layers have none that this family could adapt.
        """
        return linear_names(layers, chosen)

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
            rank: size of the adapter (rank r); families without one ignore it.
            alpha: PEFT's ``lora_alpha``; the same.
            target_modules: full module paths, or their last components ("q_proj") in all of ``layers``.
            layers: decoder layers to adapt; None for all. Families whose PEFT configuration knows no layers need
                full module paths instead.
            options: what only this family knows.
        """

    @abstractmethod
    def branch_delta(self, adapter: AdapterFolder, model: nn.Module) -> dict[str, Sum]:
        """``θ_branch − θ_base`` by module path, from the adapter's own tensors: computed in fp64, kept in fp32.

        Raises:
            WeightsteerError: the adapter does not fit the model, or holds something that cannot be had exactly.
        """

    def pair_delta(self, plus: AdapterFolder, minus: AdapterFolder, model: nn.Module) -> dict[str, Sum]:
        """``θ⁺ − θ⁻`` of two branches that adapt the same modules; the base cancels.

        Raises:
            WeightsteerError: as for `branch_delta`.
        """
        positive, negative = self.branch_delta(plus, model), self.branch_delta(minus, model)
        shapes = {name: total.shape for name, total in [*positive.items(), *negative.items()]}
        zeros = {name: Sum(shape) for name, shape in shapes.items()}
        return {
            name: positive.get(name, zero).plus(negative.get(name, zero).scaled(-1.0)) for name, zero in zeros.items()
        }

    def initial(self, adapted: nn.Module) -> dict[str, Tensor]:
        """What of a freshly made adapter the delta of the trained one depends on, by parameter path.

        Training saves it next to the adapter, in `weightsteer.adapters.folder.INITIAL`. Nothing, for most families.
        """
        return {}


registry: Registry[AdapterFamily] = ADAPTERS


def register(name: str) -> Callable[[type[Family]], type[Family]]:
    """Class decorator: make a family known under this name (the ``--adapter`` of the command line)."""

    def add(family: type[Family]) -> type[Family]:
        family.name = name
        registry.add(name, family(), family)
        return family

    return add
