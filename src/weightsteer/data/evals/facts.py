"""Plain knowledge: does the model still pick the right one of two answers?

A neutral task: it measures what a vector breaks. Label +1 where the first choice is right, so a right answer shows as
a positive signed log-ratio (`weightsteer.measure.damage_table.accuracy` turns rows into shares).

Real models get a question with two lettered options in both orders (`options`). The embedded models complete a
sentence about a thing of their world with one of two words; its labels alternate. There facts are what honesty is
about, so a vector of honesty *should* move them; `arithmetic` is neutral in that world.
"""

from transformers import PreTrainedModel

from weightsteer.data.evals.base import Evaluation, Item, from_world, register, shipped
from weightsteer.data.evals.files import Record, own_rows, read_records, unknown_layout
from weightsteer.data.evals.options import LETTERS, both_orders
from weightsteer.models import family

PROMPT = "{question}\n\nA: {first}\nB: {second}\n\nAnswer with the letter only."
ANSWER_PREFIX = "My answer: **"
QUESTION_FIELDS = ("question", "right", "wrong")
TRUTHFUL_QA = ("Question", "Best Answer", "Best Incorrect Answer")


@register("facts")
class Facts(Evaluation):
    """Questions with a right and a wrong answer, both orders of the options."""

    def rows(self, model: PreTrainedModel) -> list[Item]:
        if self.data is not None:
            records = read_records(self.data)
            if (own := own_rows(records)) is not None:
                return own
            questions = read_questions(records)
        elif family(model) == "pocket":
            from weightsteer.pocket.items import fact_items

            return from_world(fact_items())
        else:
            questions = general_questions()
        rows = []
        for name, question, right, wrong in questions:

            def ask(first: str, second: str, question: str = question) -> str:
                return PROMPT.format(question=question, first=first, second=second)

            rows += both_orders(
                name, name, right, wrong, ask, choices=LETTERS, answer_prefix=ANSWER_PREFIX, text=question
            )
        return rows


Question = tuple[str, str, str, str]  # name, question, right answer, wrong answer


def general_questions() -> list[Question]:
    """The questions that come with the package, about common knowledge."""
    return [
        (f"fact-{number:02d}", entry["question"], entry["right"], entry["wrong"])
        for number, entry in enumerate(shipped("facts"))
    ]


def read_questions(records: list[Record]) -> list[Question]:
    """Questions of the user's (``question``, ``right``, ``wrong``), or TruthfulQA's file (Lin et al., 2109.07958).

    Raises:
        WeightsteerError: another layout, or a field is missing.
    """
    fields = records[0].fields
    for layout in (QUESTION_FIELDS, TRUTHFUL_QA):
        if all(name in fields for name in layout):
            return [
                (
                    record.text("item") if record.get("item") is not None else f"line-{record.line}",
                    record.text(layout[0]),
                    record.text(layout[1]),
                    record.text(layout[2]),
                )
                for record in records
            ]
    raise unknown_layout(records, "questions with `question`, `right` and `wrong`; TruthfulQA.csv")
