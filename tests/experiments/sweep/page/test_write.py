"""The folder of a report: whole, offline, safe, the same bytes every time."""

import hashlib
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from rows import synthetic

from weightsteer import audit
from weightsteer.experiments.sweep.page import write_report
from weightsteer.experiments.sweep.page.render import render
from weightsteer.formatting import estimate
from weightsteer.stats import paired, summarize

RUN = {"config": {"model": "pocket", "seeds": [0, 1], "training": {"lr": 0.001}}, "note": None, "list": [{"a": 1}]}
VOID = {"meta", "br", "line", "circle", "path", "rect", "mspace"}


def sweep() -> pl.DataFrame:
    """Two evaluations, a vector and its control, two seeds."""
    return pl.concat(
        synthetic(method=method, evaluation=name, clusters=8, seeds=(0, 1), between_seeds=0.1, draw=i, **truth)
        for i, (method, name, truth) in enumerate(
            [
                ("weight", "dilemmas", {"discrimination": 1.0, "noise": 0.1}),
                ("control", "dilemmas", {}),
                ("weight", "claims & <facts>", {"bias": 2.0}),
            ]
        )
    )


def written(folder: Path) -> Path:
    """The report of that sweep, with everything it can show."""
    rows = sweep()
    samples = [
        {"prompt": "Is it <script>alert(1)</script>?", "alpha": alpha, "seed": seed, "text": f"said & done {alpha}"}
        for alpha in (-1.0, 0.0, 1.0)
        for seed in (0, 1)
    ]
    norms = pl.DataFrame(
        [(seed, layer, f"model.layers.{layer}.mlp.up_proj", 1.0 + layer) for seed in (0, 1) for layer in (0, 1)],
        schema=["seed", "layer", "module", "norm"],
        orient="row",
    )
    texts = {item: f"<b>text of</b> {item}" for item in rows["item"].unique()}
    pairs_audit = {"total": 10, "kept": 9, "warnings": ["<i>careful</i>"]}
    return write_report(
        folder, rows, run=RUN, samples=samples, norms=norms, texts=texts, pairs_audit=pairs_audit, resamples=200
    )


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One written report, shared by the tests that only read it."""
    return written(tmp_path_factory.mktemp("report") / "new" / "folder")


class Page(HTMLParser):
    """Tags with their attributes, and whether every tag that opens closes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag


def digests(folder: Path) -> dict[str, str]:
    """Content of every file."""
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in found}


def test_all_files_are_there(report: Path) -> None:
    """Charts go into papers and the CSV into other people's code: none may be missing or stay half written."""
    names = set(digests(report.parent))
    figures = ["dose-response-dilemmas", "dose-response-claims-facts", "rows-dilemmas", "rows-claims-facts", "norms"]
    figures.append("forest")
    charts = {f"charts/{name}.{kind}" for name in figures for kind in ("svg", "png")}
    assert names == {"report.html", "run.json", "rows.csv", "summary.csv", "summary_by_seed.csv"} | charts
    assert pl.read_csv(report.parent / "summary.csv").height == 9
    assert pl.read_csv(report.parent / "summary_by_seed.csv").height == 18
    assert len(report.read_bytes()) < 400_000


def test_the_page_needs_nothing_but_itself(report: Path) -> None:
    """Offline, a script, font or image from elsewhere would leave holes; online it would tell on the reader."""
    text = report.read_text(encoding="utf-8")
    page = Page(text)
    assert page.open == []
    assert not {tag for tag, _ in page.tags} & {"script", "link", "img", "iframe", "object", "base", "form"}
    for tag, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on") or name in ("src", "srcset", "xlink:href")]
        if target := attributes.get("href"):
            assert target.startswith("#") or (tag == "a" and target.startswith("https://arxiv.org/")), target
    assert not re.search(r"@import|url\((?!#)", text)


def test_ids_are_unique_and_links_lead_somewhere(report: Path) -> None:
    """Charts that share an id clip each other, and a dead entry in the contents is a lost section."""
    page = Page(report.read_text(encoding="utf-8"))
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    targets = [str(a["href"])[1:] for _, a in page.tags if str(a.get("href", "")).startswith("#")]
    assert set(targets) <= set(ids)
    assert len(targets) == 12


def test_what_users_wrote_is_shown_not_run(report: Path) -> None:
    """Prompts, texts and names are anybody's: unescaped, they would run in the browser of whoever opens the page."""
    text = report.read_text(encoding="utf-8")
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert "&lt;b&gt;text of&lt;/b&gt; d0" in text
    assert "&lt;i&gt;careful&lt;/i&gt;" in text
    assert "claims &amp; &lt;facts&gt;" in text
    assert "<facts>" not in text


def test_every_colour_of_a_chart_has_its_dark_twin(report: Path) -> None:
    """A colour that the style sheet does not know stays dark on dark."""
    text = report.read_text(encoding="utf-8")
    used = set(re.findall(r'(?:fill|stroke)="(#[0-9a-fA-F]{3,8}|[a-z]+)"', text)) - {"none", "transparent"}
    style = (files("weightsteer.report") / "style.css").read_text(encoding="utf-8")
    assert used
    assert {color for color in used if f'"{color}"' not in style} == set()


def test_the_page_says_what_the_summary_says(report: Path) -> None:
    """Headline and table would be worth nothing if they were not the numbers of summary.csv."""
    text = report.read_text(encoding="utf-8")
    summary = summarize(sweep(), resamples=200)
    for line in summary.filter(pl.col("alpha") != 0).iter_rows(named=True):
        assert estimate(line, "discrimination") in text
        assert estimate(line, "bias") in text
    for sentence in audit.headline(summary):
        assert (
            sentence.replace("α = ", "α\u00a0=\u00a0").replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
            in text
        )
    table = pl.read_csv(report.parent / "summary.csv")
    assert table["discrimination"].to_list() == pytest.approx(summary["discrimination"].to_list(), abs=1e-6)


def test_bytes_depend_on_the_inputs_only(report: Path, tmp_path: Path) -> None:
    """A finished run that is written again must not change: no clock, path, hash order or counter in any file."""
    again = written(tmp_path / "again")
    assert digests(again.parent) == digests(report.parent)
    code = "import sys; from pathlib import Path; from test_write import written; written(Path(sys.argv[1]))"
    environment = {
        **os.environ,
        "PYTHONHASHSEED": "7",
        "TZ": "Asia/Tokyo",
        "PYTHONPATH": os.pathsep.join(
            [str(Path(__file__).parent), str(Path(__file__).parents[3]), os.environ.get("PYTHONPATH", "")]
        ),
    }
    fresh = tmp_path / "fresh"
    subprocess.run([sys.executable, "-c", code, str(fresh)], check=True, env=environment)
    assert digests(fresh) == digests(report.parent)
    text = report.read_text(encoding="utf-8")
    assert str(report.parent.parent) not in text
    assert not re.search(r"\b20\d\d-\d\d-\d\d\b", text)


def page(rows: pl.DataFrame, **given: Any) -> str:
    """The page without charts."""
    summary, by_seed = summarize(rows, resamples=50), summarize(rows, by_seed=True, resamples=50)
    told = {"run": {}, "samples": [], "norms": None, "texts": {}, "pairs_audit": None, **given}
    return render(paired(rows), summary, by_seed, [], *told.values(), resamples=50)


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (synthetic(discrimination=1), "steers dilemmas"),
        (synthetic(labels=(1,), clusters=30), "cannot be judged on dilemmas (one label only)"),
        (synthetic(clusters=1), "has no interval on dilemmas (one cluster)"),
        (synthetic(alphas=(0,)), "No strength other than α = 0 was swept"),
        (
            synthetic(alphas=(0, 0.5), discrimination=2),
            "At α\u00a0=\u00a0+0.5 the honesty vector (lora) steers dilemmas.",
        ),
        (synthetic(damage=0.5), "damages the answer format of dilemmas"),
        (
            synthetic().with_columns(logratio=pl.when(pl.col("alpha") == 1).then(None).otherwise("logratio")),
            "gives NaN on dilemmas",
        ),
        (
            synthetic(discrimination=1).with_columns(adapter=pl.lit(None, pl.String)),
            "the honesty vector steers dilemmas",
        ),
        (synthetic(discrimination=1).drop("low_pmass"), "steers dilemmas"),
        (
            synthetic(seeds=(3,)).with_columns(seed=pl.lit(None, pl.Int64)),
            "has no distinguishable effect on dilemmas",
        ),
    ],
)
def test_odd_runs_have_a_page_too(rows: pl.DataFrame, words: str) -> None:
    """The run that went wrong is the one whose report is needed; sections without content must go, not fail."""
    text = page(rows)
    assert words in text
    assert Page(text).open == []
    assert "Generated text" not in text
    assert "Training pairs" not in text


def test_vectors_of_one_report_keep_their_norms_apart(tmp_path: Path) -> None:
    """Norms of two vectors averaged into one map would be those of neither."""
    norms = pl.DataFrame(
        [("lora", 0, 1, "layers.1.up", 3.0), ("lora", 1, 1, "layers.1.up", 5.0), ("dora", 0, 1, "layers.1.up", 8.0)],
        schema=["vector", "seed", "layer", "module", "norm"],
        orient="row",
    )
    text = write_report(tmp_path, synthetic(clusters=4), run={}, norms=norms, resamples=20).read_text("utf-8")
    assert "Total ‖dW‖: 3, 5 (one number per seed)" in text
    assert "Total ‖dW‖: 8. Share of ‖dW‖² by module: up 100%" in text
    assert {path.name for path in (tmp_path / "charts").glob("norms*.svg")} == {"norms-lora.svg", "norms-dora.svg"}


def test_several_vectors_and_models_stand_side_by_side() -> None:
    """A sweep over adapters, behaviours and models would be unreadable if its parts had the same name."""
    rows = pl.concat(
        [
            synthetic(discrimination=1),
            synthetic(discrimination=2, adapter="dora", draw=1),
            synthetic(discrimination=-1, model="pocket-l", behavior="candour", draw=2),
        ]
    )
    text = page(rows)
    assert "candour and honesty on pocket and pocket-l" in text
    assert "candour on pocket-l" in text
    assert text.count("weight · dora") >= 3
    assert "the candour vector (lora) on pocket-l steers dilemmas in the reverse direction" in text
