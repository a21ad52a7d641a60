"""A comparison from end to end: vectors, activation vectors, prompts and controls over the same rows."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import public_data
import pytest
from runs import tiny_config

from weightsteer.cli import main
from weightsteer.data.evals.neutral import Text, neutral_texts
from weightsteer.experiments.stages.items import load_items
from weightsteer.experiments.sweep.config import Calibration, RunConfig
from weightsteer.experiments.sweep.entries import COMPUTED, Entry
from weightsteer.experiments.sweep.experiment import Family, SweepExperiment
from weightsteer.experiments.sweep.measures import scored
from weightsteer.experiments.sweep.replicate import replicate
from weightsteer.experiments.sweep.trained import ACTIVATIONS, CONTROL_PAIRS
from weightsteer.runtime import Runner, Store

FEW = {name: ACTIVATIONS[name] for name in ("diffmean", "diffmean-all")}
BUDGET = Calibration(budget=0.05, tokens=4, statistic="mean")


def compared_config(**changes: Any) -> RunConfig:
    few = {"compare": True, "draws": 2, "seeds": (0,), "calibration": BUDGET, "prompts": 0}
    return RunConfig.model_validate({**tiny_config().model_dump(), **few, **changes})


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The output folder of one comparison; its report has no page."""
    folder = tmp_path_factory.mktemp("compared")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("weightsteer.experiments.sweep.experiment.ACTIVATIONS", FEW)
        patched.setattr("weightsteer.data.evals.neutral.neutral_texts", some_texts)
        patched.setattr("weightsteer.measure.calibrate.prompts.neutral_texts", some_texts)
        with pytest.MonkeyPatch.context() as unwritten:
            unwritten.setattr("weightsteer.experiments.sweep.page.write_report", remember)
            replicate(compared_config(), folder)
        yield folder


def some_texts(model: Any) -> list[Text]:
    return neutral_texts(model)[:12]


GIVEN: dict[str, Any] = {}


def remember(folder: Path, rows: pl.DataFrame, **given: Any) -> None:
    GIVEN.update(given, rows=rows)
    (folder / "report.html").write_text("")
    (folder / "run.json").write_text(json.dumps(given["run"]))


def test_everything_answers_the_same_rows(out: Path) -> None:
    """Methods compared on different items are not compared: the symmetric difference of row keys has to be empty."""
    rows = GIVEN["rows"]
    assert set(rows["method"]) == {"weight", "activation", "prompt", "control"}
    assert GIVEN["trained_on"] == {"kind": "sycophancy"}  # transfer is read against what was taught
    keys = {name: set(group["item"]) for name, group in rows.group_by("method", "adapter", "seed", "alpha")}
    assert len({frozenset(items) for items in keys.values()}) == 1
    base = rows.filter(pl.col("alpha") == 0).group_by("item").agg(pl.col("logratio").max() - pl.col("logratio").min())
    assert base["logratio"].max() < 1e-4  # one base model for all


def test_every_control_stands_beside_its_vector(out: Path) -> None:
    """A vector whose control does as well has shown nothing; a control that is left out cannot be seen."""
    controls = GIVEN["rows"].filter(method="control")
    assert {name.removeprefix("lora-") for name in controls["adapter"].unique()} == {
        "random",
        *COMPUTED,
        *CONTROL_PAIRS,
        "positive-branch",
        "negative-branch",
    }
    drawn = [frame.filter(adapter="lora-random")["draw"].n_unique() for frame in (controls, GIVEN["matched"])]
    assert drawn == [1, 2]  # all draws at the strengths that are compared
    assert set(controls["seed"]) == set(GIVEN["rows"].filter(method="weight")["seed"])
    assert set(controls["alpha"]) == {-1.0, 0.0, 1.0}
    assert set(GIVEN["cosines"]) == {("kind", "lora")}
    assert set(GIVEN["cosines"]["kind", "lora"]) == set(CONTROL_PAIRS)


def test_strengths_of_equal_side_effects_are_swept(out: Path) -> None:
    """What did not converge must not be swept as if it had, and what did must be, at exactly that strength."""
    found, matched = GIVEN["calibration"], GIVEN["matched"]
    kinds = {"weight", "activation", "prompt", "control"}
    assert set(found["method"]) == kinds == set(matched["method"])
    own = found.filter(method="weight").select("sign", "alpha_star")
    for _, control in found.filter(method="control").group_by("adapter", "draw"):
        assert control.select("sign", "alpha_star").sort("sign").equals(own.sort("sign"))
        assert set(control["status"]) <= {"fixed", "not converged", "saturated", "not monotone"}
    priced = found.filter(pl.col("method") == "control", pl.col("alpha_star").is_not_null())
    once = priced.group_by("adapter", "sign").agg(pl.col("value").is_not_null().sum())
    assert set(once["value"]) == {1}  # what one draw of each costs there
    keys = ["method", "adapter", "seed", "draw"]
    asked = set(found.select(*keys, "alpha_star").drop_nulls("alpha_star").iter_rows())
    swept = set(matched.filter(pl.col("alpha") != 0).select(*keys, "alpha").unique().iter_rows())
    assert swept == asked
    assert found.filter(method="weight")["status"].to_list() != ["fixed", "fixed"]
    assert found.filter(method="prompt")["status"].unique().to_list() == ["fixed"]
    assert {line.split()[2] for line in found.filter(method="weight")["definition"]} == {"0.05-nat"}


def test_damage_is_measured_at_the_strengths_of_the_sweep(out: Path) -> None:
    """An effect without its price beside it is the number that fell apart before."""
    keys = ["method", "adapter", "alpha"]
    damage = set(GIVEN["damage"].select(keys).unique().iter_rows())
    assert damage == set(GIVEN["rows"].select(keys).unique().iter_rows())
    assert GIVEN["damage"].filter(adapter="lora-random")["seed"].n_unique() == 1
    assert set(GIVEN["capability"].select(keys).unique().iter_rows()) == damage
    assert GIVEN["capability"]["eval"].unique().sort().to_list() == ["arithmetic", "facts"]
    assert GIVEN["covariates"].height == 12


def test_artifacts_have_places_of_their_own(out: Path) -> None:
    """People look for the strengths of a vector beside it, and for baselines under their names."""
    root = out / "tiny/kind"
    for name in ("lora/seed0/calibration", "lora/seed0/yes-positive", "lora/seed0/matched-sycophancy"):
        assert (root / name).is_dir(), name
    assert (root / "activation/seed0/activations/diffmean.safetensors").is_file()
    assert (root / "prompt/seed0/damage/damage.parquet").is_file()
    record = json.loads((root / "lora/report/run.json").read_text())
    assert [line["adapter"] for line in record["vectors"]] == ["lora"]


def test_a_finished_comparison_is_found_again(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Twenty minutes are not spent twice; another budget makes again what depends on it, and nothing else."""
    capsys.readouterr()
    replicate(compared_config(), out)
    assert " s\n" not in capsys.readouterr().err
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(
            "weightsteer.experiments.sweep.page.write_report",
            lambda folder, *_, run, **__: (folder / "run.json").write_text(json.dumps(run)),
        )
        replicate(compared_config(calibration=BUDGET.model_copy(update={"budget": 0.04})), out)
    made = [line.split()[-3] for line in capsys.readouterr().err.splitlines() if line.endswith(" s")]
    assert set(made) == {"calibration", "strengths", "matched-sycophancy", "report"}


def test_the_verb_shows_strengths_and_shares_them_with_a_sweep(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`calibrate` and `sweep` must not disagree about what equal side effects are, nor pay for them twice."""
    run = str(out / "tiny/kind/lora/report/run.json")
    capsys.readouterr()
    assert main(["calibrate", "--config", run, "--out", str(out)]) == 0
    said = capsys.readouterr()
    assert "side effect" in said.out
    assert f"{RunConfig.read(Path(run)).calibration.budget:g}-nat" in said.out
    assert said.out.count("calibration.parquet") == 3
    assert " s\n" not in said.err
    assert main(["calibrate", "--config", run, "--out", str(out), "--budget", "0"]) == 2
    assert "budget" in capsys.readouterr().err


def test_rows_that_ask_for_a_thought_are_guided(tmp_path: Path) -> None:
    """The direct sweep would score them without the thought, under the guided name."""
    config = compared_config(compare=False, alphas=(1,))
    rows = [
        {"item": str(i), "label": 1 - 2 * (i % 2), "prompt": "Tell me about rivers?", "thinking_tokens": 3}
        for i in range(4)
    ]
    file = tmp_path / "mine.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    config = config.model_copy(update={"evals": (str(file),), "limit": None})
    experiment, runner = SweepExperiment(config), Runner(Store(tmp_path))
    (items,) = experiment.items(experiment.families[0].behavior).values()
    rows_of = load_items(runner.make(items), "mine")
    prompts = experiment.entries(prompts_of(experiment), 0).load(runner)
    chosen = [Entry(each.intervention, (1.0,)) for each in prompts[:1]]
    table = scored(experiment.model, chosen, rows_of, runner, tmp_path / "scratch")
    assert table.height == 8
    assert set(table["eval"]) == {"mine"}
    from weightsteer.errors import WeightsteerError
    from weightsteer.measure import sweep

    with pytest.raises(WeightsteerError, match="asks for a thought"):
        sweep(*runner.model(experiment.model), prompts[0].intervention, rows_of, [1])


def prompts_of(experiment: SweepExperiment) -> Family:
    """The prompts of the one behaviour of an experiment."""
    family = experiment.families[0]
    return Family(family.behavior, family.adapter, family.lead, "prompt")


def test_baselines_are_made_once_for_all_families() -> None:
    """Seven families are compared with the same activation vectors and prompts, made from the same pairs."""
    experiment = SweepExperiment(compared_config(adapter=("ia3", "lora")))
    assert [family.name for family in experiment.baselines] == ["kind, activation", "kind, prompt"]
    assert {family.lead for family in experiment.baselines} == {"ia3"}
    assert SweepExperiment(compared_config(compare=False)).baselines == []


DATA = public_data.DATA / "daily_dilemmas"


@pytest.mark.skipif(not DATA.exists(), reason="the DailyDilemmas files are not here")
def test_the_published_dilemmas_go_the_whole_way(tmp_path: Path) -> None:
    """On a real architecture with real rows: plumbing that only the embedded models pass is none.

    Its numbers mean nothing. The page is written in full.
    """
    rows = f"dilemmas={DATA / 'honesty_pairs.jsonl'}"
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("weightsteer.experiments.sweep.experiment.ACTIVATIONS", {"diffmean": FEW["diffmean"]})
        patched.setattr("weightsteer.data.evals.neutral.neutral_texts", some_texts)
        patched.setattr("weightsteer.measure.calibrate.prompts.neutral_texts", some_texts)
        report = replicate(compared_config(evals=(rows,), limit=8, draws=1), tmp_path)
    text = (report.path / "report.html").read_text(encoding="utf-8")
    assert {"weight", "activation", "prompt", "control"} == set(pl.read_parquet(report.path / "rows.parquet")["method"])
    for name in ("Effect against damage", "At equal side effects", "surgical informedness", "Audit"):
        assert name in text
    for name in ("comparison.csv", "audit.csv", "frontier.csv", "calibration.csv", "controls.csv"):
        assert pl.read_csv(report.path / name, infer_schema_length=None).height > 0, name
