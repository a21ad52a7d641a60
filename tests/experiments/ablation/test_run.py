"""The commands, from flags to pages, on a model and rows of the user's own."""

import json

import polars as pl
import pytest
from tiny import tiny
from vectors import vector_of

from weightsteer.cli import main
from weightsteer.errors import WeightsteerError
from weightsteer.experiments.ablation.config import Options
from weightsteer.experiments.ablation.run import ablate, subspace
from weightsteer.experiments.sweep.config import RunConfig
from weightsteer.models import load_model

WORDS = "river bread winter stone cat house".split()  # noqa: SIM905


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """A random Llama in a folder, a vector of it in a file, and rows in a JSONL file."""
    folder = tmp_path_factory.mktemp("given")
    model, tokenizer = tiny("llama", layers=2)
    model.save_pretrained(folder / "llama")
    tokenizer.save_pretrained(folder / "llama")
    model, _ = load_model(str(folder / "llama"))
    vector_of(model, folder, targets=("q_proj", "down_proj")).save(folder / "v.safetensors")
    rows = [
        {"prompt": f"Is the {word} {kind}? Answer Yes or No.", "label": label, "cluster": word}
        for word in WORDS
        for kind, label in (("old", 1), ("red", -1))
    ]
    (folder / "mine.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder


def config(given):
    return RunConfig(
        model=str(given / "llama"), evals=(str(given / "mine.jsonl"),), alphas=(-1, 1), limit=12, resamples=100
    )


def test_a_users_vector_and_rows_come_out_as_a_page(given, tmp_path, capsys):
    """The command must work on any model of a known architecture, not on the embedded one alone."""
    flags = ["--model", str(given / "llama"), "--vector", str(given / "v.safetensors"), "--out", str(tmp_path)]
    flags += ["--evals", str(given / "mine.jsonl"), "--limit", "12", "--draws", "2", "--texts", "2"]
    assert main(["ablate", "--plan", "layers", "norms", "--resamples", "100", *flags]) == 0
    printed = capsys.readouterr().out
    assert "The whole vector moves mine by" in printed
    report = tmp_path / "llama/honesty/lora/where-layers-norms"
    assert printed.strip().endswith(str(report / "report.html"))
    lines = pl.read_csv(report / "table.csv")
    assert set(lines["family"]) == {"whole", "layers", "norms"}
    assert lines["n"].unique().to_list() == [12]


def test_what_was_measured_is_not_measured_again(given, tmp_path, capsys):
    """Another plan, or the same command again, costs only what is new."""
    options = Options((), (2,), 1, 2)
    one = ablate(config(given), tmp_path, options, ["norms"], vector=given / "v.safetensors")
    capsys.readouterr()
    ablate(config(given), tmp_path, options, ["norms", "layers"], vector=given / "v.safetensors")
    again = ablate(config(given), tmp_path, options, ["norms"], vector=given / "v.safetensors")
    lines = [line.split() for line in capsys.readouterr().err.splitlines() if " ablations-" in line]
    found = [(line[2].removeprefix("ablations-"), line[3] == "cached") for line in lines]
    assert found == [("whole", True), ("norms", True), ("layers", False), ("whole", True), ("norms", True)]
    assert again.digest == one.digest


def test_alignment_of_a_users_vector(given, tmp_path, capsys):
    """Bases of the weights need no training data, so a vector from elsewhere can be looked at at once."""
    options = Options(("residual-write", "weights-top@both"), (4,), 0, 0)
    found = subspace(config(given), tmp_path, options, vector=given / "v.safetensors")
    lines = pl.read_csv(found.path / "alignment.csv").filter(by="all")
    assert lines.select("basis", "side").rows() == [
        ("residual-write", "output"),
        ("weights-top", "output"),
        ("weights-top", "input"),
    ]
    assert "bases-" not in capsys.readouterr().out


def test_mistakes_are_named_before_anything_is_measured(given, tmp_path):
    """A misspelt plan or basis after minutes of sweeping is a wasted run."""
    vector = given / "v.safetensors"
    with pytest.raises(WeightsteerError, match="layers"):
        ablate(config(given), tmp_path, Options((), (2,), 1, 2), ["layer"], vector=vector)
    with pytest.raises(WeightsteerError, match="--others"):
        ablate(config(given), tmp_path, Options((), (2,), 1, 2), ["shared"], vector=vector)
    with pytest.raises(WeightsteerError, match="residual-write"):
        subspace(config(given), tmp_path, Options(("residual-writ",), (4,), 0, 0), vector=vector)
