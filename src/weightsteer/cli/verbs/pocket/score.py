"""``weightsteer pocket score``: what it knows."""

from pathlib import Path

from weightsteer.cli.verb import Verb


def _score(model: str, card: Path | None) -> None:
    from weightsteer.pocket.card import model_card, table
    from weightsteer.pocket.score import score

    measured = score(model)
    print(table(measured))
    if card is not None:
        card.write_text(model_card(model, measured), encoding="utf-8")
        print(card)


VERB = Verb(
    "the scorecard of an embedded model: facts, personas, arithmetic",
    "weightsteer pocket score --model pocket",
    _score,
    (),
    {
        "model": (str, "pocket", "pocket-s, pocket, pocket-l, or the folder of a build."),
        "card": (Path | None, None, "Also write the model card to this file."),
    },
)
