"""Names and texts from elsewhere are data: in a page, in a card, on a terminal, and in the names of folders."""

import re
import shutil
import subprocess
from pathlib import Path

import polars as pl
import pytest
from rows import synthetic

from weightsteer.cli import main
from weightsteer.experiments.sweep.replicate import joined_report
from weightsteer.export.card import _code, _inline, _prose, _shell
from weightsteer.files import printable, safe_name
from weightsteer.report.page import rendered

HOSTILE = "<script>document.body.id='ran'</script>[red]:smile: \x1b[31m\u202e x\"y"
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report over rows whose every name is hostile."""
    home = tmp_path_factory.mktemp("hostile")
    names = [pl.lit(f"{HOSTILE} {name}").alias(name) for name in ("model", "behavior", "adapter", "eval")]
    synthetic().with_columns(names).write_parquet(home / "rows.parquet")
    return joined_report([home / "rows.parquet"], home / "report", resamples=100)


def test_names_are_text_in_a_page(report: Path) -> None:
    """A name in a file that somebody sends would be a program in the reader's browser; an escape broke the charts."""
    page = report.read_text()
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "\x1b" not in page
    assert "\u202e" not in page
    assert "default-src 'none'" in page.split("<style>")[0]
    for chart in report.parent.glob("charts/*.svg"):
        assert "<script" not in chart.read_text()
        assert "\x1b" not in chart.read_text()


def test_names_are_text_on_a_terminal(report: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Markup in a name ended in a traceback or coloured the table, and an escape reached the terminal."""
    rows = report.parent.parent / "rows.parquet"
    assert main(["report", "--rows", str(rows), "--out", str(report.parent), "--resamples", "100"]) == 0
    printed = capsys.readouterr().out
    assert "[red]:smile:" in re.sub(r"\s", "", printed)
    assert "\x1b" not in printed
    assert "\u202e" not in printed


@pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed")
def test_no_script_runs_in_a_page(tmp_path: Path) -> None:
    """Should a text once be written without being escaped, the page's own policy still keeps it from running."""
    script = "<script>document.body.id='ran'</script><img src='x:' onerror=\"document.body.id='ran'\">"
    page = rendered("weightsteer.report", "shell.html.jinja", title="t", facts={}, run={})

    def ran(text: str) -> bool:
        (tmp_path / "page.html").write_text(text.replace("</body>", f"{script}</body>"))
        flags = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
        command = [str(BROWSER), *flags, "--dump-dom", f"file://{tmp_path}/page.html"]
        shown = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
        assert "Provenance" in shown
        return '<body id="ran"' in shown

    assert not ran(page)
    assert ran(re.sub(r"<meta http-equiv=[^>]*>", "", page)), "it is the policy that keeps it from running"


def test_a_card_escapes_by_context() -> None:
    """What a vector says of itself is read as Markdown, HTML, Python and shell by whoever copies from its card."""
    name = 'x"); import os #`$(id)` <img src="http://a/b"> | ![a](http://a/b)\n```'
    assert eval(_code(name)) == printable(name)
    assert "\n" not in _code(name)
    done = subprocess.run(["sh", "-c", f"printf %s {_shell(name)}"], capture_output=True, text=True, check=True)
    assert done.stdout == printable(name)
    assert not re.search(r"(?<!\\)[`|\[\]!#<>]", _prose(name))
    assert "\n" not in _prose(name)
    assert _inline(name).strip("`").count("`") == 0
    # and what is harmless stays as it is
    assert (_prose("Qwen/Qwen3-0.6B"), _code("pocket"), _shell("a/b"), _inline("a")) == (
        "Qwen/Qwen3-0.6B",
        '"pocket"',
        "a/b",
        "`a`",
    )


def test_a_long_name_fits_a_file_system(tmp_path: Path) -> None:
    """A model or file name of 246 characters, with what is put around it, is longer than a folder's name may be."""
    names = [safe_name("k" * 246 + end) for end in "ab"]
    assert names[0] != names[1]
    (tmp_path / f"matched-{names[0]}.partial").mkdir()
    assert safe_name("k" * 80) == "k" * 80
