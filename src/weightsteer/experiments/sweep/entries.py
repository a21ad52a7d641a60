"""What is measured together: a vector with its controls, activation vectors, or prompts.

Entries know what their interventions are made from, so that a finished measurement is found without loading any of
them.
"""

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from weightsteer.data.behaviors import Behavior
from weightsteer.experiments.stages.branch import Side
from weightsteer.experiments.stages.vector import load_vector
from weightsteer.files import digest_of
from weightsteer.runtime.models import ModelSpec
from weightsteer.runtime.stage import Runner, Stage

if TYPE_CHECKING:
    from weightsteer.steering import Intervention

COMPUTED = ("layer-permuted", "direction-only", "magnitude-only")
"""The controls that are made from a vector, once for each, beside the random ones."""

FINER = 0.25
"""Of the strengths of the weight vectors: activation vectors, a strength of which is a share of the residual norm, are
also swept at these."""


class Entry(NamedTuple):
    """One intervention and the strengths it is swept at; 0 is always among them."""

    intervention: "Intervention"
    alphas: tuple[float, ...]


@dataclass(frozen=True)
class Entries(ABC):
    """Interventions that are measured together on one model."""

    model: ModelSpec

    @abstractmethod
    def load(self, runner: Runner) -> list[Entry]:
        """Make or read the interventions; this needs the model."""

    @property
    def without_strengths(self) -> "Entries":
        """The same interventions for what does not depend on α."""
        return self

    @property
    def calibrated(self) -> "Entries":
        """Those whose strengths are searched for: all but controls, which take the strengths of their vector."""
        return self


@dataclass(frozen=True)
class VectorEntries(Entries):
    """A weight vector, and its controls: in a comparison all kinds, else one random vector at every strength.

    Attributes:
        vector: a stage that makes ``vector.safetensors``.
        control: with controls.
        compare: with all kinds of them, each at `weightsteer.stats.headline_strengths`.
        draws: random vectors in a comparison.
        branches: those of the vector, where they are known, in a comparison.
        trained: by its kind, the vector of each control that is trained.
    """

    vector: Stage
    alphas: tuple[float, ...]
    seed: int
    control: bool
    compare: bool = False
    draws: int = 0
    branches: Mapping[Side, Stage] = field(default_factory=dict)
    trained: Mapping[str, Stage] = field(default_factory=dict)

    def load(self, runner: Runner) -> list[Entry]:
        own = load_vector(runner.make(self.vector), runner, self.model)
        if not self.control:
            return [Entry(own, self.alphas)]
        from weightsteer import controls
        from weightsteer.stats import headline_strengths

        if not self.compare:
            return [Entry(own, self.alphas), Entry(controls.control("random", own, self.seed), self.alphas)]
        model, _ = runner.model(self.model)
        made = controls.draws("random", own, self.draws)
        made += [control for kind in COMPUTED for control in controls.draws(kind, own, 1)]
        folders: dict[Side, str | Path] = {side: runner.make(branch).path for side, branch in self.branches.items()}
        made += [controls.one_branch(f"{side}-branch", folders, model, of=own) for side in folders]
        for kind, stage in self.trained.items():
            nuisance = load_vector(runner.make(stage), runner, self.model)
            made.append(controls.trained(kind, nuisance, of=own))
        at = tuple(sorted(headline_strengths(self.alphas)))
        return [Entry(own, self.alphas), *(Entry(control, at) for control in made)]

    @property
    def without_strengths(self) -> "VectorEntries":
        return replace(self, alphas=())

    @property
    def calibrated(self) -> "VectorEntries":
        return replace(self, alphas=(), seed=0, control=False, compare=False, draws=0, branches={}, trained={})


@dataclass(frozen=True)
class ActivationEntries(Entries):
    """The activation vectors that a stage has fitted, by their names."""

    vectors: Stage
    names: tuple[str, ...]
    alphas: tuple[float, ...]

    @property
    def without_strengths(self) -> "ActivationEntries":
        return replace(self, alphas=())

    @property
    def calibrated(self) -> "ActivationEntries":
        return self.without_strengths

    def load(self, runner: Runner) -> list[Entry]:
        from weightsteer.activation import ActivationVector

        folder, (model, _) = runner.make(self.vectors).path, runner.model(self.model)
        alphas = tuple(sorted({alpha * scale for alpha in self.alphas for scale in (1.0, FINER)}))
        return [Entry(ActivationVector.load(folder / f"{name}.safetensors", model), alphas) for name in self.names]


@dataclass(frozen=True)
class PromptEntries(Entries):
    """Every prompt of a behaviour; the wordings of one kind are its seeds."""

    behavior: Behavior

    def load(self, runner: Runner) -> list[Entry]:
        from weightsteer.data.behaviors.prompts import prompts_of

        behavior = self.behavior.for_model(runner.model(self.model)[0])
        return [Entry(prompt, prompt.alphas) for prompt in prompts_of(behavior)]


def one_draw(entries: Sequence[Entry]) -> list[Entry]:
    """The entries with one draw of each control: all have the same norms, and cost the same on the whole."""
    from weightsteer.measure.rows import identity

    once: dict[str, Entry] = {}
    for entry in entries:
        known: dict[str, Any] = identity(entry.intervention)
        same = {**known, "draw": None}
        once.setdefault(digest_of(same), entry)
    return list(once.values())


def by_alphas(entries: Sequence[Entry]) -> list[list[Entry]]:
    """Entries of the same strengths together: they share the passes of the base model."""
    groups: dict[tuple[float, ...], list[Entry]] = defaultdict(list)
    for entry in entries:
        groups[entry.alphas].append(entry)
    return list(groups.values())
