"""The command line: quick to answer, and a mistake is one clear message and a non-zero exit, never a traceback."""

import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import pytest
from adapters_of import random_adapter
from runs import BEHAVIOR, finished_run, model_folder, tiny_config
from tiny import random_lora, tiny

from weightsteer.cli import COMMANDS, INTERRUPTED, MISTAKE, commands, main, output, overview
from weightsteer.experiments.sweep.config import COMPARED, RunConfig
from weightsteer.models import load_model
from weightsteer.runtime.executor import processes
from weightsteer.runtime.store import Artifact
from weightsteer.vector import WeightVector


def run_json() -> Path:
    return finished_run() / "tiny/kind/lora/report/run.json"


def test_help_names_every_verb_and_loads_nothing_heavy() -> None:
    """`weightsteer --help` has to answer at once; one careless import makes it take seconds."""
    script = (
        "import sys\nfrom weightsteer.cli import main\nmain(['--help'])\n"
        "heavy = {'torch', 'transformers', 'polars', 'numpy', 'tyro', 'pydantic', 'rich', 'yaml'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == overview().strip()
    assert all(f"\n  {command} " in run.stdout for command in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_shows_an_example_that_parses(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An example that does not run is worse than none."""
    with pytest.raises(SystemExit) as stopped:
        main([*name.split(), "--help"])
    assert stopped.value.code == 0
    command = commands.named(name)
    *_, example = str(command.__doc__).strip().splitlines()
    assert example.strip() in " ".join(capsys.readouterr().out.split())
    assert example.strip().startswith(f"weightsteer {name} ")
    called: list[commands.Command] = []
    monkeypatch.setattr(command, "__call__", lambda self: called.append(self))
    assert main(example.split()[1:]) == 0
    assert len(called) == 1


def flags_of(name: str, capsys: pytest.CaptureFixture[str]) -> set[str]:
    with pytest.raises(SystemExit):
        main([*name.split(), "--help"])
    return set(re.findall(r"--[a-z][a-z-]*", capsys.readouterr().out))


def test_help_shows_only_what_a_command_uses(capsys: pytest.CaptureFixture[str]) -> None:
    """Somebody who measures a vector reads sixty flags of which half do nothing."""
    shown = flags_of("eval", capsys)
    assert {"--vector", "--evals", "--alphas", "--coeffs", "--behavior", "--adapter", "--seeds"} <= shown
    assert not {"--lr", "--rank", "--samples", "--judge", "--generator", "--recipe"} & shown
    assert not {"--alphas", "--evals", "--adapter", "--lr", "--budget"} & flags_of("data", capsys)
    assert not {"--alphas", "--evals", "--budget"} & flags_of("train", capsys)
    assert not {"--alphas", "--evals", "--resamples"} & flags_of("calibrate", capsys)


@pytest.mark.parametrize("name", ["--help", "eval --help"])
def test_the_package_is_a_command(name: str) -> None:
    """`python -m weightsteer` works where the script is not on the path; help loads no model library."""
    script = (
        "import runpy, sys\n"
        "try:\n    runpy.run_module('weightsteer', run_name='__main__')\n"
        "except SystemExit as stop:\n    assert not stop.code, stop.code\n"
        "assert not {'torch', 'transformers', 'polars', 'numpy'} & set(sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", script, *name.split()], capture_output=True, text=True, check=True)
    assert "weightsteer" in run.stdout


def test_flags_reach_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """A flag that is parsed and dropped gives results of other settings; a file's settings hold unless changed."""
    passed: dict[str, Any] = {}

    def stand_in(config: RunConfig, out: Path) -> SimpleNamespace:
        passed.update(config=config, out=out)
        return SimpleNamespace(path=out, place=out)

    monkeypatch.setattr("weightsteer.experiments.sweep.replicate.replicate", stand_in)
    monkeypatch.setattr(output, "report", lambda folder, place: None)

    def configured(*flags: str) -> RunConfig:
        assert main(["replicate", *flags]) == 0
        return passed["config"]

    config = configured("--seed", "4", "--alphas", "-1", "-0.5", "1", "--lr", "1e-4", "--layers", "0", "1")
    assert (config.seeds, config.alphas, config.training.lr, config.training.layers) == (
        (4,),
        (-1.0, -0.5, 0.0, 1.0),
        1e-4,
        (0.0, 1.0),
    )
    config = configured("--no-control", "--judge", "none", "--eval", "dilemmas", "--out", "elsewhere")
    assert (config.control, config.generation.judge, config.evals) == (False, "none", ("dilemmas",))
    assert passed["out"] == Path("elsewhere")
    for spelling in (["--config", str(run_json())], [f"--config={run_json()}"]):
        repeated = configured(*spelling, "--seeds", "7")
        assert repeated == tiny_config().model_copy(update={"seeds": (7,)})
    assert configured("--coeffs", "3", "-3").alphas == (-3.0, 0.0, 3.0)


def test_flags_of_families_reach_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """`--adapters all` is the comparison people ask for; on two cores it is to use both."""
    passed: dict[str, Any] = {}

    def stand_in(config: RunConfig, out: Path, workers: int | None) -> SimpleNamespace:
        passed.update(config=config, executor=processes(workers, embedded=config.model == "pocket"))
        return SimpleNamespace(path=out, place=out)

    monkeypatch.setattr("weightsteer.experiments.sweep.replicate.replicate", stand_in)
    monkeypatch.setattr(output, "report", lambda folder, place: None)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1, 2}, raising=False)
    assert main(["sweep", "--adapters", "all", "--block-size", "4", "--delora-lambda", "2"]) == 0
    assert passed["config"].adapter == COMPARED
    assert (passed["config"].training.block_size, passed["config"].training.delora_lambda) == (4, 2.0)
    assert passed["executor"].workers == 3
    assert passed["config"].compare  # what the verb is for; --no-compare leaves it out
    # a model of another kind has the machine to itself: several copies of it would not fit
    assert main(["sweep", "--config", str(run_json()), "--adapter", "lora", "oft"]) == 0
    assert (passed["config"].adapter, passed["executor"]) == (("lora", "oft"), None)
    assert main(["sweep", "--workers", "2"]) == 0
    assert (passed["config"].adapter, passed["executor"].workers) == (("lora",), 2)


def test_a_finished_run_is_shown_again(capsys: pytest.CaptureFixture[str]) -> None:
    """The last thing a run prints is the table and where the report lies."""
    assert main(["replicate", "--config", str(run_json()), "--out", str(finished_run())]) == 0
    said = capsys.readouterr()
    assert "discrimination" in said.out
    assert said.out.splitlines()[-1].endswith("report.html")
    assert Path(said.out.splitlines()[-1]).is_file()
    assert "cached" in said.err


def test_a_run_prints_its_own_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Runs of other seeds in one folder share the link to their report: of 16 at once, 8 printed another's table."""
    from weightsteer.experiments.sweep import replicate as module

    out = tmp_path / "out"
    shutil.copytree(finished_run(), out, symlinks=True)
    own, link = module.replicate, out / "tiny/kind/lora/report"
    line = ["replicate", "--config", str(run_json()), "--out", str(out)]

    def printed(seed: str) -> list[str]:
        assert main([*line, "--seed", seed]) == 0
        return capsys.readouterr().out.splitlines()

    alone = {seed: printed(seed) for seed in ("0", "1")}
    assert alone["0"] != alone["1"]
    assert alone["0"][-1] == str(link / "report.html")

    def overtaken(config: RunConfig, folder: Path) -> Artifact:
        """Before this run comes to print, another one finishes."""
        mine = own(config, folder)
        own(config.model_copy(update={"seeds": (1 - config.seeds[0],)}), folder)
        return mine

    monkeypatch.setattr(module, "replicate", overtaken)
    for seed in ("0", "1"):
        passed = printed(seed)
        assert passed[:-1] == alone[seed][:-1]
        assert Path(passed[-1]).is_file()
        assert not Path(passed[-1]).is_relative_to(link), "the link leads to the report of the other"


def test_single_stages_print_where_their_artifacts_lie(capsys: pytest.CaptureFixture[str]) -> None:
    """Verbs of one stage share the artifacts of the whole run and end with the paths to go on with."""
    common = ["--config", str(run_json()), "--out", str(finished_run()), "--seed", "1"]
    for verb, file in (("data", "pairs.parquet"), ("diff", "vector.safetensors")):
        assert main([verb, *common]) == 0
        said = capsys.readouterr()
        assert Path(said.out.splitlines()[-1]).name == file
        assert Path(said.out.splitlines()[-1]).is_file()
        assert " s\n" not in said.err, "made again"
    assert main(["train", *common]) == 0
    assert "positive: best step" in capsys.readouterr().out
    assert main(["diff", *common]) == 0
    assert "The two branches moved in" in " ".join(capsys.readouterr().out.split())


def test_export_writes_a_peft_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The way out to PEFT and vLLM."""
    vector = finished_run() / "tiny/kind/lora/seed0/vector/vector.safetensors"
    model = ["--model", tiny_config().model]
    assert main(["export", "--vector", str(vector), "--out", str(tmp_path / "lora"), *model]) == 0
    assert (tmp_path / "lora" / "adapter_config.json").is_file()
    assert str(tmp_path / "lora") in capsys.readouterr().out


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Inputs with one mistake each."""
    root = tmp_path_factory.mktemp("mistakes")
    (root / "indented.yaml").write_text(BEHAVIOR + "  about: [x\n")
    (root / "field.yaml").write_text(BEHAVIOR.replace("positive:", "positiv:"))
    (root / "rows.jsonl").write_text('{"prompt": "Is it so?", "label": 1}\n{"prompt": "Or so?", "label": 2}\n')
    (root / "broken.jsonl").write_text('{"prompt": "Is it so?", "label": 1}\n{oops\n')
    (root / "config.json").write_text('{\n"model": "pocket",\n}')
    (root / "field.json").write_text(json.dumps({"config": {"training": {"lrr": 1}}}))
    (root / "file").write_text("")
    for folder in ("a", "b"):
        (root / folder).mkdir()
        (root / folder / "rows.jsonl").write_text('{"prompt": "Is it so?", "label": 1}\n')
        (root / folder / "v.safetensors").write_text("")
    (root / "kind.yaml").write_text(BEHAVIOR)
    (root / "kinder.yaml").write_text(BEHAVIOR)
    (root / "c").mkdir()
    model_folder(root / "c" / "other", seed=6)
    model, tokenizer = tiny("qwen3")
    tokenizer.chat_template = None
    model.save_pretrained(root / "no-template")
    tokenizer.save_pretrained(root / "no-template")
    model_folder(root / "other", seed=5)
    random_lora(model, root / "branch", 1)
    return root


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("replicat", ["unknown command 'replicat'", "did you mean 'replicate'"]),
        ("pocket bild", ["'bild'", "did you mean 'build'"]),
        ("replicate --model pocke", ["unknown model 'pocke'", "did you mean 'pocket'"]),
        ("replicate --model ./nowhere", ["./nowhere"]),
        ("replicate --model nobody/nothing", ["nobody/nothing", "without a network"]),
        ("replicate --model {files}/no-template", ["no chat template"]),
        ("replicate {run} --behavior honest", ["unknown behavior 'honest'", "did you mean 'honesty'"]),
        ("replicate {run} --behavior {files}/indented.yaml", ["indented.yaml, line 10"]),
        ("replicate {run} --behavior {files}/field.yaml", ["field.yaml", "positiv"]),
        ("replicate {run} --behavior nowhere.yaml", ["no behaviour file nowhere.yaml"]),
        ("replicate {run} --adapter lroa", ["unknown adapter 'lroa'", "did you mean 'lora'"]),
        ("train {run} --recipe papr", ["unknown recipe 'papr'", "did you mean 'paper'"]),
        ("train {run} --lr -1", ["lr", "greater than 0"]),
        ("data {run} --topics 900", ["900 topics"]),
        ("eval {run} --evals dilemas", ["unknown evaluation 'dilemas'", "did you mean 'dilemmas'"]),
        ("eval {run} --evals {files}/rows.jsonl", ["rows.jsonl, line 2", "label"]),
        ("eval {run} --evals {files}/broken.jsonl", ["broken.jsonl, line 2"]),
        ("eval {run} --evals nowhere.jsonl", ["nowhere.jsonl"]),
        ("eval {run} --vector nowhere.safetensors", ["no vector nowhere.safetensors"]),
        ("eval {run} --vector {files}/file", ["file"]),
        ("eval {run} --model {files}/other --vector {vector}", ["made on", "tiny", "other"]),
        ("diff {run} --positive {files}/branch", ["both --positive and --negative"]),
        ("diff {run} --positive {files}/branch --negative {files}/nowhere", ["no PEFT folder and no checkpoint"]),
        ("train {run} --adapter oft --block-size 12", ["blocks of 12", "32 inputs", "--block-size"]),
        ("train {run} --adapter all lora2", ["unknown adapter 'lora2'"]),
        ("train {run} --adapter ia3 ia3", ["adapter", "none twice"]),
        ("train {run} --block-size 1", ["block_size", "greater than or equal to 2"]),
        ("train {run} --pairs nowhere.parquet", ["no file of pairs nowhere.parquet"]),
        ("train {run} --pairs {files}/file", ["neither JSONL nor CSV"]),
        ("replicate {run} --alphas 1 nan", ["alphas", "finite"]),
        ("replicate {run} --alphas 1 1", ["alphas", "twice"]),
        ("replicate {run} --seeds 1 1", ["seeds", "distinct"]),
        ("replicate --config nowhere.json", ["nowhere.json"]),
        ("replicate --config {files}/config.json", ["config.json is not JSON", "line 3"]),
        ("replicate --config {files}/field.json", ["unknown field 'lrr'", "did you mean 'lr'"]),
        ("report --rows nowhere.parquet", ["no rows at nowhere.parquet"]),
        ("export --vector nowhere.safetensors --out x", ["nowhere.safetensors"]),
        ("pocket score --model pockt", ["pockt", "did you mean 'pocket'"]),
        ("pocket build --size huge", ["huge"]),
        ("replicate {run} --out {files}/file/out", ["--out"]),
        ("replicate {run} --out /sys/weightsteer", ["/sys/weightsteer", "--out"]),
    ],
)
def test_a_mistake_is_one_message_that_names_cause_and_next_step(
    arguments: str, expected: list[str], files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A traceback tells a newcomer that the program is broken, and nothing about what to do."""
    vector = finished_run() / "tiny/kind/lora/seed0/vector/vector.safetensors"
    line = arguments.format(files=files, vector=vector, run=f"--config {run_json()}")
    extra = [] if "--out" in line or line.split()[0] not in COMMANDS else ["--out", str(tmp_path)]
    capsys.readouterr()
    assert main([*line.split(), *extra]) == MISTAKE
    said = capsys.readouterr().err
    assert "Traceback" not in said
    message = said[said.index("weightsteer: ") :]
    for part in expected:
        assert part in message


MEASURING = ("replicate", "sweep", "eval", "ablate", "attribute", "subspace")


@pytest.mark.parametrize("verb", MEASURING)
@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("--evals {a}/rows.jsonl {b}/rows.jsonl", ["{a}/rows.jsonl and {b}/rows.jsonl", "'rows'", "a name of its own"]),
        ("--evals dilemmas={a}/rows.jsonl dilemmas={b}/rows.jsonl", ["{a}/rows.jsonl and", "'dilemmas'", "its own"]),
        ("--evals dilemmas sycophancy dilemmas", ["dilemmas is given twice"]),
        ("--evals {a}/rows.jsonl --data {b}/rows.jsonl", ["{b}/rows.jsonl would be lost", "leave out --data"]),
        ("--evals {a}/rows.jsonl={b}/rows.jsonl", ["names two files", "before = stands the name of an evaluation"]),
    ],
)
def test_no_rows_are_dropped(
    verb: str, flags: str, expected: list[str], files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of two inputs of one name one would be measured, and the page would speak of both."""
    places = {"a": files / "a", "b": files / "b"}
    line = [verb, "--config", str(run_json()), "--out", str(tmp_path), *flags.format(**places).split()]
    assert main(line) == MISTAKE
    said = capsys.readouterr().err
    assert all(part.format(**places) in said for part in expected), said
    assert list(tmp_path.iterdir()) == [], "something was made"


@pytest.mark.parametrize("verb", [*MEASURING, "data", "train", "diff", "calibrate"])
def test_no_behavior_is_dropped(verb: str, files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """run.json listed both files, and one of them was measured."""
    both = [str(files / "kind.yaml"), str(files / "kinder.yaml")]
    line = [verb, "--config", str(run_json()), "--out", str(tmp_path), "--behavior", *both]
    assert main(line) == MISTAKE
    assert f"{both[0]} and {both[1]} are both named 'kind'" in capsys.readouterr().err


def test_no_other_vector_and_no_model_is_dropped(
    files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Vectors are compared, and the models of a ladder told, by the names of their files and folders."""
    others = [str(files / folder / "v.safetensors") for folder in ("a", "b")]
    vector = finished_run() / "tiny/kind/lora/seed0/vector/vector.safetensors"
    line = ["ablate", "--config", str(run_json()), "--out", str(tmp_path), "--vector", str(vector)]
    assert main([*line, "--others", *others]) == MISTAKE
    assert f"{others[0]} and {others[1]} would both be called 'v'" in capsys.readouterr().err
    ladder = [str(files / "other"), str(files / "c" / "other")]
    assert main(["gaming", "--out", str(tmp_path), "--workers", "1", "--ladder", *ladder]) == MISTAKE
    assert f"{ladder[0]} and {ladder[1]} of the ladder are both named 'other'" in capsys.readouterr().err


def test_an_unknown_flag_suggests_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    """A misspelt flag that is ignored gives a run with other settings."""
    with pytest.raises(SystemExit) as stopped:
        main(["replicate", "--alpha", "1"])
    assert stopped.value.code == 2
    assert "--alphas" in capsys.readouterr().err


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES])
def test_a_disk_that_refuses_is_told_and_the_run_goes_on_later(
    code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A full disk or a lost permission in the middle: a message, and the same command completes afterwards."""
    command = ["diff", "--config", str(run_json()), "--out", str(tmp_path), "--seed", "0"]

    def refused(*_: Any, **__: Any) -> None:
        raise OSError(code, os.strerror(code), str(tmp_path / "adapter_model.safetensors"))

    with monkeypatch.context() as patched:
        patched.setattr("weightsteer.training.train_branch", refused)
        assert main(command) == MISTAKE
    said = capsys.readouterr().err
    assert "Traceback" not in said
    assert "--out" in said
    assert main(command) == 0
    assert "pairs                  cached" in capsys.readouterr().err


def test_ctrl_c_says_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Interrupting is normal: no traceback, the shell's own exit code, and nothing finished is lost."""
    command = ["diff", "--config", str(run_json()), "--out", str(tmp_path), "--seed", "0"]
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs are made to ignore it
    with monkeypatch.context() as patched:
        patched.setattr("weightsteer.training.train_branch", lambda *_, **__: signal.raise_signal(signal.SIGINT))
        assert main(command) == INTERRUPTED
    said = capsys.readouterr().err
    assert "Traceback" not in said
    assert "run the same command again to go on" in said
    assert main(command) == 0
    assert "pairs                  cached" in capsys.readouterr().err


def test_a_bug_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dressing up a bug as the user's mistake would hide it from everybody."""
    monkeypatch.setattr("weightsteer.experiments.sweep.replicate.pairs", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main(["data"])


def test_everything_there_is_can_be_listed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Names that are only found in the source are not found."""
    monkeypatch.setattr(
        "weightsteer.cli.catalogue.catalogue", lambda kind: [(f"a-{kind}", "one [line]", "weightsteer")]
    )
    assert main(["list", "evals", "plans"]) == 0
    printed = capsys.readouterr().out
    assert "a-evals" in printed
    assert "a-plans" in printed
    assert "one [line]" in printed
    assert "a-models" not in printed
    assert main(["list"]) == 0
    printed = capsys.readouterr().out
    assert all(f"a-{kind}" in printed for kind in get_args(commands.Kind))


def test_the_store_tells_what_it_holds_and_prunes_what_no_run_uses(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A disk that fills up in silence, or a prune that removes what runs still use, costs hours."""
    out = tmp_path / "out"
    shutil.copytree(finished_run(), out, symlinks=True)
    folders = sorted(path for path in (out / ".store").iterdir() if path.name.startswith("branch-"))
    (folders[0] / "training.json").write_text("")
    folders[1].rename(folders[1].with_name(f"{folders[1].name}.partial"))
    assert main(["store", "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "sweep" in printed
    assert "damaged" in printed
    assert "of these, --prune would remove: 2 artifacts" in printed
    assert folders[0].exists(), "removed without --prune"
    assert main(["store", "--out", str(out), "--prune"]) == 0
    printed = capsys.readouterr().out
    assert "to be removed: 2 artifacts" in printed
    assert "freed" in printed
    assert "sweep" not in printed, "what is kept is not listed as removed"
    assert not folders[0].exists()
    assert folders[2].exists()
    assert main(["store", "--out", str(out)]) == 0
    assert "--prune would remove: 0 artifacts" in capsys.readouterr().out
    assert main(["store", "--out", str(tmp_path / "nowhere")]) == MISTAKE
    assert "there is no folder" in capsys.readouterr().err
    assert not (tmp_path / "nowhere").exists()


def test_eval_files_its_report_under_what_it_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The report of a DeLoRA vector lay in a folder of LoRA, and replaced the report that was there."""
    config = tiny_config()
    model, _ = load_model(config.model)
    folders = [random_adapter("delora", model, tmp_path / str(seed), seed=seed) for seed in (1, 2)]
    vector = tmp_path / "vector.safetensors"
    WeightVector.from_adapters(*folders, model, metadata={"behavior": "kind", "seed": 5}).save(vector)
    out = tmp_path / "out"
    line = ["eval", "--config", str(run_json()), "--vector", str(vector), "--out", str(out), "--prompts", "0"]
    assert main(line) == 0
    page = Path(capsys.readouterr().out.splitlines()[-1])
    assert page.is_relative_to(out / "tiny" / "kind" / "delora")
    run = json.loads((page.parent / "run.json").read_text())
    assert (run["config"]["adapter"], run["config"]["seeds"]) == (["delora"], [5])
    assert [(one["adapter"], one["seed"]) for one in run["vectors"]] == [("delora", 5)]
    assert main([*line, "--limit", "8"]) == 0
    other = Path(capsys.readouterr().out.splitlines()[-1])
    assert other.parent != page.parent, "of other rows"
    assert json.loads((page.parent / "run.json").read_text()) == run
    for flags, expected in (
        (["--adapter", "lora"], "made with delora, which --adapter contradicts"),
        (["--seed", "4"], "made with seed 5, which --seeds contradicts"),
    ):
        assert main([*line, *flags]) == MISTAKE
        assert expected in capsys.readouterr().err
