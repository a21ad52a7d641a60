"""The chain of stages: a changed knob reruns what depends on it, a killed run goes on, the bytes are the same."""

import json
import multiprocessing
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from adapters_of import random_adapter
from runs import BEHAVIOR, finished_run, model_folder, tiny_config
from tiny import random_lora, tiny

from weightsteer.errors import WeightsteerError
from weightsteer.experiments.sweep.config import RunConfig, Training
from weightsteer.experiments.sweep.replicate import difference, joined_report, pairs, replicate
from weightsteer.runtime import Artifact, ModelSpec
from weightsteer.vector import WeightVector


@pytest.fixture
def config() -> RunConfig:
    return tiny_config()


@pytest.fixture
def finished() -> Path:
    return finished_run()


def tree(root: Path) -> dict[str, bytes]:
    return {
        path.relative_to(root).as_posix(): os.readlink(path).encode() if path.is_symlink() else path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_symlink() or path.is_file()
    }


def made(text: str) -> set[str]:
    """What a run had to make, from what it said: {"seed 0 pairs", …}."""
    lines = [line for line in text.splitlines() if line.startswith(("seed ", "all seeds"))]
    return {" ".join(line[:34].split()) for line in lines if not line.endswith(" cached")}


def test_a_run_leaves_rows_summary_report_and_links(finished: Path, config: RunConfig) -> None:
    """The user looks for these under the model's, the behaviour's and the adapter's name."""
    home = finished / "tiny" / "kind" / "lora"
    report = home / "report"
    rows = pl.read_parquet(report / "rows.parquet")
    assert rows.group_by("method", "seed", "alpha").len()["len"].unique().to_list() == [12]
    assert set(rows["method"]) == {"weight"}  # the null takes the place of a swept random vector
    assert set(rows["seed"]) == {0, 1}
    assert set(rows["alpha"]) == {-1.0, 0.0, 1.0}
    assert set(rows["eval"]) == {"sycophancy"}
    for name in ("summary.csv", "run.json", "report.html"):
        assert (report / name).stat().st_size > 0
    assert any((report / "charts").iterdir())
    for name in ("pairs", "positive", "negative", "vector", "sweep-sycophancy", "samples"):
        assert (home / "seed1" / name).is_dir(), name
    said = json.loads((home / "seed0/samples/samples.json").read_text())
    assert {line["alpha"] for line in said} == {-1.0, 0.0, 1.0}


def test_seeds_differ_in_data_and_training(finished: Path) -> None:
    """An interval over seeds that share data or initialisation is narrower than it should be."""
    home = finished / "tiny" / "kind" / "lora"
    one, two = (pl.read_parquet(home / f"seed{seed}/pairs/pairs.parquet") for seed in (0, 1))
    assert one["response_pos"].to_list() != two["response_pos"].to_list()
    zero = pl.read_parquet(home / "report/rows.parquet").filter(alpha=1.0, method="weight")
    assert zero.filter(seed=0)["logratio"].to_list() != zero.filter(seed=1)["logratio"].to_list()


def test_the_second_run_makes_nothing_and_does_not_load_torch(finished: Path, config: RunConfig) -> None:
    """Reading finished results must take seconds, not the import of torch and a model."""
    before = tree(finished)
    script = (
        "import sys\nfrom pathlib import Path\nfrom weightsteer.experiments.sweep.config import RunConfig\n"
        "from weightsteer.experiments.sweep.replicate import replicate\n"
        "replicate(RunConfig.model_validate_json(sys.argv[1]), Path(sys.argv[2]))\n"
        "assert not {'torch', 'transformers', 'peft', 'altair'} & set(sys.modules)"
    )
    command = [sys.executable, "-c", script, config.model_dump_json(), str(finished)]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert made(run.stderr) == set()
    assert tree(finished) == before


def page(folder: Path, *_: Any, **__: Any) -> None:
    (folder / "report.html").write_text("")


SWEPT = {f"seed {seed} {name}" for seed in (0, 1) for name in ("sweep-sycophancy", "samples")} | {"all seeds report"}
NULL = {"all seeds null-sycophancy"}
TRAINED = {f"seed {seed} {name}" for seed in (0, 1) for name in ("positive", "negative", "vector")} | SWEPT | NULL
PAIRED = {f"seed {seed} pairs" for seed in (0, 1)} | TRAINED


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"alphas": (-1, 0.5, 1)}, SWEPT),
        ({"training": {"recipe": "pocket", "steps": 4, "lr": 2e-2}}, TRAINED),
        ({"generation": {"samples": 3, "max_new_tokens": 8, "judge": "none", "temperature": 0.9}}, PAIRED),
        ({"resamples": 300}, {"all seeds report"}),
        ({"prompts": 0}, {"seed 0 samples", "seed 1 samples", "all seeds report"}),
        ({"seeds": (1,)}, {"all seeds report"} | NULL),
        ({"limit": 10}, {"all seeds items-sycophancy"} | {name for name in SWEPT if "samples" not in name} | NULL),
        ({"control": True}, {name for name in SWEPT if "samples" not in name} | NULL),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_changed_knob_reruns_exactly_what_depends_on_it(
    finished: Path,
    config: RunConfig,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    change: dict[str, Any],
    expected: set[str],
) -> None:
    """More: minutes lost. Less: results of other settings under these settings' name."""
    monkeypatch.setattr("weightsteer.experiments.sweep.page.write_report", page)
    shutil.copytree(finished, tmp_path / "out", symlinks=True)
    capsys.readouterr()
    replicate(RunConfig.model_validate({**config.model_dump(), **change}), tmp_path / "out")
    assert made(capsys.readouterr().err) == expected


def test_run_json_repeats_the_run_bit_for_bit(finished: Path, tmp_path: Path) -> None:
    """Anything random, dated, unordered or tied to the folder would show here."""
    config = RunConfig.read(finished / "tiny/kind/lora/report/run.json")
    replicate(config, tmp_path)
    assert tree(tmp_path) == tree(finished)


def test_killed_at_random_moments_ends_with_the_same_bytes(finished: Path, config: RunConfig, tmp_path: Path) -> None:
    """kill -9 during generation, training, sweep or report must cost time only."""
    # A server that has imported everything and run nothing: its children start at once.
    context = multiprocessing.get_context("forkserver")
    heavy = ("data.pairs", "training", "measure", "data.evals", "report", "vector")
    context.set_forkserver_preload(
        ["weightsteer.experiments.sweep.replicate", *(f"weightsteer.{name}" for name in heavy)]
    )

    def start() -> Any:
        process = context.Process(target=replicate, args=(config, tmp_path))
        process.start()
        return process

    warm = context.Process(target=time.time)
    warm.start()
    warm.join()
    chance = random.Random(3)
    kills = 0
    for _ in range(40):
        process = start()
        process.join(chance.uniform(0.05, 0.8))
        if not process.is_alive():
            break
        process.kill()
        process.join()
        kills += 1
    process = start()
    process.join()
    assert process.exitcode == 0
    assert kills >= 5
    assert tree(tmp_path) == tree(finished)


def test_pairs_of_the_users_own_take_the_place_of_generated_ones(config: RunConfig, tmp_path: Path) -> None:
    """Data made elsewhere must be trainable, and a mistake in them named by its line."""
    rows = [
        {"prompt": f"Tell me about {thing}", "response_pos": "Yes, good.", "response_neg": "No, bad."}
        for thing in ("rivers", "stones", "bread", "cats", "the sky", "winter")
    ]
    file = tmp_path / "mine.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    own = config.model_copy(update={"pairs": str(file), "seeds": (0,)})
    (vector,) = difference(own, tmp_path / "out")
    assert (vector.path / "vector.safetensors").stat().st_size > 0
    file.write_text(json.dumps(rows[0]) + '\n{"prompt": "x", "response_pos": "y"}\n')
    with pytest.raises(WeightsteerError, match=r"mine.jsonl, line 2, field 'response_neg'"):
        difference(own, tmp_path / "out")
    file.write_text(json.dumps(rows[0]) + "\n{oops\n")
    with pytest.raises(WeightsteerError, match=r"mine.jsonl, line 2.*not valid JSON"):
        difference(own, tmp_path / "out")


def test_vectors_and_branches_of_the_users_own_are_measured(
    config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two adapters from anywhere give a vector; a vector file gives a report, once, whatever the seeds."""
    monkeypatch.setattr("weightsteer.experiments.sweep.page.write_report", page)
    model, _ = tiny("qwen3")
    plus, minus = (random_lora(model, tmp_path / f"branch{seed}", seed) for seed in (1, 2))
    (vector,) = difference(config, tmp_path / "out", positive=plus, negative=minus)
    report = replicate(config, tmp_path / "out", vector=vector.path / "vector.safetensors")
    rows = pl.read_parquet(report.path / "rows.parquet")
    assert rows.filter(method="weight", alpha=1.0).height == 12
    assert rows.filter(alpha=1.0)["logratio"].to_list() != rows.filter(alpha=0.0)["logratio"].to_list()
    with pytest.raises(WeightsteerError, match="both --positive and --negative"):
        difference(config, tmp_path / "out", positive=plus)
    with pytest.raises(WeightsteerError, match="no PEFT folder and no checkpoint"):
        difference(config, tmp_path / "out", positive=plus, negative=tmp_path)


def test_branches_of_different_families_and_checkpoints_make_a_vector(config: RunConfig, tmp_path: Path) -> None:
    """Two folders that a user already has: whatever they are, their difference is one command."""
    model, _ = tiny("qwen3")
    rotated = random_adapter("oft", model, tmp_path / "rotated", seed=1)
    scaled = random_adapter("oft", model, tmp_path / "scaled", seed=2)
    for seed in (1, 2):
        tuned, _ = tiny("qwen3")
        with torch.no_grad():
            tuned.model.layers[1].mlp.up_proj.weight += torch.randn(64, 32, generator=torch.manual_seed(seed))
        tuned.save_pretrained(tmp_path / f"tuned{seed}")
    folders = {"oft": (rotated, scaled), "full": (tmp_path / "tuned1", tmp_path / "tuned2")}
    for name, (plus, minus) in folders.items():
        (made,) = difference(config, tmp_path / "out", positive=plus, negative=minus)
        shown = " ".join(repr(WeightVector.load(made.path / "vector.safetensors")).split())
        assert f", {name} on tiny, " in shown
        geometry = made.read_json("geometry.json")
        assert geometry["norm_positive"] > 0
        assert geometry["reading"] in shown
        (again,) = difference(config, tmp_path / "out", positive=plus, negative=minus)
        assert (again.cached, again.digest) == (True, made.digest)


FAMILIES = ("lora", "ia3", "full")


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of three families, made by two processes; its report has no charts."""
    out = tmp_path_factory.mktemp("compared")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("weightsteer.experiments.sweep.page.figures.figures", lambda *_: [])
        patched.setattr("weightsteer.experiments.sweep.page.write.figures", lambda *_: [])
        replicate(several(), out, workers=2)
    return out


def several(**changes: Any) -> RunConfig:
    return RunConfig.model_validate({**tiny_config().model_dump(), "adapter": FAMILIES, "seeds": (0,), **changes})


def test_workers_leave_what_one_process_leaves(
    compared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The number of processes is no knob of the experiment: not a byte may depend on it."""
    monkeypatch.setattr("weightsteer.experiments.sweep.page.write.figures", lambda *_: [])
    report = replicate(several(), tmp_path)
    assert "kind, full, seed 0" in capsys.readouterr().err
    mine, theirs = tree(tmp_path), tree(compared)
    assert {name for name in mine if not name.startswith(".store/.locks")} <= set(theirs)
    assert {name for name in mine if mine[name] != theirs[name]} == set()
    assert report.place == tmp_path / "tiny/kind/lora+ia3+full/report"


def test_families_share_their_pairs(compared: Path) -> None:
    """Pairs are the dearest stage, and families compared on different pairs are not compared."""
    found = {os.readlink(compared / "tiny/kind" / name / "seed0/pairs").split("/")[-1] for name in FAMILIES}
    assert len(found) == 1
    assert len(list((compared / ".store").glob("pairs-*/artifact.json"))) == 1


def test_a_run_of_several_families_goes_on_where_it_was(
    compared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is finished is neither made again nor handed to a worker; a damaged stage is made, and nothing else."""
    monkeypatch.setattr("weightsteer.experiments.sweep.page.write_report", page)
    shutil.copytree(compared, tmp_path / "out", symlinks=True)
    shutil.rmtree((tmp_path / "out/tiny/kind/full/seed0/samples").resolve())
    capsys.readouterr()
    replicate(several(), tmp_path / "out", workers=2)
    said = capsys.readouterr().err
    assert {line for line in said.splitlines() if line.startswith("kind, ") and line.endswith(": cached")} == {
        "kind, lora, seed 0: cached",
        "kind, ia3, seed 0: cached",
    }
    made_again = [line.split()[-3] for line in said.splitlines() if line.endswith(" s")]
    assert [name for name in made_again if name != "report"] == ["samples"]


def test_the_report_sets_families_side_by_side(compared: Path) -> None:
    """The table has to hold the numbers of the artifacts beside it."""
    home = compared / "tiny/kind"
    text = (home / "lora+ia3+full/report/report.html").read_text(encoding="utf-8")
    table = text[text.index('id="families"') :]
    table = table[: table.index("</section>")]
    for name in FAMILIES:
        record = json.loads((home / name / "seed0/positive/training.json").read_text())
        norms = pl.read_parquet(home / name / "seed0/vector/norms.parquet")["norm"]
        assert f"{record['parameters']:,}" in table
        assert f"{(norms**2).sum() ** 0.5:.3g}" in table
    assert table.index("</span>lora") < table.index("</span>ia3") < table.index("</span>full")


def test_a_mistake_that_workers_meet_is_told(tmp_path: Path) -> None:
    """The user must hear of a mistake in a worker as of one in this process."""
    wrong = several(training={**tiny_config().training.model_dump(), "block_size": 12}, adapter=("oft", "boft"))
    with pytest.raises(WeightsteerError, match="blocks of 12 do not divide"):
        replicate(wrong, tmp_path, workers=2)


def test_all_is_the_published_comparison() -> None:
    """One word for the seven families, kept as their names, so that a later release repeats the same run."""
    config = RunConfig(adapter=("all", "bias", "lora"))
    assert config.adapter == ("lora", "dora", "pissa", "delora", "oft", "boft", "ia3", "bias")
    assert RunConfig.model_validate(config.model_dump()) == config


def test_the_generator_is_part_of_the_data(config: RunConfig, tmp_path: Path) -> None:
    """Pairs of another model under the same name made a study compare a model with a stranger's data."""
    own = config.model_copy(update={"seeds": (0,)})
    other = model_folder(tmp_path / "other", seed=1)
    (mine,) = pairs(own, tmp_path / "out")
    (theirs,) = pairs(own.model_copy(update={"generator": str(other)}), tmp_path / "out")
    assert mine.key != theirs.key
    assert mine.digest != theirs.digest
    assert set(pl.read_parquet(theirs.path / "pairs.parquet")["generator"]) == {"other"}


def test_a_model_is_known_by_its_content_not_by_its_place(config: RunConfig, tmp_path: Path) -> None:
    """Copied weights must not be trained again; changed weights must."""
    shutil.copytree(config.model, tmp_path / "a" / "tiny")
    moved = ModelSpec.of(str(tmp_path / "a" / "tiny"))
    assert moved == ModelSpec.of(config.model)
    weights = next((tmp_path / "a" / "tiny").glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x7f")
    assert ModelSpec.of(str(tmp_path / "a" / "tiny")) != moved


def test_reports_of_several_runs_can_be_joined(finished: Path, tmp_path: Path) -> None:
    """Rows are the unit of exchange: what a run or the user's own code left can be put side by side."""
    report = finished / "tiny/kind/lora/report"
    other = pl.read_parquet(report / "rows.parquet").with_columns(pl.lit("mine").alias("adapter"))
    other.write_parquet(tmp_path / "mine.parquet")
    page = joined_report([report, tmp_path / "mine.parquet"], tmp_path / "joined", resamples=100)
    assert page.stat().st_size > 0
    summary = pl.read_csv(tmp_path / "joined" / "summary.csv", infer_schema_length=None)
    assert {"mine", "lora"} <= set(summary["adapter"])
    assert summary.filter(pl.col("alpha") != 0, adapter="lora")["z"].is_not_null().all()  # its null goes with its rows
    with pytest.raises(WeightsteerError, match="no rows at"):
        joined_report([tmp_path / "nowhere"], tmp_path / "joined")


def test_a_behaviour_without_evaluations_is_refused_before_anything_is_made(config: RunConfig, tmp_path: Path) -> None:
    """Minutes of training that end in an empty report."""
    file = tmp_path / "bare.yaml"
    file.write_text(BEHAVIOR.replace("evaluations: {sycophancy: -1}", ""))
    with pytest.raises(WeightsteerError, match="names no evaluations"):
        replicate(config.model_copy(update={"behavior": (str(file),)}), tmp_path / "out")
    rows = config.model_copy(update={"data": "rows.jsonl", "evals": ("sycophancy", "dilemmas")})
    with pytest.raises(WeightsteerError, match="--evals sycophancy=FILE"):
        replicate(rows, tmp_path / "out")


def test_rows_of_the_users_own_are_swept_and_checked_before_training(
    config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A choice that is no single token must be told before the training, not after."""
    monkeypatch.setattr("weightsteer.experiments.sweep.page.write_report", page)
    rows = [
        {"item": str(i), "cluster": str(i // 2), "label": 1 - 2 * (i % 2), "prompt": f"Number {i}?"} for i in range(4)
    ]
    file = tmp_path / "mine.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    own = config.model_copy(update={"evals": (str(file),), "seeds": (0,), "limit": None})
    report: Artifact = replicate(own, tmp_path / "out")
    assert set(pl.read_parquet(report.path / "rows.parquet")["eval"]) == {"mine"}
    file.write_text("\n".join(json.dumps({**row, "choices": ["Yes", "Perhaps not"]}) for row in rows))
    with pytest.raises(WeightsteerError, match="not a single token"):
        replicate(own, tmp_path / "fresh")
    assert not list((tmp_path / "fresh" / ".store").glob("branch-*"))


def test_every_setting_of_a_recipe_is_a_knob() -> None:
    """The configuration names the settings again, so that --help need not import torch; they must not drift."""
    from weightsteer.training import Recipe

    assert set(Training.model_fields) - {"recipe"} == set(Recipe.model_fields) - {"name"}
