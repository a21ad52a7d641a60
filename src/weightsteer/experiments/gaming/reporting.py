"""The last stage: all tables, the verdicts and the page, over everything that was run."""

import json
from collections.abc import Sequence
from pathlib import Path

from weightsteer.experiments.gaming import legs as of
from weightsteer.experiments.gaming.bench import Bench
from weightsteer.experiments.gaming.config import GamingConfig
from weightsteer.experiments.gaming.legs import Leg
from weightsteer.runtime.store import Artifact, safe_name, versions


def report(config: GamingConfig, benches: Sequence[Bench], legs: Sequence[Leg]) -> Artifact:
    """``report.html``, ``conclusion.md``, the charts as SVG and PNG, the tables as CSV and all rows as Parquet."""
    names = [bench.identity.name for bench in benches]
    home = Path(safe_name("+".join(names)), "gaming")
    told = {
        "command": "weightsteer gaming",
        "config": config.model_dump(mode="json"),
        "models": {bench.identity.name: bench.identity.digest for bench in benches},
        "recipe": {bench.identity.name: bench.recipe.model_dump(mode="json") for bench in benches},
        "protocol": {bench.identity.family: bench.protocol.digest for bench in benches},
        "versions": versions(),
    }

    def build(work: Path) -> None:
        from weightsteer.experiments.gaming.findings import findings
        from weightsteer.experiments.gaming.page import write_gaming

        found = findings(
            of.curves(legs), of.runs(legs), of.training(legs), of.comparisons(legs), resamples=config.resamples
        )
        (work / "run.json").write_text(json.dumps(told, indent=1, ensure_ascii=False), encoding="utf-8")
        write_gaming(work, found, benches[0].protocol, run=told)

    every = [[leg.branches, leg.signals, leg.curve, leg.comparison] for leg in legs]
    inputs = {"made": [[each for each in made if each] for made in every], "told": told}
    # the folder, for its templates
    code = ["experiments.gaming.reporting:report", "experiments.gaming.findings", "experiments.gaming.legs", "report"]
    return benches[0].store.stage("gaming-report", inputs, code, build, home / "report")
