"""``weightsteer pocket build``: train an embedded model."""

from pathlib import Path

from weightsteer.cli.verb import Verb


def _build(size: str, out: Path | None, steps: int | None, resume: bool) -> None:
    from weightsteer.pocket.build import build

    print(build(size, out or Path(size), steps=steps, resume=resume))


VERB = Verb(
    "train an embedded model from nothing; goes on from its checkpoint",
    "weightsteer pocket build --size pocket --out my-pocket",
    _build,
    (),
    {
        "size": (str, ..., "pocket-s, pocket or pocket-l."),
        "out": (Path | None, None, "Folder to write; named after the size by default."),
        "steps": (int | None, None, "Optimiser steps; by default what the size needs."),
        "resume": (bool, True, "Go on from a checkpoint in the folder."),
    },
)
