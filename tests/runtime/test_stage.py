"""Keys: whatever changes the bytes of an artifact changes its key, and what only changes how it is shown does not."""

import ast
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages
from typing import Any, ClassVar

import pytest

import weightsteer
from weightsteer import experiments
from weightsteer.experiments.ablation.stages import Subject
from weightsteer.experiments.stages.vector import Vector
from weightsteer.files import file_digest
from weightsteer.registry import ADAPTERS, BASES
from weightsteer.runtime.code import PACKAGE, _code_digest, _read, code_digest, reached, release
from weightsteer.runtime.inputs import InputFile
from weightsteer.runtime.models import ModelSpec
from weightsteer.runtime.stage import Runner, Stage
from weightsteer.runtime.store import Store


@dataclass(frozen=True)
class Data(Stage):
    name: ClassVar[str] = "data"

    content: str = "x"
    inputs: Mapping[str, Any] = field(default_factory=dict)
    title: str = field(default="", compare=False)

    def build(self, work: Path, runner: Runner) -> None:
        (work / "a.txt").write_text(self.content)


@dataclass(frozen=True)
class Settings:
    rate: float
    data: Stage


@dataclass(frozen=True)
class Train(Stage):
    name: ClassVar[str] = "train"

    settings: Settings

    def build(self, work: Path, runner: Runner) -> None:
        (work / "b.txt").write_text((runner.make(self.settings.data).path / "a.txt").read_text() * 2)


@dataclass(frozen=True)
class Other(Data):
    name: ClassVar[str] = "other"


@pytest.fixture
def runner(tmp_path: Path) -> Runner:
    return Runner(Store(tmp_path))


def test_the_key_sees_fields_stage_and_upstream_content_and_nothing_else(runner: Runner) -> None:
    """A key that misses a field serves stale results; one that sees order, tuples or titles reruns for nothing."""
    made = runner.make(Data(inputs={"seed": 1, "rates": [1.0, 2]}))
    assert runner.make(Data(inputs={"rates": (1.0, 2), "seed": 1}, title="shown")).key == made.key
    assert runner.make(Data(inputs={"seed": 2, "rates": [1.0, 2]})).key != made.key
    assert runner.make(Other(inputs={"seed": 1, "rates": [1.0, 2]})).key != made.key
    on = runner.make(Train(Settings(0.1, Data())))
    assert runner.make(Train(Settings(0.1, Data(inputs={"seed": 3})))).key == on.key, "equal bytes upstream, equal key"
    assert runner.make(Train(Settings(0.1, Data("y")))).key != on.key
    assert runner.make(Train(Settings(0.2, Data()))).key != on.key


def test_a_dry_run_makes_nothing(runner: Runner, tmp_path: Path) -> None:
    """To see which vectors of a run are finished must not train one."""
    stage = Train(Settings(0.1, Data()))
    assert runner.find(stage) is None
    assert not list((tmp_path / ".store").glob("[a-z]*"))
    made = runner.make(stage)
    assert not made.cached
    assert runner.find(stage) == made
    assert Runner(Store(tmp_path)).find(stage) == made


def test_inputs_without_a_canonical_text_are_refused(runner: Runner, tmp_path: Path) -> None:
    """A path in a key ties the artifact to one machine; NaN equals nothing, not even itself."""
    with pytest.raises(TypeError, match="JSON value"):
        runner.make(Data(inputs={"file": tmp_path}))
    with pytest.raises(ValueError, match="JSON"):
        runner.make(Data(inputs={"lr": float("nan")}))


def test_a_file_of_the_users_counts_by_its_content(runner: Runner, tmp_path: Path) -> None:
    """A file that was moved is the same input, and one that was edited is another."""
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_text("x")
    two.write_text("x")
    keys = [runner.make(Data(inputs={"file": InputFile(file_digest(path), path)})).key for path in (one, two)]
    two.write_text("y")
    changed = runner.make(Data(inputs={"file": InputFile(file_digest(two), two)}))
    assert keys[0] == keys[1] != changed.key


# The stages of the experiments, found by importing all their modules.


def stages() -> list[type[Stage]]:
    for module in walk_packages(experiments.__path__, "weightsteer.experiments."):
        import_module(module.name)
    found, todo = [], [Stage]
    while todo:
        kind = todo.pop()
        todo += kind.__subclasses__()
        if kind.__module__.startswith("weightsteer."):
            found.append(kind)
    return sorted((kind for kind in found if kind is not Stage), key=lambda kind: kind.__name__)


MEASURED = [kind for kind in stages() if not kind.__module__.endswith(".report")]
PAGES = [kind for kind in stages() if kind.__module__.endswith(".report")]


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package, to be changed."""
    package = tmp_path_factory.mktemp("copy") / "weightsteer"
    shutil.copytree(PACKAGE, package, ignore=shutil.ignore_patterns("weights", "__pycache__"))
    return package


@pytest.fixture(scope="module")
def users(copy: Path) -> dict[str, set[str]]:
    """By the path of a file: the stages whose key its content is part of."""
    found: dict[str, set[str]] = {}
    for kind in stages():
        for file in reached([kind.__module__], copy):
            found.setdefault(file, set()).add(kind.__name__)
    return found


def differs(package: Path, file: str, text: str) -> bool:
    """Whether a file counts as another with this text; what it imports is as before."""
    path = package / file
    own = path.read_text(encoding="utf-8")
    before = content(path)
    path.write_text(text, encoding="utf-8")
    after = content(path)
    path.write_text(own, encoding="utf-8")
    return before != after


def content(path: Path) -> object:
    state = path.stat()
    return _read(path, state.st_mtime_ns, state.st_size) if path.suffix == ".py" else file_digest(path)


def mutants(text: str) -> Iterator[tuple[str, str]]:
    """By the name of a module-level constant or function: the text with another value, or with another body."""
    lines = text.splitlines(keepends=True)
    for node in ast.parse(text).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            name, value = node.targets[0].id, node.value
            if name.startswith("__") or isinstance(value, ast.Call):
                continue
            line = lines[value.lineno - 1].encode()
            new = line[: value.col_offset] + b"None or " + line[value.col_offset :]
            yield name, "".join([*lines[: value.lineno - 1], new.decode(), *lines[value.lineno :]])
        elif isinstance(node, ast.FunctionDef):
            last = node.body[-1]
            if last.lineno == node.lineno:
                continue
            indent = " " * last.col_offset
            at = last.lineno - 1
            yield node.name, "".join([*lines[:at], f"{indent}assert True\n", *lines[at:]])


def test_every_constant_and_function_that_a_stage_reaches_is_in_its_key(copy: Path, users: dict[str, set[str]]) -> None:
    """Six names could once be changed without a change of any key: a changed program served old numbers.

    The names are found by walking the code of every stage.
    """
    python = [file for file in users if file.endswith(".py")]
    assert len(python) > 150
    tried = 0
    for file in python:
        for name, text in mutants((copy / file).read_text(encoding="utf-8")):
            assert differs(copy, file, text), f"{file}: {name}"
            tried += 1
    assert tried > 800


def test_a_changed_file_changes_the_key_of_whoever_reaches_it(copy: Path, users: dict[str, set[str]]) -> None:
    """The same from end to end, for a function five imports away from the stages."""
    path = copy / "terms/streaming.py"
    own = path.read_text(encoding="utf-8")
    before = {kind: code_of(kind, copy) for kind in stages()}
    path.write_text(own + "\nCHANGED = 1\n", encoding="utf-8")
    after = {kind: code_of(kind, copy) for kind in stages()}
    path.write_text(own, encoding="utf-8")
    assert {kind.__name__ for kind in before if before[kind] != after[kind]} == users["terms/streaming.py"] != set()


def code_of(kind: type[Stage], package: Path) -> str:
    _code_digest.cache_clear()
    return code_digest([kind.__module__], package)


@pytest.mark.parametrize(
    ("file", "old", "new", "stage"),
    [
        ("experiments/sweep/entries.py", "FINER = 0.25", "FINER = 0.5", "Sweep"),
        ("experiments/sweep/trained.py", '"yes")', '"no")', "ControlPairs"),
        ("experiments/sweep/entries.py", "groups[entry.alphas].append(entry)", "pass", "Damage"),
        ("experiments/sweep/side_effects.py", '"tokens")', ")", "Strengths"),
        ("experiments/gaming/stages.py", '"heldout", "tone")', '"heldout")', "Curve"),
    ],
)
def test_names_that_were_forgotten_once_are_in_the_key(
    copy: Path, users: dict[str, set[str]], file: str, old: str, new: str, stage: str
) -> None:
    """These are the names that a list kept by hand had missed."""
    text = (copy / file).read_text(encoding="utf-8")
    assert old in text
    assert differs(copy, file, text.replace(old, new))
    assert stage in users[file]


def presentation(package: Path) -> Iterator[tuple[str, str]]:
    """Files that only show, each with another text: pages, charts, cards, help, ``repr``, comments and docstrings."""
    shown = [
        *package.glob("report/*.py"),
        *package.glob("cli/**/*.py"),
        *package.glob("experiments/*/page/*.py"),
        *package.glob("experiments/*/page.py"),
        *package.glob("experiments/*/console.py"),
        *package.glob("*/**/*.jinja"),
        package / "export/card.py",
        package / "errors.py",
        package / "progress.py",
        package / "formatting.py",
    ]
    for path in shown:
        comment = "{# another #}" if path.suffix == ".jinja" else "CHANGED = True"
        yield path.relative_to(package).as_posix(), path.read_text(encoding="utf-8") + f"\n{comment}\n"
    for path in sorted(package.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        if "def __repr__(self) -> str:\n" in text:
            name = path.relative_to(package).as_posix()
            yield name, text.replace("def __repr__(self) -> str:\n", 'def __repr__(self) -> str:\n        print("x")\n')
        if "description=" in text:
            yield path.relative_to(package).as_posix(), text.replace('description="', 'description="Now: ')
    for name in ("experiments/stages/pairs.py", "measure/sweeping.py", "terms/lowrank.py"):
        text = (package / name).read_text(encoding="utf-8")
        yield name, text.replace('"""', '"""Another docstring. ', 1) + "\n# a comment\n"


def test_what_only_shows_changes_no_key_but_of_pages(copy: Path, users: dict[str, set[str]]) -> None:
    """A reworded message, a wider column or a nicer ``repr`` must not make anybody train again."""
    pages = {kind.__name__ for kind in PAGES}
    texts = list(presentation(copy))
    assert len(texts) > 40
    for file, text in texts:
        assert users.get(file, set()) <= pages or not differs(copy, file, text), file


def test_pages_are_made_again_when_their_templates_change(copy: Path, users: dict[str, set[str]]) -> None:
    """A page that shows the old layout after an update looks like a bug of the update."""
    templates = [path.relative_to(copy).as_posix() for path in copy.rglob("*.jinja")]
    assert templates
    assert set().union(*(users[file] for file in templates)) == {kind.__name__ for kind in PAGES}


def test_a_working_copy_counts_by_content_and_a_release_by_its_version(monkeypatch: pytest.MonkeyPatch) -> None:
    """A release must not read three hundred files, and a working copy must not be taken for its last release."""
    assert release() is None
    names = [kind.__module__ for kind in MEASURED]
    here = code_digest(names)
    monkeypatch.setattr("weightsteer.runtime.code.release", lambda: weightsteer.__version__)
    monkeypatch.setattr("weightsteer.runtime.code.reached", lambda *_: pytest.fail("read the code of a release"))
    _code_digest.cache_clear()
    installed = code_digest(names)
    _code_digest.cache_clear()
    assert installed != here


def test_extensions_from_outside_count_where_any_of_them_may_be_used() -> None:
    """A difference made by the old formula of somebody's adapter family would be served for the new one."""

    def subject() -> Subject:
        vector = Vector(ModelSpec.of("pocket-s"), pairs, pairs, "honesty", 0)
        return Subject(vector.model, vector, None, {}, {}, 0)

    def mine() -> None: ...

    pairs = Data()
    before = subject()
    for registry in (ADAPTERS, BASES):
        registry.add("mine", object(), mine)
    try:
        after = subject()
        assert before.vector.signature != after.vector.signature
        assert before.bases != after.bases
    finally:
        for registry in (ADAPTERS, BASES):
            registry.remove("mine")
    assert subject() == before


def test_families_and_evaluations_are_reached_though_they_are_found_by_name() -> None:
    """They are imported by their registry while the program runs: no import statement names them."""
    branch = reached(["weightsteer.experiments.stages.branch"])
    assert {"adapters/ia3.py", "adapters/oft.py"} <= set(branch)
    items = reached(["weightsteer.experiments.stages.items"])
    assert {"data/evals/dilemmas.py", "data/evals/claims.yaml"} <= set(items)
    assert "training/loop.py" not in items
