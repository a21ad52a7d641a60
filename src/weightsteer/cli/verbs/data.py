"""``weightsteer data``: the pairs."""

from pathlib import Path
from typing import TYPE_CHECKING

from weightsteer.cli.verb import DATA, Verb

if TYPE_CHECKING:
    from weightsteer.experiments.sweep.config import RunConfig


def _data(config: "RunConfig", out: Path) -> None:
    from weightsteer.data.pairs.audit import AuditReport
    from weightsteer.experiments.sweep.replicate import pairs

    for artifact in pairs(config, out):
        print(AuditReport.model_validate(artifact.read_json("audit.json")))
        print(artifact.place / "pairs.parquet")


VERB = Verb(
    "contrastive pairs: the same questions answered under both poles, judged and audited",
    "weightsteer data --behavior honesty --seed 0 --samples 10",
    _data,
    DATA,
)
