"""Processes that share a run: everything is made once, whoever fails or goes away."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from weightsteer.errors import WeightsteerError
from weightsteer.runtime.workers import work

MARK = "test_workers:leave_a_mark"


class Knobs(BaseModel):
    seconds: float = 0.0


def leave_a_mark(config: Any, out: Path, shares: Iterable[list[Any]]) -> None:
    """What the workers of these tests do with a share: a file that says which process made it."""
    (out / f"process-{os.getpid()}").touch()
    for name, seconds in shares:
        if name == "broken":
            raise WeightsteerError("this share cannot be made")
        time.sleep(seconds + config["seconds"])
        print("said aloud")  # by a library: it must not be taken for the worker's own word
        with (out / f"share-{name}").open("x") as mark:
            mark.write(str(os.getpid()))


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)


def made(out: Path) -> dict[str, str]:
    return {path.name.removeprefix("share-"): path.read_text() for path in out.glob("share-*")}


def test_a_long_share_holds_up_nobody_else(tmp_path: Path) -> None:
    """Shares dealt out beforehand would leave one core idle while the slowest family trains."""
    shares = [("slow", 3.0), *((f"quick{i}", 0.0) for i in range(5))]
    work(MARK, Knobs(), tmp_path, shares, 2)
    found = made(tmp_path)
    assert set(found) == {name for name, _ in shares}
    assert len({found[name] for name in found if name != "slow"} - {found["slow"]}) == 1


def test_a_worker_that_fails_leaves_its_share_and_no_other(tmp_path: Path) -> None:
    """One wrong share would otherwise cost all those that were dealt to the same process."""
    shares = [("a", 0.0), ("broken", 0.0), *((f"b{i}", 0.1) for i in range(4))]
    work(MARK, Knobs(), tmp_path, shares, 2)
    assert set(made(tmp_path)) == {"a", "b0", "b1", "b2", "b3"}
    work(MARK, Knobs(), tmp_path, [("broken", 0.0)] * 2, 2)  # all of them: it returns


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="asks the kernel for the state of a process")
def test_workers_end_with_whoever_started_them(tmp_path: Path) -> None:
    """A killed run would otherwise go on in the background, and keep the machine busy for an hour."""
    code = (
        "from pathlib import Path; from test_workers import MARK, Knobs; from weightsteer.runtime.workers import work; "
        f"work(MARK, Knobs(seconds=0.5), Path({str(tmp_path)!r}), [(i, 0) for i in range(99)], 2)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while len(made(tmp_path)) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    workers = [int(path.name.removeprefix("process-")) for path in tmp_path.glob("process-*")]
    assert len(workers) == 2
    while any(map(alive, workers)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(alive, workers))
    assert len(made(tmp_path)) <= 6


def alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().split()[2] != "Z"
    except OSError:
        return False
