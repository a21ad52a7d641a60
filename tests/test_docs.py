"""The examples in docs/ are run: an example that does not work teaches the wrong interface."""

import re
import shlex
import tomllib
from importlib import import_module
from pathlib import Path

import pytest
from adapters_of import random_adapter
from tiny import tiny
from vectors import batch, logits, peft_logits
from wheels import installed, run

import weightsteer as ws
from weightsteer import adapters
from weightsteer.adapters import AdapterFolder
from weightsteer.cli.flags import parse
from weightsteer.data import evals
from weightsteer.data.behaviors import Behavior
from weightsteer.data.evals.base import label_balance
from weightsteer.data.suffixes import asking, read_suffixes
from weightsteer.errors import WeightsteerError
from weightsteer.steering import steer
from weightsteer.vector import WeightVector

DOCS = Path(__file__).parent.parent / "docs"


def block(page: str, language: str) -> str:
    """The first code block of a page."""
    found = re.search(rf"```{language}\n(.*?)```", (DOCS / page).read_text(encoding="utf-8"), flags=re.DOTALL)
    assert found is not None
    return found[1]


def test_the_example_evaluation_works():
    """Whoever copies it gets balanced, clustered rows under the name it registers."""
    code = block("add-an-evaluation.md", "python")
    assert len(code.splitlines()) <= 40
    try:
        exec(code, {"__name__": "weekdays"})
        rows = evals.load("weekdays").rows(None)
    finally:
        evals.registry.remove("weekdays")
    assert label_balance(rows) == {1: 7, -1: 7}
    assert len({row.cluster for row in rows}) == 7


@pytest.mark.parametrize("arch", ["qwen3", "llama", "gemma", "mistral"])
def test_the_example_adapter_family_is_exact(arch, tmp_path):
    """Whoever starts from it starts from PEFT's logits, and from refusals that work."""
    code = block("add-an-adapter.md", "python")
    assert len(code.splitlines()) <= 40
    model, _ = tiny(arch, layers=2)
    try:
        exec(code, {"__name__": "hra"})
        folders = [random_adapter("hra", model, tmp_path / str(seed), seed=seed) for seed in (1, 2)]
        read = AdapterFolder.read(folders[0])
        assert adapters.family_of(read.config).name == "hra"
        branch = WeightVector(adapters.get("hra").branch_delta(read, model), {})
        pair = WeightVector.from_adapters(*folders, model)
        read.config["apply_GS"] = True
        with pytest.raises(WeightsteerError, match="Gram-Schmidt"):
            adapters.get("hra").branch_delta(read, model)
    finally:
        adapters.registry.remove("hra")
    ids = batch()
    assert max(total.rank for total in pair.terms.values()) == 8
    for pairs, folder in [({branch: 1.0}, folders[0]), ({branch: 1.0, pair: -1.0}, folders[1])]:
        with steer(model, pairs):
            found = logits(model, ids)
        expected = peft_logits(model, folder, ids)
        assert (expected - logits(model, ids)).abs().max() > 0.1
        assert (found - expected).abs().max() <= 1e-4


def test_the_example_behaviour_loads(tmp_path):
    """A YAML that its own loader refuses would be a poor first experience."""
    file = tmp_path / "punctuality.yaml"
    file.write_text(block("add-a-behaviour.md", "yaml"), encoding="utf-8")
    behavior = Behavior.load(file)
    assert behavior.name == "punctuality"
    assert behavior.evaluations == {"dilemmas": 1}


def test_the_published_personas_are_a_file_of_ones_own(tmp_path):
    """Whoever wants the fork's own data would have to guess the format, and find out after an hour of generation."""
    file, pool = tmp_path / "fork-honesty.yaml", tmp_path / "branching_suffixes.json"
    file.write_text(block("from-the-fork.md", "yaml"), encoding="utf-8")
    pool.write_text(block("from-the-fork.md", "json"), encoding="utf-8")
    behavior = asking(Behavior.load(file), read_suffixes(pool))
    assert behavior.name == file.stem
    assert behavior.questions.train == ["May I keep a wallet I found?"]
    signs = {name: evals.sign(name, behavior.evaluations) for name in ("dilemmas-self", "sycophancy-false-claims")}
    assert signs == {"dilemmas-self": 1, "sycophancy-false-claims": -1}


def test_the_pages_know_the_sizes_of_the_published_sets():
    """A reader of the published tables would take other rows for them."""
    text = (DOCS / "reproduce.md").read_text(encoding="utf-8")
    for name in evals.names():
        if (known := evals.registry.get(name).published) and not name.startswith("dilemmas-honesty-only"):
            (row,) = re.findall(rf"^\|.*\| `{name}` \|.*$", text, re.M)
            assert f"| {known.rows:,} |" in row
            assert known.positives is None or f"| {known.positives}:{known.rows - known.positives} |" in row


USE = """
import torch
import weightsteer as ws
from weightsteer import adapters
from weightsteer.analysis import bases
from weightsteer.cli.catalogue import catalogue

model, _ = ws.load_model("pocket-s")
assert len(ws.evals.load("weekdays").items(model)) == 14
assert ws.Behavior.load("punctuality").positive.pole == "punctual"
assert adapters.family_of({"peft_type": "HRA"}).name == "hra"
assert bases.make("layer-norms", model, rank=2).rank("model.layers.0.self_attn.o_proj") == 2
kinds = {"evals": "weekdays", "behaviors": "punctuality", "adapters": "hra", "bases": "layer-norms"}
for kind, name in kinds.items():
    assert name in [row[0] for row in catalogue(kind) if row[2] == "another-package 2.1" and row[1]], kind
"""


def test_the_examples_work_in_a_package_of_somebody_else(tmp_path):
    """The pages promise that a file of one's own package and three lines of its pyproject.toml are all it takes."""
    kept = {
        "add-an-adapter.md": ("python", "hra.py"),
        "add-an-evaluation.md": ("python", "weekdays.py"),
        "add-a-basis.md": ("python", "layer_norms.py"),
        "add-a-behaviour.md": ("yaml", "behaviors/punctuality.yaml"),
    }
    files = {f"my_package/{file}": block(page, language) for page, (language, file) in kept.items()}
    tables = [tomllib.loads(block(page, "toml"))["project"]["entry-points"] for page in kept]
    points = {group: names for table in tables for group, names in table.items()}
    assert len(points) == len(kept)
    run(USE, installed(tmp_path / "made", files | {"my_package/__init__.py": ""}, points))


PAGES = [DOCS.parent / "README.md", *sorted(DOCS.glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_somewhere(page):
    """A reader who follows a link into nothing does not follow the next one."""
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text(encoding="utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_commands_in_the_pages_are_understood():
    """A command that is copied from a page and answered with an error is the first thing that a newcomer sees."""
    found = 0
    for page in PAGES:
        text = page.read_text(encoding="utf-8").replace("\\\n", " ")
        for line in re.findall(r"^\$ weightsteer (.+)$", text, re.M):
            name, *arguments = shlex.split(line, comments=True)
            if name == "pocket":
                name, *arguments = f"pocket {arguments[0]}", *arguments[1:]
            parse(name, arguments)
            found += 1
    assert found >= 8


@pytest.mark.parametrize("page", ["python.md", "components.md"])
def test_the_python_of_a_page_runs(page, tmp_path, monkeypatch):
    """Whoever copies a page from top to bottom, with two adapters of their own, must reach its end."""
    model, _ = ws.load_model("pocket")
    for seed, name in enumerate(("honest", "dishonest")):
        random_adapter("lora", model, tmp_path / name, seed=seed, std=0.2)
    monkeypatch.chdir(tmp_path)
    ws.WeightVector.from_adapters("honest", "dishonest", model).save("honesty.safetensors")
    text = (DOCS / page).read_text(encoding="utf-8")
    code = "\n".join(re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL))
    few = re.sub(r'load\("dilemmas"(, limit=\d+)?\)', 'load("dilemmas", limit=20)', code)
    exec(compile(few, page, "exec"), {"__name__": "example"})
    assert page != "python.md" or Path("report/report.html").is_file()


def test_files_named_in_the_pages_exist():
    """A reader who looks for a file that has moved does not find the code."""
    found = 0
    for page in PAGES:
        for path in re.findall(r"`((?:src|tests|benchmarks|docs)/[\w./-]+)`", page.read_text(encoding="utf-8")):
            assert (DOCS.parent / path).exists(), f"{page.name}: {path}"
            found += 1
    assert found > 10


def test_the_reference_has_every_public_name():
    """A public name without its docstring on the site can only be looked up in the source."""
    text = (DOCS / "reference.md").read_text(encoding="utf-8")
    paths = [path.rpartition(".") for path in re.findall(r"^::: weightsteer\.([\w.]+)$", text, re.M)]
    for module, _, name in paths:
        assert getattr(import_module(f"weightsteer.{module}"), name).__doc__, name
    public = {ws._MODULES.get(name, name) for name in ws.__all__} - {"__version__"}
    assert public - {name for _, _, name in paths} - {module for module, _, _ in paths} == set()


def test_the_site_has_every_page():
    """A page that the navigation lacks is found by nobody."""
    site = (DOCS.parent / "mkdocs.yml").read_text(encoding="utf-8")
    assert sorted(re.findall(r": ([\w-]+\.md)$", site, re.M)) == sorted(page.name for page in DOCS.glob("*.md"))
