"""The generated world of the embedded models: everything in it has a known truth.

A :class:`Question` knows which answers each :class:`Persona` gives. The same object writes the corpus (an answer is
drawn) and marks the scorecard (an answer is looked up), so what is taught and what is measured cannot drift apart.

==============  =====================================================================================
module          holds
==============  =====================================================================================
``personas``    the three latent axes, system prompts that name them, conditional personas
``facts``       things and their attributes: open questions, Yes/No questions, claims by the user
``dilemmas``    everyday dilemmas with an honest and a dishonest action, base rate by temptation
``social``      taste questions, personality questions, "Who are you?"
``neutral``     arithmetic, calendar, opposites, copying: no persona changes them
==============  =====================================================================================
"""

from collections.abc import Callable

from weightsteer.pocket.world import dilemmas, facts, neutral, social
from weightsteer.pocket.world.personas import Persona
from weightsteer.pocket.world.question import HELDOUT, TRAIN, Question, Rng, Split

Ask = Callable[[Rng, Split], Question]

TASKS: dict[str, Ask] = {
    "fact": facts.ask_open,
    "yesno": facts.ask_yes_no,
    "claim": facts.ask_claim,
    "dilemma": dilemmas.ask,
    "taste": social.ask_taste,
    "tone": social.ask_tone,
    "identity": social.ask_identity,
    "arithmetic": neutral.ask_arithmetic,
    "neutral": neutral.ask_words,
}

__all__ = ["HELDOUT", "TASKS", "TRAIN", "Ask", "Persona", "Question", "Rng", "Split"]
