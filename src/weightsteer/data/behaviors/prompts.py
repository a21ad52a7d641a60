"""The system prompts of a behaviour, as interventions."""

from weightsteer.data.behaviors.spec import Behavior
from weightsteer.steering.prompts import Kind, PromptIntervention


def prompts_of(behavior: Behavior) -> list[PromptIntervention]:
    """Every prompt pair of a behaviour: its personas, and the engineered ones it declares.

    For an embedded model pass ``behavior.for_model(model)``: it knows only the words of its own world.
    """
    personas = zip(behavior.positive.personas, behavior.negative.personas, strict=True)
    texts: dict[Kind, list[tuple[str, str]]] = {
        "persona": list(personas),
        "embody": [(pair.positive, pair.negative) for pair in behavior.prompts.embody],
        "inject": [(pair.positive, pair.negative) for pair in behavior.prompts.inject],
    }
    return [
        PromptIntervention(behavior.name, kind, wording, positive, negative)
        for kind, pairs in texts.items()
        for wording, (positive, negative) in enumerate(pairs)
    ]
