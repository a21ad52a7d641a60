"""Small sums: a neutral task in any world, because no persona counts differently.

The choices are the right number and one near it; the label says whether the right one is first, and alternates. The
question shows neither, so there is no position to prefer.
"""

from random import Random

from transformers import PreTrainedModel

from weightsteer.data.evals.base import Evaluation, Item, from_world, register, user_turn
from weightsteer.data.evals.files import own_row, read_records
from weightsteer.models import family

PROMPT = "What is {a} plus {b} minus {c}? Answer with the number only."
ANSWER_PREFIX = "My answer: **"
ROWS = 120


@register("arithmetic")
class Arithmetic(Evaluation):
    """Sums with one-digit results, which are single tokens in every vocabulary."""

    def rows(self, model: PreTrainedModel) -> list[Item]:
        if self.data is not None:
            return [own_row(record) for record in read_records(self.data)]
        if family(model) == "pocket":
            from weightsteer.pocket.items import sum_items

            return from_world(sum_items())
        return _sums()


def _sums() -> list[Item]:
    rng = Random("weightsteer/arithmetic")
    sums: dict[tuple[int, int, int], int] = {}
    while len(sums) < ROWS:
        a, b, c = rng.randint(2, 19), rng.randint(2, 19), rng.randint(2, 30)
        if 1 <= a + b - c <= 9:
            sums[a, b, c] = a + b - c
    rows = []
    for number, ((a, b, c), result) in enumerate(sums.items()):
        near = rng.choice([value for value in (result - 2, result - 1, result + 1, result + 2) if 0 <= value <= 9])
        label = 1 if number % 2 == 0 else -1
        rows.append(
            Item(
                item=f"sum-{number:03d}",
                cluster=f"sum-{number:03d}",
                label=label,
                messages=user_turn(PROMPT.format(a=a, b=b, c=c)),
                choices=(str(result), str(near)) if label == 1 else (str(near), str(result)),
                answer_prefix=ANSWER_PREFIX,
            )
        )
    return rows
