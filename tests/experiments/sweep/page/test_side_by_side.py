"""Families side by side: the same numbers as elsewhere on the page, none of them without its dose."""

import re
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from rows import synthetic

from weightsteer.experiments.sweep.page import write, write_report
from weightsteer.formatting import estimate, share, signed
from weightsteer.stats import summarize


@pytest.fixture(autouse=True)
def without_charts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables only: charts would take most of the time here, and are tested elsewhere."""
    monkeypatch.setattr(write, "figures", lambda *given: [])


NAMES = ("lora", "dora", "ia3")


def rows(**common: Any) -> pl.DataFrame:
    return pl.concat(
        synthetic(
            adapter=name, discrimination=1.0 + i, clusters=10, draw=i, seeds=(0, 1), evaluation=evaluation, **common
        )
        for i, name in enumerate(NAMES)
        for evaluation in ("dilemmas", "claims")
    )


def branches(names: tuple[str, ...] = NAMES, behavior: str = "honesty") -> list[dict[str, Any]]:
    """What was trained: losses differ by side and seed, so that their means are to be seen."""
    return [
        {
            "behavior": behavior,
            "adapter": name,
            "seed": seed,
            "side": side,
            "parameters": 1000 * (i + 1),
            "train": 0.1 * (i + 1) + 0.01 * seed,
            "validation": 0.2 * (i + 1) + (0.04 if side == "negative" else 0.0),
        }
        for i, name in enumerate(names)
        for seed in (0, 1)
        for side in ("positive", "negative")
    ]


def norms() -> pl.DataFrame:
    """‖dW‖ of seeds 0 and 1 is 5 and 10 for the first family, twice that for the next …"""
    told = [
        (f"honesty, {name}", seed, layer, f"layers.{layer}.up", (i + 1) * (seed + 1) * size)
        for i, name in enumerate(NAMES)
        for seed in (0, 1)
        for layer, size in ((0, 3.0), (1, 4.0))
    ]
    return pl.DataFrame(told, schema=["vector", "seed", "layer", "module", "norm"], orient="row")


def section(folder: Path, frame: pl.DataFrame, **given: Any) -> str:
    text = write_report(folder, frame, run={}, resamples=50, **given).read_text("utf-8")
    return text[text.index('<section id="families"') :].split("</section>", 1)[0]


def cells(table: str) -> list[list[str]]:
    """The rows of the table as texts."""
    body = table[table.index("<tbody>") :].replace("<br>", " | ")
    return [
        [re.sub(r"<.*?>", "", cell).strip() for cell in re.findall(r"<td[^>]*>(.*?)</td>", line, flags=re.S)]
        for line in re.findall(r"<tr>(.*?)</tr>", body, flags=re.S)
    ]


def test_each_family_has_its_training_its_norm_and_its_effects(tmp_path: Path) -> None:
    """A table with one number of another family would turn the comparison around."""
    frame = rows()
    table = cells(section(tmp_path, frame, branches=branches(), norms=norms()))
    summary = summarize(frame, resamples=50)
    assert [line[0] for line in table[::2]] == list(NAMES)
    for i, name in enumerate(NAMES):
        first, second = table[2 * i : 2 * i + 2]
        assert first[1:4] == [
            f"{1000 * (i + 1):,}",
            f"{0.1 * (i + 1) + 0.005:.3f} | {0.2 * (i + 1) + 0.02:.3f}",
            f"{7.5 * (i + 1):.3g}",
        ]
        for line, alpha in ((first[4:], 1.0), (second, -1.0)):
            assert line[0] == signed(alpha)
            for column, evaluation in ((1, "claims"), (3, "dilemmas")):
                (found,) = summary.filter(adapter=name, eval=evaluation, alpha=alpha).to_dicts()
                assert line[column] == f"{estimate(found, 'discrimination')} | {share(found, 'pmass')}"


def test_the_dose_is_said_to_differ(tmp_path: Path) -> None:
    """A ranking at equal strength is mostly a ranking of norms; whoever reads the table must be told."""
    text = section(tmp_path, rows(), branches=branches(), norms=norms())
    assert "The same strength is not the same dose" in text


def test_what_is_not_known_has_no_column(tmp_path: Path) -> None:
    """Rows joined from several runs come without their training."""
    table = cells(section(tmp_path, rows()))
    assert table[0][1] == "+1"
    assert "loss" not in section(tmp_path, rows()).split("</p>")[-1]


def test_one_family_is_no_comparison(tmp_path: Path) -> None:
    text = write_report(tmp_path, synthetic(clusters=4), run={}, resamples=20, branches=branches(("lora",)))
    assert "Families side by side" not in text.read_text("utf-8")


def test_behaviours_have_a_table_each(tmp_path: Path) -> None:
    """Families of two behaviours in one table would compare questions, not families."""
    both = pl.concat([rows(), rows(behavior="candour")])
    text = section(tmp_path, both, branches=[*branches(), *branches(behavior="candour")])
    assert text.count("<table") == 2
    assert "candour on pocket" in text


def test_many_controls_are_folded(tmp_path: Path) -> None:
    """Seven sentences about random vectors in front of the results hide the results."""
    controls = [rows(method="control").with_columns(adapter=pl.col("adapter") + "-random")]
    text = write_report(tmp_path, pl.concat([rows(), *controls]), run={}, resamples=20).read_text("utf-8")
    assert (
        text.count("<summary>3 controls</summary>") == 5
    )  # of the sentences; in the card and table of each evaluation
    lede = text[text.index('class="lede') : text.index("<details>")]
    assert "random" not in lede
