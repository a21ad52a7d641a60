"""What is measured together: a vector with its controls, activation vectors, or prompts.

`Arms` know what their interventions are made from, so that a finished measurement is found without loading any of them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from weightsteer.experiments.sweep.lab import Lab
from weightsteer.experiments.sweep.stages import Side, branch, vector
from weightsteer.runtime.store import Artifact

if TYPE_CHECKING:
    from weightsteer.steering import Intervention

CONTROL_PAIRS = ("shuffled-label", "yes")
"""The controls that are trained, once per behaviour and seed, with the first family of a run."""

COMPUTED = ("layer-permuted", "direction-only", "magnitude-only")
"""The controls that are made from a vector, once for each, beside the random ones."""

ACTIVATIONS: Mapping[str, Mapping[str, Any]] = {
    "diffmean": {"method": "diffmean"},
    "diffmean-all": {"method": "diffmean", "layers": "all", "incremental": True},
    "pca": {"method": "pca"},
    "repe-centered": {"method": "repe-centered"},
    "probe": {"method": "probe"},
}
"""The activation vectors of a comparison, as options of `weightsteer.activation.fit`; by name."""

FINER = 0.25
"""Of the strengths of the weight vectors: activation vectors, a strength of which is a share of the residual norm, are
also swept at these."""


class Arm(NamedTuple):
    """One intervention and the strengths it is swept at; 0 is always among them."""

    intervention: "Intervention"
    alphas: tuple[float, ...]


@dataclass(frozen=True)
class Arms:
    """Interventions that are measured together.

    Attributes:
        inputs: what they are made from, for the keys of the stages.
        code: the modules that make them.
        load: makes them; needs the model.
        calibrated: those among them whose strengths are searched for; None: all. Controls take those of their vector.
    """

    inputs: Mapping[str, Any]
    code: Sequence[str]
    load: Callable[[], list[Arm]]
    calibrated: "Arms | None" = None


def ends(alphas: Sequence[float]) -> tuple[float, ...]:
    """±1 where they are swept, else the smallest strength of each sign: where controls are compared.

    >>> ends((-2.0, -1.0, 0.0, 0.5))
    (-1.0, 0.5)
    """
    sides = ([alpha for alpha in alphas if alpha * sign > 0] for sign in (-1, 1))
    return tuple(sign if sign in side else min(side, key=abs) for sign, side in zip((-1.0, 1.0), sides) if side)  # noqa: B905


def of_vector(
    lab: Lab, made: Artifact, seed: int, branches: Mapping[Side, Artifact], trained: Mapping[str, Artifact]
) -> Arms:
    """A weight vector, and its controls: of a comparison all kinds, else one random vector at every strength.

    Args:
        branches: those of the vector, where they are known.
        trained: vectors trained on the pairs of a control, by its kind.
    """
    alphas, config = lab.config.alphas, lab.config

    def load_vector() -> list[Arm]:
        from weightsteer.vector import WeightVector

        return [Arm(WeightVector.load(made.path / "vector.safetensors", lab.models.trained[0]), alphas)]

    alone = Arms({"vector": made}, ("experiments.sweep.arms:of_vector", "vector.weight_vector"), load_vector)
    if not config.control:
        return alone

    def load() -> list[Arm]:
        from weightsteer import controls
        from weightsteer.vector import WeightVector

        model, _ = lab.models.trained
        own = WeightVector.load(made.path / "vector.safetensors", model)
        if not config.compare:
            return [Arm(own, alphas), Arm(own.randomized(seed), alphas)]
        beside = controls.draws("random", own, config.draws)
        beside += [control for kind in COMPUTED for control in controls.draws(kind, own, 1)]
        folders: dict[Side, str | Path] = {side: artifact.path for side, artifact in branches.items()}
        beside += [controls.one_branch(f"{side}-branch", folders, model, of=own) for side in folders]
        for kind, artifact in trained.items():
            nuisance = WeightVector.load(artifact.path / "vector.safetensors", model)
            beside.append(controls.trained(kind, nuisance, of=own))
        return [Arm(own, alphas), *(Arm(control, ends(alphas)) for control in beside)]

    inputs: dict[str, Any] = {"vector": made, "seed": seed}
    if config.compare:
        inputs |= {"draws": config.draws, "branches": dict(branches), "trained": dict(trained)}
    return Arms(
        inputs,
        ("experiments.sweep.arms:of_vector", "vector.weight_vector", *(["controls"] if config.compare else [])),
        load,
        alone,
    )


def of_activations(lab: Lab, made: Artifact) -> Arms:
    """The activation vectors that `activations` has fitted."""

    def load() -> list[Arm]:
        from weightsteer.activation import ActivationVector

        model, _ = lab.models.trained
        wide = {alpha * scale for alpha in lab.config.alphas for scale in (1.0, FINER)}
        alphas = tuple(sorted(wide))
        return [Arm(ActivationVector.load(made.path / f"{name}.safetensors", model), alphas) for name in ACTIVATIONS]

    return Arms({"activations": made}, ("experiments.sweep.arms:of_activations", "activation"), load)


def of_prompts(lab: Lab) -> Arms:
    """Every prompt of the behaviour; the wordings of one kind are its seeds."""

    def load() -> list[Arm]:
        from weightsteer.steering.prompts import prompts_of

        behavior = lab.behavior.for_model(lab.models.trained[0])
        return [Arm(prompt, prompt.alphas) for prompt in prompts_of(behavior)]

    return Arms({"behavior": lab.behavior.digest}, ("experiments.sweep.arms:of_prompts", "steering.prompts"), load)


def activations(lab: Lab, data: Artifact, seed: int) -> Artifact:
    """``<name>.safetensors``: the activation vectors of `ACTIVATIONS`, fitted to the pairs of the branches."""

    def build(work: Path) -> None:
        import polars

        from weightsteer.activation import fit
        from weightsteer.data.pairs import kept

        model, tokenizer = lab.models.trained
        frame = kept(polars.read_parquet(data.path / "pairs.parquet"))
        personas = "sys_prompt_pos" in frame.columns
        for name, options in ACTIVATIONS.items():
            told = {"adapter": name, "behavior": lab.behavior.name}
            made = fit(model, tokenizer, frame, personas=personas, seed=seed, metadata=told, **options)
            made.save(work / f"{name}.safetensors")

    inputs = {"model": lab.on(lab.identity), "pairs": data, "seed": seed, "vectors": ACTIVATIONS}
    return lab.make("activations", inputs, ["experiments.sweep.arms:activations", "activation"], build, seed=seed)


def nuisances(lab: Lab, data: Artifact, seed: int) -> dict[str, Artifact]:
    """The vectors of the controls that are trained, by kind."""
    return {kind: _trained_control(lab, kind, data, seed) for kind in CONTROL_PAIRS}


def _trained_control(lab: Lab, kind: str, data: Artifact, seed: int) -> Artifact:
    pairs = control_pairs(lab, kind, data, seed)
    positive = branch(lab, pairs, "positive", seed, of=kind)
    negative = branch(lab, pairs, "negative", seed, of=kind)
    return vector(lab, positive, negative, seed, of=kind)


def control_pairs(lab: Lab, kind: str, data: Artifact, seed: int) -> Artifact:
    """``pairs.parquet`` that the branches of a control learn from."""

    def build(work: Path) -> None:
        import polars

        from weightsteer import controls
        from weightsteer.data.pairs import kept

        model, _ = lab.models.trained
        own = kept(polars.read_parquet(data.path / "pairs.parquet"))
        controls.control_pairs(kind, model, lab.behavior, seed, own).write_parquet(work / "pairs.parquet")

    inputs = {
        "model": lab.on(lab.identity),
        "behavior": lab.behavior.digest,
        "pairs": data,
        "kind": kind,
        "seed": seed,
    }
    return lab.make(
        "control-pairs",
        inputs,
        ["experiments.sweep.arms:control_pairs", "controls"],
        build,
        seed=seed,
        name=f"{kind}-pairs",
    )
