"""Who does the work of an experiment: this process, or several on this machine.

Processes, because a small model cannot keep two cores busy from one: its matrices are too small to be divided. They
exchange no results: each makes the stages of its units in the common store, and whoever started them then finds them
finished. So what a run leaves behind does not depend on the number of processes, and one that is killed costs time
only.
"""

import ctypes
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from weightsteer.errors import WeightsteerError

PARENT_DEATH_SIGNAL = 1
"""PR_SET_PDEATHSIG of ``linux/prctl.h``."""

Item = TypeVar("Item")


class Executor(Protocol):
    """Runs a function on every item, in any order and in any processes; the function leaves its results in a store."""

    def run(self, function: Callable[[Item], None], items: Sequence[Item]) -> None:
        """Return when all items are done.

        Raises:
            WeightsteerError: the first that the function raised, when the other items are done.
        """
        ...


class LocalProcesses:
    """So many processes of this machine, each taking the next item when it is free.

    They end with the process that started them, also when that is killed. One that dies leaves its item undone, which
    is no error here: the experiment makes what it does not find.
    """

    def __init__(self, workers: int) -> None:
        self.workers = workers

    def run(self, function: Callable[[Item], None], items: Sequence[Item]) -> None:
        from loky import ProcessPoolExecutor
        from loky.process_executor import BrokenProcessPool

        pool = ProcessPoolExecutor(min(self.workers, len(items)), initializer=_begin, initargs=(os.getpid(),))
        mistakes: list[WeightsteerError] = []
        finished = False
        try:
            for future in [pool.submit(function, item) for item in items]:
                try:
                    future.result()
                except WeightsteerError as mistake:
                    mistakes.append(mistake)
            finished = True
        except BrokenProcessPool:
            pass
        finally:
            pool.shutdown(wait=finished, kill_workers=not finished)
        if mistakes:
            raise mistakes[0]


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processes(workers: int | None, *, embedded: bool) -> Executor | None:
    """The executor for a number of processes, by default one per core on an embedded model, else one; None for one."""
    workers = workers or (cores() if embedded else 1)
    return LocalProcesses(workers) if workers > 1 else None


def quiet() -> None:
    """No warnings of libraries about their own future: progress and mistakes are what a user has to see."""
    warnings.simplefilter("ignore", FutureWarning)
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def _begin(parent: int) -> None:
    """What a worker does first."""
    from weightsteer import progress

    if sys.platform == "linux":  # at once, also in the middle of a long multiplication
        ctypes.CDLL(None).prctl(PARENT_DEATH_SIGNAL, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
    quiet()
    progress.silence()  # several bars at once overwrite each other
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)
