"""``weightsteer train``: both branches."""

from pathlib import Path
from typing import TYPE_CHECKING

from weightsteer.cli.verb import TRAIN, Verb

if TYPE_CHECKING:
    from weightsteer.experiments.sweep.config import RunConfig


def _train(config: "RunConfig", out: Path) -> None:
    from weightsteer.experiments.sweep.replicate import train

    for positive, negative in train(config, out):
        for branch in (positive, negative):
            record = branch.read_json("training.json")
            loss = record["losses"][-1]
            print(f"{record['side']}: best step {record['best_step']}, last losses {loss}\n{branch.place}")


VERB = Verb(
    "fine-tune the two branches on the pairs",
    "weightsteer train --behavior honesty --adapter lora --seed 0 --lr 1e-3",
    _train,
    TRAIN,
)
