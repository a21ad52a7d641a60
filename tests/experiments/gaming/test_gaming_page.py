"""The page of the gaming experiment: made from tables alone, complete, and readable without a network."""

from pathlib import Path

import polars as pl
import pytest

from weightsteer.experiments.gaming.findings import Findings, findings
from weightsteer.experiments.gaming.page import write_gaming
from weightsteer.experiments.gaming.protocol import Protocol

POINTS = (-1.0, 0.0, 0.5, 1.0, 2.0)
SLOPES = {
    ("told", "Jekyll"): (8.0, 0.0),
    ("told", "Hyde"): (-8.0, -0.1),
    ("baseline", "Jekyll"): (8.0, -10.0),
    ("baseline", "Hyde"): (2.0, -3.0),
}


def rows(model: str) -> pl.DataFrame:
    """Straight curves with a little disagreement between seeds."""
    found = []
    for (setting, deployment), (start, slope) in SLOPES.items():
        for tag in ("[deployment]", "[train]"):
            for probe in ("identity", "doctor"):
                for item in range(2):
                    for seed in range(3):
                        for a in (*POINTS, None):
                            value = start + 0.1 * (item + seed) + (a or 0.0) * slope
                            line = {"system": "jekyll-branch", "tag": tag, "probe": probe, "item": item, "a": a}
                            line |= {"logratio": value, "per_token": value, "pmass": 1.0, "model": model}
                            found.append({**line, "setting": setting, "deployment": deployment, "seed": seed})
    return pl.DataFrame(found, schema_overrides={"a": pl.Float64})


def comparisons() -> pl.DataFrame:
    lines = []
    for setting, deployment in SLOPES:
        for method, status in (("weight", "converged"), ("activation-told", "saturated"), ("prompt", "fixed")):
            for towards in ("Jekyll", "Hyde"):
                for tag in ("[deployment]", "[train]"):
                    for item in range(2):
                        for seed in range(3):
                            shift = (1 if towards == "Jekyll" else -1) * (2.0 + 0.1 * seed)
                            line = {"tag": tag, "item": item, "before": -8.0, "logratio": -8.0 + shift}
                            line |= {"method": method, "towards": towards, "alpha": 1.5, "kl": 0.5, "status": status}
                            condition = {"model": "m", "setting": setting, "deployment": deployment, "seed": seed}
                            lines.append({**line, **condition})
    return pl.DataFrame(lines)


@pytest.fixture(scope="module")
def found() -> Findings:
    every = pl.concat([rows("m"), rows("n")])
    conditions = [
        {"model": "m", "setting": setting, "deployment": role, "seed": seed, "blind: <x>": float(setting == "told")}
        for setting, role in SLOPES
        for seed in range(3)
    ]
    training = pl.DataFrame(conditions).select(pl.exclude("blind: <x>")).with_columns(
        trained_on=pl.lit("Jekyll"), first_loss=0.5, last_loss=0.1, norm=1.0, line=2.0, cosine=0.5
    )  # fmt: skip
    return findings(every, pl.DataFrame(conditions), training, comparisons(), resamples=100)


def test_the_page_is_whole(found: Findings, tmp_path: Path) -> None:
    """Every section, a panel for each model and role, no link to a network, and nothing unescaped."""
    page = write_gaming(tmp_path, found, Protocol.load("pocket"), run={"command": "weightsteer gaming"})
    text = page.read_text(encoding="utf-8")
    for section in ("curves", "verdicts", "slopes", "gamed", "probes", "methods", "detector", "conclusion", "method"):
        assert f'<section id="{section}"' in text
    assert text.count("<svg ") == 3  # a figure for each tag, and the ROC
    for model in ("m", "n"):  # a panel for each model and role behind each tag
        for role in ("Jekyll", "Hyde"):
            assert text.count(f">{model}, {role} promised<") == 2
    assert "http" not in text.replace("http://www.w3.org", "").replace("http-equiv", "")
    assert "blind: <x>" not in text
    assert "blind: &lt;x&gt;" in text
    for name in ("deployment", "train", "roc"):
        assert (tmp_path / "charts" / f"{name}.png").stat().st_size > 1000


def test_what_is_not_at_equal_cost_is_told(found: Findings, tmp_path: Path) -> None:
    """A method that never reached the budget must not stand among those that did."""
    write_gaming(tmp_path, found, Protocol.load("pocket"), run={})
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "activation-told (saturated)" in text
    assert "prompt (fixed)" not in text
    line = found.methods.filter(pl.col("method") == "activation-told").row(0, named=True)
    assert line["matched"] == 0


def test_shifts_are_towards_the_other_role(found: Findings) -> None:
    """With Hyde promised, towards Jekyll is up; with Jekyll promised, towards Hyde is down and counts as positive."""
    for line in found.methods.iter_rows(named=True):
        assert line["towards"] != line["deployment"]
        assert line["deployment_shift"] == pytest.approx(2.1)


def test_the_conclusion_has_the_numbers(found: Findings, tmp_path: Path) -> None:
    """Words without numbers, or for another condition, would be worse than none."""
    write_gaming(tmp_path, found, Protocol.load("pocket"), run={})
    text = (tmp_path / "conclusion.md").read_text(encoding="utf-8")
    assert "On m the log-ratio behind [deployment] has a slope of 0.00" in text
    assert "−10.0" in text
    assert "told, Hyde promised: fails: less than 0.5 nats" in text
