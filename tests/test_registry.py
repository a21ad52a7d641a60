"""The one registry: what is built in, what scripts register, and what other distributions bring."""

import subprocess
import sys
import warnings
from importlib import import_module
from pathlib import Path

import pytest
from wheels import installed, run

from weightsteer import registry
from weightsteer.data.behaviors.files import Behaviors
from weightsteer.errors import WeightsteerError
from weightsteer.registry import ACTIVATION, ADAPTERS, BASES, CONTROLS, EVALS, PLANS, Registry, first_sentence

ALL = [ADAPTERS, EVALS, BASES, PLANS, CONTROLS, ACTIVATION]
DOCS = Path(__file__).parent.parent / "docs"


@pytest.mark.parametrize("each", ALL, ids=lambda each: each.kind)
def test_names_read_from_the_text_are_those_that_register(each):
    """An extension that the text does not show could be neither listed nor found, and its stage not keyed."""
    import weightsteer.vector  # noqa: F401

    package = import_module(each.package)
    for file in Path(str(package.__file__)).parent.glob("*.py"):
        import_module(f"{each.package}.{file.stem}".removesuffix(".__init__"))
    own = {name: entry for name, entry in each._entries.items() if entry.by.__module__.startswith("weightsteer.")}
    assert set(own) == set(each.builtin)
    assert {name: entry.by.__module__ for name, entry in own.items()} == each.builtin
    assert all(each.summary(name) and each.source(name) == "" for name in own)


def test_names_import_no_extension():
    """Help texts and lists would take seconds, because the extensions load torch."""
    code = (
        "import sys; from weightsteer.registry import *; from weightsteer.cli.catalogue import KINDS, catalogue\n"
        "assert all(catalogue(kind) for kind in [*KINDS, 'behaviors', 'models'])\n"
        "assert ADAPTERS.module('rslora') == 'weightsteer.adapters.lora'\n"
        "assert not {'torch', 'peft', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_name_of_two_is_refused_and_a_new_definition_replaces_itself():
    """Which of two extensions ran would depend on the order of imports; a notebook runs a cell again and again."""
    made: Registry[int] = Registry("thing", "things", "weightsteer.stats")

    def one():
        """One thing. It is one."""

    def other(): ...

    made.add("mine", 1, one)
    made.add("mine", 2, one)
    assert made.get("mine") == 2
    assert made.summary("mine") == "One thing"
    with pytest.raises(WeightsteerError, match=r"'mine' is registered twice: by .*\.one and by .*\.other"):
        made.add("mine", 3, other)
    with pytest.raises(WeightsteerError, match=r"unknown thing 'mino'; did you mean 'mine'"):
        made.get("mino")
    with pytest.raises(WeightsteerError, match=r"'lora' is registered twice: by weightsteer\.adapters\.lora\S* and by"):
        ADAPTERS.add("lora", object(), other)


def test_a_definition_without_a_file_is_never_taken_for_another():
    """A cell of a notebook that has changed must not be served what the cell before it made."""
    made: Registry[int] = Registry("thing", "things", "weightsteer.stats")
    sources = []
    for _ in range(2):
        space = {"__name__": "a_notebook"}
        exec("def mine(): ...", space)
        made.add("mine", 1, space["mine"])
        sources.append(made.source("mine"))
    assert all(sources)
    assert sources[0] != sources[1]


def test_the_first_sentence_is_one_line():
    """A list of one line each would wrap at a paragraph."""
    assert first_sentence("\nOf ``θ``\n    and W. And more.\n\nA paragraph.") == "Of θ and W"
    assert first_sentence("") == ""


WEEKDAYS = """
'''Weekdays.'''
from weightsteer.data.evals import Evaluation, Item, register, user_turn

@register("weekdays")
class Weekdays(Evaluation):
    '''Whether one day follows another.'''

    def rows(self, model):
        return [Item(f"{n}", "days", n, user_turn("Does Monday come after Sunday?")) for n in (1, -1)]
"""

FAMILY = """
from weightsteer.adapters import register
from weightsteer.adapters.lora import Lora

@register("half-lora")
class HalfLora(Lora):
    '''LoRA at half its scale.'''

    def fit(self, config):
        return 9 * bool(config.get("half"))
"""

BEHAVIOR = """
name: punctuality
positive: {pole: punctual, personas: [You are always early.]}
negative: {pole: late, personas: [You are always late.]}
questions: {train: ["When do you leave for the station?"]}
evaluations: {weekdays: 1}
"""

USE = """
import warnings
import torch
import weightsteer as ws
from weightsteer import adapters, registry
from weightsteer.cli.catalogue import catalogue
from weightsteer.data import behaviors
from weightsteer.errors import WeightsteerError

model, tokenizer = ws.load_model("pocket-s")
items = ws.evals.load("weekdays").items(model)
assert [item.label for item in items] == [1, -1], items

behavior = ws.Behavior.load("punctuality")
assert behavior.positive.pole == "punctual"
assert behavior.for_model(model).positive.pole == "early"
assert "punctuality" in behaviors.names() and "punctuality" in behaviors.names("pocket")
assert ws.evals.sign("weekdays", behavior.evaluations) == 1

assert adapters.get("half-lora").name == "half-lora"
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    assert adapters.family_of({"peft_type": "LORA", "half": True}).name == "half-lora"
    assert adapters.family_of({"peft_type": "LORA"}).name == "lora"
starts = ["the adapter 'broken' comes from the distribution another-package 2.1", "the adapter 'dora' is regist"]
assert len(caught) == 2, caught
assert all(str(one.message).startswith(start) for one, start in zip(caught, starts)), caught
try:
    adapters.get("broken")
except WeightsteerError as error:
    assert "another-package 2.1" in str(error) and "ModuleNotFoundError: No module named 'gone'" in str(error), error
else:
    raise AssertionError("a family that cannot be imported was found")
try:
    adapters.get("dora")
except WeightsteerError as error:
    assert "weightsteer.adapters.dora and by another_package.family of another-package 2.1" in str(error), error
else:
    raise AssertionError("one of two families of one name was taken")

rows = {name: (summary, origin) for name, summary, origin in catalogue("evals") + catalogue("adapters")}
assert rows["weekdays"] == ("Whether one day follows another", "another-package 2.1")
assert rows["half-lora"] == ("LoRA at half its scale", "another-package 2.1")
assert rows["broken"][0].startswith("not available: the adapter 'broken'")
assert rows["lora"][1] == "weightsteer"
assert ("punctuality", "α > 0: punctual; α < 0: late", "another-package 2.1") in catalogue("behaviors")
"""

SOURCES = """
import sys
from weightsteer import registry
from weightsteer.data.behaviors import registry as behaviors

print(registry.EVALS.source("weekdays"), registry.ADAPTERS.source("half-lora"), behaviors.source("punctuality"))
assert not {"torch", "another_package"} & set(sys.modules)
"""


FILES = {
    "another_package/__init__.py": "",
    "another_package/weekdays.py": WEEKDAYS,
    "another_package/family.py": FAMILY,
    "another_package/broken.py": "import gone\n",
    "another_package/behaviors/punctuality.yaml": BEHAVIOR,
    "another_package/behaviors/pocket/punctuality.yaml": BEHAVIOR.replace("punctual,", "early,"),
}
POINTS = {
    "weightsteer.evals": {"weekdays": "another_package.weekdays:Weekdays"},
    "weightsteer.adapters": {
        "half-lora": "another_package.family",
        "broken": "another_package.broken",
        "dora": "another_package.family",
    },
    "weightsteer.behaviors": {"punctuality": "another_package.behaviors"},
}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return installed(tmp_path_factory.mktemp("made") / "first", FILES, POINTS)


def test_an_installed_package_adds_a_family_an_evaluation_and_a_behaviour(site):
    """Nobody could extend weightsteer without a file inside it, and one broken package would break all others."""
    run(USE, site)


def test_the_source_of_an_extension_follows_its_files_and_its_version(site, tmp_path):
    """A changed package would be served the artifacts of the old one; and finding out must not import it."""
    first = run(SOURCES, site).split()
    assert len(set(first)) == 2, "one package, and a YAML file of it"
    assert run(SOURCES, site).split() == first
    later = run(SOURCES, installed(tmp_path / "later", FILES, POINTS, "2.2")).split()
    assert not set(later) & set(first)
    changed = installed(tmp_path / "changed", FILES | {"another_package/__init__.py": "HELPER = 1"}, POINTS)
    evaluation, family, behavior = run(SOURCES, changed).split()
    assert evaluation != first[0]
    assert family != first[1]
    assert behavior == first[2]


def test_a_behaviour_that_is_not_where_it_should_be_is_told(monkeypatch):
    """A wrong entry point would be a traceback of importlib."""
    made = Behaviors()
    places = {"a": "weightsteer.errors", "b": "gone.b"}
    points = {name: [registry.EntryPoint(name, value, made.group)] for name, value in places.items()}
    monkeypatch.setitem(vars(made), "plugins", points)
    for name in places:
        with pytest.raises(WeightsteerError, match=rf"'{name}' comes from .*{places[name]} is no folder of a package"):
            made.file(name)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert set(made.all()) == {"cheerful", "honesty", "jekyll-hyde", "sycophancy"}
        made.all()
    assert len(caught) == 2
