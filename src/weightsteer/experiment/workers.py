"""Several processes at work on the vectors of one run, each on its own share.

Processes, because a small model cannot keep two cores busy from one: its matrices are too small to be divided. They
exchange nothing: each makes the stages of its vectors in the common store, and whoever started them then finds them
finished. So what a run leaves behind does not depend on the number of processes, and one that is killed costs time
only.
"""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from weightsteer.experiment.config import RunConfig


class Share(NamedTuple):
    """One vector of a run: the name of its lab, which is behaviour and adapter family, and its seed."""

    vector: str
    seed: int


def divided(shares: Sequence[Share], workers: int) -> list[list[Share]]:
    """The shares in turn for each worker, none of them empty.

    Seeds vary fastest in a run, so neighbours need different pairs and no worker waits for those of another.

    >>> [len(part) for part in divided([Share("honesty, lora", seed) for seed in range(5)], 2)]
    [3, 2]
    """
    return [list(shares[first::workers]) for first in range(min(workers, len(shares)))]


def work(config: RunConfig, out: Path, shares: Sequence[Share], workers: int) -> None:
    """Make the vectors of these shares and measure them, in so many processes; returns when all have ended.

    A worker that fails leaves the rest of its share to the caller, who meets the same mistake and tells it.
    """
    command = [sys.executable, "-m", "weightsteer.experiment.workers"]
    running: list[subprocess.Popen[str]] = []
    try:
        for part in divided(shares, workers):
            process = subprocess.Popen(command, stdin=subprocess.PIPE, text=True)
            running.append(process)
            assert process.stdin is not None
            told = {"config": config.model_dump(mode="json"), "out": str(out), "shares": part}
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
    from weightsteer.cli import quiet
    from weightsteer.errors import WeightsteerError
    from weightsteer.experiment import replicate

    told: dict[str, Any] = json.load(sys.stdin)
    quiet()
    progress.silence()  # several bars at once overwrite each other
    try:
        shares = [Share(*share) for share in told["shares"]]
        replicate.measure(RunConfig.checked(told["config"], "worker"), Path(told["out"]), shares)
    except (WeightsteerError, KeyboardInterrupt):
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(_main())
