"""Several processes at work on the arms of one run, each on its own share; see `weightsteer.experiment.workers`."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from weightsteer.gaming.config import GamingConfig

if TYPE_CHECKING:
    from weightsteer.gaming.experiment import Share


def work(config: GamingConfig, out: Path, shares: "Sequence[Share]", workers: int) -> None:
    """Make these shares in so many processes; returns when all have ended.

    A worker that fails leaves the rest of its share to the caller, who meets the same mistake and tells it.
    """
    command = [sys.executable, "-m", "weightsteer.gaming.workers"]
    running: list[subprocess.Popen[str]] = []
    try:
        for first in range(min(workers, len(shares))):
            process = subprocess.Popen(command, stdin=subprocess.PIPE, text=True)
            running.append(process)
            assert process.stdin is not None
            told = {"config": config.model_dump(mode="json"), "out": str(out), "shares": shares[first::workers]}
            process.stdin.write(json.dumps(told))
            process.stdin.close()
        for process in running:
            process.wait()
    finally:
        for process in running:
            process.kill()
            process.wait()


def _main() -> int:
    """What one worker does: it reads its share from standard input."""
    from weightsteer import progress
    from weightsteer.cli.main import quiet
    from weightsteer.errors import WeightsteerError
    from weightsteer.gaming.experiment import Share, measure
    from weightsteer.gaming.protocol import Cell

    told: dict[str, Any] = json.load(sys.stdin)
    quiet()
    progress.silence()  # several bars at once overwrite each other
    shares = [Share(model, seed, Cell(*cell), detector) for model, seed, cell, detector in told["shares"]]
    try:
        measure(GamingConfig.checked(told["config"]), Path(told["out"]), shares)
    except (WeightsteerError, KeyboardInterrupt):
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(_main())
