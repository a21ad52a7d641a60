"""Processes that share a run: everything is made once, whoever fails or goes away."""

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from weightsteer.errors import WeightsteerError
from weightsteer.runtime.executor import LocalProcesses

Share = tuple[str, float]


def leave_a_mark(out: Path, share: Share) -> None:
    """What the workers of these tests do with an item: a file that says which process made it."""
    name, seconds = share
    (out / f"process-{os.getpid()}").touch()
    if name == "broken":
        raise WeightsteerError("this share cannot be made")
    time.sleep(seconds)
    with (out / f"share-{name}").open("x") as mark:
        mark.write(str(os.getpid()))


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)


def made(out: Path) -> dict[str, str]:
    return {path.name.removeprefix("share-"): path.read_text() for path in out.glob("share-*")}


def test_a_long_share_holds_up_nobody_else(tmp_path: Path) -> None:
    """Items dealt out beforehand would leave one core idle while the slowest family trains."""
    shares = [("slow", 3.0), *((f"quick{i}", 0.0) for i in range(5))]
    LocalProcesses(2).run(partial(leave_a_mark, tmp_path), shares)
    found = made(tmp_path)
    assert set(found) == {name for name, _ in shares}
    assert len({found[name] for name in found if name != "slow"} - {found["slow"]}) == 1


def test_a_mistake_is_raised_when_the_others_are_done(tmp_path: Path) -> None:
    """One wrong item would otherwise cost all the others, or be lost."""
    shares = [("a", 0.0), ("broken", 0.0), *((f"b{i}", 0.1) for i in range(4))]
    with pytest.raises(WeightsteerError, match="this share cannot be made"):
        LocalProcesses(2).run(partial(leave_a_mark, tmp_path), shares)
    assert set(made(tmp_path)) == {"a", "b0", "b1", "b2", "b3"}


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="asks the kernel for the state of a process")
def test_workers_end_with_whoever_started_them(tmp_path: Path) -> None:
    """A killed run would otherwise go on in the background, and keep the machine busy for an hour."""
    code = (
        "from functools import partial; from pathlib import Path; from test_executor import leave_a_mark; "
        "from weightsteer.runtime.executor import LocalProcesses; "
        f"LocalProcesses(2).run(partial(leave_a_mark, Path({str(tmp_path)!r})), [(str(i), 0.5) for i in range(99)])"
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
    assert len(made(tmp_path)) <= 8


def alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().split()[2] != "Z"
    except OSError:
        return False


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="asks the kernel for the state of a process")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_to_the_parent_ends_all_of_it(tmp_path: Path, number: int, code: int) -> None:
    """Ctrl-C acted when the items that were being worked on were done, on a real model after hours."""
    script = (
        "import sys; from functools import partial; from pathlib import Path; from test_executor import leave_a_mark; "
        "from weightsteer import cli; from weightsteer.runtime.executor import LocalProcesses; "
        f"items = [(str(i), 600.0) for i in range(9)]; mark = partial(leave_a_mark, Path({str(tmp_path)!r})); "
        "cli._run = lambda _: LocalProcesses(2).run(mark, items) or 0; sys.exit(cli.main([]))"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.PIPE, text=True, start_new_session=True)
    while parent.poll() is None and len(list(tmp_path.glob("process-*"))) < 2:
        time.sleep(0.02)
    parent.send_signal(number)
    said = parent.communicate(timeout=60)[1]
    assert parent.returncode == code
    assert "run the same command again" in said
    assert "Traceback" not in said
    workers = [int(path.name.removeprefix("process-")) for path in tmp_path.glob("process-*")]
    deadline = time.monotonic() + 30
    while any(map(alive, workers)) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not any(map(alive, workers))
