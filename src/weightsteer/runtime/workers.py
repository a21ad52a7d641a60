"""Several processes at work on one run, each taking the next share of it when it is free.

Processes, because a small model cannot keep two cores busy from one: its matrices are too small to be divided. They
exchange no results: each makes the stages of its shares in the common store, and whoever started them then finds them
finished. So what a run leaves behind does not depend on the number of processes, and one that is killed costs time
only.

A worker asks for a share by a line on its standard output, and is given it as a line of JSON on its standard input,
which ends when there are no more, or when whoever started it is gone.
"""

import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stdout, suppress
from importlib import import_module
from pathlib import Path
from queue import Empty, SimpleQueue
from subprocess import PIPE, Popen
from typing import Any, TextIO

from pydantic import BaseModel


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def work(measure: str, config: BaseModel, out: Path, shares: Sequence[Any], workers: int) -> None:
    """Make these shares in so many processes; returns when all have ended.

    A worker that fails leaves its share to the caller, who meets the same mistake and tells it.

    Args:
        measure: ``module:function`` that makes shares, called once in each process with the fields of ``config``,
            ``out``, and the shares as they come, each a list.
        shares: what JSON can hold, in the order in which they are handed out.
    """
    waiting: SimpleQueue[Any] = SimpleQueue()
    for share in shares:
        waiting.put(share)
    command = [sys.executable, "-m", __name__, measure]
    told = {"config": config.model_dump(mode="json"), "out": str(out)}
    processes: list[Popen[str]] = []
    with ThreadPoolExecutor(workers) as threads:
        try:
            for _ in range(min(workers, len(shares))):
                processes.append(Popen(command, stdin=PIPE, stdout=PIPE, text=True))
            served = [threads.submit(_serve, process, told, waiting) for process in processes]
            for each in served:
                each.result()
        finally:  # before the threads are waited for: they wait for the processes
            for process in processes:
                process.kill()
                process.wait()


def _serve(process: "Popen[str]", told: dict[str, Any], waiting: "SimpleQueue[Any]") -> None:
    """Hand out shares to one worker until there are none, or it has failed."""
    assert process.stdin is not None
    assert process.stdout is not None
    with suppress(BrokenPipeError), process.stdin as stdin, suppress(Empty):
        print(json.dumps(told), file=stdin, flush=True)
        while process.stdout.readline():
            print(json.dumps(waiting.get_nowait()), file=stdin, flush=True)
    process.wait()


def _asked_for(asking: TextIO, given: Iterable[str]) -> Iterator[list[Any]]:
    """The shares of this worker, each asked for when the last one is done."""
    lines = iter(given)
    while True:
        print(file=asking, flush=True)
        line = next(lines, "")
        if not line:
            return
        yield json.loads(line)


def _main() -> int:
    """What one worker does."""
    from weightsteer import progress
    from weightsteer.errors import WeightsteerError

    module, _, function = sys.argv[1].partition(":")
    asking = sys.stdout
    with redirect_stdout(sys.stderr):  # nothing else may be said there
        told = json.loads(sys.stdin.readline())
        progress.silence_libraries()
        progress.silence()  # several bars at once overwrite each other
        try:
            getattr(import_module(module), function)(told["config"], Path(told["out"]), _asked_for(asking, sys.stdin))
        except (WeightsteerError, KeyboardInterrupt, BrokenPipeError):
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(_main())
