"""The pages of a comparison: every number that of its table, and no number where there is no strength."""

import re
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
from compared import calibration, damage, everything, swept
from test_write import Page

from weightsteer.audit.words import carried, chips
from weightsteer.experiments.sweep.page import write_report
from weightsteer.experiments.sweep.page.audit import in_short, verdicts
from weightsteer.experiments.sweep.page.controls import control_tables
from weightsteer.experiments.sweep.page.costs import cost_tables
from weightsteer.experiments.sweep.page.decisions import decision_tables
from weightsteer.experiments.sweep.page.evidence import Evidence, gather
from weightsteer.experiments.sweep.page.matched import in_words, matched_tables, not_usable
from weightsteer.formatting import estimate
from weightsteer.report.cells import small
from weightsteer.report.charts import series
from weightsteer.report.figure import Figure
from weightsteer.stats import WEAKNESSES, summarize
from weightsteer.stats.verdict import Difference


@pytest.fixture(scope="module")
def evidence() -> Evidence:
    rows = swept()
    return gather(rows, summarize(rows, resamples=50), **everything(), resamples=50)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("compared")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "png", lambda self: b"")  # that pictures are pictures is tested elsewhere
        return write_report(folder, swept(), run={"config": {}}, resamples=50, **everything())


def section(path: Path, name: str) -> str:
    """A section of the page without its tags."""
    found = re.search(rf'<section id="{name}".*?</section>', path.read_text("utf-8"), flags=re.S)
    assert found, name
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", found[0]))


def test_the_page_is_whole(report: Path) -> None:
    """Offline, with closed tags, unique ids and no dead entry in its contents, as it is without a comparison."""
    text = report.read_text("utf-8")
    page = Page(text)
    assert page.open == []
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    targets = {str(a["href"])[1:] for _, a in page.tags if str(a.get("href", "")).startswith("#")}
    assert targets <= set(ids)
    order = ["verdict", "frontier", "costs", "matched", "families", "decisions", "audit", "controls", "effects"]
    assert [each for each in ids if each in order] == order
    assert not {tag for tag, _ in page.tags} & {"script", "link", "img", "iframe"}


def test_tables_and_figures_lie_beside_the_page_and_leave_with_their_arguments(report: Path, tmp_path: Path) -> None:
    """A comparison.csv of an earlier run beside a new page would be taken for its numbers."""
    tables = {
        "comparison",
        "frontier",
        "damage",
        "capability",
        "audit",
        "calibration",
        "transfer",
        "nuisances",
        "controls",
    }
    assert tables <= {path.stem for path in report.parent.glob("*.csv")}
    figures = {path.name for path in (report.parent / "charts").iterdir()}
    assert {f"{name}.{kind}" for name in ("frontier", "balance") for kind in ("svg", "png")} <= figures
    assert pl.read_csv(report.parent / "calibration.csv").height == calibration().height
    (tmp_path / "comparison.csv").write_text("old")
    bare = write_report(tmp_path, swept().filter(adapter="lora", eval="claims"), run={}, resamples=10)
    assert {path.stem for path in tmp_path.glob("*.csv")} == {"rows", "summary", "summary_by_seed"}
    text = bare.read_text("utf-8")
    assert not [
        name for name in ("frontier", "costs", "matched", "audit", "controls") if f'<section id="{name}"' in text
    ]
    assert "Damage" not in text


def test_what_it_costs_is_what_was_measured(evidence: Evidence, report: Path) -> None:
    """A vector that forgets how to add would look as good as one that does not."""
    (found,) = cost_tables(evidence, series(swept()), [-1.0, 1.0])
    groups = {group["name"]: group["lines"] for group in found["groups"]}
    assert [task["base"] for task in found["tasks"]] == ["0.80", "0.80"]
    assert [line["alpha"] for line in groups["weight · dora"]] == [1.0, -1.0]
    assert [line["tasks"][0] for line in groups["weight · dora"]] == [
        {"change": "−0.40 [−0.40, −0.40]", "loses": True}
    ] * 2
    assert not any(task["loses"] for line in groups["weight · lora"] for task in line["tasks"])
    assert groups["weight · lora"][0]["nll"].startswith("0.10")
    (control,) = found["controls"]
    assert control["lines"][0]["nll"] == "–"  # its damage was not measured, its capability was
    assert "arithmetic base 0.80, 10 rows" in section(report, "costs")
    assert cost_tables(Evidence(), series(swept()), [1.0]) == []
    texts_only = replace(evidence, capability=None)
    assert cost_tables(texts_only, series(swept()), [1.0])[0]["tasks"] == []


def test_effects_and_differences_are_those_of_the_tables(evidence: Evidence) -> None:
    """The table at equal side effects is the answer to the question of the whole run."""
    (found,) = matched_tables(evidence, series(swept()))
    assert found["reference"] == "weight · dora"
    table = found["tables"][0]
    assert table["eval"] == "dilemmas"
    groups = {group["name"]: {line["sign"]: line for line in group["signs"]} for group in table["groups"]}
    assert next(iter(groups)) == "weight · dora"
    assert "control · lora-random" not in groups
    assert evidence.comparison is not None
    assert evidence.effects is not None
    (versus,) = evidence.comparison.filter(adapter="diffmean", eval="dilemmas", sign=-1).to_dicts()
    cell = groups["activation · diffmean"][-1]
    assert cell["difference"] == estimate(versus, "difference")
    assert cell["effect"] == estimate(versus, "effect")
    assert cell["versus"] == chips(versus)[0]
    (effect,) = evidence.effects.filter(adapter="diffmean", eval="dilemmas", alpha=-1).to_dicts()
    assert cell["bias"] == estimate(effect, "bias")
    assert cell["cost"] == "0.51 [0.40, 0.71]"
    assert cell["audited"] == "0.52 [0.40, 0.80]"
    assert cell["off"] is None
    assert groups["weight · dora"][1]["off"] == "40% over the budget"
    assert groups["weight · dora"][1]["difference"] is None
    assert groups["prompt · persona"][1]["alpha"] is None


def test_what_did_not_converge_has_no_number(evidence: Evidence, report: Path) -> None:
    """The published tables hold strengths that were never found; here they are named and empty."""
    (found,) = matched_tables(evidence, series(swept()))
    groups = {group["name"]: {line["sign"]: line for line in group["signs"]} for group in found["tables"][0]["groups"]}
    for name, sign, status in (
        ("weight · lora", -1, "saturated (1 of 2)"),
        ("weight · oft", 1, "not converged (1 of 2)"),
        ("weight · oft", -1, "not monotone (1 of 2)"),
    ):
        cell = groups[name][sign]
        assert not cell["usable"]
        assert cell["status"] == status
        assert not any(isinstance(value, str) and re.search(r"\d\.\d", value) for value in cell.values())
    text = section(report, "matched")
    assert "no number saturated (1 of 2)" in text
    (gone,) = not_usable(evidence, series(swept()))
    assert gone["name"] == "weight · oft"
    assert "no strength" in section(report, "verdict")


def test_the_first_sentences_name_what_is_carried_and_by_whom(evidence: Evidence, report: Path) -> None:
    """Whoever reads one minute reads these."""
    shown = series(swept())
    found = verdicts(evidence, shown)
    rows = {row["name"]: row for row in found[0]["rows"]}
    assert evidence.audit is not None
    told = {line["adapter"]: carried(line)[0] for line in evidence.audit.vectors.iter_rows(named=True)}
    assert rows["weight · dora"]["label"] == told["dora"]
    assert rows["weight · dora"]["label"].startswith("steers honesty")
    assert rows["weight · dora"]["tone"] == ("mixed" if ", but" in told["dora"] else "good")
    assert rows["activation · diffmean"]["label"] == told["diffmean"]
    assert "control · lora-random" not in rows
    first, second = in_short(found, not_usable(evidence, shown)), in_words(matched_tables(evidence, shown))
    assert "oft: no strength of equal side effects" in first[0]
    assert "Compared with weight · dora at equal side effects on dilemmas: at +α" in second[0]
    lede = report.read_text("utf-8").split('class="lede', 1)[1].split("</div>", 1)[0]
    assert "no strength of equal side effects" in lede


def test_what_is_not_distinguishable_from_the_reference_is_said() -> None:
    """Without it the first sentences would name only those that do more or less, as if the others had not been run."""
    verdict = {"a": Difference.NOT_SEPARABLE, "b": Difference.MORE, "c": Difference.NOT_SEPARABLE}
    groups = [{"name": name, "signs": [{"sign": 1, "verdict": each}]} for name, each in verdict.items()]
    section = {"reference": "weight · lora", "tables": [{"eval": "dilemmas", "groups": groups}]}
    assert in_words([section]) == [
        "Compared with weight · lora at equal side effects on dilemmas: at +α b has a larger effect; "
        "a and c are not distinguishable from it."
    ]
    alike = [{"name": str(i), "signs": [{"sign": -1, "verdict": Difference.NOT_SEPARABLE}]} for i in range(4)]
    (sentence,) = in_words([{**section, "tables": [{"eval": "dilemmas", "groups": alike}]}])
    assert sentence.endswith("at −α none of the 4 others is distinguishable from it.")


def test_a_control_is_as_good_only_where_its_vector_does_something(evidence: Evidence) -> None:
    """Beside a vector without effect every control is as good, which says nothing about the control."""
    (table,) = control_tables(evidence, series(swept()))
    assert table["name"] == "weight · lora"
    assert evidence.audit is not None
    held = evidence.audit.controls
    assert len(table["lines"]) == held.height
    assert {line["difference"] for line in table["lines"]} == {estimate(line, "difference") for line in held.to_dicts()}
    idle = held.with_columns(reference_effect_low=-1.0, as_good=True)
    without = Evidence(audit=type(evidence.audit)(**{**vars(evidence.audit), "controls": idle}))
    (empty,) = control_tables(without, series(swept()))
    assert empty["tested"] == 0
    assert empty["as_good"] == []


def test_a_control_shows_its_cost(evidence: Evidence) -> None:
    """At the strength of its vector a control may damage the model more: without its cost nobody would see it."""
    assert evidence.audit is not None
    held = evidence.audit.controls
    for cost, ratio, words in ((0.25, 0.5, ("0.25", False)), (9.0, 18.0, ("9.00", True)), (None, None, ("–", False))):
        numbers = {"cost": pl.lit(cost, pl.Float64), "cost_ratio": pl.lit(ratio, pl.Float64)}
        known = replace(evidence.audit, controls=held.with_columns(**numbers))
        (table,) = control_tables(replace(evidence, audit=known), series(swept()))
        assert {(line["cost"], line["costly"]) for line in table["lines"]} == {words}


def test_si_stands_with_all_its_parts_and_weaknesses(evidence: Evidence, report: Path) -> None:
    """SI alone ranks a no-op above real effects; a part that is missing hides which way the rows went."""
    summary = summarize(swept(), resamples=50)
    tables = decision_tables(summary, evidence, series(swept()), [1.0, -1.0])
    first = tables[0]
    assert first["eval"] == "dilemmas"
    assert evidence.effects is not None
    (line,) = evidence.effects.filter(adapter="dora", eval="dilemmas", alpha=1).to_dicts()
    shown = next(row for row in first["lines"] if row["name"] == "weight · dora")
    assert shown["alpha"] == "±0.8"
    assert [score.split()[0] for score in shown["scores"]] == [
        estimate(line, name).split()[0] for name in ("si", "si_k1", "si_forward")
    ]
    assert [rate[0] for rate in shown["rates"]] == [f"{line[name]:.0%}" for name in ("fix", "broke", "flip", "counter")]
    assert (shown["rej"], shown["cho"]) == (f"{line['rej']:,}", f"{line['cho']:,}")
    assert [row["name"] for row in first["controls"]] == ["control · lora-random"]
    alone = next(row for row in first["lines"] if row["name"] == "weight · lora")  # no strength at −α
    assert alone["alpha"] == "+0.5"
    assert alone["scores"][0] is None
    assert alone["scores"][2] is not None
    for table in tables:
        for row in [*table["lines"], *table["every"]]:
            ends = [
                float(end.replace("−", "-"))
                for score in row["scores"]
                if score
                for end in re.findall(r"[\d.−]+", score)
            ]
            assert all(-200 <= end <= 100 for end in ends)
    text = section(report, "decisions")
    assert all(weakness.replace("'", "&#39;") in text for weakness in WEAKNESSES)
    assert re.search("a no.op scores 0 and pure yes.bias", text)


def test_damage_stands_beside_every_effect(report: Path) -> None:
    """An effect without its price is half a result."""
    (line,) = (
        gather(swept(), summarize(swept(), resamples=20), **{**everything(), "matched": None}, resamples=50)
        .damage.filter(adapter="dora", alpha=1.0)
        .to_dicts()
    )  # type: ignore[union-attr]
    for name in ("families", "effects"):
        text = section(report, name)
        assert "Damage" in text
        assert small(line, "nll_change") in text


def test_the_matrix_frames_what_the_vector_was_trained_on(report: Path) -> None:
    """Transfer is read against the in-distribution evaluation: a frame around another column would call it transfer."""
    text = report.read_text("utf-8")
    matrix = text[text.index('<table class="compared matrix">') :].split("</table>", 1)[0]
    rows = [re.findall(r"<td[^>]*>", line) for line in re.findall(r"<tr>(.*?)</tr>", matrix, flags=re.S)[1:]]
    cells = [[" trained" in cell for cell in row if "cell" in cell] for row in rows]
    assert cells
    assert all(row[0] and not any(row[1:]) for row in cells)
    shares = [
        [" of in-distribution" in cell for cell in re.findall(r"<td class=\"num cell[^>]*>.*?</td>", line)]
        for line in matrix.split("<tr>")
    ]
    assert any(any(row[1:]) for row in shares)
    assert not any(row[0] for row in shares if row)
    assert re.search(r"\byes\b.*\blength\b.*\+0\.62.*−0\.04", section(report, "audit"))


def test_damage_alone_gives_a_frontier_and_no_verdict(tmp_path: Path) -> None:
    """Each table may come without the others."""
    rows = swept(seeds=(0, 1)).filter(pl.col("eval") == "claims", pl.col("method") != "control")
    text = write_report(tmp_path, rows, run={}, damage=damage(), resamples=10).read_text("utf-8")
    assert '<section id="frontier"' in text
    assert '<section id="audit"' not in text
    assert '<section id="matched"' not in text
