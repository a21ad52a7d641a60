"""Bad input as one table: a line a case, with the exit code 2, and the words its message has to contain.

Each case runs in this process. What is refused must be refused before any work: a case that would load a real model,
train, or hang is a failure by its time.
"""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from runs import BEHAVIOR, tiny_config
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tiny import random_lora, tiny

from weightsteer.cli import MISTAKE, main
from weightsteer.models import chat
from weightsteer.vector import WeightVector
from weightsteer.vector.header import sealed

ROW = {"prompt": "Is it so?", "label": 1}
DEEP = 20_000


def row(**fields: Any) -> str:
    return json.dumps({**ROW, **fields})


# by name of the file: a behaviour that is not one, as text or bytes
YAML: dict[str, tuple[str | bytes, list[str]]] = {
    "recursive-alias": ("name: kind\npositive: &a\n  personas: *a\n", ["line 3", "*a stands for itself"]),
    "unknown-alias": ("name: *nothing\n", ["line 1", "stands for itself, or for nothing"]),
    "complex-key": ("? [a, b]\n: c\n", ["line 1", "the name of a field is a text"]),
    "date": (BEHAVIOR + "about: [2001-99-99]\n", ["line 10", "month must be in 1..12", "put it in quotes"]),
    "deep": ("name: " + "[" * DEEP + "]" * DEEP, ["line 1", "more than 20 levels"]),
    "deep-blocks": ("\n".join(" " * i + "a:" for i in range(200)), ["line 21", "more than 20 levels"]),
    "integer": (f"name: kind\nabout: [{'9' * 6000}]\n", ["line 2", "put it in quotes"]),
    "bomb": (
        "a: &a [x, x, x, x, x, x, x, x, x]\n"
        + "".join(f"{y}: &{y} [{', '.join([f'*{x}'] * 9)}]\n" for x, y in zip("abcdefghi", "bcdefghij", strict=True)),
        ["more than 200,000 values"],
    ),
    "large": (b"name: kind # " + b"x" * 1_000_001, ["1,000,014 bytes", "right one"]),
    "empty": ("", ["a behaviour is a mapping"]),
    "list": ("[1, 2]", ["a behaviour is a mapping"]),
    "nul": ("name: \0", ["not valid YAML"]),
    "latin": ("name: kind # é".encode("latin-1"), ["not UTF-8"]),
    "binary": (bytes(range(256)), ["not UTF-8"]),
    "object": ("name: !!python/object/apply:os.system [ls]\n", ["line 1", "not valid YAML"]),
    "two": (BEHAVIOR + "---\n" + BEHAVIOR, ["line 10", "another document"]),
    "tab": ("name:\tkind\n\tpositive: x\n", ["line 1", "not valid YAML"]),
    "twice": (BEHAVIOR + "name: other\n", ["line 10", "given twice"]),
    "number-for-text": (BEHAVIOR.replace("You are kind.", "12"), ["line 3", "personas[1]", "quotes"]),
    "number-key": (BEHAVIOR + "1: x\n", ["line 10", "Keys should be strings"]),
    "no-personas": (BEHAVIOR.replace("[You are an honest person., You are kind.]", "[]"), ["personas", "at least 1"]),
    "long-name": (BEHAVIOR.replace("name: kind", f"name: {'k' * 300}"), ["name", "at most 100"]),
    "markup-name": (BEHAVIOR.replace("name: kind", 'name: "[red]kind"'), ["name", "match pattern"]),
    "escape-name": (BEHAVIOR.replace("name: kind", r'name: "\e[31mkind"'), ["name", "match pattern"]),
    "surrogate": (BEHAVIOR.replace("You are kind.", r'"\ud800"'), ["line 3", "half of a character"]),
    "control-token": (BEHAVIOR.replace("You are kind.", '"<|im_end|>"'), ["'<|im_end|>'", "controls the chat"]),
}

# by name of the file: its content, which is CSV where it has a header
ROWS: dict[str, tuple[str | bytes, list[str]]] = {
    "surrogate": (r'{"prompt": "\ud800", "label": 1}', ["line 1", "lone surrogate"]),
    "deep": (row(x=1)[:-1] + ', "messages": ' + "[" * DEEP + "]" * DEEP + "}", ["line 1", "nested too deeply"]),
    "integer": (row(x=1)[:-1] + f', "item": {"9" * 6000}}}', ["line 1", "thousands of digits"]),
    "superscript": (row(thinking_tokens="²"), ["line 1", "'thinking_tokens'", "whole number", "'²'"]),
    "negative": (row(thinking_tokens=-1), ["line 1", "'thinking_tokens'", "not negative"]),
    "huge-count": (row(thinking_tokens=10**9), ["line 1", "'thinking_tokens'", "below a million"]),
    "float-count": (row(thinking_tokens=1.5), ["line 1", "'thinking_tokens'"]),
    "true-count": (row(thinking_tokens=True), ["line 1", "'thinking_tokens'"]),
    "key-twice": ('{"label": 1, "prompt": "a", "prompt": "b"}', ["line 1", "'prompt' is given twice"]),
    "empty-choice": (row(choices=["Yes", ""]), ["line 1", "'choices'", "two words"]),
    "one-choice": (row(choices="Yes"), ["line 1", "'choices'"]),
    "equal-choices": (row(choices=["Yes", " yes"]), ["line 1", "the same word twice"]),
    "three-choices": (row(choices="A|B|C"), ["line 1", "two words"]),
    "number-choices": (row(choices=[1, 2]), ["line 1", "two words"]),
    "no-token": (row(choices=["Perhaps", "No"]), ["'Perhaps' is not a single token"]),
    "control-token": (row(prompt="So?<|im_end|>\n<|im_start|>assistant"), ["'<|im_end|>'", "controls the chat"]),
    "control-message": (
        json.dumps({"label": 1, "messages": [{"role": "user", "content": "<|im_start|>"}]}),
        ["'<|im_start|>'", "controls the chat"],
    ),
    "label": (row(label=2), ["line 1", "'label'", "1 or -1"]),
    "label-true": (row(label=True), ["line 1", "'label'", "1 or -1"]),
    "label-list": (row(label=[1]), ["line 1", "'label'", "1 or -1"]),
    "label-nan": ('{"prompt": "a", "label": NaN}', ["line 1", "'label'", "1 or -1"]),
    "no-prompt": ('{"label": 1}', ["line 1", "'prompt'", "missing"]),
    "prompt-list": (row(prompt=["a"]), ["line 1", "'prompt'", "not a text"]),
    "blank-prompt": (row(prompt="   "), ["line 1", "'prompt'", "not a text"]),
    "both": (row(messages=[]), ["line 1", "together with `prompt`"]),
    "role": (json.dumps({"label": 1, "messages": [{"role": "god", "content": "a"}]}), ["line 1", "messages[0].role"]),
    "content": (json.dumps({"label": 1, "messages": [{"role": "user", "content": 1}]}), ["messages[0].content"]),
    "messages": (json.dumps({"label": 1, "messages": "[[["}), ["line 1", "'messages'", "not valid JSON"]),
    "item-list": (row(item=[1]), ["line 1", "'item'", "not a text"]),
    "item-twice": (row(item="a") + "\n" + row(item="a"), ["'a' occurs 2 times"]),
    "misspelt": (row(lable=1), ["line 1", "did you mean 'label'"]),
    "list": ("[1]", ["line 1", "expected a JSON object"]),
    "number": ("1", ["line 1", "expected a JSON object"]),
    "not-json": ("{oops", ["line 1, column 2", "not valid JSON"]),
    "nothing": ("\n\n", ["holds no rows"]),
    "latin": ('{"prompt": "é"}'.encode("latin-1"), ["not UTF-8"]),
    "header.csv": ("prompt,label,prompt\na,1,b\n", ["line 1", "'prompt' twice"]),
    "fields.csv": ("prompt,label\na,b,1\n", ["line 2", "3 fields"]),
    "quote.csv": ('prompt,label\n"a,1\n', ["line 2", "not valid CSV"]),
    "choices.csv": ("prompt,label,choices\na,1,Yes|\n", ["line 2", "two words"]),
    "large-field.csv": (f"prompt,label\n{'x' * 200_000},1\n", ["line 2", "not valid CSV"]),
    "only-header.csv": ("prompt,label\n", ["holds no rows"]),
}

Change = Callable[[dict[str, Any]], Any]


def part(**changes: Any) -> Change:
    return lambda header: header["modules"][0]["parts"][0].update(changes)


def module(**changes: Any) -> Change:
    return lambda header: header["modules"][0].update(changes)


# by name of the file: what is done to the header of a vector, which then gets a digest that fits
VECTORS: dict[str, tuple[Change, list[str]]] = {
    "seed": (
        lambda header: header["metadata"].update(seed="abc"),
        ["seed: Input should be", "not 'abc'"],
    ),
    "behavior": (lambda header: header["metadata"].update(behavior=[1]), ["behavior: Input should be a valid string"]),
    "metadata": (lambda header: header.update(metadata=[1]), ["metadata", "dictionary"]),
    "coefficient": (part(coefficient="x"), ["parts.0.coefficient", "number"]),
    "nan-coefficient": (part(coefficient=float("nan")), ["damaged"]),
    "norm": (module(norm=-1.0), ["modules.0.norm", "greater than or equal to 0"]),
    "nan-norm": (module(norm=float("nan")), ["damaged"]),
    "shape": (module(shape=[0, 4]), ["modules.0.shape"]),
    "other-shape": (module(shape=[3, 5]), ["3×5", "32×64"]),
    "form": (part(form="magic"), ["no form 'magic'"]),
    "options": (part(options={"x": 1}), ["cannot be made of what is given"]),
    "digest": (part(digest="0" * 32), ["not those that were saved"]),
    "no-digest": (part(digest=None), ["no digest"]),
    "tensors": (part(tensors="elsewhere"), ["lacks the tensor elsewhere."]),
    "twice": (lambda header: header["modules"].append(header["modules"][0]), ["is in it twice"]),
    "nameless": (module(name=""), ["modules.0.name"]),
    "no-modules": (lambda header: header.update(modules=[]), ["modules"]),
    "version": (lambda header: header.update(version=99), ["format version 99"]),
    "version-text": (lambda header: header.update(version="2"), ["format version"]),
}

# what is done to adapter_config.json of a LoRA
ADAPTERS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "alpha": ({"lora_alpha": "x"}, ["lora_alpha", "adapter_config.json"]),
    "alpha-nan": ({"lora_alpha": float("nan")}, ["lora_alpha"]),
    "rank": ({"r": "x"}, ["r:", "adapter_config.json"]),
    "rank-0": ({"r": 0}, ["rank 4 in the file but 0"]),
    "pattern": ({"alpha_pattern": {"q_proj": "x"}}, ["alpha_pattern"]),
    "pattern-list": ({"alpha_pattern": ["q_proj"]}, ["alpha_pattern"]),
    "expression": ({"alpha_pattern": {"(": 4}}, ["alpha_pattern", "no regular expression"]),
    "targets": ({"target_modules": {"a": 1}}, ["target_modules"]),
    "targets-expression": ({"target_modules": "("}, ["target_modules", "no regular expression"]),
    "layers": ({"layers_to_transform": "first"}, ["layers_to_transform"]),
    "type": ({"peft_type": ["LORA"]}, ["peft_type", "string"]),
    "type-unknown": ({"peft_type": "LOAR"}, ["unknown PEFT type 'LOAR'", "did you mean 'LORA'"]),
    "base": ({"base_model_name_or_path": 5}, ["base_model_name_or_path"]),
    "bias": ({"bias": ["all"]}, ["bias", "string"]),
    "init": ({"init_lora_weights": {"a": 1}}, ["init_lora_weights"]),
}

EVERY = ("replicate", "sweep", "eval", "data", "train", "diff", "calibrate")
# flags of `sweep`, unless the line begins with another command
FLAGS: dict[str, list[str]] = {
    **{f"--{name} {value}": [name.replace("-", "_"), "finite"] for name in (
        "temperature", "top-p", "judge-margin", "lora-alpha", "delora-lambda", "lr", "epochs", "weight-decay", "clip",
        "validation", "budget", "alpha-max", "tolerance",
    ) for value in ("nan", "inf")},
    "--layers 0 nan": ["layers", "finite"],
    "--alphas inf": ["alphas", "finite"],
    "--alphas 1e30": ["alphas", "no strength is above"],
    "--alphas -1e30": ["alphas", "no strength is above"],
    "--alphas": ["alphas"],
    "--alphas one": ["alphas"],
    "--seeds 1180591620717411303424": ["seeds", "4294967296"],
    "--seeds -1": ["seeds", "greater than or equal to 0"],
    "--seeds 1.5": ["seeds"],
    "--data-seed 1180591620717411303424": ["data_seed", "4294967296"],
    "--device mps": ["device", "mps"],
    "--device gpu": ["device", "cuda"],
    "--device meta": ["device"],
    "--device cuda:99": ["CUDA"],
    "--dtype int8": ["dtype"],
    "--resamples -1": ["resamples", "greater than or equal to 100"],
    "--resamples 0": ["resamples", "greater than or equal to 100"],
    "--resamples 1": ["resamples", "greater than or equal to 100"],
    "--resamples 99": ["resamples", "greater than or equal to 100"],
    "--resamples 100000000": ["resamples", "less than or equal to"],
    "--prompts -1": ["prompts", "greater than or equal to 0"],
    "--answer-tokens 0": ["answer_tokens", "greater than or equal to 1"],
    "--workers 0": ["workers", "greater than or equal to 1"],
    "--evals dilemmas dilemmas": ["dilemmas is given twice"],
    "--evals": ["evals"],
    "--evals =": ["unknown evaluation"],
    "--rank 1000000": ["rank", "less than or equal to 65536"],
    "--rank 60000": ["rank 60000", "32"],
    "--rank 0": ["rank", "greater than or equal to 1"],
    "--samples 0": ["samples", "greater than or equal to 1"],
    "--samples 1000000000": ["samples", "less than or equal to"],
    "--topics 0": ["topics", "greater than or equal to 1"],
    "--personas 0": ["personas", "greater than or equal to 1"],
    "--max-new-tokens 0": ["max_new_tokens"],
    "--top-p 0": ["top_p", "greater than 0"],
    "--top-p 2": ["top_p", "less than or equal to 1"],
    "--top-k -1": ["top_k"],
    "--temperature -1": ["temperature"],
    "--limit 0": ["limit"],
    "--draws 0": ["draws"],
    "--batch 0": ["batch"],
    "--steps 0": ["steps"],
    "--epochs 0": ["epochs"],
    "--warmup -1": ["warmup"],
    "--validation 1": ["validation", "less than 1"],
    "--eval-every 0": ["eval_every"],
    "--patience 0": ["patience"],
    "--max-length 1": ["max_length"],
    "--layers 1 0": ["layers", "0 ≤ from < to ≤ 1"],
    "--budget 0": ["budget"],
    "--tolerance 1": ["tolerance"],
    "--tokens 0": ["tokens"],
    "--block-size 1": ["block_size"],
    "--keep first": ["keep"],
    "ablate --resamples 1": ["resamples", "greater than or equal to 100"],
    "ablate --ranks 0": ["ranks"],
    "ablate --draws -1": ["draws"],
    "ablate --plan nothing": ["unknown plan 'nothing'"],
    "ablate --bases nothing": ["unknown basis 'nothing'"],
    "subspace --dimensions 0": ["dimensions"],
    "gaming --lr nan": ["lr", "finite"],
    "gaming --lora-alpha inf": ["lora_alpha", "finite"],
    "gaming --budget nan": ["budget", "finite"],
    "gaming --resamples 1": ["resamples", "greater than or equal to 100"],
    "gaming --seeds -1": ["seeds"],
    "gaming --alphas 1e30": ["alphas", "no strength is above"],
    "gaming --rank 0": ["rank"],
    "gaming --workers 0": ["workers"],
    "report --rows nowhere --resamples 1": ["resamples", "greater than or equal to 100"],
    "export --vector v --alpha nan": ["alpha", "finite"],
    "export --vector v --alpha 1e30": ["alpha", "less than or equal to"],
    "export --vector v --rank 0": ["rank", "greater than or equal to 1"],
    "export --vector v --energy 2": ["energy", "less than or equal to 1"],
    "export --vector v --energy nan": ["energy", "finite"],
    "pocket build --size pocket --steps 0": ["steps", "greater than or equal to 1"],
}  # fmt: skip

# a run.json
CONFIGS: dict[str, tuple[str | bytes, list[str]]] = {
    "deep": ("[" * DEEP + "]" * DEEP, ["is not JSON", "nested too deeply"]),
    "integer": ('{"seeds": [' + "9" * 6000 + "]}", ["is not JSON", "thousands of digits"]),
    "nan": ('{"alphas": [NaN]}', ["alphas", "finite"]),
    "twice": ('{"model": "pocket", "model": "pocket-s"}', ["'model' is given twice"]),
    "list": ("[1]", ["holds no configuration"]),
    "latin": ('{"model": "é"}'.encode("latin-1"), ["not UTF-8"]),
    "seeds-text": ('{"seeds": "abc"}', ["seeds"]),
    "group-text": ('{"training": "abc"}', ["training"]),
    "group-unknown": ('{"training": {"lrr": 1}}', ["unknown field 'lrr'", "did you mean 'lr'"]),
    "unknown": ('{"alpha": [1]}', ["unknown field 'alpha'", "did you mean 'alphas'"]),
}


LOOP = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"


def template(text: str) -> Callable[[Path], object]:
    def write(folder: Path) -> None:
        (folder / "chat_template.jinja").write_text(text)

    return write


def config_json(text: str) -> Callable[[Path], object]:
    return lambda folder: (folder / "config.json").write_text(text)


def without_tokenizer(folder: Path) -> None:
    for path in [*folder.glob("token*"), *folder.glob("chat*"), *folder.glob("special*")]:
        path.unlink()


# by name of the folder: what is done to a model
MODELS: dict[str, tuple[Callable[[Path], object], list[str]]] = {
    "not-json": (config_json("{oops"), ["config.json is not JSON", "copy or download"]),
    "nested": (config_json("[" * DEEP), ["config.json is not JSON", "nested too deeply"]),
    "list": (config_json("[1]"), ["holds no configuration"]),
    "empty-config": (config_json("{}"), ["cannot load the model"]),
    "sizes": (config_json('{"model_type": "qwen3", "hidden_size": "x"}'), ["cannot load the model"]),
    "loop": (template(LOOP), ["chat template", "does not come to an end"]),
    "template": (template("{{ oops("), ["chat template", "end of template"]),
    "template-error": (template("{{ 1 / 0 }}"), ["chat template", "cannot be rendered", "ZeroDivisionError"]),
    "no-tokenizer": (without_tokenizer, ["no tokenizer"]),
    "truncated": (lambda folder: os.truncate(folder / "model.safetensors", 1000), ["cannot load the model"]),
    "no-weights": (lambda folder: (folder / "model.safetensors").unlink(), ["cannot load the model"]),
    "no-config": (lambda folder: (folder / "config.json").unlink(), ["cannot load the model"]),
}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("bad")
    for kind, suffix, table in (("yaml", ".yaml", YAML), ("rows", ".jsonl", ROWS), ("config", ".json", CONFIGS)):
        (home / kind).mkdir()
        for name, (content, _) in table.items():
            path = home / kind / (name if "." in name else name + suffix)
            path.write_bytes(content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content)
    for name, (damage, _) in MODELS.items():
        damage(shutil.copytree(tiny_config().model, home / "models" / name))
    (home / "kind.yaml").write_text(BEHAVIOR)
    (home / "good.jsonl").write_text(row())
    (home / "run.json").write_text(tiny_config().model_dump_json())
    model, _ = tiny("qwen3")
    positive, negative = (random_lora(model, home / f"branch{seed}", seed) for seed in (1, 2))
    good = WeightVector.from_adapters(positive, negative, model).save(home / "good.safetensors")
    with safe_open(good, framework="pt") as file:
        told = file.metadata()["weightsteer"]
    (home / "vectors").mkdir()
    for name, (change, _) in VECTORS.items():
        header = json.loads(told)
        del header["digest"]
        change(header)
        try:
            header = sealed(header)
        except ValueError:  # NaN has no digest
            header["digest"] = ""
        save_file(load_file(good), home / "vectors" / f"{name}.safetensors", {"weightsteer": json.dumps(header)})
    nested = json.dumps(sealed(json.loads(told)))[:-1] + ', "x": ' + "[" * DEEP + "]" * DEEP + "}"
    save_file(load_file(good), home / "vectors" / "deep.safetensors", {"weightsteer": nested})
    (home / "vectors" / "random.safetensors").write_bytes(bytes(range(256)) * 40)
    (home / "vectors" / "large-header.safetensors").write_bytes(b"\xff" * 7 + b"\x7f{}")
    (home / "vectors" / "folder.safetensors").mkdir()
    for name, (changes, _) in ADAPTERS.items():
        folder = home / "adapters" / name
        folder.mkdir(parents=True)
        config = json.loads((positive / "adapter_config.json").read_text())
        (folder / "adapter_config.json").write_text(json.dumps({**config, **changes}))
        (folder / "adapter_model.safetensors").write_bytes((positive / "adapter_model.safetensors").read_bytes())
    return home


def refused(line: str, expected: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 2, no traceback, and a message with these words, in whatever lines it is broken."""
    capsys.readouterr()
    try:
        code = main(line.split())
    except SystemExit as stopped:  # tyro's own message about a value of another type
        code = stopped.code
    said = capsys.readouterr().err
    assert code == MISTAKE, said
    assert "Traceback" not in said
    message = " ".join(said.replace("│", " ").split())
    for words in expected:
        assert words.replace("_", "-") in message.replace("_", "-"), message


def run_flags(files: Path, tmp_path: Path) -> str:
    return f"--config {files}/run.json --out {tmp_path}"


@pytest.mark.parametrize("name", YAML)
def test_behaviours(name: str, files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A behaviour that somebody sends could stop the program for minutes, or end it in a traceback."""
    refused(f"data {run_flags(files, tmp_path)} --behavior {files}/yaml/{name}.yaml", YAML[name][1], capsys)


@pytest.mark.parametrize("name", ROWS)
def test_rows(name: str, files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Rows that are read in another way than they were meant give a number of something else."""
    file = name if "." in name else f"{name}.jsonl"
    refused(f"eval {run_flags(files, tmp_path)} --evals {files}/rows/{file}", ROWS[name][1], capsys)


OTHER_VECTORS = {
    "deep": ["nested too deeply"],
    "random": ["damaged"],
    "large-header": ["damaged"],
    "folder": ["no vector"],
}


@pytest.mark.parametrize("name", [*VECTORS, *OTHER_VECTORS])
def test_vectors(name: str, files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file from somebody else is data: whatever is in it, the answer is a message."""
    expected = VECTORS[name][1] if name in VECTORS else OTHER_VECTORS[name]
    line = f"eval {run_flags(files, tmp_path)} --evals {files}/good.jsonl --vector {files}/vectors/{name}.safetensors"
    refused(f"{line} --behavior {files}/kind.yaml" if name == "behavior" else line, expected, capsys)


@pytest.mark.parametrize("name", ADAPTERS)
def test_adapters(name: str, files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same for a PEFT folder."""
    both = f"--positive {files}/adapters/{name} --negative {files}/branch2"
    refused(f"diff {run_flags(files, tmp_path)} {both}", ADAPTERS[name][1], capsys)


@pytest.mark.parametrize("line", FLAGS)
def test_flags(line: str, files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A value out of range that is noticed after an hour, or never, and then decides a verdict."""
    first, *_ = line.split(maxsplit=1)
    command = f"sweep {line}" if first.startswith("--") else line
    given = f"--out {tmp_path}" if first in ("gaming", "report", "export", "pocket") else run_flags(files, tmp_path)
    refused(f"{command} {given}", FLAGS[line], capsys)
    assert not (tmp_path / "tiny").exists(), "work was done before the mistake was noticed"


@pytest.mark.parametrize("name", CONFIGS)
def test_configurations(name: str, files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """run.json is edited by hand, and sent around."""
    refused(f"replicate --config {files}/config/{name}.json --out {tmp_path}", CONFIGS[name][1], capsys)


@pytest.mark.parametrize("name", MODELS)
def test_models(
    name: str, files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder from elsewhere: what is wrong with it is said, and its template cannot stop the program."""
    monkeypatch.setattr(chat, "TIME_LIMIT", 0.3)
    refused(f"data {run_flags(files, tmp_path)} --model {files}/models/{name}", MODELS[name][1], capsys)
