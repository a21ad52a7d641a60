"""Two options side by side, asked in both orders.

A model that prefers the first option whatever it says (position bias) moves the two orders of a question by the same
amount and against their labels, so it shows up as bias and not as the behaviour. Both orders are rows of one cluster.
"""

from collections.abc import Callable

from weightsteer.data.evals.base import Item, user_turn

LETTERS = ("A", "B")
NUMBERS = ("1", "2")
ORDERS = ("ab", "ba")


def both_orders(
    name: str,
    cluster: str,
    shows: str,
    other: str,
    ask: Callable[[str, str], str],
    *,
    choices: tuple[str, str],
    answer_prefix: str,
    text: str = "",
    thinking_tokens: int = 0,
) -> list[Item]:
    """Two rows of a question with the options ``shows`` (it shows the behaviour) and ``other``.

    Args:
        name: both rows are called ``name-ab`` (``shows`` is first, label +1) and ``name-ba`` (label −1).
        ask: writes the user turn from the first and the second option.
        choices: what the first and the second option are called in the answer.
    """
    return [
        Item(
            item=f"{name}-{order}",
            cluster=cluster,
            label=label,
            messages=user_turn(ask(first, second)),
            choices=choices,
            answer_prefix=answer_prefix,
            text=text,
            thinking_tokens=thinking_tokens,
        )
        for order, first, second, label in zip(ORDERS, (shows, other), (other, shows), (1, -1), strict=True)
    ]
