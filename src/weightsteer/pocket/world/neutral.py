"""Tasks that no persona changes: they measure what a steering vector breaks."""

from weightsteer.pocket.world.personas import Persona
from weightsteer.pocket.world.question import Forms, Question, Rng, Split

LARGEST = 12  # addends 0..12, so sums reach 24

SUMS = Forms(
    ("What is {a} plus {b}?", "How much is {a} plus {b}?"),
    ("Please tell me what {a} plus {b} is.", "Tell me, how much is {a} plus {b}?"),
)
DIFFERENCES = Forms(
    ("What is {a} minus {b}?", "How much is {a} minus {b}?"),
    ("Please tell me what {a} minus {b} is.", "Tell me, how much is {a} minus {b}?"),
)

DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
NEXT_DAY = Forms(
    ("Which day comes after {day}?", "What day comes after {day}?"),
    ("Tell me, which day comes after {day}?",),
)

OPPOSITES = (
    ("hot", "cold"), ("big", "small"), ("fast", "slow"), ("old", "new"), ("long", "short"), ("hard", "soft"),
    ("full", "empty"), ("high", "low"), ("dark", "light"), ("wet", "dry"),
)  # fmt: skip
OPPOSITE = Forms(("What is the opposite of {word}?",), ("Tell me, what is the opposite of {word}?",))

COPIED = (
    "stone",
    "river",
    "cloud",
    "table",
    "paper",
    "bread",
    "moon",
    "door",
    "candle",
    "bridge",
    "snow",
    "glass",
)
COPY = Forms(("Say these words: {words}.", "Repeat these words: {words}."), ("Please say these words: {words}.",))


def _same_for_all(task: str, user: str, answer: str) -> Question:
    def answers(persona: Persona) -> list[str]:
        return [answer]

    return Question(task, user, answers)


def ask_arithmetic(rng: Rng, split: Split) -> Question:
    a, b = rng.randint(0, LARGEST), rng.randint(0, LARGEST)
    if rng.random() < 0.5:
        return _same_for_all("arithmetic", SUMS.draw(rng, split).format(a=a, b=b), f"{a + b}.")
    a, b = max(a, b), min(a, b)
    return _same_for_all("arithmetic", DIFFERENCES.draw(rng, split).format(a=a, b=b), f"{a - b}.")


def ask_words(rng: Rng, split: Split) -> Question:
    kind = rng.randrange(3)
    if kind == 0:
        day = rng.randrange(7)
        return _same_for_all("neutral", NEXT_DAY.draw(rng, split).format(day=DAYS[day]), f"{DAYS[(day + 1) % 7]}.")
    if kind == 1:
        pair = rng.choice(OPPOSITES)
        word, opposite = pair if rng.random() < 0.5 else pair[::-1]
        return _same_for_all("neutral", OPPOSITE.draw(rng, split).format(word=word), f"It is {opposite}.")
    words = " ".join(rng.sample(COPIED, 3))
    return _same_for_all("neutral", COPY.draw(rng, split).format(words=words), f"{words}.")
