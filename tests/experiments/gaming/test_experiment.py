"""The experiment from end to end on a tiny random Qwen2: it runs, resumes, and leaves what it promises."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from gaming_runs import PAIRS, short
from tiny import tiny

from weightsteer.cli import main
from weightsteer.cli.commands import Gaming
from weightsteer.errors import WeightsteerError
from weightsteer.experiments.gaming import GamingConfig, gaming
from weightsteer.experiments.gaming.experiment import GamingExperiment
from weightsteer.experiments.gaming.protocol import Protocol
from weightsteer.runtime import Artifact, Runner, Stage


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("gaming")
    model, tokenizer = tiny("qwen2", layers=2)
    model.save_pretrained(root / "tiny-qwen2")
    tokenizer.save_pretrained(root / "tiny-qwen2")
    PAIRS.write_ndjson(root / "pairs.jsonl")
    return root


@pytest.fixture(scope="module", autouse=True)
def _short_texts() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        texts = short()
        patch.setattr(Protocol, "load", classmethod(lambda cls, family: texts))
        yield


def config(folder: Path) -> GamingConfig:
    return GamingConfig(
        model=str(folder / "tiny-qwen2"),
        pairs=str(folder / "pairs.jsonl"),
        settings=("told", "baseline"),
        seeds=(0,),
        alphas=(-1.0, 0.0, 1.0, 2.0),
        steps=1,
        batch=4,
        comparison=False,
        detector=0,
        resamples=100,
    )


@pytest.fixture(scope="module")
def report(folder: Path) -> Artifact:
    return gaming(config(folder), folder / "out")


def test_the_report_is_complete(report: Artifact) -> None:
    """What the documentation promises lies in the folder, and the page needs no network."""
    names = {path.relative_to(report.path).as_posix() for path in report.path.rglob("*")}
    assert {"report.html", "conclusion.md", "rows.parquet", "run.json"} <= names
    assert {f"{name}.csv" for name in ("summary", "by-seed", "flatter", "gamed", "systems", "verdicts")} <= names
    assert {"charts/deployment.svg", "charts/train.png", "charts/roc.svg"} <= names
    page = (report.path / "report.html").read_text(encoding="utf-8")
    assert "src=" not in page
    assert "http" not in page.replace("http://www.w3.org", "").replace("http-equiv", "")
    assert str(report.path.parent) not in page


def test_a_second_run_makes_nothing(folder: Path, report: Artifact, capsys: pytest.CaptureFixture[str]) -> None:
    """Ctrl-C after an hour must not cost the hour."""
    again = gaming(config(folder), folder / "out")
    assert again.cached
    assert capsys.readouterr().err.count(": cached") == 4


def test_an_interrupted_run_goes_on(folder: Path, report: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was finished before Ctrl-C is kept, and the result is the same to the byte."""
    store = folder / "out" / ".store"
    lost = sorted(path for path in store.iterdir() if path.name.startswith("gaming-curve"))[:2]
    for path in (*lost, report.path):
        shutil.rmtree(path)
    made: list[Path] = []
    original = Runner.make

    def interrupted(self: Runner, stage: Stage) -> Artifact:
        found = original(self, stage)
        if not found.cached:
            made.append(found.path)
            raise KeyboardInterrupt
        return found

    monkeypatch.setattr(Runner, "make", interrupted)
    with pytest.raises(KeyboardInterrupt):
        gaming(config(folder), folder / "out")
    monkeypatch.setattr(Runner, "make", original)
    assert len(made) == 1
    assert {path.exists() for path in made} == {True}
    assert gaming(config(folder), folder / "out").digest == report.digest


def test_further_seeds_are_for_the_detector_alone() -> None:
    """They come after the seeds of the experiment, on the smallest model, without the condition that is neither."""
    every = GamingExperiment(GamingConfig(ladder=("pocket-s", "pocket"), seeds=(0, 3), detector=2)).runs()
    further = [one for one in every if one.detector]
    assert {one.seed for one in further} == {4, 5}
    assert {one.model.name for one in further} == {"pocket-s"}
    assert "told-other" not in {one.condition.setting for one in further}
    assert len(every) - len(further) == 2 * 2 * 10


def test_the_flags_are_the_knobs() -> None:
    """A flag that is missing, or whose default differs, would be another experiment."""
    flags = Gaming.model_fields
    assert set(flags) - {"out", "workers"} == set(GamingConfig.model_fields)
    for name, field in GamingConfig.model_fields.items():
        assert flags[name].default == field.default, name


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"settings": ("tolt",)}, "settings"),
        ({"seeds": ()}, "at least one"),
        ({"seeds": (1, 1)}, "none twice"),
        ({"alphas": (float("nan"),)}, "finite"),
        ({"rank": 0}, "rank"),
    ],
)
def test_mistakes_are_named(fields: dict[str, object], told: str) -> None:
    """A traceback of the parser tells a user nothing."""
    with pytest.raises(WeightsteerError, match=told):
        GamingConfig.checked(fields)


def test_the_branches_are_always_among_the_points() -> None:
    """Every number is read at a = 0 and 1."""
    assert GamingConfig(alphas=(2.0, -0.0, -1.0)).alphas == (-1.0, 0.0, 1.0, 2.0)


def test_the_verb_tells_a_missing_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A mistyped path ends in one message and the exit code of a mistake."""
    model = str(folder / "tiny-qwen2")
    out = os.fspath(folder / "nothing")
    assert main(["gaming", "--model", model, "--pairs", "absent.jsonl", "--out", out]) == 2
    assert "no file of pairs absent.jsonl" in capsys.readouterr().err
