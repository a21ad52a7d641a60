"""Where the program runs: streams, folders and limits that are not as usual end in a message, or change nothing."""

import errno
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from weightsteer.cli import MISTAKE, main
from weightsteer.runtime.store import explain


def test_letters_that_the_terminal_lacks_are_written_in_ascii(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a container without a locale a run ended in a traceback when all its work was done."""
    printed = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(printed, encoding="ascii"))
    assert main(["list", "behaviors"]) == 0
    sys.stdout.flush()
    assert b"\\u03b1 > 0" in printed.getvalue()


def test_a_removed_working_folder_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A shell stays in a folder that another one removed; every relative path then fails in its own way."""
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert main(["list", "behaviors"]) == MISTAKE
    assert "working folder was removed" in capsys.readouterr().err


@pytest.mark.parametrize("closed", ["2>&-", ">&-", "<&-", "<&- >&- 2>&-"])
def test_closed_streams_are_no_files(closed: str, tmp_path: Path) -> None:
    """With standard error closed the next file that is opened gets its number, and messages are written into it."""
    script = (
        "import sys\nfrom weightsteer.cli import _open_streams\n_open_streams()\n"
        f"with open({str(tmp_path / 'file')!r}, 'w') as file:\n"
        "    assert file.fileno() > 2, file.fileno()\n    file.write('mine')\n"
        "    print('out')\n    print('err', file=sys.stderr)\n    sys.stdin.read()\n"
    )
    done = subprocess.run(["sh", "-c", f'"$0" -c "$1" {closed}', sys.executable, script], input="", text=True)
    assert done.returncode == 0
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.EFBIG, os.strerror(errno.EFBIG), "out/a"), ["ulimit -f", "goes on from there"]),
        (OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), "x" * 300), ["name is too long"]),
        (MemoryError(), ["not enough memory", "ulimit -v"]),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: 9 bytes"), ["not enough memory", "9 bytes"]),
        (
            PermissionError(errno.EACCES, os.strerror(errno.EACCES), "/elsewhere/rows.jsonl"),
            ["/elsewhere/rows.jsonl can", "Make it readable"],
        ),
        (PermissionError(errno.EACCES, os.strerror(errno.EACCES), "out/model/a"), ["Make the place writable"]),
    ],
)
def test_limits_are_explained(error: Exception, words: list[str]) -> None:
    """An unreadable input was answered with the advice to make the output folder writable."""
    explained = str(explain(error, Path("out"), "sweep"))
    assert all(word in explained for word in words), explained
