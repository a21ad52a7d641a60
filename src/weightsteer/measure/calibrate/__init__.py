"""Equal side effects: the strength at which an intervention costs a given amount, found for each sign.

Two vectors at α = 1 cannot be compared: one may hardly touch the model, the other break it. `calibrate` finds for each
the α at which a statistic of the per-token KL divergence to the base model hits a budget. α is a batch dimension, so a
whole grid of candidates is measured at once and a search takes at most three rounds; what it finds is audited on other
prompts.
"""

from weightsteer.measure.calibrate.calibrating import SCHEMA, calibrate
from weightsteer.measure.calibrate.settings import budgets_of
from weightsteer.measure.calibrate.side_effects import over_seeds, side_effects

__all__ = ["SCHEMA", "budgets_of", "calibrate", "over_seeds", "side_effects"]
